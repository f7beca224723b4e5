/** Which parts of a tree make up a proof (RFC 6962, 2.1.1 and 2.1.2): numbers only, no hashes. */

/** A complete subtree: `2^level` leaves from leaf `index * 2^level`. */
export interface Subtree {
  readonly level: number
  readonly index: number
}

/** A run of leaves `[from, to)` whose root is one hash of a proof, and on which side of the path it is. */
export interface Step {
  readonly from: number
  readonly to: number
  readonly left: boolean
}

/** The siblings passed from the root down to a leaf. */
export function stepsToLeaf(index: number, size: number): Step[] {
  const steps: Step[] = []
  let [from, to] = [0, size]
  while (to - from > 1) {
    const middle = from + largestPowerBelow(to - from)
    const left = index >= middle
    steps.push(left ? { from, to: middle, left } : { from: middle, to, left })
    if (left) from = middle
    else to = middle
  }
  return steps
}

/**
 * The siblings passed from the root down to the subtree that ends where the old tree ended. `start` is that subtree,
 * absent where it is the whole old tree, whose root the verifier has.
 */
export function stepsToEdge(
  oldSize: number,
  newSize: number,
): { steps: Step[]; start: { from: number; to: number } | undefined } {
  const steps: Step[] = []
  let [from, to] = [0, newSize]
  while (to !== oldSize) {
    const middle = from + largestPowerBelow(to - from)
    const left = oldSize > middle
    steps.push(left ? { from, to: middle, left } : { from: middle, to, left })
    if (left) from = middle
    else to = middle
  }
  return { steps, start: from === 0 ? undefined : { from, to } }
}

/** The complete subtrees of a run of leaves, largest first; `from` is a multiple of the largest. */
export function subtreesOf(from: number, to: number): Subtree[] {
  const subtrees: Subtree[] = []
  let at = from
  for (let level = Math.floor(Math.log2(to - from + 1)) + 1; level >= 0; level -= 1) {
    const width = 2 ** level
    if (at + width > to) continue
    subtrees.push({ level, index: at / width })
    at += width
  }
  return subtrees
}

/** The largest power of two that is smaller than `count`, which is at least 2. */
function largestPowerBelow(count: number): number {
  let power = 1
  while (power * 2 < count) power *= 2
  return power
}
