/**
 * How long requests wait for a broker that cannot be reached: together, from the moment it was noticed, so that a restart
 * costs nobody a request and a long outage is told at once to whoever comes later.
 */

/** See the head of the file. */
export interface Outage {
  /** The broker did not answer. @returns until when to try again, in milliseconds of the clock given */
  noticed(): number
  /** It answered. */
  over(): void
}

/**
 * None at first.
 *
 * @param limitMs - how long it is waited for
 * @param now - milliseconds, monotonic
 */
export function createOutage(limitMs: number, now: () => number): Outage {
  let since: number | undefined
  return {
    noticed(): number {
      since ??= now()
      return since + limitMs
    },
    over(): void {
      since = undefined
    },
  }
}
