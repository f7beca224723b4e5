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
/** All bodies held at once, in bytes. */
export const MAX_BODIES_BYTES = 96 * 1024 * 1024

/** A body, and what it is known by. */
export interface CollectedBody {
  readonly bytes: Buffer
  readonly sha256: string
}

/** Collects bodies within a common limit. */
export interface Bodies {
  /**
   * Reads a request's body, and keeps it counted until `use` has settled.
   *
   * Hands it `body_too_large` or `broker_busy` instead, as soon as that is clear.
   *
   * @throws the socket's error when the client leaves before the end
   */
  with(
    request: IncomingMessage,
    use: (body: CollectedBody | Refusal) => Promise<void>,
  ): Promise<void>
}

const NO_BYTES = Buffer.alloc(0)
const NOTHING: CollectedBody = {
  bytes: NO_BYTES,
  sha256: createHash('sha256').update(NO_BYTES).digest('hex'),
}

/** Whether a message announces a body (RFC 9112, section 6.3). */
export function announcesBody(request: IncomingMessage): boolean {
  const length = request.headers['content-length']
  return (
    request.headers['transfer-encoding'] !== undefined || (length !== undefined && length !== '0')
  )
}

/** @param limitBytes - of all bodies at once */
export function createBodies(limitBytes: number): Bodies {
  let held = 0
  return {
    async with(request, use) {
      if (!announcesBody(request)) {
        await use(NOTHING)
        return
      }
      let own = 0
      try {
        const chunks: Buffer[] = []
        if (Number(request.headers['content-length'] ?? 0) > MAX_BODY_BYTES) {
          await use(refuse('body_too_large'))
          return
        }
        const stream: AsyncIterable<Buffer> = request
        for await (const chunk of stream) {
          own += chunk.length
          held += chunk.length
          const full = own > MAX_BODY_BYTES ? refuse('body_too_large') : busy(held > limitBytes)
          if (full !== undefined) {
            await use(full)
            return
          }
          chunks.push(chunk)
        }
        const bytes = Buffer.concat(chunks, own)
        await use({ bytes, sha256: createHash('sha256').update(bytes).digest('hex') })
      } finally {
        held -= own
      }
    },
  }
}

function busy(isFull: boolean): Refusal | undefined {
  return isFull ? refuse('broker_busy', 'too many request bodies') : undefined
}
