/** Masks the text of one string: whole, or the spans in it that look like secrets. */
import { findSecrets } from '../detectors/masker.ts'
import { stringOf } from '../json/reader.ts'

/** A string token of JSON, with its quotes. */
export interface TextToken {
  readonly bytes: Buffer
  readonly start: number
  readonly end: number
  readonly isEscaped: boolean
}

/** What a token says. */
export function textOf({ bytes, start, end, isEscaped }: TextToken): string {
  return isEscaped ? stringOf(bytes, start, end) : bytes.toString('utf8', start + 1, end - 1)
}

/** The text's bytes, without quotes and escapes. */
export function bytesOf(token: TextToken): Buffer {
  return token.isEscaped
    ? Buffer.from(textOf(token))
    : token.bytes.subarray(token.start + 1, token.end - 1)
}

/** A JSON string that says a text. */
export function quoted(text: string): Buffer {
  return Buffer.from(JSON.stringify(text))
}

/**
 * Replaces the secrets that detectors find in a text.
 *
 * @param before - of the bytes, so many only give context and are not masked
 * @returns undefined where there is none
 */
export function withoutSecrets(
  bytes: Buffer,
  placeholder: () => string,
  before = 0,
): string | undefined {
  const regions = findSecrets(bytes).filter(({ offset, length }) => offset + length > before)
  if (regions.length === 0) return undefined
  let text = ''
  let at = before
  for (const { offset, length } of regions) {
    const start = Math.max(offset, before)
    // what touches is one secret in two regions
    if (start > at || text === '') text += bytes.toString('utf8', at, start) + placeholder()
    at = offset + length
  }
  return text + bytes.toString('utf8', at)
}

/** Base64 of gzip (RFC 1952, 2.3.1): nobody can look into it here. */
const GZIP_BASE64 = 'H4sI'
const GZIP = Buffer.from([0x1f, 0x8b])

/** Whether it is base64 of compressed bytes, once or twice encoded. */
export function isCompressedBase64(bytes: Buffer): boolean {
  if (bytes.length < GZIP_BASE64.length) return false
  const head = bytes.toString('latin1', 0, 8)
  return (
    head.startsWith(GZIP_BASE64) ||
    Buffer.from(head, 'base64').toString('latin1').startsWith(GZIP_BASE64)
  )
}

/** Whether decoded bytes are compressed, or base64 of such. */
export function isCompressed(bytes: Buffer): boolean {
  return bytes.subarray(0, GZIP.length).equals(GZIP) || isCompressedBase64(bytes)
}
