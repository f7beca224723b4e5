/**
 * The two records side by side, after everything the other files did: the cluster's own audit log and our
 * ledger. Each call that the cluster saw from the broker for a pod is one that the ledger announced, and
 * the other way round. Mocha runs the files in alphabetical order, so this one is the last.
 */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { sleep } from '../../scripts/run.ts'
import { audit, clusterAuditOfBroker, closeBroker, NAMESPACE, prepare } from './support.ts'
import type { ClusterAuditEvent, Intent } from './support.ts'

const REQUEST_ID = 'nestgate.dev/request-id'
/** What the broker asks in its own name: whether a sidecar's token is good, the issuer's keys, what the cluster serves, and what a pod's containers are called. */
const OWN_CALLS =
  /^\/(apis\/authentication\.k8s\.io\/v1\/tokenreviews|openid\/v1\/jwks|\.well-known\/openid-configuration|api\/v1$|apis\/[^/?]+\/[^/?]+$)/

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
    outcomes = new Set((await audit({ kind: 'outcome' })).map(({ requestId }) => requestId ?? ''))
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
