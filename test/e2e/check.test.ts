/** `nestgate check`, `audit-pods` and `inject` on the real cluster: they say what is so, and change nothing. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { attempt } from '../../scripts/run.ts'
import type { Ran } from '../../scripts/run.ts'
import {
  ALL_PODS,
  CONTAINED_NAMESPACE,
  NAMESPACE,
  STRICT_NAMESPACE,
  admin,
  apply,
  facts,
  podObject,
  prepare,
} from './support.ts'

/** Labelled only after its pod is there. */
const LATE_NAMESPACE = 'e2e-late'

interface Finding {
  readonly check: string
  readonly about: string
  readonly outcome: string
  readonly said: string
}

interface PodFinding {
  readonly namespace: string
  readonly pod: string
  readonly code: string
}

function nestgate(...args: readonly string[]): Promise<Ran> {
  const cluster = ['--kubeconfig', facts.kubeconfig, '--kubectl', facts.kubectl]
  const main = join(facts.root, 'cli', 'main.ts')
  return attempt(process.execPath, [main, ...args, ...cluster], { timeoutMs: 150_000 })
}

async function report<T>(...args: readonly string[]): Promise<T> {
  const { stdout, stderr, code } = await nestgate(...args, '--output', 'json')
  expect(code, stderr).to.be.oneOf([0, 1])
  return JSON.parse(stdout) as T
}

const plain = {
  securityContext: { runAsUser: 1000, runAsGroup: 1000 },
  containers: [{ name: 'main', image: facts.agentsImage, command: ['sleep', '3600'] }],
}

function namespaceObject(name: string, labels: object): object {
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } }
}

describe('commands that ask the cluster', () => {
  before(prepare)
  after(() => admin(['delete', 'namespace', LATE_NAMESPACE, '--ignore-not-found', '--wait=false']))

  it('check finds the installation sound', async () => {
    const { findings } = await report<{ findings: readonly Finding[] }>('check')
    const of = (check: string): readonly Finding[] =>
      findings.filter((finding) => finding.check === check)
    for (const check of ['version', 'webhook', 'configuration', 'certificate', 'api-audiences']) {
      expect(of(check), check).not.to.have.lengthOf(0)
      for (const { outcome, said } of of(check)) expect(outcome, said).to.be.oneOf(['ok', 'warn'])
    }
    for (const { said } of findings.filter(({ outcome }) => outcome === 'unknown'))
      expect.fail(`an administrator may read everything: ${said}`)
  })

  it('check tries a pod in each labelled namespace, and leaves none behind', async () => {
    const { findings } = await report<{ findings: readonly Finding[] }>('check')
    for (const namespace of [NAMESPACE, CONTAINED_NAMESPACE, STRICT_NAMESPACE]) {
      const tried = findings.find(({ check, about }) => check === 'dry-run' && about === namespace)
      expect(tried?.outcome, tried?.said).to.equal('ok')
      const pods = await admin(['-n', namespace, 'get', 'pods', '-o', 'name'])
      expect(pods).not.to.contain('nestgate-check-')
    }
  })

  it('audit-pods has nothing against injected pods', async () => {
    for (const namespace of [NAMESPACE, CONTAINED_NAMESPACE]) {
      const { findings } = await report<{ findings: readonly PodFinding[] }>(
        ...['audit-pods', '-n', namespace],
      )
      const own = ALL_PODS.map(({ name }): string => name)
      expect(findings.filter(({ pod }) => own.includes(pod))).to.deep.equal([])
    }
  })

  it('audit-pods finds a pod that is older than the label', async () => {
    await apply(namespaceObject(LATE_NAMESPACE, {}))
    await apply({
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: 'agent', namespace: LATE_NAMESPACE },
    })
    await apply(podObject(LATE_NAMESPACE, 'early', plain))
    await apply(namespaceObject(LATE_NAMESPACE, { 'nestgate.dev/inject': 'enabled' }))
    await apply(podObject(LATE_NAMESPACE, 'late', plain))
    const { findings } = await report<{ findings: readonly PodFinding[] }>(
      ...['audit-pods', '-n', LATE_NAMESPACE],
    )
    expect(findings.map(({ pod, code }) => `${pod}: ${code}`)).to.deep.equal([
      'early: no_sidecar',
      'early: api_token',
    ])
    const { code, stdout } = await nestgate('audit-pods', '-n', LATE_NAMESPACE)
    expect(code).to.equal(1)
    expect(stdout).to.contain('delete pod early')
  })

  it('inject prints what the webhook then leaves alone', async () => {
    const pod = podObject(NAMESPACE, 'printed', plain)
    const file = join(facts.root, 'build', 'e2e', 'printed.json')
    writeFileSync(file, JSON.stringify(pod))
    const { code, stdout, stderr } = await nestgate('inject', '-f', file)
    expect(code, stderr).to.equal(0)
    const dryRun = ['create', '--dry-run=server', '-f', '-', '-o', 'json']
    const sent = JSON.parse(await admin(dryRun, stdout)) as { spec: object }
    const asWritten = JSON.parse(await admin(dryRun, JSON.stringify(pod))) as { spec: object }
    expect(sortedVolumes(sent.spec)).to.deep.equal(sortedVolumes(asWritten.spec))
  })
})

/** A pod's own mounts and volumes come in another order where its token was taken out of them. */
function sortedVolumes(spec: object): object {
  const sorted = (list: readonly unknown[]): readonly unknown[] =>
    [...list].sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1))
  return JSON.parse(JSON.stringify(spec), (_key, value: unknown) =>
    Array.isArray(value) && value.every((one) => typeof one === 'object') ? sorted(value) : value,
  ) as object
}
