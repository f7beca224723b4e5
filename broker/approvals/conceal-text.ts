/** What is secret within a text: found by detectors, also behind base64, and manifests of Secrets in YAML. */
import { findSecrets } from '../masking/detectors/masker.ts'
import { isArray, isObject, readJson } from './json-tree.ts'
import type { Json } from './json-tree.ts'

/** What stands for a hidden value. */
export const HIDDEN = '***'

/** Times that a text is decoded in search of a secret: an encoded Secret that was encoded again. */
const MAX_DECODED = 2
/** Shorter texts are names and numbers, and encode no secret that a detector would tell. */
const MIN_BASE64_LENGTH = 16
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/
const BASE64_UNIT = 4

/** A line of a manifest that makes it a Secret's. */
const SECRET_KIND = /^[ \t-]*["']?kind["']?:[ \t]*["']?Secret(?:List)?["']?[ \t]*\r?$/m

/** Whether the whole text is to be hidden, since there is no telling which part of it would do. */
export function isSecretText(text: string): boolean {
  return SECRET_KIND.test(text) || isSecretBase64(text)
}

/** Whether a text is base64 of what detectors would find, or of what is compressed and cannot be looked at. */
export function isSecretBase64(text: string): boolean {
  let current = text
  for (let time = 0; time < MAX_DECODED; time++) {
    if (current.length < MIN_BASE64_LENGTH || current.length % BASE64_UNIT !== 0) return false
    if (!BASE64.test(current)) return false
    const bytes = Buffer.from(current, 'base64')
    if (isCompressed(bytes) || findSecrets(bytes).length > 0) return true
    current = bytes.toString('latin1')
    if (SECRET_KIND.test(current) || SECRET_JSON.test(current)) return true
  }
  return false
}

const SECRET_JSON = /"kind"\s{0,8}:\s{0,8}"Secret/

/** The magic numbers of gzip (RFC 1952) and of Zstandard (RFC 8878). */
function isCompressed(bytes: Buffer): boolean {
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) return true
  return bytes.length >= 4 && bytes.readUInt32LE(0) === 0xfd2fb528
}

/** The text with `***` for whatever detectors find, however long it is; the very same where they find nothing. */
export function withoutSecrets(text: string): string {
  const bytes = Buffer.from(text)
  const regions = findSecrets(bytes)
  if (regions.length === 0) return text
  let shown = ''
  let done = 0
  for (const { offset, length } of regions) {
    shown += bytes.toString('utf8', done, offset) + HIDDEN
    done = offset + length
  }
  return shown + bytes.toString('utf8', done)
}

/** The object or array that a text is; undefined for any other text. */
export function embeddedJson(text: string): Json | undefined {
  if (!/^\s{0,64}[{[]/.test(text)) return undefined
  const value = readJson(text)
  return isObject(value) || isArray(value) ? value : undefined
}
