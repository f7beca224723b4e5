/**
 * Retention: the bytes of the oldest entries go, in whole ranges, one range a transaction. Their hashes stay in the
 * tiles, so every proof stays what it was (C2SP tlog-tiles, "minimum index").
 */
import { numberOf, query, queryOne } from '../steps.ts'
import type { Dialect, Work } from '../steps.ts'

/** Entries of a range: one tile of level 1, 256 bundles, 64 blocks. */
export const RANGE_ENTRIES = 65_536

/**
 * Removes the oldest range, if all of it is below `below`. The open block and the open tile are never part of it.
 *
 * @param from - where that range begins, as its entry says; another broker may have removed it meanwhile
 * @returns the first entry that is still there; undefined where there was nothing to remove
 */
export function* pruneRange(
  { db }: Dialect,
  { from, below }: { readonly from: number; readonly below: number },
): Work<number | undefined> {
  const head = yield* queryOne(
    db.selectFrom('ledger_head').select(['size', 'first_seq']).where('id', '=', 1),
  )
  if (numberOf(head, 'first_seq') !== from) return undefined
  const next = from + RANGE_ENTRIES
  if (next > Math.min(below, numberOf(head, 'size'))) return undefined
  yield* query(db.updateTable('ledger_head').set({ first_seq: next }).where('id', '=', 1))
  yield* query(db.deleteFrom('ledger').where('seq', '<', next))
  yield* query(db.deleteFrom('ledger_payload').where('seq', '<', next))
  return next
}
