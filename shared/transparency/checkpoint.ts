/** C2SP tlog-checkpoint: the text of a signed note that names a log, its size and its root. */
import { decodeHash, encodeBase64 } from './base64.ts'
import { signNote, TYPE_ED25519, verifyNote } from './note.ts'
import type { Checked, NoteKey, NoteSigned, NoteSigner } from './note.ts'
import { HASH_BYTES } from './tree.ts'

/** The state of a log. */
export interface Checkpoint {
  /** Which log: its name, without scheme and last slash. */
  readonly origin: string
  readonly size: number
  readonly root: Uint8Array
}

/** A checkpoint whose signatures were verified, by the log itself and perhaps by witnesses. */
export interface SignedCheckpoint extends Checkpoint {
  readonly signedBy: readonly NoteSigned[]
}

/** The text of a checkpoint, without extension lines; RangeError for what cannot be one. */
export function formatCheckpoint({ origin, size, root }: Checkpoint): string {
  // eslint-disable-next-line no-control-regex -- a note has none
  if (origin === '' || /[\u0000-\u001f]/.test(origin)) throw new RangeError('not an origin')
  if (!Number.isSafeInteger(size) || size < 0) throw new RangeError('not a size of a tree')
  if (root.length !== HASH_BYTES) throw new RangeError('not a root')
  return `${origin}\n${String(size)}\n${encodeBase64(root)}\n`
}

/** Reads the text of a checkpoint; extension lines are allowed, and left out. */
export function parseCheckpoint(text: string): Checked<Checkpoint> {
  const [origin, size, root, ...rest] = text.split('\n')
  if (rest.pop() !== '' || rest.includes(''))
    return { problem: 'the checkpoint has an empty line, or no last newline' }
  if (origin === undefined || origin === '') return { problem: 'the checkpoint has no origin' }
  const count = parseDecimal(size)
  if (count === undefined) return { problem: 'the checkpoint has no size' }
  const hash = decodeHash(root ?? '')
  return hash === undefined
    ? { problem: 'the checkpoint has no root' }
    : { value: { origin, size: count, root: hash } }
}

/** Signs the checkpoint as a note. */
export function signCheckpoint(
  checkpoint: Checkpoint,
  signers: readonly NoteSigner[],
): Promise<string> {
  return signNote(formatCheckpoint(checkpoint), signers)
}

/**
 * Verifies a signed checkpoint: by at least one of the log's own keys (type 0x01), whatever witnesses say. The
 * origin must be `origin` where one is given.
 */
export function verifyCheckpoint(
  note: string | Uint8Array,
  keys: readonly NoteKey[],
  origin?: string,
): Checked<SignedCheckpoint> {
  const verified = verifyNote(note, keys)
  if (verified.problem !== undefined) return verified
  const { text, signedBy } = verified.value
  if (!signedBy.some(({ key }) => key.type === TYPE_ED25519)) {
    return { problem: 'the checkpoint is signed by witnesses only' }
  }
  const parsed = parseCheckpoint(text)
  if (parsed.problem !== undefined) return parsed
  if (origin !== undefined && parsed.value.origin !== origin) {
    return { problem: `the checkpoint is of ${parsed.value.origin}, not of ${origin}` }
  }
  return { value: { ...parsed.value, signedBy } }
}

/** A decimal number as the formats write it, without leading zeros, up to 2^53 - 1; undefined for another text. */
export function parseDecimal(text: string | undefined): number | undefined {
  if (text === undefined || !/^(0|[1-9][0-9]{0,15})$/.test(text)) return undefined
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : undefined
}
