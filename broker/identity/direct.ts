/** Clients that call the broker themselves, with their own OIDC token; and the tokens that agents send along with a request. */
import type { IncomingHttpHeaders } from 'node:http'
import { bearerToken, countHeader, SUBJECT_TOKEN_HEADER } from '../../shared/headers.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { OidcIssuers, VerifiedSubject } from './oidc.ts'

/** A message's headers, as Node parsed them and as they came. */
interface Message {
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
}

/** See the head of the file. */
export interface DirectClients {
  /** Whether a message carries a token that says that it is by a configured issuer; nothing is verified yet. */
  handles(message: Message): boolean
  /** The subject of the message's own token. */
  authenticate(message: Message): Promise<VerifiedSubject | Refusal>
  /** The subject of the token that an agent sent along: the caller must have found that header. One that is no good refuses the request. */
  subjectOf(message: Message): Promise<VerifiedSubject | Refusal>
}

/** @param oidc - the configured issuers */
export function createDirectClients(oidc: OidcIssuers): DirectClients {
  return {
    handles({ headers }) {
      const token = bearerToken(headers)
      return token !== undefined && oidc.handles(token)
    },
    async authenticate({ headers, rawHeaders }) {
      if (countHeader(rawHeaders, 'authorization') > 1)
        return refuse('header_invalid', 'there is more than one Authorization header')
      const token = bearerToken(headers)
      return token === undefined ? refuse('credentials_missing') : oidc.verify(token)
    },
    async subjectOf({ headers, rawHeaders }) {
      const token = headers[SUBJECT_TOKEN_HEADER]
      if (typeof token !== 'string' || countHeader(rawHeaders, SUBJECT_TOKEN_HEADER) !== 1)
        return refuse('header_invalid', 'there is more than one subject token')
      const subject = await oidc.verify(token)
      // or an agent would look for the fault in its sidecar's token
      return isRefusal(subject) && subject.refused === 'credentials_invalid'
        ? refuse('credentials_invalid', 'the token that the agent sent along')
        : subject
    },
  }
}
