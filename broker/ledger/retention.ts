/** Removes the text of entries whose time is over: in whole ranges, so that every proof stays good (docs/decisions/0007). */
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import type { Store } from '../store/store.ts'

/** How often it is looked, in milliseconds. */
const LOOK_MS = 3_600_000
const DAY_MS = 86_400_000

/** What is needed. */
export interface RetentionDeps {
  readonly store: Pick<Store, 'head' | 'leaves' | 'prune'>
  readonly retainDays: number
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** Begins, with a first look at once. @returns ends it */
export function startRetention(deps: RetentionDeps): () => void {
  const look = (): void => {
    removeOld(deps).catch((error: unknown) => {
      deps.log.error({ error: messageOf(error) }, 'old entries could not be removed')
    })
  }
  const timer = setInterval(look, LOOK_MS)
  timer.unref()
  look()
  return () => {
    clearInterval(timer)
  }
}

/** Removes the ranges all of whose entries are too old. @returns the first entry that is still there */
export async function removeOld({ store, retainDays, now }: RetentionDeps): Promise<number> {
  const beforeUs = (now() - retainDays * DAY_MS) * 1000
  const { size, firstSeq } = await store.head()
  // the first entry that is young enough: times rise along the ledger but for a clock that was set back
  let [low, high] = [firstSeq, size]
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    const [leaf] = await store.leaves(middle, 1)
    if (leaf !== undefined && leaf.timeUs < beforeUs) low = middle + 1
    else high = middle
  }
  return store.prune(low, ({ from, to }) => ({
    ...{ kind: 'system', event: 'ledger_pruned', actor: 'broker' },
    detail: { from, to, retainDays },
  }))
}
