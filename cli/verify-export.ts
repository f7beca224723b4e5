/** Verifies an export of the ledger (docs/evidence.md): each entry against its hash, all hashes against signed checkpoints. */
import { z } from 'zod'
import { decodeBase64, decodeHash, encodeBase64 } from '../shared/transparency/base64.ts'
import type { SignedCheckpoint } from '../shared/transparency/checkpoint.ts'
import {
  appendHashes,
  decodeRange,
  EMPTY_RANGE,
  leafHash,
  rangeRoot,
  sameHash,
  verifyConsistency,
  type CompactRange,
} from '../shared/transparency/tree.ts'
import { UsageError } from './settings.ts'
import { lastLineOf, linesOf } from './verify-lines.ts'
import { trustedCheckpoint, type Trust } from './verify-trust.ts'

/** What is wrong, as a program reads it. */
export type ExportFault =
  | 'malformed'
  | 'bytes_changed'
  | 'missing'
  | 'doubled'
  | 'out_of_order'
  | 'unexpected'
  | 'cut_short'
  | 'root_differs'
  | 'checkpoint_invalid'
  | 'edge_differs'
  | 'rolled_back'

/** The first thing that is wrong. */
export interface ExportProblem {
  readonly code: ExportFault
  readonly detail: string
  /** Line of the file, from 1. */
  readonly line?: number
  /** The entry. */
  readonly seq?: number
  /** Sizes of the two checkpoints between which hashes are not what was signed: entries from the first up to the second. */
  readonly between?: readonly [number, number]
}

/** What an export shows. */
export interface ExportVerdict {
  readonly origin?: string
  readonly from?: number
  readonly to?: number
  /** Entries whose hash was read. */
  readonly entries: number
  /** Those of them whose bytes are there, and fit. */
  readonly withBytes: number
  /** Signed checkpoints that were compared, those of the auditor included. */
  readonly checkpoints: number
  readonly root?: string
  readonly signedBy: readonly string[]
  readonly filter?: Readonly<Record<string, unknown>>
  readonly problem?: ExportProblem
}

const position = z.int().nonnegative()
const manifestSchema = z.looseObject({
  nestgate: z.literal('ledger-export'),
  version: z.literal(1),
  origin: z.string().min(1),
  from: position,
  to: position,
  filter: z.record(z.string(), z.unknown()).optional(),
})
const endSchema = z.looseObject({
  end: z.literal(true),
  count: position,
  checkpoint: z.string(),
  before: z
    .looseObject({ checkpoint: z.string(), consistency: z.array(z.string()).optional() })
    .optional(),
  edge: z.array(z.string()).optional(),
})
/** Strict: nothing beside what the hash vouches for may pass as part of an entry. */
const entrySchema = z.strictObject({ seq: position, hash: z.string(), leaf: z.string().optional() })
const checkpointSchema = z.strictObject({ checkpoint: z.string() })

type Manifest = z.infer<typeof manifestSchema>
type End = z.infer<typeof endSchema>

/** Leaf hashes that are put into the tree at once. */
const BATCH = 1024

/** Whether a first line begins an export. */
export function isExport(firstLine: string): boolean {
  return firstLine.startsWith('{') && firstLine.includes('"ledger-export"')
}

/**
 * Verifies the export, up to the first thing that is wrong. `known` are checkpoints that the auditor has from
 * elsewhere: the export must reach each of them, and have its root.
 *
 * @throws UsageError for one from before the export's first entry
 */
export async function verifyExport(
  file: string,
  trust: Trust,
  known: readonly SignedCheckpoint[] = [],
): Promise<ExportVerdict> {
  const check = new ExportCheck(trust, known, await lastLineOf(file))
  for await (const lines of linesOf(file)) {
    for (const line of lines) if (!check.read(line)) return check.verdict()
  }
  return check.finish()
}

class ExportCheck {
  readonly #trust: Trust
  readonly #known: readonly SignedCheckpoint[]
  readonly #end: End | undefined
  readonly #pending: Uint8Array[] = []
  #manifest: Manifest | undefined
  /** The tree up to the entry that comes next, without what is pending; undefined where its edge is not known. */
  #tree: CompactRange | undefined
  #line = 0
  #next = 0
  #withBytes = 0
  #compared = 0
  /** Size up to which the tree is as it was signed. */
  #sound = 0
  #ended = false
  #signed: SignedCheckpoint | undefined
  #problem: ExportProblem | undefined

  constructor(trust: Trust, known: readonly SignedCheckpoint[], lastLine: string) {
    this.#trust = trust
    this.#known = known
    this.#end = parsed(endSchema, lastLine)
  }

  /** Takes the next line. @returns whether to go on */
  read(text: string | undefined): boolean {
    this.#line += 1
    if (this.#problem !== undefined) return this.#search(text)
    if (text === undefined) return this.#fail('malformed', 'a line is too long')
    if (this.#manifest === undefined) return this.#begin(text)
    if (this.#ended) return this.#fail('malformed', 'something stands behind the last line')
    const entry = parsed(entrySchema, text)
    if (entry !== undefined) return this.#entry(entry)
    const checkpoint = parsed(checkpointSchema, text)
    if (checkpoint !== undefined) return this.#checkpoint(checkpoint.checkpoint, 'log only')
    const end = parsed(endSchema, text)
    return end === undefined ? this.#fail('malformed', 'not a line of an export') : this.#last(end)
  }

  finish(): ExportVerdict {
    if (this.#problem === undefined && !this.#ended) {
      const seq = this.#manifest === undefined ? {} : { seq: this.#next }
      this.#fail('cut_short', 'the export ends without its last line', seq)
    }
    return this.verdict()
  }

  verdict(): ExportVerdict {
    const { origin, from = 0, to, filter } = this.#manifest ?? {}
    const root = this.#signed === undefined ? undefined : encodeBase64(this.#signed.root)
    return {
      ...(origin === undefined || to === undefined ? {} : { origin, from, to }),
      entries: this.#next - from,
      withBytes: this.#withBytes,
      checkpoints: this.#compared,
      ...(root === undefined ? {} : { root }),
      signedBy: this.#signed?.signedBy.map(({ key }) => key.name) ?? [],
      ...(filter === undefined ? {} : { filter }),
      ...(this.#problem === undefined ? {} : { problem: this.#problem }),
    }
  }

  #begin(text: string): boolean {
    const manifest = parsed(manifestSchema, text)
    if (manifest === undefined || manifest.from > manifest.to) {
      return this.#fail('malformed', 'the first line is not that of an export')
    }
    this.#manifest = manifest
    this.#next = manifest.from
    this.#sound = manifest.from
    for (const { origin, size } of this.#known) {
      if (origin !== manifest.origin) {
        return this.#fail(
          'checkpoint_invalid',
          `the export is of ${manifest.origin}, not of ${origin}`,
        )
      }
      if (size > manifest.to) {
        const detail = `a checkpoint of size ${size} is known, and the export ends at ${manifest.to}`
        return this.#fail('rolled_back', detail)
      }
      // passed over in silence, it would seem to have been compared
      if (size < manifest.from) {
        throw new UsageError(
          `a checkpoint of size ${size} says nothing of an export that begins at ${manifest.from}`,
        )
      }
    }
    if (manifest.from === 0) this.#tree = EMPTY_RANGE
    return manifest.from === 0 ? this.#compareKnown() : this.#beginAtEdge(manifest.from)
  }

  /** Where the range begins later, its last line says on which tree it goes on. */
  #beginAtEdge(from: number): boolean {
    // without it the export fails at its end; until then each entry is looked at
    if (this.#end === undefined) return true
    const { before, edge = [] } = this.#end
    const hashes = edge.map(decodeHash).filter((hash) => hash !== undefined)
    const tree =
      hashes.length === edge.length ? decodeRange(from, Buffer.concat(hashes)) : undefined
    if (before === undefined || tree === undefined) {
      return this.#fail('edge_differs', `the tree before entry ${from} is not given`)
    }
    const checked = this.#verified(before.checkpoint, 'quorum')
    if (checked === undefined) return false
    if (checked.size !== from || !sameHash(rangeRoot(tree), checked.root)) {
      return this.#fail(
        'edge_differs',
        `the tree before entry ${from} is not the one that was signed`,
      )
    }
    this.#tree = tree
    this.#compared += 1
    return this.#compareKnown()
  }

  #entry({ seq, hash: text, leaf }: z.infer<typeof entrySchema>): boolean {
    if (seq !== this.#next || seq === this.#manifest?.to) return this.#misplaced(seq)
    const hash = decodeHash(text)
    if (hash === undefined) return this.#fail('malformed', 'the hash is not one', { seq })
    if (leaf !== undefined) {
      const bytes = decodeBase64(leaf)
      if (bytes === undefined) return this.#fail('malformed', 'the bytes are not base64', { seq })
      if (!sameHash(leafHash(bytes), hash)) {
        return this.#fail('bytes_changed', 'its bytes do not fit its hash', { seq })
      }
      this.#withBytes += 1
    }
    this.#pending.push(hash)
    this.#next += 1
    if (this.#pending.length === BATCH) this.#grow()
    return this.#compareKnown()
  }

  #misplaced(seq: number): boolean {
    const { from = 0, to = 0 } = this.#manifest ?? {}
    if (seq < from || seq >= to) {
      return this.#fail('unexpected', `it is not of the range ${from} to ${to}`, { seq })
    }
    if (seq < this.#next) return this.#fail('doubled', 'it stands there twice', { seq })
    this.#fail('missing', `it is missing, entry ${seq} stands in its place`, { seq: this.#next })
    return true
  }

  /** Looks whether what is missing stands further on. @returns whether to go on */
  #search(text: string | undefined): boolean {
    if (this.#problem?.code !== 'missing' || text === undefined) return false
    if (parsed(entrySchema, text)?.seq !== this.#problem.seq) return true
    const detail = `it stands further down, in line ${this.#line}`
    this.#problem = { ...this.#problem, code: 'out_of_order', detail }
    return false
  }

  #checkpoint(note: string, quorum: 'quorum' | 'log only'): boolean {
    const checkpoint = this.#verified(note, quorum)
    if (checkpoint === undefined) return false
    if (checkpoint.size !== this.#next) {
      const detail = `a checkpoint of size ${checkpoint.size} stands where entry ${this.#next} comes next`
      if (this.#ended) return this.#fail('rolled_back', detail)
      const between: [number, number] = [this.#sound, Math.max(checkpoint.size, this.#next)]
      return this.#fail('root_differs', detail, { between })
    }
    this.#signed = checkpoint
    return this.#compare(checkpoint)
  }

  #last(end: End): boolean {
    this.#ended = true
    const { from, to } = this.#manifest ?? { from: 0, to: 0 }
    if (this.#next !== to) {
      return this.#fail('missing', 'it is missing, the entries end before it', { seq: this.#next })
    }
    if (end.count !== to - from) return this.#fail('malformed', `the count is not ${to - from}`)
    // of a last line that could not be read ahead: nothing would be compared with what was signed
    if (this.#tree === undefined) {
      return this.#fail('edge_differs', `the tree before entry ${from} is not given`)
    }
    if (!this.#checkpoint(end.checkpoint, 'quorum')) return false
    return this.#consistent(end, from)
  }

  /** The proof says again what the hashes have shown; given for others' tools, it must be right. */
  #consistent({ before }: End, from: number): boolean {
    if (before?.consistency === undefined) return true
    const hashes = before.consistency.map(decodeHash).filter((hash) => hash !== undefined)
    const older = this.#verified(before.checkpoint, 'quorum')
    const newer = this.#signed
    if (older === undefined || newer === undefined) return false
    return (
      (hashes.length === before.consistency.length &&
        verifyConsistency(from, newer.size, hashes, older.root, newer.root)) ||
      this.#fail('edge_differs', 'the consistency proof is wrong')
    )
  }

  #compareKnown(): boolean {
    if (this.#known.length === 0) return true
    return this.#known.every(({ size, ...rest }) =>
      size === this.#next ? this.#compare({ size, ...rest }) : true,
    )
  }

  #compare({ size, root }: SignedCheckpoint): boolean {
    this.#grow()
    if (this.#tree === undefined) return true
    this.#compared += 1
    if (sameHash(rangeRoot(this.#tree), root)) {
      this.#sound = size
      return true
    }
    const between: [number, number] = [this.#sound, size]
    const detail = `entries ${this.#sound} to ${size - 1} are not, or not all, those that were signed`
    return this.#fail('root_differs', detail, { between })
  }

  #grow(): void {
    if (this.#tree !== undefined) this.#tree = appendHashes(this.#tree, this.#pending)
    this.#pending.length = 0
  }

  #verified(note: string, quorum: 'quorum' | 'log only'): SignedCheckpoint | undefined {
    const checked = trustedCheckpoint(note, this.#trust, quorum)
    if (checked.problem !== undefined) {
      this.#fail('checkpoint_invalid', checked.problem)
      return undefined
    }
    if (checked.value.origin !== this.#manifest?.origin) {
      this.#fail('checkpoint_invalid', `the checkpoint is of ${checked.value.origin}`)
      return undefined
    }
    return checked.value
  }

  #fail(
    code: ExportFault,
    detail: string,
    where: Pick<ExportProblem, 'seq' | 'between'> = {},
  ): boolean {
    this.#problem = { code, detail, line: this.#line, ...where }
    return false
  }
}

function parsed<T>(schema: z.ZodType<T>, text: string): T | undefined {
  try {
    return schema.safeParse(JSON.parse(text)).data
  } catch {
    return undefined
  }
}
