/**
 * C2SP signed-note: a text and lines of signatures. Signed and verified with Ed25519 (type 0x01); witnesses' lines
 * of type 0x04 (tlog-cosignature, `cosignature/v1`, with their time) are verified too.
 *
 * What is malformed, or not signed as it must be, is answered as a problem in words, never thrown.
 */
import { sign, verify, type KeyObject } from 'node:crypto'
import { decodeBase64 } from './base64.ts'
import { formatVkey, isKeyName, KEY_ID_BYTES, keyIdOf, rawPublicKey, TYPE_ED25519 } from './vkey.ts'
import type { Checked, NoteKey } from './vkey.ts'

export { formatVkey, parseVkey, rawPublicKey, TYPE_COSIGNATURE, TYPE_ED25519 } from './vkey.ts'
export type { Checked, NoteKey } from './vkey.ts'

/** Most signature lines a note may have; the specification asks for at least 16. */
export const MAX_SIGNATURES = 100
/** Longest note that is read, characters. */
export const MAX_NOTE_LENGTH = 1024 * 1024

const SIGNATURE_BYTES = 64
const TIME_BYTES = 8
const LINE_START = '— '

/** A signature line as it stands, not verified. */
export interface NoteSignature {
  readonly name: string
  readonly id: string
  readonly bytes: Uint8Array
}

/** A note taken apart, not verified. The text has its last newline. */
export interface Note {
  readonly text: string
  readonly signatures: readonly NoteSignature[]
}

/** A key that has signed; `time`, in seconds since the epoch, for a witness. */
export interface NoteSigned {
  readonly key: NoteKey
  readonly time?: number
}

/** A note of which at least one known key's signature is right, and none wrong. */
export interface VerifiedNote {
  readonly text: string
  readonly signedBy: readonly NoteSigned[]
}

/** What signs notes: a key file, or a service that keeps the key. */
export interface NoteSigner {
  readonly vkey: string
  /** The signature line over the text, which ends in a newline, as the line does. */
  sign(text: Uint8Array): Promise<string>
}

/** Takes a note apart by the letter of the specification; bytes must be UTF-8. */
export function parseNote(note: string | Uint8Array): Checked<Note> {
  const whole = typeof note === 'string' ? note : decodeUtf8(note)
  if (!whole?.isWellFormed()) return { problem: 'the note is not UTF-8' }
  if (whole.length > MAX_NOTE_LENGTH) return { problem: 'the note is too long' }
  // eslint-disable-next-line no-control-regex -- the specification forbids them
  if (/[\u0000-\u0009\u000b-\u001f]/.test(whole))
    return { problem: 'the note has control characters' }
  const split = whole.lastIndexOf('\n\n')
  if (split < 0) return { problem: 'the note has no empty line before its signatures' }
  const text = whole.slice(0, split + 1)
  const lines = whole.slice(split + 2).split('\n')
  if (lines.pop() !== '' || lines.length === 0)
    return { problem: 'the note has no whole signature line' }
  if (lines.length > MAX_SIGNATURES) return { problem: 'the note has too many signatures' }
  const signatures: NoteSignature[] = []
  for (const line of lines) {
    const signature = parseSignature(line)
    if (signature === undefined) return { problem: 'the note has a malformed signature line' }
    signatures.push(signature)
  }
  return { value: { text, signatures } }
}

/**
 * Verifies a note with the keys that are trusted. Lines of other keys are ignored; a wrong signature that names a
 * trusted key spoils the note, as does none by a trusted key. A key that signed twice counts once, and both
 * signatures must be right.
 */
export function verifyNote(
  note: string | Uint8Array,
  keys: readonly NoteKey[],
): Checked<VerifiedNote> {
  const parsed = parseNote(note)
  if (parsed.problem !== undefined) return parsed
  const { text, signatures } = parsed.value
  const signedBy: NoteSigned[] = []
  for (const { name, id, bytes } of signatures) {
    const key = keys.find((known) => known.name === name && known.id === id)
    if (key === undefined) continue
    const signed = verifySignature(key, Buffer.from(text), bytes)
    if (signed === undefined) return { problem: `the signature of ${name} is wrong` }
    if (!signedBy.some((other) => other.key === key)) signedBy.push(signed)
  }
  return signedBy.length === 0
    ? { problem: 'the note is not signed by a key that is trusted' }
    : { value: { text, signedBy } }
}

/** The note of a text, which must end in a newline, signed by all of these; RangeError for a text no note can have. */
export async function signNote(text: string, signers: readonly NoteSigner[]): Promise<string> {
  const bytes = Buffer.from(text)
  const lines = await Promise.all(signers.map((signer) => signer.sign(bytes)))
  const note = `${text}\n${lines.join('')}`
  const parsed = parseNote(note)
  if (parsed.problem !== undefined || parsed.value.text !== text) {
    throw new RangeError(parsed.problem ?? 'the text of a note ends in a newline')
  }
  return note
}

/** Signs with an Ed25519 private key; RangeError for another key, or a name that a note cannot have. */
export function keySigner(name: string, privateKey: KeyObject): NoteSigner {
  const publicKey = rawPublicKey(privateKey)
  const vkey = formatVkey(name, publicKey)
  const id = keyIdOf(name, publicKey, TYPE_ED25519)
  return {
    vkey,
    sign: (text) =>
      Promise.resolve(signatureLine(name, Buffer.concat([id, sign(null, text, privateKey)]))),
  }
}

/** One signature line: `signature` begins with the four bytes of the key id. */
export function signatureLine(name: string, signature: Uint8Array): string {
  return `${LINE_START}${name} ${Buffer.from(signature).toString('base64')}\n`
}

function parseSignature(line: string): NoteSignature | undefined {
  const [, name, encoded] = /^— ([^ ]+) ([^ ]+)$/.exec(line) ?? []
  const bytes = encoded === undefined ? undefined : decodeBase64(encoded)
  if (
    name === undefined ||
    !isKeyName(name) ||
    bytes === undefined ||
    bytes.length <= KEY_ID_BYTES
  ) {
    return undefined
  }
  return {
    name,
    id: Buffer.from(bytes.subarray(0, KEY_ID_BYTES)).toString('hex'),
    bytes: bytes.subarray(KEY_ID_BYTES),
  }
}

function verifySignature(
  key: NoteKey,
  text: Uint8Array,
  bytes: Uint8Array,
): NoteSigned | undefined {
  if (key.type === TYPE_ED25519) {
    return bytes.length === SIGNATURE_BYTES && verify(null, text, key.key, bytes)
      ? { key }
      : undefined
  }
  if (bytes.length !== TIME_BYTES + SIGNATURE_BYTES) return undefined
  const time = Number(Buffer.from(bytes).readBigUInt64BE())
  if (!Number.isSafeInteger(time)) return undefined
  return verify(null, cosignedMessage(text, time), key.key, bytes.subarray(TIME_BYTES))
    ? { key, time }
    : undefined
}

/** What a witness signs for a checkpoint's text at a time in seconds since the epoch (`cosignature/v1`). */
export function cosignedMessage(text: Uint8Array, time: number): Uint8Array {
  return Buffer.concat([Buffer.from(`cosignature/v1\ntime ${String(time)}\n`), text])
}

function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return undefined
  }
}
