/**
 * What a request goes upstream with. Made for one request, after its caller was identified and the request decided on;
 * docs/decisions/0006-credentials.md. Whoever forwards needs one: there is no way to an API server without.
 */
import { Fault } from '../../shared/errors.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { Actor } from './actor.ts'
import type { ApiCall } from './api-call.ts'

/** How a cluster's credentials are made. */
export type CredentialMode = 'impersonation' | 'issuer'

/** Headers that authenticate a request. */
export type CredentialHeaders = Readonly<Record<string, string | string[]>>

/** What a credential is made for. */
export interface CredentialNeed {
  /** A fresh one: no two credentials have the same. */
  readonly requestId: string
  readonly actor: Actor
  readonly grantGroups: readonly string[]
  /** Name of the calling process; undefined for a direct client. */
  readonly process: string | undefined
  /** Who approved; empty where nobody had to. */
  readonly approvers: readonly string[]
  readonly call: ApiCall
}

/** The credential of one request. */
export interface RequestCredential {
  readonly headers: CredentialHeaders
  /** The user that acts, as the cluster's audit log names it. */
  readonly user: string
  /** To be called when the answer has begun, or will not: from then on the credential is good for nothing. Any number of times. */
  readonly over: () => void
}

/** The credentials of one cluster. */
export interface ClusterCredential {
  readonly mode: CredentialMode
  /** For what the broker itself must know: discovery, keys, token and access reviews, pods. Rejects when there is none. */
  own(): Promise<CredentialHeaders>
  /** Rejects with a Fault: `identity_empty`, also for a malformed one, or `credential_unavailable` ({@link credentialRefusal}). */
  make(need: CredentialNeed): Promise<RequestCredential>
}

/** The refusal of a request whose credential cannot be made because a key service or a file fails; undefined for any other fault. */
export function credentialRefusal(error: unknown): Refusal | undefined {
  return error instanceof Fault && error.code === 'credential_unavailable'
    ? refuse('credential_unavailable')
    : undefined
}
