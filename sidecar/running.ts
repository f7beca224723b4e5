/**
 * How many requests are under way: each may cost a connection to the broker, and a client can send one after another
 * without waiting for an answer.
 */
import type { Socket } from 'node:net'
import { refuse } from '../shared/reasons.ts'
import type { Refusal } from '../shared/reasons.ts'

/** Most at one time; the broker takes 128 of a pod. */
const MAX_RUNNING = 256
/** Most of one connection; HTTP/1.1 clients that send ahead send few. */
const MAX_RUNNING_PER_CONNECTION = 16

/** See the head of the file. */
export interface Running {
  /**
   * Lets a request in. A connection with too many is cut off.
   *
   * @returns what ends it, to be called once, or the refusal `sidecar_busy`
   */
  begin(connection: Socket): (() => void) | Refusal
}

/** None at first. */
export function createRunning(
  limits = { all: MAX_RUNNING, perConnection: MAX_RUNNING_PER_CONNECTION },
): Running {
  const byConnection = new WeakMap<Socket, number>()
  let all = 0
  return {
    begin(connection): (() => void) | Refusal {
      const own = byConnection.get(connection) ?? 0
      // Refusals would queue up behind the answers, and Node then stops reading: the client's leaving would go unseen.
      if (own >= limits.perConnection) connection.destroy()
      if (own >= limits.perConnection || all >= limits.all)
        return refuse('sidecar_busy', 'too many requests are under way')
      all += 1
      byConnection.set(connection, own + 1)
      return () => {
        all -= 1
        byConnection.set(connection, (byConnection.get(connection) ?? 1) - 1)
      }
    },
  }
}
