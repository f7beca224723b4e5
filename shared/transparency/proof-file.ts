/** C2SP tlog-proof: one file (`.tlog-proof`) that shows, without asking anyone, that an entry is in a log. */
import { decodeBase64, decodeHash, encodeBase64 } from './base64.ts'
import { parseDecimal, verifyCheckpoint, type SignedCheckpoint } from './checkpoint.ts'
import type { Checked, NoteKey } from './note.ts'
import { verifyInclusion } from './tree.ts'

const FIRST_LINE = 'c2sp.org/tlog-proof@v1'
const EXTRA = 'extra '
/** Most hashes of a proof: one for each level of the largest tree. */
const MAX_HASHES = 63

/** The parts of a proof, not verified. */
export interface ProofFile {
  readonly index: number
  /** From the leaf's sibling up to the root's child. */
  readonly hashes: readonly Uint8Array[]
  /** The signed checkpoint, verbatim. */
  readonly checkpoint: string
  /** Anything the application adds; nothing vouches for it. */
  readonly extra?: Uint8Array
}

/** The text of a proof. */
export function formatProof({ index, hashes, checkpoint, extra }: ProofFile): string {
  const head = extra === undefined ? [FIRST_LINE] : [FIRST_LINE, `${EXTRA}${encodeBase64(extra)}`]
  return [...head, `index ${String(index)}`, ...hashes.map(encodeBase64), '', checkpoint].join('\n')
}

/** Takes a proof apart, strictly. */
export function parseProof(text: string): Checked<ProofFile> {
  const split = text.indexOf('\n\n')
  if (split < 0) return { problem: 'the proof has no empty line before its checkpoint' }
  const [first, ...lines] = text.slice(0, split).split('\n')
  if (first !== FIRST_LINE) return { problem: `the proof does not begin with ${FIRST_LINE}` }
  const extra = lines[0]?.startsWith(EXTRA) === true ? lines.shift() : undefined
  const index = parseDecimal(/^index (.*)$/.exec(lines.shift() ?? '')?.[1])
  if (index === undefined) return { problem: 'the proof has no index' }
  if (lines.length > MAX_HASHES) return { problem: 'the proof has too many hashes' }
  const hashes = lines.map(decodeHash).filter((hash) => hash !== undefined)
  if (hashes.length !== lines.length) return { problem: 'the proof has a line that is no hash' }
  const proof = { index, hashes, checkpoint: text.slice(split + 2) }
  if (extra === undefined) return { value: proof }
  const bytes = decodeBase64(extra.slice(EXTRA.length))
  return bytes === undefined
    ? { problem: 'the proof’s extra data are not base64' }
    : { value: { ...proof, extra: bytes } }
}

/** An entry that was shown to be in a log. */
export interface ProvenEntry {
  readonly index: number
  readonly checkpoint: SignedCheckpoint
}

/** Verifies that the entry with this leaf hash is in the log that these keys sign for. */
export function verifyProof(
  text: string,
  leaf: Uint8Array,
  keys: readonly NoteKey[],
  origin?: string,
): Checked<ProvenEntry> {
  const parsed = parseProof(text)
  if (parsed.problem !== undefined) return parsed
  const { index, hashes, checkpoint: note } = parsed.value
  const verified = verifyCheckpoint(note, keys, origin)
  if (verified.problem !== undefined) return verified
  const checkpoint = verified.value
  return verifyInclusion(index, checkpoint.size, leaf, hashes, checkpoint.root)
    ? { value: { index, checkpoint } }
    : { problem: `the entry is not number ${String(index)} of the log` }
}
