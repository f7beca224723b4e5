/**
 * Every way in which a part of Nestgate says no: a closed set of codes, each with the HTTP status it
 * travels under and one sentence. A refusal is a value, never an exception; only the HTTP edge turns it
 * into an answer. docs/errors.md lists them all, and a test keeps the two equal.
 */
import { INJECTION_REASONS } from './reasons-injection.ts'
import { LEDGER_REASONS } from './reasons-ledger.ts'
import { MASKING_REASONS } from './reasons-masking.ts'
import { REVIEW_REASONS } from './reasons-review.ts'
import { SESSION_REASONS } from './reasons-session.ts'

/** What a code stands for. */
export interface ReasonInfo {
  /** HTTP status of the answer. */
  readonly status: number
  /** What was refused, as one sentence without a full stop; details of the case are added behind it. */
  readonly sentence: string
  /** What the reader can do about it; shown in docs/errors.md. */
  readonly remedy: string
}

export const REASONS = {
  // the request line and its headers
  path_ambiguous: {
    status: 400,
    sentence: 'the request path can be read in more than one way',
    remedy:
      'send the path in its plain form: no empty or dot segments, no encoded slash, backslash, percent or control characters',
  },
  path_unknown: {
    status: 404,
    sentence: 'there is nothing at this address',
    remedy: 'cluster requests begin with /clusters/NAME/, the API with /v1/',
  },
  method_unsupported: {
    status: 405,
    sentence: 'the method is not one that the Kubernetes API has a verb for',
    remedy: 'use GET, HEAD, POST, PUT, PATCH or DELETE',
  },
  header_invalid: {
    status: 400,
    sentence: 'a header is repeated or malformed',
    remedy: 'send each of our headers and the Authorization header at most once',
  },
  host_not_local: {
    status: 403,
    sentence:
      'the request was not addressed to the loopback address, as a program of the pod would',
    remedy: 'call http://localhost:8001 from inside the pod; web pages of other sites are refused',
  },
  body_too_large: {
    status: 413,
    sentence: 'the request body is larger than the API server accepts',
    remedy: 'keep request bodies under 3 MiB, the API server’s own limit',
  },
  body_invalid: {
    status: 400,
    sentence: 'the request body is not what this address expects',
    remedy: 'send a JSON body with the documented fields',
  },
  query_invalid: {
    status: 400,
    sentence: 'the query is not what this address expects',
    remedy: 'use the parameters of docs/api.md, each at most once',
  },
  upgrade_unsupported: {
    status: 400,
    sentence: 'the upgrade asks for a protocol that is not forwarded',
    remedy: 'use websocket or SPDY/3.1, as kubectl does',
  },
  cluster_unknown: {
    status: 404,
    sentence: 'no cluster of this name is registered with the broker',
    remedy: 'add the cluster to the broker’s configuration, or correct the name',
  },
  cluster_unusable: {
    status: 503,
    sentence: 'the cluster is registered, but the way to it cannot be opened',
    remedy: 'the broker’s log and nestgate clusters name the cause',
  },
  cluster_conflict: {
    status: 409,
    sentence: 'a cluster of this name is registered already, or is fixed by the configuration file',
    remedy: 'choose another name, or change the configuration file',
  },
  // who is calling
  credentials_missing: {
    status: 401,
    sentence: 'the request carries no credentials',
    remedy: 'sidecars send their projected token, people their own token, as Authorization: Bearer',
  },
  credentials_invalid: {
    status: 401,
    sentence: 'the credentials are not valid here',
    remedy: 'check issuer, audience and expiry of the token',
  },
  sidecar_key_unknown: {
    status: 401,
    sentence: 'the sidecar has no key registered for this pod',
    remedy: 'the sidecar registers its key again by itself; no action is needed',
  },
  agent_tag_invalid: {
    status: 401,
    sentence:
      'the tag that names the calling process is missing, stale or not signed by this pod’s sidecar',
    remedy: 'check the clocks of node and broker; tags live 60 seconds',
  },
  role_missing: {
    status: 403,
    sentence: 'the caller’s roles do not include this',
    remedy: 'ask for the role named in the message in the broker’s configuration',
  },
  caller_unidentified: {
    status: 403,
    sentence: 'the process that made this request could not be named',
    remedy: 'keep the connection open until the answer arrives',
  },
  caller_shared: {
    status: 403,
    sentence: 'more than one process holds the connection of this request',
    remedy: 'open the connection in the process that uses it, and do not hand it on',
  },
  caller_not_accepted: {
    status: 403,
    sentence: 'the process was identified less precisely than the broker accepts',
    remedy: 'see acceptVerdicts in docs/configuration.md',
  },
  connection_identity_changed: {
    status: 421,
    sentence: 'the connection is held by another process, or another program, than before',
    remedy: 'send the request again on a new connection',
  },
  attribution_busy: {
    status: 503,
    sentence: 'the sidecar looks up more callers than it can, so nothing was forwarded',
    remedy:
      'send the request again after the time in Retry-After, on a connection that is kept open',
  },
  attribution_unavailable: {
    status: 503,
    sentence: 'the sidecar cannot tell the processes of this pod apart, so nothing was forwarded',
    remedy: 'read the sidecar’s log: its self-test or its look at the other containers failed',
  },
  issuer_unavailable: {
    status: 503,
    sentence: 'the token cannot be checked because its issuer does not answer',
    remedy: 'check the issuer and the broker’s way to it; the request can be sent again',
  },
  // the decision
  policy_denied: {
    status: 403,
    sentence: 'policy denies this request',
    remedy: 'the message names the rule; ask its owner',
  },
  policy_no_match: {
    status: 403,
    sentence: 'no policy rule allows this request',
    remedy: 'add a rule that allows or holds it',
  },
  policy_error: {
    status: 403,
    sentence: 'a rule could not be evaluated for this request, so it is denied',
    remedy: 'the message names the rule; its owner finds the cause with nestgate policy explain',
  },
  body_opaque: {
    status: 415,
    sentence: 'policy asks about the body of this request, and it is not JSON or YAML',
    remedy: 'send it as application/json, as kubectl does with -f',
  },
  body_ambiguous: {
    status: 400,
    sentence: 'the request body can be read in more than one way',
    remedy: 'send each key once, no aliases, one document, within the limits of depth and size',
  },
  kind_unknown: {
    status: 404,
    sentence: 'the cluster serves no resource of this name, or not in this scope',
    remedy: 'check group, version, resource and namespace with kubectl api-resources',
  },
  discovery_unavailable: {
    status: 503,
    sentence: 'it is not known what the cluster serves there, so nothing was forwarded',
    remedy: 'check the cluster’s API server and its aggregated APIs; the request can be sent again',
  },
  // the hold
  approval_pending: {
    status: 403,
    sentence: 'this request waits for approval',
    remedy: 'when it is approved, send exactly the same request again: it passes once',
  },
  approval_revoked: {
    status: 403,
    sentence: 'the approval of this request was revoked',
    remedy: 'read the reason in the message; send the request again to ask anew',
  },
  approval_target_changed: {
    status: 409,
    sentence: 'what this request acts on is not any more what was approved',
    remedy: 'look at the object, and send the request again to ask anew',
  },
  target_unreadable: {
    status: 503,
    sentence: 'it could not be checked that the target is still what was approved',
    remedy: 'check the cluster’s API server; send the request again',
  },
  reviewer_not_eligible: {
    status: 403,
    sentence: 'this needs people of other groups',
    remedy: 'the message names the groups that are still missing',
  },
  already_reviewed: {
    status: 409,
    sentence: 'you have decided on this request already',
    remedy: 'another person must decide too',
  },
  review_not_open: {
    status: 409,
    sentence: 'there is no open review of this request',
    remedy: 'look at its state with nestgate approvals show',
  },
  approval_denied: {
    status: 403,
    sentence: 'a reviewer denied this request',
    remedy: 'read the reviewer’s reason in the message',
  },
  approval_expired: {
    status: 403,
    sentence: 'nobody decided on this request in time',
    remedy: 'send it again while a reviewer is at hand',
  },
  approval_cancelled: {
    status: 403,
    sentence: 'the request was withdrawn before anybody decided',
    remedy: 'send it again',
  },
  approval_mismatch: {
    status: 403,
    sentence: 'the request is not the one that was approved',
    remedy: 'send exactly the approved request, from the same process',
  },
  approval_spent: {
    status: 409,
    sentence: 'the approval was used already',
    remedy: 'one approval is good for one request: send it again to ask anew',
  },
  approval_not_pending: {
    status: 409,
    sentence: 'the request is not waiting for a decision any more',
    remedy: 'look at its state with nestgate approvals show',
  },
  approval_not_revocable: {
    status: 409,
    sentence: 'there is nothing left to revoke',
    remedy:
      'revoke an approval before it is used, or a session while it runs; deny what is pending',
  },
  self_approval: {
    status: 403,
    sentence:
      'a request must be decided by somebody other than its requester and the owner of its agent',
    remedy: 'ask another reviewer',
  },
  request_unknown: {
    status: 404,
    sentence: 'there is no such request, or it is not yours',
    remedy: 'check the id',
  },
  approvals_full: {
    status: 503,
    sentence: 'too many requests wait for approval already, so nothing was forwarded',
    remedy: 'wait until a reviewer has decided on some, or withdraw them',
  },
  approval_required: {
    status: 403,
    sentence: 'this request needs approval, and the caller cannot wait for it',
    remedy: 'call through a sidecar, which waits',
  },
  ...REVIEW_REASONS,
  ...SESSION_REASONS,
  ...MASKING_REASONS,
  ...LEDGER_REASONS,
  // missing dependencies: nothing was forwarded
  broker_unavailable: {
    status: 503,
    sentence: 'the broker cannot be reached, so nothing was forwarded',
    remedy: 'check the broker; the request can be sent again',
  },
  broker_lost: {
    status: 503,
    sentence: 'the connection to the broker broke before it answered, so the outcome is unknown',
    remedy: 'look the request up in the audit before sending it again',
  },
  token_unavailable: {
    status: 503,
    sentence: 'the sidecar has no token to speak to the broker with, so nothing was forwarded',
    remedy: 'check the projected token volume of the sidecar; the request can be sent again',
  },
  sidecar_busy: {
    status: 503,
    sentence: 'the sidecar has reached a limit',
    remedy: 'send fewer requests at once; the limits are in docs/configuration.md',
  },
  broker_busy: {
    status: 503,
    sentence: 'the broker has reached a limit, so nothing was forwarded',
    remedy:
      'end watches and sessions that are not needed, and send the request again; the limits are in docs/configuration.md',
  },
  identity_unavailable: {
    status: 503,
    sentence: 'the token cannot be checked because the cluster does not answer',
    remedy: 'check the cluster’s API server and the broker’s access to it',
  },
  credential_unavailable: {
    status: 503,
    sentence: 'the credential for the cluster cannot be made, so nothing was forwarded',
    remedy:
      'check the key service, or the file of the broker’s own token, that the broker’s log names; the request can be sent again',
  },
  issuer_key_kept: {
    status: 409,
    sentence: 'the key service did not replace the signing key',
    remedy: 'do it in the key service, as the message says',
  },
  upstream_unavailable: {
    status: 502,
    sentence: 'the cluster’s API server did not answer',
    remedy: 'check the API server and the network between it and the broker',
  },
  upstream_invalid: {
    status: 502,
    sentence: 'the cluster’s API server answered with something that is not passed on',
    remedy: 'see the message; redirects and unasked upgrades are refused',
  },
  shutting_down: {
    status: 503,
    sentence: 'this replica is shutting down',
    remedy: 'send the request again',
  },
  internal: {
    status: 500,
    sentence: 'an unexpected fault ended the request',
    remedy: 'the log of the process has the details under the request id',
  },
  // admission: what the webhook refuses
  review_invalid: {
    status: 400,
    sentence: 'the body is not an AdmissionReview for a pod',
    remedy: 'only the API server should call this address; check the webhook configuration',
  },
  review_too_large: {
    status: 413,
    sentence: 'the AdmissionReview is too large',
    remedy: 'pods are limited to about 3 MiB by the API server itself',
  },
  webhook_not_ready: {
    status: 503,
    sentence: 'the webhook does not know yet which form of sidecar the cluster can run',
    remedy:
      'check that it reaches the API server, or set sidecar.mode; the pod can be created again',
  },

  ...INJECTION_REASONS,
} as const satisfies Record<string, ReasonInfo>

/** A reason code. */
export type Reason = keyof typeof REASONS

/** Whether something is a reason code of this program. */
export function isReason(value: unknown): value is Reason {
  return typeof value === 'string' && Object.hasOwn(REASONS, value)
}

/** A refusal: why, and what about this case a reader should know (never a token, body or secret). */
export interface Refusal {
  readonly refused: Reason
  readonly detail?: string
  /** Of a body that is refused: where in it, as Kubernetes names fields. */
  readonly fields?: readonly string[]
}

/** Makes a refusal. */
export function refuse(reason: Reason, detail?: string): Refusal {
  return detail === undefined ? { refused: reason } : { refused: reason, detail }
}

/** Whether a step's result is a refusal. */
export function isRefusal(value: object | undefined): value is Refusal {
  return value !== undefined && 'refused' in value
}

/** The refusal as one line of text: sentence, then detail. */
export function refusalText(refusal: Refusal): string {
  const { sentence } = REASONS[refusal.refused]
  return refusal.detail === undefined ? sentence : `${sentence}: ${refusal.detail}`
}
