/**
 * Large bodies are read a few at a time: what a hundred pods of 3 MiB weigh together is more than this process may have. Those that
 * wait are in the sockets' buffers. Small ones, as nearly all pods are, never wait.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'

/** Largest body that is read at once, in bytes; 256 connections with one each come to 64 MiB at most. */
export const SMALL_BYTES = 256 * 1024
/** Most larger ones that are in memory at the same time. */
export const MAX_LARGE = 6

/** Holds up a large body, or one of no said length, until there is room for it; its room is free again when its answer is out. */
export function limitLargeBodies(): (
  request: IncomingMessage,
  response: ServerResponse,
  next: () => void,
) => void {
  let held = 0
  const waiting: (() => void)[] = []
  return (request, response, next) => {
    const length = Number(request.headers['content-length'] ?? Infinity)
    if (length <= SMALL_BYTES) {
      next()
      return
    }
    const begin = (): void => {
      // Its client did not wait as long.
      if (response.destroyed) {
        waiting.shift()?.()
        return
      }
      held += 1
      response.once('close', () => {
        held -= 1
        waiting.shift()?.()
      })
      next()
    }
    if (held < MAX_LARGE) begin()
    else waiting.push(begin)
  }
}
