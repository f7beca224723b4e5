/**
 * A ledger out of an export (`nestgate export`). It is read for what it says; `nestgate verify` proves that it is the ledger. An export
 * that leaves entries out cannot be joined: what it lacks would look like what is missing.
 */
import { z } from 'zod'
import { leafHash } from '../../shared/transparency/tree.ts'
import { noteUnreadable } from './audit-files.ts'
import type { Reading } from './audit-files.ts'
import { readFact } from './ledger-entry.ts'
import type { Clusters, LedgerFact } from './ledger-entry.ts'
import { parseJson, readLines } from './lines.ts'

/** Version of the format that is read. */
const EXPORT_VERSION = 1
/** Conditions of an export that leave nothing out that the join needs. */
const HARMLESS: ReadonlySet<string> = new Set(['cluster', 'since', 'until'])

const manifestSchema = z.object({
  nestgate: z.literal('ledger-export'),
  version: z.literal(EXPORT_VERSION),
  from: z.int().min(0),
  to: z.int().min(0),
  filter: z.record(z.string(), z.unknown()).optional(),
})
const entrySchema = z.object({ seq: z.int(), hash: z.base64(), leaf: z.base64().optional() })
const endSchema = z.object({ end: z.literal(true) })
const checkpointSchema = z.object({ checkpoint: z.string() })
type Manifest = z.infer<typeof manifestSchema>

/** The export cannot be joined; the message says why. */
export class ExportError extends Error {
  override readonly name = 'ExportError'
}

/** What of the ledger an export has. */
export interface ExportRange {
  /** Whether it has the ledger's first entry: nothing was before. */
  isFromStart: boolean
}

/** The entries of an export, as they come. @throws {@link ExportError}, or the system's error */
export async function* exportFacts(
  file: string,
  clusters: Clusters,
  reading: Reading,
  range: ExportRange,
): AsyncGenerator<LedgerFact> {
  let manifest: Manifest | undefined
  let [next, isWhole] = [0, false]
  for await (const { text, number } of readLines(file)) {
    const value = parseJson(text)
    if (isWhole) throw new ExportError(`${file}: something follows the last line`)
    if (manifest === undefined) {
      manifest = usableManifest(value, clusters, file)
      next = manifest.from
    } else if (endSchema.safeParse(value).success) isWhole = true
    else if (!checkpointSchema.safeParse(value).success) {
      const place = `${file}:${number}`
      const { seq, leaf } = readEntry(value, next, place)
      next += 1
      if (leaf === undefined) continue
      if (seq === 0) range.isFromStart = true
      const fact = readFact(parseJson(leaf.toString('utf8')), seq, clusters)
      if (fact === undefined) noteUnreadable(reading, place)
      else yield fact
    }
  }
  if (!isWhole || next !== manifest?.to) throw new ExportError(`${file}: the export is not whole`)
}

function usableManifest(value: unknown, clusters: Clusters, file: string): Manifest {
  const parsed = manifestSchema.safeParse(value)
  if (!parsed.success) throw new ExportError(`${file}: not an export of a ledger`)
  const { filter = {} } = parsed.data
  const others = Object.keys(filter).filter((name) => !HARMLESS.has(name))
  const only = filter['cluster']
  const isAll = only === undefined || [...clusters].every((name) => name === only)
  if (others.length > 0 || !isAll)
    throw new ExportError(`${file}: the export leaves entries out; it must have all of the cluster`)
  return parsed.data
}

function readEntry(
  value: unknown,
  next: number,
  place: string,
): { readonly seq: number; readonly leaf: Buffer | undefined } {
  const parsed = entrySchema.safeParse(value)
  if (!parsed.success || parsed.data.seq !== next)
    throw new ExportError(`${place}: not entry ${next}`)
  const { seq, hash, leaf } = parsed.data
  if (leaf === undefined) return { seq, leaf }
  const bytes = Buffer.from(leaf, 'base64')
  if (!Buffer.from(leafHash(bytes)).equals(Buffer.from(hash, 'base64')))
    throw new ExportError(`${place}: the entry is not what its hash says`)
  return { seq, leaf: bytes }
}
