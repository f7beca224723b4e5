/**
 * Effective actions: what a request amounts to, whatever its verb says (research: gateways.md, 2c). Where a body that
 * could tell is not readable, an action that it could have is taken for given: rules that restrict must not be passed
 * by sending protobuf.
 */
import type { Action, BodyView, RequestParameters } from './attributes.ts'
import { hasAt, textOf } from './json-fields.ts'
import { mentions } from './json-patch.ts'
import type { RequestInfo } from './request-info.ts'
import { kindKey, mayRunCode, replicasTouch, touchOf } from './workloads.ts'

/** What actions are found from. */
export interface ActionFacts {
  readonly info: RequestInfo
  readonly parameters: RequestParameters
  readonly body: BodyView
  /** Whether it asks to see what is hidden (unmask.ts). */
  readonly unmask?: boolean
}

const NONE: readonly Action[] = []
const READS_SECRETS: readonly Action[] = ['read-secrets']
const READS: ReadonlySet<string> = new Set(['get', 'list', 'watch'])
const WRITES: ReadonlySet<string> = new Set(['create', 'update', 'patch'])
const DELETES: ReadonlySet<string> = new Set(['delete', 'deletecollection'])
const SESSIONS: ReadonlyMap<string, Action> = new Map([
  ['exec', 'exec'],
  ['attach', 'attach'],
  ['portforward', 'port-forward'],
  ['proxy', 'proxy'],
])
/** Paths of the kubelet behind `nodes/NAME/proxy` that run commands or open ways into pods (kubernetes, pkg/kubelet/server). */
const NODE_EXEC: ReadonlySet<string> = new Set(['exec', 'run', 'attach', 'portForward', 'cri'])
const RBAC_GROUP = 'rbac.authorization.k8s.io'
const EXTENSIONS: ReadonlySet<string> = new Set([
  'admissionregistration.k8s.io',
  'apiregistration.k8s.io',
  'apiextensions.k8s.io',
])
/** Types of Secrets that are credentials of the cluster itself. */
const CREDENTIAL_TYPES: ReadonlySet<string> = new Set([
  'kubernetes.io/service-account-token',
  'bootstrap.kubernetes.io/token',
])
const TAKES_OTHERS: ReadonlySet<string> = new Set([
  '/namespaces',
  'apiextensions.k8s.io/customresourcedefinitions',
])
const RESTARTED_AT = 'kubectl.kubernetes.io/restartedAt'
/** Names the account that the token controller fills a Secret for. */
const TOKEN_ACCOUNT = 'kubernetes.io/service-account.name'
/** Subresources through which no finalizers are written: of another kind, or with metadata that is passed over. */
const WITHOUT_FINALIZERS: ReadonlySet<string> = new Set([
  'scale',
  'token',
  'eviction',
  'binding',
  'ephemeralcontainers',
  'resize',
])
/** Writes whose answer is the object, or are the objects, as they were stored: with what the request did not say. */
const SECRET_TELLING: ReadonlySet<string> = new Set(['patch', 'delete', 'deletecollection'])

/** The actions of a request, in the order of `ACTIONS`'s kinds; empty for most reads. */
export function actionsOf(facts: ActionFacts): readonly Action[] {
  const { info } = facts
  if (!info.isResourceRequest) return NONE
  const session = info.verb === 'proxy' ? 'proxy' : SESSIONS.get(info.subresource)
  if (session !== undefined) return sessionActions(facts, session)
  if (READS.has(info.verb)) return readActions(facts)
  return writeActions(facts)
}

function readActions({ info, unmask = false }: ActionFacts): readonly Action[] {
  if (!unmask) return readsSecrets(info) ? READS_SECRETS : NONE
  return readsSecrets(info) ? [...READS_SECRETS, 'unmask'] : ['unmask']
}

function sessionActions({ info, parameters }: ActionFacts, session: Action): readonly Action[] {
  if (session !== 'proxy' || info.resource !== 'nodes') return [session]
  const [, first = ''] = (parameters.proxyPath ?? '').split('/')
  return NODE_EXEC.has(first) ? ['proxy', 'node-exec'] : ['proxy']
}

function readsSecrets({ apiGroup, resource }: RequestInfo): boolean {
  return apiGroup === '' && resource === 'secrets'
}

type Test = (facts: ActionFacts) => boolean

/** By action: whether a request that is no read and no session has it. */
const WRITE_TESTS: readonly (readonly [Action, Test])[] = [
  ['debug', ({ info }) => info.subresource === 'ephemeralcontainers'],
  ['evict', ({ info }) => info.subresource === 'eviction'],
  ['scale', (facts) => replicas(facts).kind !== 'none'],
  ['scale-to-zero', scalesToZero],
  ['restart', restarts],
  ['delete-many', deletesMany],
  ['force-delete', deletesByForce],
  ['orphan', orphans],
  ['remove-finalizers', removesFinalizers],
  ['mint-credential', mintsCredential],
  ['escalate', escalates],
  ['run-code', ({ info, parameters, body }) => mayRunCode(info, parameters.patchType, body)],
  ['extend-cluster', ({ info }) => EXTENSIONS.has(info.apiGroup)],
  ['read-secrets', ({ info }) => SECRET_TELLING.has(info.verb) && readsSecrets(info)],
  ['dry-run', ({ parameters }) => parameters.dryRun],
]

function writeActions(facts: ActionFacts): readonly Action[] {
  return WRITE_TESTS.filter(([, test]) => test(facts)).map(([action]) => action)
}

function replicas({ info, parameters, body }: ActionFacts): ReturnType<typeof replicasTouch> {
  return replicasTouch(info, parameters.patchType, body)
}

function scalesToZero(facts: ActionFacts): boolean {
  const touch = replicas(facts)
  if (touch.kind !== 'set') return touch.kind === 'unknown'
  // a Scale without replicas has none; a workload without them has one
  const isScale = facts.info.subresource === 'scale'
  return touch.value === 0 || (isScale && typeof touch.value !== 'number')
}

function restarts({ info, parameters, body }: ActionFacts): boolean {
  if (info.verb !== 'patch' && info.verb !== 'update') return false
  if (body.state === 'opaque') return mayRunCode(info, parameters.patchType, body)
  return body.state === 'read' && mentions(body.value, RESTARTED_AT)
}

function deletes({ info }: ActionFacts): boolean {
  return DELETES.has(info.verb) || info.subresource === 'eviction'
}

/** Everything in it goes with a namespace, and every object of its kind with a definition. */
function deletesMany({ info }: ActionFacts): boolean {
  if (info.verb === 'deletecollection') return true
  return info.verb === 'delete' && info.subresource === '' && TAKES_OTHERS.has(kindKey(info))
}

function deletesByForce(facts: ActionFacts): boolean {
  const { parameters, body } = facts
  const grace = parameters.gracePeriodSeconds
  // less than none is as good as none
  return deletes(facts) && (body.state === 'opaque' || (grace !== undefined && grace <= 0))
}

function orphans(facts: ActionFacts): boolean {
  const { parameters, body } = facts
  return deletes(facts) && (body.state === 'opaque' || parameters.propagationPolicy === 'Orphan')
}

/**
 * An update is the whole object, and takes away what it leaves out; which finalizers there were is not known here. Those of
 * many built-in kinds can be written through `status`, too.
 */
function removesFinalizers({ info, parameters, body }: ActionFacts): boolean {
  if (info.subresource === 'finalize') return true
  if (WITHOUT_FINALIZERS.has(info.subresource)) return false
  if (info.verb === 'update') return true
  if (info.verb !== 'patch') return false
  if (touchOf(['metadata', 'finalizers'], parameters.patchType, body).kind !== 'none') return true
  return (
    body.state === 'read' && hasAt(body.value, ['metadata', '$deleteFromPrimitiveList/finalizers'])
  )
}

function mintsCredential({ info, body }: ActionFacts): boolean {
  const { apiGroup, resource, subresource, verb } = info
  if (apiGroup === '' && resource === 'serviceaccounts') return subresource === 'token'
  if (apiGroup === 'certificates.k8s.io') return WRITES.has(verb)
  if (apiGroup !== '' || resource !== 'secrets' || !WRITES.has(verb)) return false
  if (body.state !== 'read') return true
  return CREDENTIAL_TYPES.has(textOf(body.value, 'type')) || mentions(body.value, TOKEN_ACCOUNT)
}

function escalates({ info }: ActionFacts): boolean {
  return info.apiGroup === RBAC_GROUP && WRITES.has(info.verb)
}
