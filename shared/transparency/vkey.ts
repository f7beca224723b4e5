/** Keys of signed notes and their written form, the vkey (C2SP signed-note): Ed25519, of a log or of a witness. */
import { createHash, createPublicKey, type KeyObject } from 'node:crypto'
import { decodeBase64 } from './base64.ts'

/** Signature type of a log's own Ed25519 signatures. */
export const TYPE_ED25519 = 0x01
/** Signature type of a witness' cosignatures with a time. */
export const TYPE_COSIGNATURE = 0x04
/** Bytes of a key id, which a signature begins with. */
export const KEY_ID_BYTES = 4
const KEY_BYTES = 32

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

/** The vkey of a raw Ed25519 public key (32 bytes); RangeError for a name that a note cannot have. */
export function formatVkey(
  name: string,
  publicKey: Uint8Array,
  type: NoteKey['type'] = TYPE_ED25519,
): string {
  if (!isKeyName(name)) throw new RangeError('a key name is not empty, without spaces and plus')
  if (publicKey.length !== KEY_BYTES) throw new RangeError('an Ed25519 public key has 32 bytes')
  const typed = Buffer.concat([Uint8Array.of(type), publicKey])
  return `${name}+${keyIdOf(name, publicKey, type).toString('hex')}+${typed.toString('base64')}`
}

/** Reads a vkey of type 0x01 or 0x04; the id must be the one that follows from name and key. */
export function parseVkey(vkey: string): Checked<NoteKey> {
  const [, name, id, encoded] = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/.exec(vkey) ?? []
  if (name === undefined || id === undefined || encoded === undefined || !isKeyName(name)) {
    return { problem: 'a verifier key has the form NAME+ID+BASE64' }
  }
  const [type, ...bytes] = decodeBase64(encoded) ?? []
  const key = bytes.length === KEY_BYTES ? publicKeyOf(Uint8Array.from(bytes)) : undefined
  if (key === undefined || (type !== TYPE_ED25519 && type !== TYPE_COSIGNATURE)) {
    return { problem: `the verifier key of ${name} is not an Ed25519 key` }
  }
  return keyIdOf(name, Uint8Array.from(bytes), type).toString('hex') === id
    ? { value: { name, id, type, key, vkey } }
    : { problem: `the verifier key of ${name} does not have the id ${id}` }
}

/** The four bytes of the id of a raw public key. */
export function keyIdOf(name: string, publicKey: Uint8Array, type: NoteKey['type']): Buffer {
  const hash = createHash('sha256')
    .update(`${name}\n`)
    .update(Uint8Array.of(type))
    .update(publicKey)
  return hash.digest().subarray(0, KEY_ID_BYTES)
}

/** The 32 bytes of the public key of an Ed25519 key, private or public; RangeError for another kind. */
export function rawPublicKey(key: KeyObject): Uint8Array {
  const { x } = key.asymmetricKeyType === 'ed25519' ? publicPart(key).export({ format: 'jwk' }) : {}
  if (x === undefined) throw new RangeError('not an Ed25519 key')
  return Buffer.from(x, 'base64url')
}

function publicPart(key: KeyObject): KeyObject {
  return key.type === 'private' ? createPublicKey(key) : key
}

function publicKeyOf(bytes: Uint8Array): KeyObject | undefined {
  try {
    const x = Buffer.from(bytes).toString('base64url')
    return createPublicKey({ format: 'jwk', key: { kty: 'OKP', crv: 'Ed25519', x } })
  } catch {
    return undefined
  }
}

/** Whether a note can have a key of this name: not empty, no spaces, no plus. */
export function isKeyName(name: string): boolean {
  return name !== '' && name.isWellFormed() && !/[\p{White_Space}+]/u.test(name)
}
