/**
 * What came of one attempt to send a request to the broker, and which answers are the broker's own word to the
 * sidecar rather than an answer for the client. An API server cannot speak in the broker's name: the broker removes
 * all `Nestgate-` headers from what it passes on and sets its own.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { isRecord } from '../shared/config-source.ts'
import { HELD_HEADER, REFUSED_HEADER } from '../shared/headers.ts'
import { isRequestId } from '../shared/request-id.ts'

/** The broker's own word, in full. */
export interface Word {
  readonly kind: 'word'
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

/** See the head of the file. */
export type Outcome =
  /** The client has its answer, whole. */
  | { readonly kind: 'done' }
  /** The client left, or its connection broke while the answer was on its way. */
  | { readonly kind: 'left' }
  | Word
  /** No answer came. `sent`: whether the broker may have got the request. */
  | { readonly kind: 'failed'; readonly sent: boolean; readonly code: string | undefined }

/** Whether an answer is (or may be) for the sidecar: then it is read in full and understood before anything is passed on. */
export function isBrokersWord(status: number, headers: IncomingHttpHeaders): boolean {
  return (
    (status === 202 && headers[HELD_HEADER] !== undefined) ||
    (status === 401 && headers[REFUSED_HEADER] !== undefined)
  )
}

/** The id under which a request is held, or undefined when it is not. */
export function heldId({ status, headers }: Word): string | undefined {
  const id = headers[HELD_HEADER]
  return status === 202 && typeof id === 'string' && isRequestId(id) ? id : undefined
}

/** How long the broker wants a held request to be waited for, in seconds; undefined where it does not say. */
export function holdSecondsOf({ body }: Word): number | undefined {
  const value = parseJson(body.toString('utf8'))
  const seconds = isRecord(value) ? value['holdSeconds'] : undefined
  return typeof seconds === 'number' && seconds >= 0 ? seconds : undefined
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Whether the broker does not know this sidecar's key, which means that nothing was forwarded. */
export function isKeyUnknown({ status, headers }: Word): boolean {
  return status === 401 && headers[REFUSED_HEADER] === 'sidecar_key_unknown'
}
