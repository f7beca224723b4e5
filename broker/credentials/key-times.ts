/** When a signing key is published, signs and is over: told by the age of the keys alone, wherever they are kept. */

/** How long a key is published before it signs, and after its successor signs, in milliseconds: above what caches of key sets keep. */
export const OVERLAP_MS = 3_600_000

/** A key, without what it signs with. */
export interface AgedKey {
  /** RFC 7638 thumbprint of the public key. */
  readonly kid: string
  /** Milliseconds since the epoch. */
  readonly createdMs: number
}

/** What a key is now: `publishes` does not sign yet, `retires` does not any more. */
export interface KeyStatus extends AgedKey {
  readonly state: 'publishes' | 'signs' | 'retires'
  /** Since when, at the latest; milliseconds since the epoch. */
  readonly sinceMs: number
}

/** The key that signs: the newest that has been published for long enough; of keys that are all new, the first. @param keys - the newest first */
export function signingKey<T extends AgedKey>(keys: readonly T[], nowMs: number): T | undefined {
  return keys.find(({ createdMs }) => createdMs + OVERLAP_MS <= nowMs) ?? keys.at(-1)
}

/** How many of the keys are not over: one is when its successor has signed for as long as that was published before. @param keys - the newest first */
export function notOver(keys: readonly AgedKey[], nowMs: number): number {
  const settled = keys.findIndex(({ createdMs }) => createdMs + 2 * OVERLAP_MS <= nowMs)
  return settled === -1 ? keys.length : settled + 1
}

/** What each key is. @param keys - the newest first @param signs - the one that signs */
export function keyStates(
  keys: readonly AgedKey[],
  signs: string,
  nowMs: number,
): readonly KeyStatus[] {
  const at = keys.findIndex(({ kid }) => kid === signs)
  const ready = (createdMs: number): number =>
    createdMs + OVERLAP_MS <= nowMs ? createdMs + OVERLAP_MS : createdMs
  return keys.map(({ kid, createdMs }, index) => {
    if (index < at) return { kid, createdMs, state: 'publishes', sinceMs: createdMs }
    if (index === at) return { kid, createdMs, state: 'signs', sinceMs: ready(createdMs) }
    const successor = keys[index - 1]?.createdMs ?? createdMs
    return { kid, createdMs, state: 'retires', sinceMs: ready(successor) }
  })
}
