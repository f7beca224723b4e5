/** Looks for a planted value in whatever came out, in any encoding that somebody could undo. */
import { gunzipSync } from 'node:zlib'

/** Texts in texts in texts: deeper ones nobody makes. */
const MAX_LEVELS = 5
const STRING = /"(?:[^"\\]|\\.)*"?/gs
const ENCODED = /[A-Za-z0-9+/_-]{8,}/g

/**
 * Whether bytes hold the mark: plain, escaped as JSON does (several times), in base64 (several times, at any alignment), in hex, or in gzip
 * in base64. Bytes need not be a whole document.
 */
export function leaks(bytes: Buffer, mark: string): boolean {
  return holds(bytes.toString('utf8'), mark, 0)
}

function holds(text: string, mark: string, level: number): boolean {
  if (text.includes(mark)) return true
  if (text.toLowerCase().includes(Buffer.from(mark).toString('hex'))) return true
  if (withoutEscapes(text).includes(mark)) return true
  if (level >= MAX_LEVELS) return false
  if (text.includes('\\'))
    for (const [literal] of text.matchAll(STRING)) {
      const inner = unescaped(literal)
      if (inner !== undefined && literal.includes('\\') && holds(inner, mark, level + 1))
        return true
    }
  for (const [word] of text.matchAll(ENCODED))
    for (let skip = 0; skip < 4; skip++) {
      const inner = Buffer.from(word.slice(skip), 'base64')
      if (inner.includes(mark)) return true
      if (skip > 0) continue
      if (inner[0] === 0x1f && inner[1] === 0x8b && holds(unzipped(inner), mark, level + 1))
        return true
      if (isText(inner) && holds(inner.toString(), mark, level + 1)) return true
    }
  return false
}

function isText(bytes: Buffer): boolean {
  return bytes.length >= 8 && bytes.every((byte) => byte >= 0x20 && byte < 0x7f)
}

function unescaped(literal: string): string | undefined {
  try {
    return JSON.parse(literal) as string
  } catch {
    // A string that breaks off, or is none: undo what can be undone.
    return withoutEscapes(literal)
  }
}

function withoutEscapes(text: string): string {
  return text.replaceAll(/\\u([0-9a-fA-F]{4})/g, (_, hex: string) =>
    String.fromCharCode(parseInt(hex, 16)),
  )
}

function unzipped(bytes: Buffer): string {
  try {
    return gunzipSync(bytes, { maxOutputLength: 1 << 20, finishFlush: 2 }).toString()
  } catch {
    return ''
  }
}
