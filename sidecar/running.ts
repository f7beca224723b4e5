/**
 * How many requests are under way: each may cost a connection to the broker, and a client can send one after another
 * without waiting for an answer.
 */
import type { Socket } from 'node:net'
import { refuse } from '../shared/reasons.ts'
import type { Refusal } from '../shared/reasons.ts'
import { createPlaces } from './places.ts'

/** Most at one time; the broker takes 128 of a pod. */
const MAX_RUNNING = 256
/** Most of one connection; HTTP/1.1 clients that send ahead send few. */
const MAX_RUNNING_PER_CONNECTION = 16
/** How many of one connection may be refused before it is cut off. */
const MAX_REFUSED_PER_CONNECTION = 16

/** See the head of the file. */
export interface Running {
  /** Lets a request in. @returns what ends it, to be called once, or the refusal `sidecar_busy` */
  begin(connection: Socket): (() => void) | Refusal
}

/** None at first. */
export function createRunning(): Running {
  const places = createPlaces<Socket>({ all: MAX_RUNNING, each: MAX_RUNNING_PER_CONNECTION })
  const refused = new WeakMap<Socket, number>()
  return {
    begin(connection): (() => void) | Refusal {
      const end = places.take(connection)
      if (end !== undefined) return end
      const count = (refused.get(connection) ?? 0) + 1
      refused.set(connection, count)
      // Refusals queue up behind the answers, until Node stops reading: then the client's leaving would go unseen.
      if (count > MAX_REFUSED_PER_CONNECTION) connection.destroy()
      return refuse('sidecar_busy', 'too many requests are under way')
    },
  }
}
