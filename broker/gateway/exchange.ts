/** A request on its way through the gateway: what is known of it at each step. */
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import type { Decision } from '../../shared/policy/decision.ts'
import type { ClusterConnection } from '../credentials/connection.ts'
import type { CollectedBody } from './body.ts'
import type { Client } from './client.ts'
import type { ParsedRequest } from './parse.ts'
import type { Requester } from './requester.ts'

/** Known as soon as the caller is. */
export interface Identified {
  readonly requestId: string
  /** Milliseconds since the epoch. */
  readonly startedMs: number
  readonly client: Client
  readonly cluster: ClusterConnection
  readonly requester: Requester
  readonly parsed: ParsedRequest
}

/** Known once it was decided on. */
export interface Exchange extends Identified {
  readonly body: CollectedBody
  readonly attributes: RequestAttributes
  readonly decision: Decision
}
