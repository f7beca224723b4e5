/**
 * Mode `impersonation`: the broker's own service account, which may do nothing but impersonate, acting as somebody. What
 * happened to the request before travels as extras, so that it stands in the cluster's own audit log, and for admission to
 * bind writes and sessions to the request; the request's id also as `Audit-ID`, which the API server takes over and echoes.
 */
import { Fault } from '../../shared/errors.ts'
import { isRequestId } from '../../shared/request-id.ts'
import { checkedGroups, identityOf } from './actor.ts'
import type { CredentialHeaders, CredentialNeed } from './credential.ts'

/** Keys of the extras; RBAC lets the broker set these and no others (manifests/base/rbac.yaml). */
export const EXTRA_KEYS = {
  requestId: 'nestgate.dev/request-id',
  process: 'nestgate.dev/process',
  approver: 'nestgate.dev/approver',
  bind: 'nestgate.dev/bind',
} as const

/**
 * Headers that make a request act as its actor, with the groups that policy grants. Without any, a service account's own
 * groups are left to the API server, which derives them; with some it does not, so they are named (apiserver,
 * endpoints/filters/impersonation.go).
 *
 * @throws Fault when the actor, a group or the request id is empty, malformed or one of the cluster's own
 */
export function impersonationHeaders(need: CredentialNeed): CredentialHeaders {
  const { requestId, actor, grantGroups, process, approvers, call } = need
  if (!isRequestId(requestId)) throw new Fault('identity_empty', 'a request id is malformed')
  const { user, groups } = identityOf(actor, grantGroups)
  return {
    'impersonate-user': user,
    ...(checkedGroups(grantGroups).length === 0 ? {} : { 'impersonate-group': [...groups] }),
    [extra(EXTRA_KEYS.requestId)]: requestId,
    ...(process === undefined ? {} : { [extra(EXTRA_KEYS.process)]: plain(process) }),
    ...several(EXTRA_KEYS.approver, approvers),
    ...several(EXTRA_KEYS.bind, call.operations),
    'audit-id': requestId,
  }
}

function several(key: string, values: readonly string[]): CredentialHeaders {
  return values.length === 0 ? {} : { [extra(key)]: values.map(plain) }
}

function extra(key: string): string {
  return `impersonate-extra-${encodeURIComponent(key)}`
}

/** A header's value: what is not visible ASCII or an inner space is percent-encoded. */
function plain(value: string): string {
  return value
    .trim()
    .replaceAll(/[^\x20-\x7e]/gu, (char) =>
      encodeURIComponent(char.isWellFormed() ? char : '\ufffd'),
    )
}
