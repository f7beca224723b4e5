/** Long answers: what is written waits for the client to read, and a client who reads no more is cut off. */
import type { Response } from 'express'

/** How long a client may leave unread what it was sent, in milliseconds. */
export const STALL_MS = 60_000

/** Writes a part of the answer. @returns false where the client has left or was cut off: there is nobody to go on for */
export type Send = (part: string | Uint8Array) => Promise<boolean>

/** Makes it. Nothing beyond one part and the socket's own buffer is kept for a slow client. */
export function sender(response: Response, stallMs: number = STALL_MS): Send {
  return async (part) => {
    if (response.destroyed || response.writableEnded) return false
    if (response.write(part)) return true
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const drained = (): void => {
      resolve(true)
    }
    const closed = (): void => {
      resolve(false)
    }
    const timer = setTimeout(() => {
      response.destroy()
    }, stallMs)
    response.once('drain', drained).once('close', closed)
    const goesOn = await promise
    clearTimeout(timer)
    response.off('drain', drained).off('close', closed)
    return goesOn
  }
}

/** Whether the client has left; to be asked again after each wait. */
export function hasLeft(response: Response): boolean {
  return response.destroyed
}

/** Room for so many at once. */
export interface Places {
  /** Takes a place until the answer is closed. @returns false where all are taken */
  take(response: Response): boolean
}

/** Makes it. */
export function createPlaces(count: number): Places {
  let taken = 0
  return {
    take(response) {
      if (taken >= count) return false
      taken += 1
      response.once('close', () => {
        taken -= 1
      })
      return true
    },
  }
}
