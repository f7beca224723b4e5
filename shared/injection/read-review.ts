/**
 * An AdmissionReview's bytes, read so that no other reader could have seen something else: UTF-8, each key once, no
 * deeper than any pod. Twice as fast as a reader of our own would be: JSON.parse keeps the last of two equal keys, so the
 * text has more keys than the value where there were two.
 */

/** Deepest nesting that is read; a pod has some 15 levels, and what is deeper could exhaust the stack. */
const MAX_DEPTH = 100
/**
 * Most values that are read, members and items: a decoder that lists each wrong one takes more than a kilobyte for it, and 7 MB
 * of ones would end the process. A pod of the most entries that are looked at (size.ts) has half as many.
 */
export const MAX_VALUES = 100_000
const QUOTE = 0x22
const BACKSLASH = 0x5c
const COLON = 0x3a

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** What was read, or why it cannot be read one way only; the text itself is never repeated. */
export type ReviewText = { readonly value: unknown } | { readonly problem: string }

/** Reads bytes. */
export function readReview(bytes: Uint8Array): ReviewText {
  let text: string
  let value: unknown
  try {
    text = utf8.decode(bytes)
    value = JSON.parse(text)
  } catch {
    // The parser's own message would quote the body.
    return { problem: 'not JSON in UTF-8' }
  }
  const counted = { keys: 0, values: 0 }
  const problem = count(value, MAX_DEPTH, counted)
  if (problem !== undefined) return { problem }
  return counted.keys === countColons(text) ? { value } : { problem: 'a key is there twice' }
}

/** Counts the members of all objects, and them and the items of all lists. @returns what there is too much of */
function count(
  value: unknown,
  levels: number,
  counted: { keys: number; values: number },
): string | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  if (levels === 0) return 'nested too deeply'
  const inner = Object.values(value)
  counted.values += inner.length
  if (counted.values > MAX_VALUES) return `more than ${MAX_VALUES} values`
  if (!Array.isArray(value)) counted.keys += inner.length
  for (const each of inner) {
    if (typeof each !== 'object') continue
    const problem = count(each, levels - 1, counted)
    if (problem !== undefined) return problem
  }
  return undefined
}

/** How many colons stand outside strings: one for each member. `text` is JSON. */
function countColons(text: string): number {
  let count = 0
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at)
    if (code === COLON) count += 1
    else if (code === QUOTE) at = endOfString(text, at)
  }
  return count
}

/** Where the string that begins at `start` ends: at the first quote with an even number of backslashes before it. */
function endOfString(text: string, start: number): number {
  let end = text.indexOf('"', start + 1)
  while (isEscaped(text, end)) end = text.indexOf('"', end + 1)
  return end
}

function isEscaped(text: string, at: number): boolean {
  let before = at - 1
  while (text.charCodeAt(before) === BACKSLASH) before -= 1
  return (at - before) % 2 === 0
}
