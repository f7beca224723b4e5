/**
 * The credential of one request in mode `impersonation`: the broker's own service account, which may do
 * nothing but impersonate, acting as the pod's service account. The request's id travels as an extra, so that
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

/**
 * Headers that make a request act as `identity`. Groups are left to the API server, which derives a service
 * account's own (apiserver, endpoints/filters/impersonation.go).
 *
 * @throws Fault when the identity or the request id is empty or malformed
 */
export function impersonationHeaders(
  identity: ServiceAccountIdentity,
  requestId: string,
): Readonly<Record<string, string>> {
  if (!isRequestId(requestId)) throw new Fault('identity_empty', 'a request id is malformed')
  return {
    'impersonate-user': userName(identity),
    [`impersonate-extra-${encodeURIComponent(REQUEST_ID_EXTRA)}`]: requestId,
    'audit-id': requestId,
  }
}
