/**
 * Ledger entries: the statements the broker makes about requests, in the order it made them. An entry is
 * serialised once, to the bytes that are stored; these are never re-serialised afterwards. Field names follow
 * audit.k8s.io/v1 where the same thing is meant. Nothing secret enters one: no token, no body, no header.
 */
import type { AgentTag } from '../../shared/agent-tag.ts'
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import type { RequestInfo } from '../../shared/kubernetes/request-info.ts'
import type { Decision } from '../../shared/policy/decision.ts'
import type { CiFacts } from '../../shared/policy/facts.ts'
import type { Reason } from '../../shared/reasons.ts'
import type { CredentialMode } from '../credentials/credential.ts'

/** A serialised entry may not be longer: the bundle format of C2SP tlog-tiles has 16-bit lengths. */
export const MAX_ENTRY_BYTES = 65_535

/** Who acts, as far as the broker has verified it. */
export interface SubjectRecord {
  readonly type: 'serviceAccount' | 'person' | 'oidc'
  /** Kubernetes user name, the person's name, or the name that the issuer's configuration makes. */
  readonly name: string
  readonly namespace?: string
  readonly podName?: string
  readonly podUid?: string
}

/** The request, as it was decided on. */
export interface RequestRecord extends RequestInfo {
  readonly method: string
  /** Path and query as they were sent, with secrets masked (broker/gateway/shown-request.ts). */
  readonly path: string
  readonly query: string
  readonly contentType: string
  readonly bodySha256: string
  readonly bodyBytes: number
  readonly userAgent: string
  /** Trace context that the client declared, where it is a well-formed `traceparent` (W3C Trace Context, 3.2). */
  readonly traceparent?: string
  /** Missing in entries before version 0.3. */
  readonly attributes?: AttributesRecord
}

/** The decision, and why: of policy's decision what says why (shared/policy/decision.ts). */
export type DecisionRecord = Pick<
  Decision,
  'effect' | 'rules' | 'policyDigest' | 'explanation' | 'reason'
>

/** What a request was approved by. */
export interface ApprovalRecord {
  readonly id: string
  /** Who approved last; empty for break-glass. */
  readonly reviewer: string
  /** All who approved, the last one first. Missing in entries before version 0.4. */
  readonly approvers?: readonly string[]
  readonly reason: string
  /** Set for a request that went ahead without approval; somebody must look at it afterwards. */
  readonly breakGlass?: true
}

/** A subject that an OIDC issuer vouches for. */
export interface OidcRecord {
  readonly issuer: string
  readonly sub: string
  readonly name: string
  readonly groups: readonly string[]
  /** Which run of which pipeline it is; of issuers that are configured as CI systems only. */
  readonly ci?: CiFacts
}

/** What policy saw of a request beside its RequestInfo (shared/kubernetes/attributes.ts); of the body the labels only. */
export type AttributesRecord = Pick<
  RequestAttributes,
  'policyVerb' | 'actions' | 'equivalents' | 'parameters' | 'objectName' | 'labels'
>

/** Written before the request has any effect, or, for a refusal, as its only trace. */
export interface IntentEntry {
  readonly kind: 'intent'
  readonly requestId: string
  readonly cluster: string
  readonly subject: SubjectRecord
  /** Name the policy knows the process by: of a registration, or `unregistered/CONTAINER/EXECUTABLE`. Absent for a direct client. */
  readonly agent?: string
  /** Names of its ancestors in the same way, from the parent outwards. Missing in entries before version 0.2. */
  readonly chain?: readonly string[]
  /** Its container, as the API server knows it; absent where it does not. */
  readonly container?: { readonly name: string; readonly image: string }
  /** Absent for a direct client. */
  readonly tag?: AgentTag
  /** The subject of a direct client's token, or of one that an agent sent along. */
  readonly oidc?: OidcRecord
  readonly request: RequestRecord
  readonly decision: DecisionRecord
  readonly approval?: ApprovalRecord
  /** What acts upstream; absent when nothing was forwarded. */
  readonly credential?: {
    readonly mode: CredentialMode
    /** As the cluster's own audit log names it. */
    readonly user: string
    /** Groups that policy granted. */
    readonly groups?: readonly string[]
  }
  /** The body, where policy wants it captured and there is one. Missing in entries before version 0.6. */
  readonly payload?: PayloadRecord
}

/** A body beside its entry (broker/gateway/payload.ts), or why it is not there. */
export type PayloadRecord =
  | {
      /** Of what is stored: masked, and cut where `truncated` says so. Hex. */
      readonly sha256: string
      readonly bytes: number
      readonly truncated: boolean
    }
  /** `opaque`: what cannot be read cannot be masked. `proxied`: it is for an application, not the API server. */
  | { readonly omitted: 'opaque' | 'proxied' }

/** Written when the request is over. */
export interface OutcomeEntry {
  readonly kind: 'outcome'
  readonly requestId: string
  readonly cluster: string
  /** HTTP status of the answer; 0 when there was none. */
  readonly status: number
  readonly bytesToClient: number
  readonly bytesToServer: number
  readonly durationMs: number
  /** Why the answer is not the API server's, or not complete. */
  readonly reason?:
    Reason | 'client_left' | 'stream_broken' | 'broker_restarted' | 'revoked' | 'killed'
  /** What of the answer was hidden; missing where nothing was, and in entries before version 0.8. */
  readonly masked?: MaskedRecord
  /** Fields of the request's body in which placeholders were replaced by what they stand for. */
  readonly restored?: readonly string[]
}

/** What was hidden: how often, and in which fields (`Secret data.password`); values never. */
export interface MaskedRecord {
  readonly profiles: readonly string[]
  readonly count: number
  /** Each once, in order of their first place; no more than fit (broker/masking/types.ts). */
  readonly fields: readonly string[]
  /** Set where there are more fields than these. */
  readonly more?: true
}

/** A request that could not be read, from a caller that could. */
export interface RefusalEntry {
  readonly kind: 'refusal'
  readonly requestId: string
  readonly cluster: string
  readonly subject: SubjectRecord
  readonly reason: Reason
  readonly detail: string
}

/**
 * Something about a session and its recording (docs/decisions/0009): it began, so much of it is durable, it ended, it was found cut
 * off by a later broker, somebody ended it, it runs unrecorded because its rule lets it, its time was over.
 */
export interface SessionEntry {
  readonly kind: 'session'
  readonly event: 'started' | 'progress' | 'ended' | 'cut' | 'killed' | 'unrecorded' | 'expired'
  readonly requestId: string
  readonly cluster: string
  /** Who ended it; otherwise `broker`. */
  readonly actor: string
  /** Of a recording: `chunks`, `bytes`, `runningSha256`; at the end also `exitCode` and sums. */
  readonly detail: Readonly<Record<string, string | number | boolean>>
}

/** A held request changed its state. */
export interface ApprovalEntry {
  readonly kind: 'approval'
  readonly requestId: string
  readonly cluster: string
  readonly from: string
  /** `FOLDED` where the request joins one that is held already. */
  readonly to: string
  readonly actor: string
  readonly reason: string
  /** Set where a person speaks; from and to are equal where that alone changes no state. */
  readonly review?: {
    readonly verdict: 'approve' | 'deny' | 'revoke' | 'justified' | 'unjustified'
    /** The person's groups at that time. */
    readonly groups: readonly string[]
  }
}

/**
 * Something about the broker itself: it started, a sidecar registered its key, somebody signed in, read or exported the audit, policy changed
 * or could not, clusters changed, and what the broker read in a caller's name for a reviewer.
 */
export interface SystemEntry {
  readonly kind: 'system'
  readonly event:
    | 'broker_started'
    | 'sidecar_registered'
    | 'audit_read'
    | 'audit_exported'
    | 'login'
    | 'policy_loaded'
    | 'policy_rejected'
    | 'cluster_registered'
    | 'cluster_changed'
    | 'cluster_removed'
    | 'approval_preview'
    | 'credential_refused'
    | 'issuer_key_made'
    | 'issuer_key_replaced'
    | 'cluster_checked'
    | 'campaign_opened'
    | 'campaign_item_decided'
    | 'campaign_item_remediated'
    | 'campaign_signed_off'
    | 'campaign_cancelled'
    | 'ledger_key_made'
    | 'ledger_key_retired'
    | 'ledger_pruned'
    | 'personal_erased'
  readonly actor: string
  readonly detail: Readonly<Record<string, string | number>>
}

/** Any entry. */
export type Entry =
  IntentEntry | OutcomeEntry | RefusalEntry | ApprovalEntry | SessionEntry | SystemEntry
