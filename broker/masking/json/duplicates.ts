/** Finds keys that stand twice in one object, by what their bytes hash to; collisions that are made on purpose refuse an answer, no more. */
import { unmaskable } from './reader.ts'

/** More keys than these are looked up in a set. */
const FEW = 24
/** How many keys there is room for at first. */
const FIRST_SIZE = 128

/** The keys of all objects that are open, one behind the other. */
export class DuplicateKeys {
  #hashes = new Int32Array(FIRST_SIZE)
  #checks = new Int32Array(FIRST_SIZE)
  /** By depth, of which 0 has none: where its keys begin, how many there are, which of 32 classes of hashes occur. */
  readonly #begins: number[] = [0]
  readonly #counts: number[] = [0]
  readonly #classes: number[] = [0]
  readonly #sets: (Set<number> | undefined)[] = []

  /** A container begins; what was at this depth before is over. An array has no keys. */
  open(depth: number): void {
    const outer = depth - 1
    this.#begins[depth] = (this.#begins[outer] ?? 0) + Math.min(this.#counts[outer] ?? 0, FEW)
    this.#counts[depth] = 0
    this.#classes[depth] = 0
    this.#sets[depth] = undefined
  }

  /** Adds a key of the innermost object. @returns its FNV-1a hash @throws Fault `answer_unmaskable` where it is there already */
  add(depth: number, bytes: Buffer, start: number, end: number): number {
    let hash = 0x811c9dc5 | 0
    for (let at = start; at < end; at++) hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x01000193)
    // of two keys of one hash, the length or a second hash of the last bytes differs nearly always
    let check = end - start
    for (let at = Math.max(start, end - 4); at < end; at++)
      check = (Math.imul(check, 31) + (bytes[at] ?? 0)) | 0
    const count = this.#counts[depth] ?? 0
    this.#counts[depth] = count + 1
    if (count >= FEW) this.#addMany(depth, hash, check)
    else this.#addFew(depth, count, hash, check)
    return hash
  }

  #addFew(depth: number, count: number, hash: number, check: number): void {
    const begin = this.#begins[depth] ?? 0
    const at = begin + count
    if (at >= this.#hashes.length) this.#grow()
    const bit = 1 << (hash & 31)
    const classes = this.#classes[depth] ?? 0
    if ((classes & bit) !== 0) {
      for (let each = begin; each < at; each++)
        if (this.#hashes[each] === hash && this.#checks[each] === check) throw duplicate()
    }
    this.#classes[depth] = classes | bit
    this.#hashes[at] = hash
    this.#checks[at] = check
  }

  #addMany(depth: number, hash: number, check: number): void {
    let set = this.#sets[depth]
    if (set === undefined) {
      set = new Set()
      const begin = this.#begins[depth] ?? 0
      for (let each = begin; each < begin + FEW; each++)
        set.add(joined(this.#hashes[each] ?? 0, this.#checks[each] ?? 0))
      this.#sets[depth] = set
    }
    const { size } = set
    set.add(joined(hash, check))
    if (set.size === size) throw duplicate()
  }

  #grow(): void {
    const hashes = new Int32Array(this.#hashes.length * 2)
    hashes.set(this.#hashes)
    this.#hashes = hashes
    const checks = new Int32Array(this.#checks.length * 2)
    checks.set(this.#checks)
    this.#checks = checks
  }
}

/** 32 bits of the hash and 20 of the check: a safe integer. */
function joined(hash: number, check: number): number {
  return (hash >>> 0) * 0x100000 + ((check ^ (check >>> 12)) & 0xfffff)
}

function duplicate(): Error {
  return unmaskable('an object has a key twice')
}
