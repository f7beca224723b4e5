/** Exports of a ledger in memory, as broker/audit/export writes them, to be tampered with. */
import { makeConsistencyProof, readRange } from '../../shared/transparency/tree.ts'
import type { TestLedger } from './ledger-tree.ts'

/** Lines of an export: parsed, so that a test changes what it wants. */
export type ExportLine = Record<string, unknown>

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')

/** An export of `[from, to)` with a checkpoint after each `distance` entries. */
export async function exportOf(
  ledger: TestLedger,
  range: { from?: number; to: number; distance?: number },
  isShown: (seq: number) => boolean = () => true,
): Promise<ExportLine[]> {
  const { from = 0, to, distance = 100 } = range
  const lines: ExportLine[] = [
    {
      ...{ nestgate: 'ledger-export', version: 1, origin: ledger.origin },
      ...{ vkeys: [ledger.signer.vkey], from, to, exporter: 'alice' },
      time: '2026-11-26T07:00:00Z',
    },
  ]
  for (let seq = from; seq < to; seq += 1) {
    const entry = { seq, hash: base64(ledger.hashes[seq]!) }
    lines.push(isShown(seq) ? { ...entry, leaf: base64(ledger.leaves[seq]!) } : entry)
    const size = seq + 1
    if (size % distance === 0 && size < to)
      lines.push({ checkpoint: await ledger.checkpoint(size) })
  }
  const end = { end: true, count: to - from, checkpoint: await ledger.checkpoint(to) }
  if (from === 0) return [...lines, end]
  const edge = await readRange(from, ledger.reader(to))
  const proof = await makeConsistencyProof(from, to, ledger.reader(to))
  const before = { checkpoint: await ledger.checkpoint(from), consistency: proof.map(base64) }
  return [...lines, { ...end, before, edge: edge.hashes.map(base64) }]
}

/** The file's text. */
export function exportText(lines: readonly ExportLine[]): string {
  return lines.map((line) => `${JSON.stringify(line)}\n`).join('')
}
