/** `nestgate inject` as it is called, and beside a real webhook over HTTPS: the same bytes for every golden case. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import { parse, parseAllDocuments } from 'yaml'
import { runCli } from '../../cli/program.ts'
import { readWebhookConfig } from '../../shared/injection/config.ts'
import type {
  InjectionSettings,
  SidecarMode,
  WantedLevel,
} from '../../shared/injection/sidecar-spec.ts'
import { createLog } from '../../shared/log.ts'
import { startWebhook } from '../../webhook/start.ts'
import type { Webhook } from '../../webhook/start.ts'
import { makeCertificates } from '../support/certificates.ts'
import type { Certificates } from '../support/certificates.ts'
import { configOf } from '../support/golden-config.ts'
import { CLI } from '../support/kubectl.ts'
import { admit } from '../support/pod-admission.ts'
import type { Era, Json } from '../support/pod-admission.ts'
import { reviewOf } from '../support/reviews.ts'
import { goldenCases, readGolden } from '../support/webhook-golden.ts'

interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

const PATHS = { any: '/mutate', process: '/mutate/process', container: '/mutate/container' }

describe('nestgate inject', () => {
  let folder: string
  let certificates: Certificates
  let dispatcher: Agent
  const file = (name: string): string => join(folder, name)

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nestgate-inject-'))
    certificates = makeCertificates({ hosts: ['localhost'] })
    writeFileSync(file('tls.crt'), certificates.cert)
    writeFileSync(file('tls.key'), certificates.key, { mode: 0o600 })
    writeFileSync(file('ca.crt'), certificates.ca)
    dispatcher = new Agent({ connect: { ca: certificates.ca } })
  })
  after(async () => {
    await dispatcher.close()
    rmSync(folder, { recursive: true })
  })

  function writeConfig(settings: Partial<InjectionSettings>, change: Json = {}): string {
    const files = {
      certFile: file('tls.crt'),
      keyFile: file('tls.key'),
      brokerCaFile: file('ca.crt'),
    }
    const config = { ...configOf(settings, files), ...change }
    writeFileSync(file('webhook.yaml'), JSON.stringify(config))
    return file('webhook.yaml')
  }

  async function cli(args: readonly string[], env: Record<string, string> = {}): Promise<Ran> {
    let out = ''
    let err = ''
    const code = await runCli({
      args: ['inject', ...args],
      env,
      now: Date.now,
      out: (text) => (out += text),
      err: (text) => (err += text),
    })
    return { code, out, err }
  }

  /** Injects a text with a configuration that says nothing special. */
  function injected(text: string, ...args: readonly string[]): Promise<Ran> {
    writeFileSync(file('input'), text)
    return cli(['-f', file('input'), '--config', writeConfig({}), ...args])
  }

  describe('beside a webhook', () => {
    const webhooks = new Map<string, Webhook>()
    after(async () => {
      for (const webhook of webhooks.values()) await webhook.close()
    })

    /** Whether a webhook would start with a configuration. */
    function isPossible(config: string): boolean {
      try {
        readWebhookConfig({ argv: ['--config', config], env: {} })
        return true
      } catch {
        return false
      }
    }

    it('has few cases that no configuration can make', () => {
      const impossible = goldenCases().filter((name) => {
        const { settings } = (readGolden(name, 'options.json') ?? {}) as {
          settings?: Partial<InjectionSettings>
        }
        return !isPossible(writeConfig(settings ?? {}))
      })
      expect(impossible).to.have.lengthOf.at.most(1)
    })

    async function webhookWith(config: string): Promise<Webhook> {
      const text = readFileSync(config, 'utf8')
      const running = webhooks.get(text)
      if (running !== undefined) return running
      const webhook = await startWebhook(
        readWebhookConfig({ argv: ['--config', config], env: {} }),
        {
          log: createLog('test', 'silent'),
        },
      )
      webhooks.set(text, webhook)
      return webhook
    }

    for (const name of goldenCases()) {
      it(`answers ${name} with the same bytes`, async () => {
        const {
          era = '1.33',
          mode = 'native',
          namespace = 'team-a',
          level = 'any',
          settings,
        } = (readGolden(name, 'options.json') ?? {}) as {
          era?: Era
          mode?: SidecarMode
          namespace?: string
          level?: WantedLevel
          settings?: Partial<InjectionSettings>
        }
        const config = writeConfig({ ...settings, mode })
        const pod = admit(readGolden(name, 'pod.json') ?? {}, era)
        const review = JSON.stringify(reviewOf(pod, { namespace }))
        if (!isPossible(config)) {
          // a case for the second line of defence: neither starts with such settings
          writeFileSync(file('review.json'), review)
          expect((await cli(['-f', file('review.json'), '--config', config])).code).to.equal(2)
          return
        }
        const { port } = await webhookWith(config)
        const answer = await request(`https://localhost:${port}${PATHS[level]}`, {
          dispatcher,
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: review,
        })
        const text = await answer.body.text()
        const { response } = JSON.parse(text) as {
          response: { allowed: boolean; patch?: string; status?: { message: string } }
        }
        const common = ['--config', config, '--identity', level, '-n', namespace]

        writeFileSync(file('review.json'), review)
        const asReview = await cli(['-f', file('review.json'), ...common, '--output', 'review'])
        expect(asReview).to.deep.equal({ code: response.allowed ? 0 : 1, out: text, err: '' })

        const object = { apiVersion: 'v1', kind: 'Pod', ...pod }
        writeFileSync(file('pod.json'), JSON.stringify(object))
        const asPod = await cli(['-f', file('pod.json'), ...common, '--output', 'patch'])
        const patch = Buffer.from(response.patch ?? '', 'base64').toString()
        expect(asPod).to.include({ code: response.allowed ? 0 : 1, out: patch })
        if (response.status !== undefined)
          expect(asPod.err).to.contain(response.status.message.replace('nestgate: ', ''))
      })
    }
  })

  const DEPLOYMENT = `# the planner
apiVersion: apps/v1
kind: Deployment
metadata:
  name: planner
  namespace: team-b
spec:
  template:
    spec:
      volumes:
      - name: keys
        secret: {secretName: keys, defaultMode: 0440}
      containers:
      - name: planner # thinks
        image: planner
        args: ["yes", 'no']
        env: []
`
  const OTHERS = `--- # settings
apiVersion: v1
kind: ConfigMap
metadata: {name:   odd}
data:
    key: "on"


---
apiVersion: v1
kind: Service
metadata:
  name: planner
`

  it('prints every document, those without pods byte for byte', async () => {
    const { code, out, err } = await injected(`${OTHERS}---\n${DEPLOYMENT}`)
    expect([code, err]).to.deep.equal([0, ''])
    expect(out.startsWith(OTHERS)).to.equal(true)
    for (const line of DEPLOYMENT.split('\n'))
      if (!line.includes('env: []')) expect(out).to.contain(line)
    const documents = parseAllDocuments(out, { version: '1.1' })
    const deployment = documents[2]?.toJS() as {
      spec: { template: { metadata: Json; spec: { initContainers: Json[]; volumes: Json[] } } }
    }
    const { metadata, spec } = deployment.spec.template
    expect(spec.initContainers[0]?.['name']).to.equal('nestgate-sidecar')
    expect(spec.volumes[0]).to.deep.equal({
      name: 'keys',
      secret: { secretName: 'keys', defaultMode: 0o440 },
    })
    const annotations = metadata['annotations'] as Json
    expect(annotations['nestgate.dev/kubeconfig']).to.contain('namespace: "team-b"')
  })

  it('leaves what it printed as it is', async () => {
    const first = await injected(DEPLOYMENT)
    const second = await injected(first.out)
    expect(second).to.deep.equal(first)
  })

  it('prints JSON, and a list for several', async () => {
    const one = await injected(DEPLOYMENT, '--output', 'json')
    expect(JSON.parse(one.out)).to.have.property('kind', 'Deployment')
    const two = await injected(`${OTHERS}---\n${DEPLOYMENT}`, '--output', 'json')
    const { items } = JSON.parse(two.out) as { items: Json[] }
    expect(items.map(({ kind }) => kind)).to.deep.equal(['ConfigMap', 'Service', 'Deployment'])
  })

  it('refuses by place, code, path and remedy, and prints nothing else', async () => {
    const bad = DEPLOYMENT.replace('      volumes:', '      hostNetwork: true\n      volumes:')
    const { code, out, err } = await injected(`${OTHERS}---\n${bad}`)
    expect([code, out]).to.deep.equal([1, ''])
    expect(err).to.match(
      /^nestgate: document 3, Deployment planner: host_network: .*spec\.template\.spec\.hostNetwork; remove spec\.template\.spec\.hostNetwork\n$/,
    )
  })

  it('says what is risky on standard error', async () => {
    const risky = DEPLOYMENT.replace('env: []', 'securityContext: {capabilities: {add: [NET_RAW]}}')
    const { code, err } = await injected(risky)
    expect(code).to.equal(0)
    expect(err).to.match(
      /^nestgate: warning: Deployment planner: spec\.template\.spec\.containers\[0\] has NET_RAW/,
    )
  })

  it('says that a workload of another kind is injected later', async () => {
    const rollout = DEPLOYMENT.replace('apps/v1', 'argoproj.io/v1alpha1').replace(
      'Deployment',
      'Rollout',
    )
    const { code, out, err } = await injected(rollout)
    expect([code, out]).to.deep.equal([0, rollout])
    expect(err).to.contain('Rollout planner is of no known kind')
  })

  it('takes the mode from the caller where the configuration says auto', async () => {
    writeFileSync(file('input'), DEPLOYMENT)
    const config = writeConfig({ mode: 'auto' as SidecarMode })
    const without = await cli(['-f', file('input'), '--config', config])
    expect(without.code).to.equal(2)
    expect(without.err).to.contain('--mode native')
    const { out } = await cli(['-f', file('input'), '--config', config, '--mode', 'container'])
    const { spec } = (parse(out) as { spec: { template: { spec: Json } } }).spec.template
    expect((spec['containers'] as Json[])[0]?.['name']).to.equal('nestgate-sidecar')
    expect(spec).not.to.have.property('initContainers')
  })

  it('takes image and CA from the caller, and nothing from the environment', async () => {
    writeFileSync(file('input'), DEPLOYMENT)
    const sidecar = { brokerUrl: 'https://broker.example', cluster: 'c1', mode: 'native' }
    const config = writeConfig({}, { sidecar: { ...sidecar, brokerCaFile: '/nowhere/ca.crt' } })
    const env = { NESTGATE_BROKER_URL: 'https://mine.example', NESTGATE_TOKEN: 'secret' }
    const without = await cli(['-f', file('input'), '--config', config], env)
    expect([without.code, without.out]).to.deep.equal([2, ''])
    expect(without.err).to.contain('give --image')
    const args = ['-f', file('input'), '--config', config, '--image', 'registry.example/x:2']
    const withImage = await cli(args, env)
    expect([withImage.code, withImage.err.includes('give --broker-ca')]).to.deep.equal([2, true])
    const { code, out } = await cli([...args, '--broker-ca', file('ca.crt')], env)
    expect(code).to.equal(0)
    expect(out).to.contain('registry.example/x:2').and.contain('https://broker.example')
    expect(out).not.to.contain('mine.example')
  })

  it('reads standard input, as a process', async () => {
    const child = spawn(process.execPath, [CLI, 'inject', '-f', '-', '--config', writeConfig({})], {
      env: {},
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    let out = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
    child.stdin.end(DEPLOYMENT)
    const [code] = (await once(child, 'close')) as [number]
    expect(code).to.equal(0)
    expect(out).to.equal((await injected(DEPLOYMENT)).out)
  })

  const BAD: readonly (readonly [string, string, RegExp])[] = [
    ['two values for a key', '{"kind":"Pod","kind":"Job"}', /line 1: .*unique/],
    ['no YAML', 'a: 1\n---\nb: [\n', /line \d: /],
    [
      'aliases without end',
      `a: &a [x]\nb: &b [${'*a,'.repeat(99)}*a]\nc: [${'*b,'.repeat(99)}*b]\n`,
      /aliases/,
    ],
    ['a form that is another command’s', 'a: 1', /expected one of yaml/],
  ]
  for (const [what, text, message] of BAD) {
    it(`refuses ${what}`, async () => {
      const form = what.includes('form') ? ['--output', 'csv'] : []
      const { code, out, err } = await injected(text, ...form)
      expect([code, out]).to.deep.equal([2, ''])
      expect(err).to.match(message)
    })
  }

  it('refuses a pod that is none, and two pods where one patch is wanted', async () => {
    const none = await injected('apiVersion: v1\nkind: Pod\nspec: {containers: {}}\n')
    expect([none.code, none.out]).to.deep.equal([1, ''])
    expect(none.err).to.contain('review_invalid')
    const two = await injected(`${DEPLOYMENT}---\n${DEPLOYMENT}`, '--output', 'patch')
    expect(two.code).to.equal(2)
  })
})
