/**
 * The arithmetic of the ledger's tree, RFC 6962 section 2.1: SHA-256, leaves hashed with a first byte of 0, nodes
 * with 1. Sizes and indexes are numbers up to 2^53 - 1. Hashes are 32 bytes; whoever passes another length, or an
 * index outside the tree, to a function that makes something, has made a mistake and gets a `RangeError`. What
 * verifies takes anything and answers false.
 *
 * Subtrees are named as golang.org/x/mod/sumdb/tlog names stored hashes: the complete one of `2^level` leaves that
 * begins at leaf `index * 2^level`.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { stepsToEdge, stepsToLeaf, subtreesOf, type Step, type Subtree } from './paths.ts'

/** Bytes of a hash. */
export const HASH_BYTES = 32

/** Hashes of a full tile, entries of a full bundle (C2SP tlog-tiles). */
export const TILE_WIDTH = 256

const LEAF_PREFIX = Uint8Array.of(0)
const NODE_PREFIX = Uint8Array.of(1)

/** Root of the tree without leaves. */
export const EMPTY_ROOT: Uint8Array = createHash('sha256').digest()

/** Hash of an entry's verbatim bytes. */
export function leafHash(entry: Uint8Array): Uint8Array {
  return createHash('sha256').update(LEAF_PREFIX).update(entry).digest()
}

/** Hash of a node over its two children. */
export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  return createHash('sha256').update(NODE_PREFIX).update(left).update(right).digest()
}

/** Whether two hashes are the same. */
export function sameHash(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b)
}

/**
 * The right edge of a tree: the hashes of its complete subtrees, largest (leftmost) first, one for each bit of
 * `size` that is set. It is all that is needed to append and to know the root.
 */
export interface CompactRange {
  readonly size: number
  readonly hashes: readonly Uint8Array[]
}

/** The range of the tree without leaves. */
export const EMPTY_RANGE: CompactRange = { size: 0, hashes: [] }

/** The range after these leaf hashes were appended, in order. The given range is not changed. */
export function appendHashes(range: CompactRange, leaves: Iterable<Uint8Array>): CompactRange {
  const hashes = [...range.hashes]
  let size = range.size
  for (const leaf of leaves) {
    mustBeHash(leaf)
    let joined = leaf
    for (let rest = size; rest % 2 === 1; rest = (rest - 1) / 2) {
      const left = hashes.pop()
      if (left === undefined) throw new RangeError('a compact range that does not fit its size')
      joined = nodeHash(left, joined)
    }
    hashes.push(joined)
    size += 1
  }
  mustBeSize(size)
  return { size, hashes }
}

/** Root of the tree that has this right edge. */
export function rangeRoot(range: CompactRange): Uint8Array {
  return foldRight(range.hashes)
}

/** The range's hashes one after the other, largest subtree first. */
export function encodeRange(range: CompactRange): Uint8Array {
  return Buffer.concat(range.hashes)
}

/** The range of `size` leaves from what `encodeRange` wrote; undefined when the length does not fit the size. */
export function decodeRange(size: number, bytes: Uint8Array): CompactRange | undefined {
  if (!isSize(size) || bytes.length !== subtreesOf(0, size).length * HASH_BYTES) return undefined
  const hashes: Uint8Array[] = []
  for (let at = 0; at < bytes.length; at += HASH_BYTES)
    hashes.push(bytes.slice(at, at + HASH_BYTES))
  return { size, hashes }
}

/** Reads the hash of a complete subtree; rejects when it has none, or cannot. May be called many times at once. */
export type HashReader = (level: number, index: number) => Promise<Uint8Array>

/** The right edge of the tree of the first `size` leaves; reads one hash for each subtree of it. */
export async function readRange(size: number, read: HashReader): Promise<CompactRange> {
  mustBeSize(size)
  return { size, hashes: await readAll(subtreesOf(0, size), read) }
}

/**
 * Makes the proof that leaf `index` is in the tree of the first `size` leaves: the hashes from the leaf's sibling
 * up to the root's child (RFC 6962, 2.1.1).
 */
export async function makeInclusionProof(
  index: number,
  size: number,
  read: HashReader,
): Promise<Uint8Array[]> {
  if (!isSize(size) || !isSize(index) || index >= size) {
    throw new RangeError(`no leaf ${String(index)} in a tree of ${String(size)}`)
  }
  return readParts(stepsToLeaf(index, size), read)
}

/**
 * Makes the proof that the tree of `newSize` leaves begins with that of `oldSize` (RFC 6962, 2.1.2); empty for
 * equal sizes. There is none from size 0: every tree begins with the empty one, and who asks has nothing to verify.
 */
export async function makeConsistencyProof(
  oldSize: number,
  newSize: number,
  read: HashReader,
): Promise<Uint8Array[]> {
  if (!isStretch(oldSize, newSize)) {
    throw new RangeError(`no consistency proof from ${String(oldSize)} to ${String(newSize)}`)
  }
  const { steps, start } = stepsToEdge(oldSize, newSize)
  return readParts(start === undefined ? steps : [...steps, { ...start, left: false }], read)
}

/** Whether the proof shows that the leaf with this hash is number `index` of the tree of `size` leaves with this root. */
export function verifyInclusion(
  index: number,
  size: number,
  leaf: Uint8Array,
  proof: readonly Uint8Array[],
  root: Uint8Array,
): boolean {
  if (!isSize(size) || !isSize(index) || index >= size) return false
  if (![leaf, ...proof].every(isHash)) return false
  const steps = stepsToLeaf(index, size).reverse()
  if (steps.length !== proof.length) return false
  let hash = leaf
  for (const [at, sibling] of proof.entries()) {
    hash = steps[at]?.left === true ? nodeHash(sibling, hash) : nodeHash(hash, sibling)
  }
  return sameHash(hash, root)
}

/**
 * Whether the proof shows that the tree with the new root begins with the tree that has the old one. An old size
 * of 0 answers false, with any proof: nothing is shown about a tree without leaves. A caller who knows nothing yet
 * handles that case itself.
 */
export function verifyConsistency(
  oldSize: number,
  newSize: number,
  proof: readonly Uint8Array[],
  oldRoot: Uint8Array,
  newRoot: Uint8Array,
): boolean {
  if (!isStretch(oldSize, newSize)) return false
  if (oldSize === newSize) return proof.length === 0 && sameHash(oldRoot, newRoot)
  const { steps, start } = stepsToEdge(oldSize, newSize)
  const [first, ...siblings] = start === undefined ? [oldRoot, ...proof] : proof
  if (first === undefined || siblings.length !== steps.length) return false
  if (![first, ...siblings].every(isHash)) return false
  const [older, newer] = climb(first, siblings, steps.reverse())
  return sameHash(older, oldRoot) && sameHash(newer, newRoot)
}

/** The roots of the old and of the new tree, from the subtree at the old one's edge upwards. */
function climb(
  start: Uint8Array,
  siblings: readonly Uint8Array[],
  steps: readonly Step[],
): [older: Uint8Array, newer: Uint8Array] {
  let [older, newer] = [start, start]
  for (const [at, sibling] of siblings.entries()) {
    const left = steps[at]?.left === true
    if (left) older = nodeHash(sibling, older)
    newer = left ? nodeHash(sibling, newer) : nodeHash(newer, sibling)
  }
  return [older, newer]
}

async function readParts(steps: readonly Step[], read: HashReader): Promise<Uint8Array[]> {
  const parts = [...steps]
    .reverse()
    .map(async ({ from, to }) => foldRight(await readAll(subtreesOf(from, to), read)))
  return Promise.all(parts)
}

async function readAll(subtrees: readonly Subtree[], read: HashReader): Promise<Uint8Array[]> {
  const hashes = await Promise.all(subtrees.map(({ level, index }) => read(level, index)))
  hashes.forEach(mustBeHash)
  return hashes
}

function foldRight(hashes: readonly Uint8Array[]): Uint8Array {
  return hashes.length === 0
    ? EMPTY_ROOT
    : hashes.reduceRight((right, left) => nodeHash(left, right))
}

function isSize(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0
}

function isStretch(oldSize: number, newSize: number): boolean {
  return isSize(oldSize) && isSize(newSize) && oldSize > 0 && oldSize <= newSize
}

function isHash(value: Uint8Array): boolean {
  return value.length === HASH_BYTES
}

function mustBeSize(value: number): void {
  if (!isSize(value)) throw new RangeError(`no size of a tree: ${String(value)}`)
}

function mustBeHash(value: Uint8Array): void {
  if (!isHash(value)) throw new RangeError(`a hash of ${String(value.length)} bytes`)
}
