/** Places of which there are so many in all, and so many for each holder. */
export interface Places<K> {
  /** @returns what gives the place back, to be called once; undefined where there is none */
  take(holder: K): (() => void) | undefined
}

/** All free at first. */
export function createPlaces<K>(limits: {
  readonly all: number
  readonly each: number
}): Places<K> {
  const taken = new Map<K, number>()
  let all = 0
  return {
    take(holder): (() => void) | undefined {
      const own = taken.get(holder) ?? 0
      if (all >= limits.all || own >= limits.each) return undefined
      all += 1
      taken.set(holder, own + 1)
      return () => {
        all -= 1
        const left = (taken.get(holder) ?? 1) - 1
        if (left === 0) taken.delete(holder)
        else taken.set(holder, left)
      }
    },
  }
}
