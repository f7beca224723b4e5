/**
 * One call of the API, in the two forms in which an API server asks about it: as attributes (authorization) and as
 * operations on an object (admission). Both are made before the call is sent, from the request that was decided on.
 */
import { isConnect, readRequestInfo } from '../../shared/kubernetes/request-info.ts'
import type { RequestInfo } from '../../shared/kubernetes/request-info.ts'
import { parseTarget } from '../../shared/kubernetes/path.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { Fault } from '../../shared/errors.ts'

/** What an authorizer is asked about (authorization.k8s.io/v1 SubjectAccessReviewSpec). */
export type CallAttributes = Readonly<Record<(typeof RESOURCE_FIELDS)[number], string>> & {
  readonly verb: string
  /** Of a call outside the resource API; empty for one inside it. */
  readonly nonResourcePath: string
}

/** Fields of ResourceAttributes that name the resource. */
export const RESOURCE_FIELDS = [
  'group',
  'version',
  'resource',
  'subresource',
  'namespace',
  'name',
] as const

/** See the head of the file. */
export interface ApiCall {
  readonly attributes: CallAttributes
  /** What admission may be asked of it: `OPERATION GROUP/RESOURCE/SUBRESOURCE NAMESPACE/NAME`; none for a read. */
  readonly operations: readonly string[]
  /** Whether it may come to a creation of the object that it names (PUT, server-side apply). */
  readonly mayCreate: boolean
}

/** Ends the name of an object that does not have one yet: any text may follow. Alone where the body is not looked into. */
export const ANY_NAME = '*'
const CREATE = 'CREATE'

const APPLY_PATCH = 'application/apply-patch'

/** What of a request says which call it is. */
export interface CallInput {
  readonly info: RequestInfo
  /** Decoded segments of the path. */
  readonly segments: readonly string[]
  readonly contentType: string
  /** Of the path, or on creation of the body; ends with {@link ANY_NAME} where the server makes the name. */
  readonly objectName: string
}

/** The call that a request makes. */
export function apiCall({ info, segments, contentType, objectName }: CallInput): ApiCall {
  const mayCreate =
    info.verb === 'update' || (info.verb === 'patch' && contentType.startsWith(APPLY_PATCH))
  return {
    attributes: attributesOf(info, segments),
    operations: operationsOf(info, mayCreate).map((operation) =>
      operationText(operation, { ...info, name: objectName }),
    ),
    mayCreate,
  }
}

/**
 * The call of a request that the broker itself writes.
 *
 * @param target - path with query
 * @param created - name of the object where it is a creation, whose path has none; as {@link CallInput.objectName}
 * @throws Fault when it cannot be read one way only
 */
export function callOf(method: string, target: string, contentType = '', created = ''): ApiCall {
  const parsed = parseTarget(target)
  const info = isRefusal(parsed) ? parsed : readRequestInfo(method, parsed)
  if (isRefusal(parsed) || isRefusal(info))
    throw new Fault('identity_empty', 'a call of the broker cannot be read')
  const objectName = info.verb === 'create' && info.name === '' ? created : info.name
  return apiCall({ info, segments: parsed.segments, contentType, objectName })
}

/** What admission calls an object and what is done with it; a Namespace is in none, whatever its path says. */
export function operationText(
  operation: string,
  object: Pick<RequestInfo, 'apiGroup' | 'resource' | 'subresource' | 'namespace' | 'name'>,
): string {
  const { apiGroup, resource, subresource, name } = object
  const namespace = apiGroup === '' && resource === 'namespaces' ? '' : object.namespace
  return `${operation} ${apiGroup}/${resource}/${subresource} ${namespace}/${name}`
}

/** Whether an operation is one of those that a call may come to; a creation also where its name begins as that one's does. */
export function isAmong(operation: string, operations: readonly string[]): boolean {
  return operations.some(
    (own) =>
      own === operation ||
      (own.startsWith(`${CREATE} `) &&
        own.endsWith(ANY_NAME) &&
        operation.startsWith(own.slice(0, -ANY_NAME.length))),
  )
}

/** A call in words, for log and ledger: `VERB GROUP/RESOURCE/SUBRESOURCE NAMESPACE/NAME`, or the verb and a path. */
export function callText(call: CallAttributes): string {
  const { verb, nonResourcePath, group, ...object } = call
  return nonResourcePath === ''
    ? operationText(verb, { ...object, apiGroup: group })
    : `${verb} ${nonResourcePath}`
}

function attributesOf(info: RequestInfo, segments: readonly string[]): CallAttributes {
  return {
    verb: info.verb,
    group: info.apiGroup,
    version: info.apiVersion,
    resource: info.resource,
    subresource: info.subresource,
    namespace: info.namespace,
    name: info.name,
    nonResourcePath: info.isResourceRequest ? '' : `/${segments.join('/')}`,
  }
}

function operationsOf(info: RequestInfo, mayCreate: boolean): readonly string[] {
  if (!info.isResourceRequest) return []
  if (isConnect(info)) return ['CONNECT']
  switch (info.verb) {
    case 'create':
      return [CREATE]
    case 'update':
    case 'patch':
      return mayCreate ? ['UPDATE', CREATE] : ['UPDATE']
    case 'delete':
    case 'deletecollection':
      return ['DELETE']
    default:
      return []
  }
}
