/**
 * The two records side by side, after everything the other files did: the cluster's own audit log and our
 * ledger. Each call that the cluster saw from the broker for a pod is one that the ledger announced, and
 * the other way round. Mocha runs the files in alphabetical order, so this one is the last.
 */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { attempt, sleep } from '../../scripts/run.ts'
import {
  audit,
  clusterAuditOfBroker,
  closeBroker,
  facts,
  inPod,
  NAMESPACE,
  nestgate,
  prepare,
  PRIVILEGED,
} from './support.ts'
import type { ClusterAuditEvent, Intent } from './support.ts'

const REQUEST_ID = 'nestgate.dev/request-id'
/** What the broker asks in its own name: whether a sidecar's token is good, the issuer's keys, what the cluster serves, and what a pod's containers are called. */
const OWN_CALLS =
  /^\/(apis\/authentication\.k8s\.io\/v1\/tokenreviews|openid\/v1\/jwks|\.well-known\/openid-configuration|api\/v1$|apis\/[^/?]+\/[^/?]+$)/

/** Of writes for which the object had to be read first: they were refused when their intent was there, and did not go on. */
const REFUSED_AFTER_INTENT = /^(?:placeholder_|mask_oracle)/

/** Only read, and only of pods. */
const isPodLookup = ({ verb, requestURI }: ClusterAuditEvent): boolean =>
  verb === 'get' && /^\/api\/v1\/namespaces\/[^/?]+\/pods\/[^/?]+$/.test(requestURI)

const idOf = ({ impersonatedUser }: ClusterAuditEvent): string | undefined =>
  impersonatedUser?.extra?.[REQUEST_ID]?.[0]

describe('the cluster’s own audit log', () => {
  let calls: readonly ClusterAuditEvent[] = []
  let forwarded = new Map<string, Intent>()
  let outcomes = new Set<string>()
  /** Ids under which the broker looked at something for a reviewer, as the caller. */
  let looked = new Set<string>()

  before(async () => {
    await prepare()
    await sleep(1500) // the API server writes its log in batches
    const entries = await audit({ kind: 'intent' })
    forwarded = new Map(
      entries
        .map(({ entry }) => entry as unknown as Intent)
        .filter(({ cluster, credential }) => cluster === 'local' && credential !== undefined)
        .map((intent) => [intent.requestId, intent]),
    )
    const ended = (await audit({ kind: 'outcome' })).filter(
      // without a status there was no answer: the client had left before
      ({ entry }) => entry['status'] !== 0 && !REFUSED_AFTER_INTENT.test(String(entry['reason'])),
    )
    outcomes = new Set(ended.map(({ requestId }) => requestId ?? ''))
    looked = new Set(
      (await audit({ kind: 'system' }))
        .filter(({ entry }) => entry['event'] === 'approval_preview')
        .map(({ entry }) => (entry['detail'] as { auditId: string }).auditId),
    )
    calls = clusterAuditOfBroker()
  })
  after(closeBroker)

  /** Where the cluster does not let the broker impersonate, its log has the refusal without the identity asked for. */
  const isRefusedImpersonation = ({ auditID, responseStatus }: ClusterAuditEvent): boolean =>
    responseStatus?.code === 403 && forwarded.has(auditID)

  it('has no call in the broker’s own name but those that check sidecars’ tokens, name their containers and ask what it serves', () => {
    const own = calls.filter(({ impersonatedUser }) => impersonatedUser === undefined)
    const strange = own.filter(
      (call) =>
        !OWN_CALLS.test(call.requestURI) && !isPodLookup(call) && !isRefusedImpersonation(call),
    )
    expect(strange.map(({ verb, requestURI }) => `${verb} ${requestURI}`)).to.deep.equal([])
  })

  it('shows the pod’s service account and our request id for every forwarded call', () => {
    const impersonated = calls.filter(({ impersonatedUser }) => impersonatedUser !== undefined)
    expect(impersonated).to.have.length.greaterThan(50)
    for (const call of impersonated) {
      const what = `${call.verb} ${call.requestURI}`
      expect(call.impersonatedUser?.username, what).to.match(
        new RegExp(
          `^(ci:|system:serviceaccount:(${NAMESPACE}|e2e-other|e2e-contained|nestgate-e2e-probe):)`,
        ),
      )
      expect(idOf(call), what).to.match(/^[0-9a-f-]{36}$/)
      expect(call.auditID, what).to.equal(idOf(call))
    }
  })

  it('has no call that the ledger lacks', () => {
    const unknown = calls.filter((call) => {
      const id = idOf(call)
      return id !== undefined && !forwarded.has(id) && !looked.has(id)
    })
    expect(unknown.map(({ verb, requestURI }) => `${verb} ${requestURI}`)).to.deep.equal([])
  })

  it('agrees with the ledger about who did what', () => {
    for (const call of calls) {
      const intent = forwarded.get(idOf(call) ?? '')
      if (intent === undefined) continue
      expect(call.impersonatedUser?.username).to.equal(intent.credential?.user)
      expect(call.requestURI.split('?')[0]).to.equal(intent.request.path)
      expect(call.verb, call.requestURI).to.equal(intent.request.verb)
    }
  })

  it('is told by the ledger in the names of containers', () => {
    const named = [...forwarded.values()].filter(
      ({ subject, container }) => subject.namespace === NAMESPACE && container !== undefined,
    )
    expect(named).to.have.length.greaterThan(50)
    for (const { agent, container, request } of named) {
      const what = `${agent}: ${request.verb} ${request.path}`
      expect(container?.name, what).to.be.oneOf(['planner', 'scanner'])
      expect(agent.split('/')[1], what).to.equal(container?.name)
    }
  })

  it('has every call that the ledger says was forwarded and answered', () => {
    const seen = new Set(calls.map(({ auditID }) => auditID))
    const missing = [...forwarded.values()].filter(
      ({ requestId }) => outcomes.has(requestId) && !seen.has(requestId),
    )
    expect(missing.map(({ request }) => `${request.verb} ${request.path}`)).to.deep.equal([])
  })
})

describe('the evidence of all that', () => {
  let folder: string
  let file: string
  let vkeys: readonly string[] = []

  before(async () => {
    await prepare()
    folder = mkdtempSync(join(tmpdir(), 'nestgate-e2e-evidence-'))
    file = join(folder, 'all.jsonl')
    const keys = await nestgate('auditor', ['export', '--format', 'jsonl', '--file', file])
    expect(keys.code, keys.stderr).to.equal(0)
    const manifest = JSON.parse(readFileSync(file, 'utf8').split('\n')[0] ?? '') as {
      vkeys: string[]
    }
    vkeys = manifest.vkeys.flatMap((vkey) => ['--vkey', vkey])
  })
  after(() => {
    closeBroker()
    rmSync(folder, { recursive: true, force: true })
  })
  const byScript = (name: string) =>
    attempt('node', [join(facts.root, 'scripts', 'verify-ledger.mjs'), name, ...vkeys])

  it('is proved by both verifiers, offline', async () => {
    const entries = readFileSync(file, 'utf8').split('\n').length - 3
    expect(entries).to.be.greaterThan(500)
    for (const ran of [await nestgate('auditor', ['verify', file, ...vkeys]), await byScript(file)])
      expect(ran.code, ran.stdout + ran.stderr).to.equal(0)
  })

  it('is not, where one entry says something else', async () => {
    const lines = readFileSync(file, 'utf8').split('\n')
    const at = lines.findIndex((line, index) => index > 200 && line.includes('"leaf"'))
    const line = JSON.parse(lines[at] ?? '') as { seq: number; leaf: string }
    const forged = Buffer.from(line.leaf, 'base64')
      .toString()
      .replace(/"kind":"/, '"kind":"x')
    lines[at] = JSON.stringify({ ...line, leaf: Buffer.from(forged).toString('base64') })
    const changed = join(folder, 'changed.jsonl')
    writeFileSync(changed, lines.join('\n'))
    for (const ran of [
      await nestgate('auditor', ['verify', changed, ...vkeys]),
      await byScript(changed),
    ]) {
      expect(ran.code).to.equal(1)
      expect(ran.stdout + ran.stderr).to.contain(String(line.seq))
    }
  })

  it('is witnessed by the sidecar of a pod', async () => {
    const script = 'curl -s "http://$(hostname -i | cut -d" " -f1):8002/metrics"'
    const { stdout } = await inPod(PRIVILEGED.name, 'planner', ['sh', '-c', script])
    expect(stdout).to.match(/^nestgate_sidecar_ledger_consistent 1$/m)
    expect(Number(/^nestgate_sidecar_ledger_size (\d+)$/m.exec(stdout)?.[1])).to.be.greaterThan(0)
  })
})
