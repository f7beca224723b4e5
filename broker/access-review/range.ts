/**
 * Which entries of the ledger a period has, and reading them in their order, page by page. What is read is one contiguous
 * range below a checkpoint: whoever exports the same range has everything that a report was made of.
 */
import type { Store, StoredLeaf } from '../store/store.ts'
import { MAX_LOOKS_BACK, PAGE } from './bounds.ts'
import { PSEUDONYM_PREFIX } from '../ledger/personal.ts'
import { isShortened } from './entries.ts'
import { Names } from './names.ts'

/** Milliseconds since the epoch; the end is not included. */
export interface Period {
  readonly sinceMs: number
  readonly untilMs: number
}

/** Entries `from` to `to`, which is not included. */
export interface Range {
  readonly from: number
  readonly to: number
}

/** An entry of a range. */
export interface RangeEntry {
  readonly seq: number
  readonly timeUs: number
  /** Decoded JSON; undefined where it is none. */
  readonly value: unknown
  /** Whether texts in it were cut to fit. */
  readonly shortened: boolean
}

type Reads = Pick<Store, 'events' | 'leaves' | 'head'>

/** Beginning of the mark of a cut text. */
const CUT_MARK = '…[cut: '

/**
 * The smallest range below `size` that has every entry of the period. Entries are in the order of their writing, and the
 * clock may have been set back between two of them: what the search by halves passes over is looked for.
 *
 * @param size - of the checkpoint
 */
export async function findRange(store: Reads, size: number, period: Period): Promise<Range> {
  const [newest] = await store.events(period, 1, size)
  if (newest === undefined) return { from: size, to: size }
  const to = newest.seq + 1
  const { firstSeq } = await store.head()
  let from = await firstNotBefore(store, firstSeq, to, period.sinceMs * 1000)
  for (let looks = 0; looks < MAX_LOOKS_BACK; looks += 1) {
    const [earlier] = await store.events(period, 1, from)
    if (earlier === undefined) return { from, to }
    from = earlier.seq
  }
  return { from: firstSeq, to }
}

/** The first of entries `low` to `high` whose time is not before `timeUs`, as if they were in the order of their times. */
async function firstNotBefore(
  store: Reads,
  low: number,
  high: number,
  timeUs: number,
): Promise<number> {
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    const [leaf] = await store.leaves(middle, 1)
    if (leaf !== undefined && leaf.timeUs < timeUs) low = middle + 1
    else high = middle
  }
  return low
}

/** Pages of a range; entries that were pruned are missing. While one is looked at, the next is fetched. */
export async function* readRange(store: Reads, { from, to }: Range): AsyncGenerator<RangeEntry[]> {
  const fetch = (start: number): Promise<readonly StoredLeaf[]> => {
    const coming =
      start < to ? store.leaves(start, Math.min(PAGE, to - start)) : Promise.resolve([])
    // whoever stops in between does not wait for it
    coming.catch(() => undefined)
    return coming
  }
  const names = new Names()
  let coming = fetch(from)
  for (;;) {
    const page = (await coming).filter(({ seq }) => seq < to)
    const last = page.at(-1)
    if (last === undefined) return
    const next = last.seq + 1
    coming = fetch(next)
    const texts = page.map(({ bytes }) => Buffer.from(bytes).toString('utf8'))
    const values = await withNames(store, names, page, texts)
    yield page.map(({ seq, timeUs }, at) => {
      const [text, value] = [texts[at] ?? '', values[at]]
      return { seq, timeUs, value, shortened: text.includes(CUT_MARK) && isShortened(value) }
    })
  }
}

/**
 * Entries of a page with names of people in place of pseudonyms, where they were not erased. The page is read a second time,
 * as searches give it, where it has somebody who was not met before.
 */
async function withNames(
  store: Reads,
  names: Names,
  page: readonly StoredLeaf[],
  texts: readonly string[],
): Promise<readonly unknown[]> {
  const values = texts.map(parsed)
  const hides = (at: number): boolean => texts[at]?.includes(PSEUDONYM_PREFIX) === true
  const isNew = values.some((value, at) => hides(at) && names.shown(value) === undefined)
  if (!isNew) return values.map((value, at) => (hides(at) ? names.shown(value) : value))
  const events = await store.events({}, page.length, (page.at(-1)?.seq ?? 0) + 1)
  const read = new Map(events.map(({ seq, entry }) => [seq, entry]))
  return page.map(({ seq }, at) => {
    const shown = read.get(seq)
    if (hides(at)) names.learn(values[at], shown)
    return shown ?? values[at]
  })
}

function parsed(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text)
    return value
  } catch {
    return undefined
  }
}
