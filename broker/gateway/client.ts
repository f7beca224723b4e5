/**
 * The client's side of a request, the same for an ordinary request and for a protocol upgrade: what was sent,
 * and the one way to answer. Exactly one answer is written; a second one is a fault of ours.
 */
import { STATUS_CODES } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { HELD_HEADER, REFUSED_HEADER, REQUEST_ID_HEADER } from '../../shared/headers.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { statusAnswer } from '../../shared/status.ts'
import type { Answer } from '../../shared/status.ts'
import { endSocket, responseHead } from '../../shared/upgrade.ts'
import type { HeldRequest } from '../../shared/wire.ts'

/** What a client is answered through. */
export type Channel =
  | { readonly kind: 'response'; readonly response: ServerResponse }
  | { readonly kind: 'socket'; readonly socket: Duplex }

/** A request and the channel for its answer. */
export interface Client {
  readonly request: IncomingMessage
  readonly channel: Channel
}

/** When a client whose request waits for a person may ask again, in seconds. */
const PENDING_RETRY_S = '30'

/** Says no, as a `Status` object. @returns the HTTP status */
export function answerRefusal(client: Client, refusal: Refusal, requestId: string): number {
  const answer = statusAnswer(refusal, requestId)
  write(client.channel, answer, {
    [REQUEST_ID_HEADER]: requestId,
    [REFUSED_HEADER]: refusal.refused,
    ...(refusal.refused === 'approval_pending' ? { 'retry-after': PENDING_RETRY_S } : {}),
  })
  return answer.status
}

/** Tells a sidecar that the request waits for a person. */
export function answerHeld(client: Client, held: HeldRequest): number {
  const answer = { status: 202, contentType: 'application/json', body: JSON.stringify(held) }
  write(client.channel, answer, { [REQUEST_ID_HEADER]: held.id, [HELD_HEADER]: held.id })
  return answer.status
}

function write(channel: Channel, answer: Answer, extra: Record<string, string>): void {
  const headers = {
    'content-type': answer.contentType,
    'content-length': String(Buffer.byteLength(answer.body)),
    'cache-control': 'no-store',
    ...extra,
  }
  if (channel.kind === 'response') {
    channel.response.writeHead(answer.status, headers)
    channel.response.end(answer.body)
    return
  }
  const head = responseHead(answer.status, STATUS_CODES[answer.status] ?? '', {
    ...headers,
    connection: 'close',
  })
  channel.socket.on('error', () => channel.socket.destroy())
  endSocket(channel.socket, head + answer.body)
}
