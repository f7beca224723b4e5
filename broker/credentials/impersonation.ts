/**
 * The credential of one request in mode `impersonation`: the broker's own service account, which may do
 * nothing but impersonate, acting as the pod's service account or as a direct client's subject. The request's id travels as an extra, so that
 * it stands in the cluster's own audit log, and as `Audit-ID`, which the API server takes over and echoes.
 * An identity that is empty or malformed is a fault: never a request in the broker's own name (CVE-2026-23990).
 */
import { Fault } from '../../shared/errors.ts'
import { isRequestId } from '../../shared/request-id.ts'

/** Extra key under which the cluster's audit log shows the request id. */
export const REQUEST_ID_EXTRA = 'nestgate.dev/request-id'

/** A service account of a cluster, as authentication verified it. */
export interface ServiceAccountIdentity {
  readonly namespace: string
  readonly serviceAccount: string
}

/** RFC 1123 label (namespaces) and subdomain (service accounts), as Kubernetes validates both. */
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
const SUBDOMAIN = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/

/** Kubernetes' user name of a service account. @throws Fault when a part is empty or malformed */
export function userName(identity: ServiceAccountIdentity): string {
  const { namespace, serviceAccount } = identity
  if (!LABEL.test(namespace) || !SUBDOMAIN.test(serviceAccount)) {
    throw new Fault('identity_empty', 'an identity to impersonate is empty or malformed')
  }
  return `system:serviceaccount:${namespace}:${serviceAccount}`
}

/** Groups that every service account has (apiserver, authentication/serviceaccount MakeGroupNames), its namespace's own apart. */
const ALL_SERVICE_ACCOUNTS = 'system:serviceaccounts'
/** Names of the cluster's own; policy grants none of them, and no subject has one. */
const SYSTEM_PREFIX = 'system:'
/** Visible ASCII and inner spaces: what a header carries as it is. */
const HEADER_SAFE = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/

/** Headers that make a request act as somebody. */
export type IdentityHeaders = Readonly<Record<string, string | string[]>>

/**
 * Headers that make a request act as the service account `identity`, with the groups that policy grants. Without any, its
 * own groups are left to the API server, which derives them; with some it does not, so they are named (apiserver,
 * endpoints/filters/impersonation.go).
 *
 * @throws Fault when the identity, a group or the request id is empty or malformed
 */
export function impersonationHeaders(
  identity: ServiceAccountIdentity,
  requestId: string,
  grantGroups: readonly string[] = [],
): IdentityHeaders {
  const own = [ALL_SERVICE_ACCOUNTS, `${ALL_SERVICE_ACCOUNTS}:${identity.namespace}`]
  return {
    'impersonate-user': userName(identity),
    ...(grantGroups.length === 0
      ? {}
      : { 'impersonate-group': [...own, ...checkedGroups(grantGroups)] }),
    ...requestHeaders(requestId),
  }
}

/**
 * Headers that make a request act as a direct client's subject, with the groups that policy grants and no others: those of
 * its token are the issuer's word, and the cluster's bindings are not made for them.
 *
 * @throws Fault when the name, a group or the request id is empty, malformed or one of the cluster's own
 */
export function subjectHeaders(
  { name }: { readonly name: string },
  grantGroups: readonly string[],
  requestId: string,
): IdentityHeaders {
  if (!isOutsideName(name))
    throw new Fault('identity_empty', 'a subject to impersonate is empty or malformed')
  return {
    'impersonate-user': name,
    ...(grantGroups.length === 0 ? {} : { 'impersonate-group': checkedGroups(grantGroups) }),
    ...requestHeaders(requestId),
  }
}

function checkedGroups(groups: readonly string[]): string[] {
  if (!groups.every(isOutsideName))
    throw new Fault(
      'identity_empty',
      'a group to impersonate is empty, malformed or a system group',
    )
  return [...groups]
}

function isOutsideName(name: string): boolean {
  return HEADER_SAFE.test(name) && !name.toLowerCase().startsWith(SYSTEM_PREFIX)
}

function requestHeaders(requestId: string): IdentityHeaders {
  if (!isRequestId(requestId)) throw new Fault('identity_empty', 'a request id is malformed')
  return {
    [`impersonate-extra-${encodeURIComponent(REQUEST_ID_EXTRA)}`]: requestId,
    'audit-id': requestId,
  }
}
