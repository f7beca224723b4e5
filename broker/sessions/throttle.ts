/** Back-pressure between the sides of a session: a side is read only while all that its bytes go to have room. */
import { countPassed } from '../../shared/young-garbage.ts'
import type { Pausable } from './streams.ts'

/** Whoever takes bytes: undefined while it takes more, else settles when it does again. */
export type Room = () => Promise<void> | undefined

/** Copies of a piece that a recorded session makes outside the heap: as event, in its chunk, sealed, as the client's frame. */
const COPIES = 4

/**
 * Makes what is called after each piece that came from `source`, with its length in bytes. It stops reading while one of `rooms` is full; a room that is over counts as
 * empty, so that nobody waits for it.
 */
export function throttle(source: Pausable, rooms: readonly Room[]): (bytes: number) => void {
  let waiting = false
  const wait = (full: readonly Promise<void>[]): void => {
    waiting = true
    source.pause()
    void Promise.all(full).then(() => {
      const still = fullOf(rooms)
      if (still.length > 0) wait(still)
      else {
        waiting = false
        source.resume()
      }
    })
  }
  return (bytes) => {
    countPassed(bytes * COPIES)
    if (waiting) return
    const full = fullOf(rooms)
    if (full.length > 0) wait(full)
  }
}

function fullOf(rooms: readonly Room[]): readonly Promise<void>[] {
  return rooms.map((room) => room()).filter((room) => room !== undefined)
}
