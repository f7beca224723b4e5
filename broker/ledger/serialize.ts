/**
 * Entry to bytes: the one place where the text of a ledger entry is made. The bytes are JSON in the form of
 * RFC 8785 (keys sorted at every level, no white space), so the same statement at the same time is always
 * the same bytes, whatever order its object was built in. They are stored as they are and never made again.
 *
 * Much of an entry is text that a caller chose. An entry is therefore never refused for its length: too
 * long texts are cut, with a mark that says so, because an effect without evidence would be worse.
 */
import { isRecord } from '../../shared/config.ts'
import { MAX_ENTRY_BYTES } from './entry.ts'
import type { Entry } from './entry.ts'

/** Version of the entry format, the `v` of every entry. */
const FORMAT_VERSION = 1

/** Texts that callers choose and no decision rests on: these are cut first. */
const FREE_TEXTS: ReadonlySet<string> = new Set([
  'agentName',
  'command',
  'contentType',
  'detail',
  'explanation',
  'path',
  'query',
  'userAgent',
])

interface Cut {
  /** Longest text kept, in UTF-16 code units. */
  readonly maxText: number
  readonly onlyFreeTexts: boolean
  /** Longest list and most keys of a mapping kept. */
  readonly maxItems: number
}

/** Tried in this order until the entry fits; the last one bounds any entry that the types allow. */
const CUTS: readonly Cut[] = [
  { maxText: 4096, onlyFreeTexts: true, maxItems: Infinity },
  { maxText: 1024, onlyFreeTexts: true, maxItems: Infinity },
  { maxText: 256, onlyFreeTexts: true, maxItems: 256 },
  { maxText: 256, onlyFreeTexts: false, maxItems: 64 },
  { maxText: 64, onlyFreeTexts: false, maxItems: 32 },
]

/**
 * The bytes of an entry: UTF-8, at most {@link MAX_ENTRY_BYTES}.
 *
 * @param timeUs - when the statement was made, whole microseconds since the epoch
 */
export function serializeEntry(entry: Entry, timeUs: number): Uint8Array {
  const whole = { v: FORMAT_VERSION, time: formatMicros(timeUs), ...entry }
  let bytes = encode(whole)
  for (const cut of CUTS) {
    if (bytes.length <= MAX_ENTRY_BYTES) break
    bytes = encode(shorten(whole, cut, ''))
  }
  return bytes
}

/** RFC 3339 in UTC with microseconds. */
export function formatMicros(timeUs: number): string {
  const micros = String(timeUs % 1000).padStart(3, '0')
  return new Date(Math.floor(timeUs / 1000)).toISOString().replace('Z', `${micros}Z`)
}

function encode(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(sorted(value)), 'utf8')
}

/** RFC 8785, section 3.2.3: keys in the order of their UTF-16 code units; a lone surrogate, which it forbids, is replaced. */
function sorted(value: unknown): unknown {
  if (typeof value === 'string') return value.isWellFormed() ? value : value.toWellFormed()
  if (Array.isArray(value)) return value.map(sorted)
  if (!isRecord(value)) return value
  const result: Record<string, unknown> = {}
  for (const key of Object.keys(value).sort()) {
    if (value[key] !== undefined) result[key] = sorted(value[key])
  }
  return result
}

function shorten(value: unknown, cut: Cut, key: string): unknown {
  if (typeof value === 'string') {
    return cut.onlyFreeTexts && !FREE_TEXTS.has(key) ? value : shortenText(value, cut.maxText)
  }
  if (Array.isArray(value)) {
    const kept = value.slice(0, cut.maxItems).map((item: unknown) => shorten(item, cut, key))
    if (kept.length < value.length) kept.push(`…[cut: ${value.length - kept.length} items]`)
    return kept
  }
  if (!isRecord(value)) return value
  const keys = Object.keys(value)
  const result: Record<string, unknown> = {}
  for (const name of keys.slice(0, cut.maxItems)) {
    result[shortenText(name, cut.maxText)] = shorten(value[name], cut, name)
  }
  if (keys.length > cut.maxItems) result['…'] = `[cut: ${keys.length - cut.maxItems} keys]`
  return result
}

/** A text of at most so many UTF-16 code units, with a mark where it was cut. */
export function shortenText(text: string, maxText: number): string {
  if (text.length <= maxText) return text
  return `${text.slice(0, maxText).toWellFormed()}…[cut: ${text.length - maxText} characters]`
}
