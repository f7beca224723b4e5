/**
 * Request bodies, collected whole before anything is forwarded: a held request is sent again unchanged, and a broker
 * that restarted is asked twice. All bodies together are bounded, so clients cannot fill the sidecar's memory.
 */
import type { IncomingMessage } from 'node:http'
import { refuse } from '../shared/reasons.ts'
import type { Refusal } from '../shared/reasons.ts'

/** Largest body, in bytes: the API server's own limit. */
export const MAX_BODY_BYTES = 3 * 1024 * 1024
/** All bodies being held at one time, in bytes. */
export const MAX_ALL_BODIES_BYTES = 24 * 1024 * 1024
/** How much of a refused body is read and dropped so that the client gets to read the refusal, in bytes. */
const MAX_DROPPED_BYTES = 32 * 1024 * 1024

/** A collected body. */
export interface Body {
  readonly bytes: Buffer
  /** Gives its share of the memory back; once, when it is not needed any more. */
  release(): void
}

/** Collects bodies under one common limit. */
export interface Bodies {
  /**
   * The whole body of a request, empty where it has none.
   *
   * @returns the body, or a refusal `body_too_large` or `sidecar_busy`, then with nothing kept
   * @throws when the client leaves in the middle
   */
  collect(request: IncomingMessage): Promise<Body | Refusal>
}

/** See {@link Bodies}. */
export function createBodies(limits = { one: MAX_BODY_BYTES, all: MAX_ALL_BODIES_BYTES }): Bodies {
  let held = 0
  return {
    async collect(request): Promise<Body | Refusal> {
      const chunks: Buffer[] = []
      let size = 0
      let refusal: Refusal | undefined
      let kept = 0
      const release = (): void => {
        held -= kept
        kept = 0
      }
      try {
        for await (const chunk of request) {
          if (!Buffer.isBuffer(chunk)) continue
          size += chunk.length
          refusal ??= problemOf(size, held + chunk.length, limits)
          if (refusal === undefined) {
            chunks.push(chunk)
            held += chunk.length
            kept += chunk.length
          } else {
            release()
            chunks.length = 0
            if (size > MAX_DROPPED_BYTES) break
          }
        }
      } catch (error) {
        release()
        throw error
      }
      return refusal ?? { bytes: Buffer.concat(chunks), release }
    },
  }
}

function problemOf(
  size: number,
  together: number,
  limits: { readonly one: number; readonly all: number },
): Refusal | undefined {
  if (size > limits.one) return refuse('body_too_large', `more than ${limits.one} bytes`)
  if (together > limits.all) return refuse('sidecar_busy', 'too many request bodies at once')
  return undefined
}
