/**
 * C2SP signed-note: a text and lines of signatures. Signed and verified with Ed25519 (type 0x01); witnesses' lines
 * of type 0x04 (tlog-cosignature, `cosignature/v1`, with their time) are verified too.
 *
 * What is malformed, or not signed as it must be, is answered as a problem in words, never thrown.
 */
import { createHash, createPublicKey, sign, verify, type KeyObject } from 'node:crypto'
import { decodeBase64 } from './base64.ts'

/** Signature type of a log's own Ed25519 signatures. */
export const TYPE_ED25519 = 0x01
/** Signature type of a witness' cosignatures with a time. */
export const TYPE_COSIGNATURE = 0x04
/** Most signature lines a note may have; the specification asks for at least 16. */
export const MAX_SIGNATURES = 100
/** Longest note that is read, bytes. */
export const MAX_NOTE_BYTES = 1024 * 1024

const KEY_ID_BYTES = 4
const KEY_BYTES = 32
const SIGNATURE_BYTES = 64
const TIME_BYTES = 8
const LINE_START = '— '

/** A value, or in words why there is none. */
export type Checked<T> =
  { readonly value: T; readonly problem?: undefined } | { readonly problem: string }

/** A public key that signs notes; name and id together tell it from all others. */
export interface NoteKey {
  readonly name: string
  /** Eight hexadecimal digits. */
  readonly id: string
  readonly type: typeof TYPE_ED25519 | typeof TYPE_COSIGNATURE
  readonly key: KeyObject
  /** The key as it is written: `NAME+ID+BASE64`. */
  readonly vkey: string
}

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

/** The vkey of a raw Ed25519 public key (32 bytes); RangeError for a name that a note cannot have. */
export function formatVkey(
  name: string,
  publicKey: Uint8Array,
  type: NoteKey['type'] = TYPE_ED25519,
): string {
  if (!isKeyName(name)) throw new RangeError('a key name is not empty, without spaces and plus')
  if (publicKey.length !== KEY_BYTES) throw new RangeError('an Ed25519 public key has 32 bytes')
  const typed = Buffer.concat([Uint8Array.of(type), publicKey])
  return `${name}+${keyId(name, typed)}+${typed.toString('base64')}`
}

/** Reads a vkey of type 0x01 or 0x04; the id must be the one that follows from name and key. */
export function parseVkey(vkey: string): Checked<NoteKey> {
  const [, name, id, encoded] = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/.exec(vkey) ?? []
  if (name === undefined || id === undefined || encoded === undefined || !isKeyName(name)) {
    return { problem: 'a verifier key has the form NAME+ID+BASE64' }
  }
  const typed = decodeBase64(encoded)
  const type = typed?.[0]
  if (typed?.length !== KEY_BYTES + 1 || (type !== TYPE_ED25519 && type !== TYPE_COSIGNATURE)) {
    return { problem: `the verifier key of ${name} is not an Ed25519 key` }
  }
  if (keyId(name, typed) !== id)
    return { problem: `the verifier key of ${name} does not have the id ${id}` }
  const key = publicKeyOf(typed.subarray(1))
  return key === undefined
    ? { problem: `the verifier key of ${name} is not an Ed25519 key` }
    : { value: { name, id, type, key, vkey } }
}

/** Takes a note apart by the letter of the specification; bytes must be UTF-8. */
export function parseNote(note: string | Uint8Array): Checked<Note> {
  const whole = typeof note === 'string' ? note : decodeUtf8(note)
  if (whole === undefined || !whole.isWellFormed()) return { problem: 'the note is not UTF-8' }
  if (whole.length > MAX_NOTE_BYTES) return { problem: 'the note is too long' }
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
  const vkey = formatVkey(name, rawPublicKey(privateKey))
  const id = vkey
    .slice(name.length + 1)
    .split('+', 1)
    .join('')
  return {
    vkey,
    sign: (text) =>
      Promise.resolve(
        signatureLine(name, Buffer.concat([Buffer.from(id, 'hex'), sign(null, text, privateKey)])),
      ),
  }
}

/** The 32 bytes of the public key of an Ed25519 key, private or public; RangeError for another kind. */
export function rawPublicKey(key: KeyObject): Uint8Array {
  const { x } = key.asymmetricKeyType === 'ed25519' ? publicPart(key).export({ format: 'jwk' }) : {}
  if (x === undefined) throw new RangeError('not an Ed25519 key')
  return Buffer.from(x, 'base64url')
}

/** One signature line: `signature` begins with the four bytes of the key id. */
export function signatureLine(name: string, signature: Uint8Array): string {
  return `${LINE_START}${name} ${Buffer.from(signature).toString('base64')}\n`
}

function publicPart(key: KeyObject): KeyObject {
  return key.type === 'private' ? createPublicKey(key) : key
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

function keyId(name: string, typedKey: Uint8Array): string {
  const hash = createHash('sha256').update(`${name}\n`).update(typedKey).digest()
  return hash.subarray(0, KEY_ID_BYTES).toString('hex')
}

function publicKeyOf(bytes: Uint8Array): KeyObject | undefined {
  try {
    const x = Buffer.from(bytes).toString('base64url')
    return createPublicKey({ format: 'jwk', key: { kty: 'OKP', crv: 'Ed25519', x } })
  } catch {
    return undefined
  }
}

function isKeyName(name: string): boolean {
  return name !== '' && name.isWellFormed() && !/[\p{White_Space}+]/u.test(name)
}

function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return undefined
  }
}
