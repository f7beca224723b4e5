/**
 * Finds the rules that may match a request without looking at the others. A set of bits, one for each rule, is narrowed
 * down by one dimension after the other: for every word of the policy the index holds the rules that name it, and for
 * every dimension those that say nothing about it. Words with stars are left to be tested on what remains.
 */
import { DIMENSIONS } from './matching.ts'
import type { CompiledRule, Dimension } from './matching.ts'
import type { View } from './views.ts'
import type { Facts } from './facts.ts'

/** One bit for each rule. */
export type Bits = Uint32Array

/** Rules of one word are a list up to this many, then bits of their own. */
const MAX_LISTED = 24

type RulesOfWord = readonly number[] | Bits

interface DimensionIndex {
  readonly dimension: Dimension
  /** Rules that say nothing about the dimension, or something with a star. */
  readonly open: Bits
  readonly byWord: ReadonlyMap<string, RulesOfWord>
}

/** See the head of the file. */
export interface RuleIndex {
  /** Leaves in `bits` the rules that may match by what is the same for all views of a request. */
  narrowByCaller(bits: Bits, view: View, facts: Facts): void
  /** Leaves in `bits` the rules that may match by what the view asks for. */
  narrowByRequest(bits: Bits, view: View, facts: Facts): void
}

/** Builds the index; work and memory grow with the words of the rules. */
export function createRuleIndex(rules: readonly CompiledRule[]): RuleIndex {
  const used = DIMENSIONS.filter(({ key }) =>
    rules.some(({ rule }) => rule.match[key] !== undefined),
  ).map((dimension) => indexDimension(dimension, rules))
  const shared = used.filter(({ dimension }) => dimension.shared)
  const own = used.filter(({ dimension }) => !dimension.shared)
  const scratch = emptyBits(rules.length)
  return {
    narrowByCaller(bits, view, facts) {
      for (const index of shared) narrow(bits, index, index.dimension.values(view, facts), scratch)
    },
    narrowByRequest(bits, view, facts) {
      for (const index of own) {
        const { key } = index.dimension
        if (key === 'resourceNames' && view.anyName) continue
        if (key === 'namespaces' && view.anyNamespace) continue
        narrow(bits, index, index.dimension.values(view, facts), scratch)
      }
    },
  }
}

/** No rule at all. */
export function emptyBits(rules: number): Bits {
  return new Uint32Array(Math.ceil(rules / 32))
}

/** Adds a rule. */
export function setBit(bits: Bits, rule: number): void {
  bits[rule >>> 5] = (bits[rule >>> 5] ?? 0) | (1 << (rule & 31))
}

/** Calls back for each rule in the set, in order. */
export function forEachBit(bits: Bits, work: (rule: number) => void): void {
  for (let at = 0; at < bits.length; at += 1) {
    let word = bits[at] ?? 0
    while (word !== 0) {
      const lowest = word & -word
      work(at * 32 + (31 - Math.clz32(lowest)))
      word ^= lowest
    }
  }
}

function narrow(
  bits: Bits,
  { open, byWord }: DimensionIndex,
  values: readonly string[],
  scratch: Bits,
): void {
  let kept = open
  for (const value of values) {
    const rules = byWord.get(value)
    if (rules === undefined) continue
    if (kept === open) {
      scratch.set(open)
      kept = scratch
    }
    if (rules instanceof Uint32Array) {
      for (let at = 0; at < kept.length; at += 1) kept[at] = (kept[at] ?? 0) | (rules[at] ?? 0)
    } else for (const rule of rules) setBit(kept, rule)
  }
  for (let at = 0; at < bits.length; at += 1) bits[at] = (bits[at] ?? 0) & (kept[at] ?? 0)
}

function indexDimension(dimension: Dimension, rules: readonly CompiledRule[]): DimensionIndex {
  const open = emptyBits(rules.length)
  const lists = new Map<string, number[]>()
  for (const [at, { rule }] of rules.entries()) {
    const words = rule.match[dimension.key]?.map(String)
    if (
      words === undefined ||
      (dimension.kind !== 'exact' && words.some((word) => word.includes('*')))
    ) {
      setBit(open, at)
      continue
    }
    for (const word of new Set(words)) {
      const list = lists.get(word)
      if (list === undefined) lists.set(word, [at])
      else list.push(at)
    }
  }
  const byWord = new Map<string, RulesOfWord>()
  for (const [word, list] of lists)
    byWord.set(word, list.length > MAX_LISTED ? bitsOf(list, rules.length) : list)
  return { dimension, open, byWord }
}

function bitsOf(list: readonly number[], rules: number): Bits {
  const bits = emptyBits(rules)
  for (const rule of list) setBit(bits, rule)
  return bits
}
