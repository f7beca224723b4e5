/** Entries oldest first, out of a store that searches newest first; memory holds one batch, however long the range is. */
import type { AuditEvent } from '../../shared/wire.ts'
import type { EventFilter, Store } from '../store/store.ts'

/** Entries of one batch at most; each has up to 64 KiB. */
export const BATCH = 256
/** How much further is looked at once where little was found. */
const STRIDE_FACTOR = 4

/** What is read of a store. */
export type EventSource = Pick<Store, 'events'>

/**
 * Entries of `[from, to)` that match, in order, in batches that are not empty. Where matches are rare, ever longer stretches are searched at once;
 * one that has more matches than a batch is searched again in parts. Clocks that jumped do not matter: only sequence numbers are compared.
 */
export async function* ascending(
  store: EventSource,
  filter: EventFilter,
  { from, to }: { readonly from: number; readonly to: number },
): AsyncGenerator<readonly AuditEvent[]> {
  let start = from
  let stride = BATCH
  while (start < to) {
    const end = Math.min(start + stride, to)
    const found = await store.events(filter, Math.min(BATCH, end - start), end)
    const within = found.filter(({ seq }) => seq >= start)
    // fewer than asked for, or some from before the stretch: there is nothing else in it
    const isWhole = within.length < BATCH || end - start <= BATCH
    if (!isWhole) {
      stride = Math.max(BATCH, Math.floor((end - start) / STRIDE_FACTOR))
      continue
    }
    if (within.length > 0) yield within.toReversed()
    start = end
    if (within.length < BATCH / STRIDE_FACTOR) stride *= STRIDE_FACTOR
  }
}
