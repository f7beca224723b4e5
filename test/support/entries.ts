/** Ledger entries and held requests as tests need them: whole, and different only where the test says so. */
import { randomBytes } from 'node:crypto'
import type { AgentTag } from '../../shared/agent-tag.ts'
import { newRequestId } from '../../shared/request-id.ts'
import type { HoldFacts } from '../../broker/approvals/types.ts'
import type { ApprovalTerms } from '../../shared/policy/decision.ts'
import type { IntentEntry, OutcomeEntry } from '../../broker/ledger/entry.ts'
import type { StoredApproval } from '../../broker/store/store.ts'

const CONTAINER = 'c'.repeat(64)

export const TAG: AgentTag = {
  verdict: 'exclusive',
  instanceId: 'instance-1',
  verified: {
    pid: 42,
    startTicks: '4711',
    exe: '/usr/bin/kubectl',
    containerId: CONTAINER,
    bootId: 'b07b07b0-0000-4000-8000-000000000000',
    uid: 1000,
    gid: 1000,
    ancestors: [{ pid: 7, startTicks: '99', exe: '/bin/sh', containerId: CONTAINER }],
  },
  declared: { command: 'kubectl (+3 arguments)' },
}

/** An intent; `request` and `decision` are merged into the defaults. */
export function intent(
  change: Partial<Omit<IntentEntry, 'request' | 'decision'>> & {
    readonly request?: Partial<IntentEntry['request']>
    readonly decision?: Partial<IntentEntry['decision']>
  } = {},
): IntentEntry {
  return {
    kind: 'intent',
    requestId: newRequestId(Date.now()),
    cluster: 'main',
    subject: {
      type: 'serviceAccount',
      name: 'system:serviceaccount:shop:agents',
      namespace: 'shop',
      podName: 'agents-0',
      podUid: 'pod-1',
    },
    agent: '/usr/bin/kubectl',
    tag: TAG,
    ...change,
    request: {
      isResourceRequest: true,
      verb: 'get',
      apiGroup: '',
      apiVersion: 'v1',
      namespace: 'shop',
      resource: 'pods',
      subresource: '',
      name: 'web-0',
      method: 'GET',
      path: '/api/v1/namespaces/shop/pods/web-0',
      query: '',
      contentType: '',
      bodySha256: '0'.repeat(64),
      bodyBytes: 0,
      userAgent: 'kubectl/v1.33',
      ...change.request,
    },
    decision: {
      effect: 'allow',
      rules: ['look-around'],
      policyDigest: 'd'.repeat(64),
      explanation: 'rule "look-around" allows get pods',
      ...change.decision,
    },
  }
}

/** As {@link intent}, of a direct client. */
export function directIntent(name: string, change: Parameters<typeof intent>[0] = {}): IntentEntry {
  const entry: { -readonly [K in keyof IntentEntry]: IntentEntry[K] } = intent({
    ...change,
    subject: { type: 'oidc', name },
  })
  delete entry.agent
  delete entry.tag
  return entry
}

export function outcome(requestId: string, status = 200): OutcomeEntry {
  return {
    kind: 'outcome',
    requestId,
    cluster: 'main',
    status,
    bytesToClient: 10,
    bytesToServer: 0,
    durationMs: 3,
  }
}

/** How held requests are approved where a test says nothing of it. */
export const TERMS = {
  quorums: [],
  pendingSeconds: 60,
  approvedSeconds: 900,
  holdSeconds: 30,
  reuseSeconds: 0,
  onLeave: 'cancel',
  mode: 'hold',
} as const satisfies ApprovalTerms

/** Facts of a request of its own, which no other one joins unless the test gives both the same digest. */
export function facts(
  change: Partial<Omit<HoldFacts, 'terms'>> & { readonly terms?: Partial<HoldFacts['terms']> } = {},
): HoldFacts {
  return {
    id: newRequestId(Date.now()),
    digest: randomBytes(32).toString('hex'),
    cluster: 'main',
    method: 'DELETE',
    path: '/apis/apps/v1/namespaces/shop/deployments/old',
    query: '',
    verb: 'delete',
    resource: 'deployments.apps',
    namespace: 'shop',
    name: 'old',
    subject: 'system:serviceaccount:shop:agents',
    requesters: ['system:serviceaccount:shop:agents'],
    owners: [],
    agent: '/usr/bin/kubectl',
    ancestors: ['planner'],
    tag: TAG,
    rules: ['deletions'],
    explanation: 'rule "deletions" holds delete deployments',
    streaming: false,
    clientWaits: true,
    callerKey: 'pod-1',
    bodySha256: '0'.repeat(64),
    bodyBytes: 0,
    instanceId: 'instance-1',
    podUid: 'pod-1',
    ...change,
    terms: { ...TERMS, quorums: [], ...change.terms },
  }
}

export function pending(change: Partial<StoredApproval> = {}): StoredApproval {
  const { clientWaits, ...rest } = facts()
  return {
    ...rest,
    version: 1,
    state: 'PENDING',
    breakGlass: false,
    progress: { reviews: [], clientWaits },
    createdAt: new Date().toISOString(),
    expiresAt: new Date(Date.now() + 60_000).toISOString(),
    ...change,
  }
}
