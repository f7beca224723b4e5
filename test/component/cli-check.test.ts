/** `nestgate check` and `nestgate audit-pods` as they are called, with a `kubectl` that answers for a cluster. */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { readFacts } from '../../cli/check/facts.ts'
import { createKubectl, isFailure } from '../../cli/kube/kubectl.ts'
import type { Kubectl } from '../../cli/kube/kubectl.ts'
import { runCli } from '../../cli/program.ts'
import { CLI, run } from '../support/kubectl.ts'
import { FakeCluster, IMAGE, record } from '../support/kubectl-world.ts'
import { admit } from '../support/pod-admission.ts'
import type { Json } from '../support/pod-admission.ts'

interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

describe('commands that ask a cluster', () => {
  let folder: string
  let cluster: FakeCluster
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'nestgate-check-'))
    cluster = new FakeCluster()
  })
  afterEach(() => {
    rmSync(folder, { recursive: true })
  })

  async function cli(...args: readonly string[]): Promise<Ran> {
    let out = ''
    let err = ''
    const code = await runCli({
      args,
      env: { PATH: process.env['PATH'] },
      now: Date.now,
      out: (text) => (out += text),
      err: (text) => (err += text),
    })
    return { code, out, err }
  }

  function program(text: string): string {
    const file = join(folder, 'program')
    writeFileSync(file, `#!/bin/sh\n${text}\n`)
    chmodSync(file, 0o755)
    return file
  }

  describe('check', () => {
    it('ends with 0 where all is well, as a process', async () => {
      const kubectl = await record(cluster, folder, (asked) => readFacts(asked, []))
      const args = ['check', '--kubectl', kubectl, '--kubeconfig', '/k', '--context', 'prod']
      const { code, out, err } = await run(process.execPath, [CLI, ...args], {
        PATH: '/usr/bin:/bin',
      })
      expect([code, err]).to.deep.equal([0, ''])
      expect(out).to.match(/ok, 0 warnings, 0 failed, 0 not checked\n$/)
      const calls = readFileSync(join(folder, 'calls'), 'utf8').trim().split('\n')
      for (const call of calls)
        expect(call).to.match(
          /^--kubeconfig \/k --context prod --request-timeout=30s (get|version|create --dry-run=server) /,
        )
    })

    it('ends with 1 where a check failed, and says what cannot be looked at', async () => {
      cluster.refused.set('nodes', { failure: 'forbidden', said: 'nodes is forbidden' })
      cluster.objects['networkpolicies'] = []
      const kubectl = await record(cluster, folder, (asked) => readFacts(asked, []))
      const { code, out } = await cli('check', '--kubectl', kubectl)
      expect(code).to.equal(1)
      expect(out).to.match(/^FAIL +network-policy +team-a: no NetworkPolicy/m)
      expect(out).to.match(
        /^\? +nodes +nodes: Error from server \(Forbidden\): nodes is forbidden/m,
      )
      const json = await cli('check', '--kubectl', kubectl, '--output', 'json')
      const { counts } = JSON.parse(json.out) as { counts: Json }
      expect(counts).to.include({ fail: 1, unknown: 1 })
    })

    it('looks at one namespace', async () => {
      const kubectl = await record(cluster, folder, (asked) => readFacts(asked, ['team-a']))
      const { code, out } = await cli('check', '--kubectl', kubectl, '-n', 'team-a')
      expect([code, out.includes('dry-run')]).to.deep.equal([0, true])
    })

    it('says that there is no kubectl, or no cluster', async () => {
      const none = await cli('check', '--kubectl', join(folder, 'none'))
      expect([none.code, none.out]).to.deep.equal([1, ''])
      expect(none.err).to.contain('there is no').and.contain('--kubectl')
      const down = program('echo "Unable to connect to the server: dial tcp: refused" >&2; exit 1')
      const { code, err } = await cli('check', '--kubectl', down)
      expect(code).to.equal(1)
      expect(err).to.contain('the cluster cannot be asked: Unable to connect')
    })

    it('takes no form of another command', async () => {
      const { code, err } = await cli('check', '--output', 'csv')
      expect(code).to.equal(2)
      expect(err).to.contain('table and json')
    })
  })

  describe('audit-pods', () => {
    const audit = ['version', 'mutatingwebhookconfigurations', 'namespaces'] as const
    const kubectlFor = (pods: readonly Json[]): Promise<string> => {
      cluster.objects['pods'] = [...pods]
      // the command itself is what asks, by a kubectl that writes down
      return record(cluster, folder, async (asked) => {
        await readFacts(asked, [])
        await asked.json(['get', 'pods', '--chunk-size=250', '-n', 'team-a'])
      })
    }
    const pod: Json = {
      metadata: { name: 'web-1', namespace: 'team-a', labels: {} },
      spec: { containers: [{ name: 'main', image: 'web' }] },
    }

    it('ends with 0 where nothing is found, and asks page by page', async () => {
      const kubectl = await kubectlFor([cluster.create(pod, 'team-a')])
      const { code, out, err } = await cli('audit-pods', '--kubectl', kubectl, '-A')
      expect([code, err]).to.deep.equal([0, ''])
      expect(out).to.equal('1 pods in 1 namespaces: nothing found\n')
      const calls = readFileSync(join(folder, 'calls'), 'utf8')
      for (const word of audit) expect(calls).to.contain(word)
      expect(calls).to.contain('get pods --chunk-size=250 -n team-a -o json')
      expect(calls).not.to.contain('create')
    })

    it('ends with 1 where a pod is older than the label', async () => {
      cluster.tokens['team-a'] = ['forever']
      const kubectl = await kubectlFor([admit(pod, '1.33')])
      const { code, out } = await cli('audit-pods', '--kubectl', kubectl, '--output', 'csv')
      expect(code).to.equal(1)
      const rows = out.trim().split('\r\n').slice(1)
      expect(rows.map((row) => row.split(',')[3])).to.deep.equal([
        '"no_sidecar"',
        '"api_token"',
        '"token_secret"',
      ])
    })

    it('ends with 1 where it cannot look, and says so', async () => {
      cluster.refused.set('pods', { failure: 'forbidden', said: 'pods is forbidden' })
      const kubectl = await kubectlFor([])
      const { code, out } = await cli('audit-pods', '--kubectl', kubectl)
      expect(code).to.equal(1)
      expect(out).to.contain('not looked at: pods of team-a: Error from server (Forbidden)')
    })

    it('refuses both all namespaces and some', async () => {
      expect((await cli('audit-pods', '-A', '-n', 'x')).code).to.equal(2)
      expect((await cli('audit-pods', '--output', 'yaml')).code).to.equal(2)
    })
  })

  describe('inject', () => {
    it('asks the version of the cluster that is named', async () => {
      cluster.minor = '28+'
      const kubectl = await record(cluster, folder, (asked) => asked.json(['version']))
      writeFileSync(
        join(folder, 'pod.json'),
        '{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"a"}]}}',
      )
      const tls = { certFile: '/c', keyFile: '/k' }
      const sidecar = {
        image: 'x',
        brokerUrl: 'https://b',
        cluster: 'c',
        brokerCaFile: join(folder, 'ca.crt'),
      }
      writeFileSync(join(folder, 'ca.crt'), cluster.entries['ca.crt'] ?? '')
      writeFileSync(join(folder, 'webhook.yaml'), JSON.stringify({ tls, sidecar }))
      const args = ['-f', join(folder, 'pod.json'), '--config', join(folder, 'webhook.yaml')]
      const { code, out, err } = await cli(
        'inject',
        ...args,
        '--context',
        'c',
        '--kubectl',
        kubectl,
      )
      expect([code, err]).to.deep.equal([0, ''])
      expect(out).to.contain('"mode":"container"')
    })

    it('takes everything from the cluster where no file is named', async () => {
      const asked = async (kubectl: Kubectl): Promise<void> => {
        await readFacts(kubectl, [])
      }
      const kubectl = await record(cluster, folder, asked)
      writeFileSync(
        join(folder, 'pod.json'),
        '{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"a"}]}}',
      )
      const args = ['inject', '-f', join(folder, 'pod.json'), '--kubectl', kubectl]
      const { code, out, err } = await cli(...args)
      expect([code, err]).to.deep.equal([0, ''])
      expect(out).to.contain('"mode":"native"').and.contain(IMAGE)
      const calls = readFileSync(join(folder, 'calls'), 'utf8')
      expect(calls).not.to.match(/create|tls.key/)
      const other = await cli(...args, '--revision', 'next')
      expect([other.code, other.out]).to.deep.equal([1, ''])
      expect(other.err).to.contain('no webhook of revision "next"')
    })

    it('wants the authority where it may not read it', async () => {
      cluster.secretsReadable = false
      const kubectl = await record(cluster, folder, (asked) => readFacts(asked, []))
      writeFileSync(
        join(folder, 'pod.json'),
        '{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"a"}]}}',
      )
      writeFileSync(join(folder, 'ca.crt'), cluster.entries['ca.crt'] ?? '')
      const args = ['inject', '-f', join(folder, 'pod.json'), '--kubectl', kubectl]
      const without = await cli(...args)
      expect(without.code).to.equal(1)
      expect(without.err).to.contain('give --broker-ca')
      const { code, out } = await cli(
        ...args,
        '--broker-ca',
        join(folder, 'ca.crt'),
        '--image',
        'x:9',
      )
      expect(code).to.equal(0)
      expect(out).to.contain('image: x:9')
    })
  })

  describe('kubectl', () => {
    const ask = (text: string): ReturnType<ReturnType<typeof createKubectl>['run']> =>
      createKubectl({ kubectl: program(text) }, { PATH: process.env['PATH'] }).run(['get', 'x'])
    const failures: readonly (readonly [string, string])[] = [
      ['Error from server (Forbidden): secrets is forbidden: User "x" cannot list', 'forbidden'],
      ['error: You must be logged in to the server (Unauthorized)', 'forbidden'],
      ['Error from server (NotFound): configmaps "x" not found', 'notFound'],
      [
        `error: the server doesn't have a resource type "validatingadmissionpolicies"`,
        'unknownKind',
      ],
      ['error: context "x" does not exist', 'failed'],
    ]
    for (const [said, kind] of failures) {
      it(`says ${kind} for what it says: ${said}`, async () => {
        const result = await ask(`cat >&2 <<'E'\n${said}\nE\nexit 1`)
        expect(isFailure(result) && result).to.deep.equal({ failure: kind, said })
      })
    }

    const limits = { callMs: 1000, outputBytes: 65_536 }
    const endless: readonly (readonly [string, string, RegExp])[] = [
      ['says too much', 'exec cat /dev/zero', /more than 65536 bytes/],
      ['says nothing', 'exec sleep 60', /no answer within 1 s/],
      // as a credential plugin that outlives it and holds its output
      ['leaves another behind', 'sleep 5 & exec sleep 60', /no answer within 1 s/],
    ]
    for (const [what, text, message] of endless) {
      it(`is ended where it ${what}`, async () => {
        const env = { PATH: process.env['PATH'] }
        const kubectl = createKubectl({ kubectl: program(text) }, env, limits)
        let thrown: unknown
        await kubectl.run(['get', 'x']).catch((error: unknown) => (thrown = error))
        expect(String(thrown)).to.match(message)
      })
    }
  })
})
