/**
 * Who a request acts as upstream: the service account of a pod, or the subject of a direct client's token. Whoever makes a
 * credential needs one; an actor that is empty or malformed is a fault, never a request in the broker's own name (CVE-2026-23990).
 */
import { Fault } from '../../shared/errors.ts'

/** A service account of a cluster, as authentication verified it. */
export interface ServiceAccountIdentity {
  readonly namespace: string
  readonly serviceAccount: string
}

/** See the head of the file. */
export type Actor =
  | (ServiceAccountIdentity & { readonly kind: 'serviceAccount' })
  /** `name` as the issuer's configuration makes it. */
  | { readonly kind: 'subject'; readonly name: string }

/** User and groups, as a cluster's RBAC knows them. */
export interface ClusterIdentity {
  readonly user: string
  readonly groups: readonly string[]
}

/** RFC 1123 label (namespaces) and subdomain (service accounts), as Kubernetes validates both. */
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
const SUBDOMAIN = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/
/** Groups that every service account has (apiserver, authentication/serviceaccount MakeGroupNames), its namespace's own apart. */
const ALL_SERVICE_ACCOUNTS = 'system:serviceaccounts'
/** Names of the cluster's own; policy grants none of them, and no subject has one. */
const SYSTEM_PREFIX = 'system:'
/** Visible ASCII and inner spaces: what a header carries as it is. */
const HEADER_SAFE = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/

/** Kubernetes' user name of a service account. @throws Fault when a part is empty or malformed */
export function userName(identity: ServiceAccountIdentity): string {
  const { namespace, serviceAccount } = checked(identity)
  return `system:serviceaccount:${namespace}:${serviceAccount}`
}

/**
 * The user that RBAC is asked about, and all its groups: those that a service account has of itself, and those that policy
 * grants. A subject has no groups but the granted ones: those of its token are its issuer's word, and the cluster's bindings
 * are not made for them.
 *
 * @throws Fault when the actor or a group is empty, malformed or one of the cluster's own
 */
export function identityOf(actor: Actor, grantGroups: readonly string[]): ClusterIdentity {
  const granted = checkedGroups(grantGroups)
  if (actor.kind === 'subject') return { user: subjectName(actor.name), groups: granted }
  return {
    user: userName(actor),
    groups: [ALL_SERVICE_ACCOUNTS, `${ALL_SERVICE_ACCOUNTS}:${actor.namespace}`, ...granted],
  }
}

/** The actor as `sub` of our own tokens: no two have the same. @throws Fault as {@link identityOf} */
export function tokenSubject(actor: Actor): string {
  if (actor.kind === 'subject') return `subject:${subjectName(actor.name)}`
  const { namespace, serviceAccount } = checked(actor)
  return `serviceaccount:${namespace}:${serviceAccount}`
}

/** Groups that policy grants. @throws Fault when one is empty, malformed or one of the cluster's own */
export function checkedGroups(groups: readonly string[]): readonly string[] {
  if (!groups.every(isOutsideName))
    throw new Fault(
      'identity_empty',
      'a group to impersonate is empty, malformed or a system group',
    )
  return groups
}

function checked<T extends ServiceAccountIdentity>(identity: T): T {
  if (!LABEL.test(identity.namespace) || !SUBDOMAIN.test(identity.serviceAccount)) {
    throw new Fault('identity_empty', 'an identity to impersonate is empty or malformed')
  }
  return identity
}

function subjectName(name: string): string {
  if (!isOutsideName(name))
    throw new Fault('identity_empty', 'a subject to impersonate is empty or malformed')
  return name
}

function isOutsideName(name: string): boolean {
  return HEADER_SAFE.test(name) && !name.toLowerCase().startsWith(SYSTEM_PREFIX)
}
