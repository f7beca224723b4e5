/**
 * Request bodies, collected whole before anything is decided: the digest of an approval and the intent name
 * the body by its hash. The API server takes no more than 3 MiB either (apiserver, MaxRequestBodyBytes).
 */
import { createHash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'

/** Largest body of one request, in bytes. */
export const MAX_BODY_BYTES = 3 * 1024 * 1024

/** A body, and what it is known by. */
export interface CollectedBody {
  readonly bytes: Buffer
  readonly sha256: string
}

const NO_BYTES = Buffer.alloc(0)
const NOTHING: CollectedBody = {
  bytes: NO_BYTES,
  sha256: createHash('sha256').update(NO_BYTES).digest('hex'),
}

/** Whether a message announces a body (RFC 9112, section 6.3). */
function announcesBody(request: IncomingMessage): boolean {
  const length = request.headers['content-length']
  return (
    request.headers['transfer-encoding'] !== undefined || (length !== undefined && length !== '0')
  )
}

/**
 * Reads a request's body.
 *
 * @returns `body_too_large` as soon as that is clear
 * @throws the socket's error when the client leaves before the end
 */
export async function collectBody(request: IncomingMessage): Promise<CollectedBody | Refusal> {
  if (!announcesBody(request)) return NOTHING
  if (Number(request.headers['content-length'] ?? 0) > MAX_BODY_BYTES)
    return refuse('body_too_large')
  const chunks: Buffer[] = []
  let length = 0
  const stream: AsyncIterable<Buffer> = request
  for await (const chunk of stream) {
    length += chunk.length
    if (length > MAX_BODY_BYTES) return refuse('body_too_large')
    chunks.push(chunk)
  }
  const bytes = Buffer.concat(chunks, length)
  return { bytes, sha256: createHash('sha256').update(bytes).digest('hex') }
}
