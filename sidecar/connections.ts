/**
 * The open connections of all listeners, bounded in number altogether and for each user of the pod, so that none can
 * keep others out with connections that do nothing. Where there is no room, the one that has been without a request
 * longest makes it: all processes of a pod may have one user, and then nothing else tells them apart this early. A
 * connection with a request under way is never ended for another.
 */
import type { Socket } from 'node:net'

/** Most connections at one time, for each user that made the client's socket and altogether. */
export const MAX_CONNECTIONS_PER_UID = 512
export const MAX_CONNECTIONS = 1024

/** See the head of the file. */
export interface OpenConnections {
  /**
   * Takes one in until it closes.
   *
   * @param uid - who made the client's socket; where that is not known, only the limit on all counts
   * @returns false when there is no room, because requests are under way on all the others that count
   */
  admit(socket: Socket, uid: number | undefined): boolean
  /** A request on it begins. */
  begin(socket: Socket): void
  /** A request that began is over. */
  end(socket: Socket): void
  count(): number
  /** Ends those without a request under way, and from now on each other one after its request. */
  drain(): void
  /** Ends all. */
  destroy(): void
}

interface Entry {
  readonly uid: number | undefined
  underWay: number
}

/** None at first. */
export function createConnections(): OpenConnections {
  return new Connections()
}

class Connections implements OpenConnections {
  /** In the order in which they were last used: the first without a request under way has been so longest. */
  readonly #open = new Map<Socket, Entry>()
  readonly #byUid = new Map<number, number>()
  #draining = false

  admit(socket: Socket, uid: number | undefined): boolean {
    if (this.#countOf(uid) >= MAX_CONNECTIONS_PER_UID && !this.#makeRoom((other) => other === uid))
      return false
    if (this.#open.size >= MAX_CONNECTIONS && !this.#makeRoom(() => true)) return false
    this.#open.set(socket, { uid, underWay: 0 })
    this.#count(uid, 1)
    socket.once('close', () => {
      this.#forget(socket)
    })
    return true
  }

  begin(socket: Socket): void {
    const entry = this.#open.get(socket)
    if (entry !== undefined) entry.underWay += 1
  }

  end(socket: Socket): void {
    const entry = this.#open.get(socket)
    if (entry === undefined) return
    entry.underWay -= 1
    if (entry.underWay > 0) return
    this.#open.delete(socket)
    this.#open.set(socket, entry)
    if (this.#draining) socket.destroySoon()
  }

  count(): number {
    return this.#open.size
  }

  drain(): void {
    this.#draining = true
    for (const [socket, { underWay }] of this.#open) if (underWay === 0) socket.destroy()
  }

  destroy(): void {
    for (const socket of this.#open.keys()) socket.destroy()
  }

  /** Ends the connection that has been without a request longest, of those whose user counts. */
  #makeRoom(counts: (uid: number | undefined) => boolean): boolean {
    for (const [socket, { uid, underWay }] of this.#open) {
      if (underWay > 0 || !counts(uid)) continue
      this.#forget(socket)
      socket.destroy()
      return true
    }
    return false
  }

  /** At once, not when it has closed: the next may come before that. */
  #forget(socket: Socket): void {
    const entry = this.#open.get(socket)
    if (entry === undefined) return
    this.#open.delete(socket)
    this.#count(entry.uid, -1)
  }

  #countOf(uid: number | undefined): number {
    return uid === undefined ? 0 : (this.#byUid.get(uid) ?? 0)
  }

  #count(uid: number | undefined, change: 1 | -1): void {
    if (uid === undefined) return
    const count = this.#countOf(uid) + change
    if (count === 0) this.#byUid.delete(uid)
    else this.#byUid.set(uid, count)
  }
}
