/**
 * Signs what the ledger is: a checkpoint each second where entries came, and whenever somebody needs one that covers all
 * there is. What is signed begins with all that was signed before: this is proved each time, so that a database that was
 * put back, or swapped, is never vouched for.
 */
import { Fault, messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { signCheckpoint } from '../../shared/transparency/checkpoint.ts'
import { tileHashReader } from '../../shared/transparency/tiles.ts'
import {
  makeConsistencyProof,
  makeInclusionProof,
  sameHash,
  verifyConsistency,
} from '../../shared/transparency/tree.ts'
import type { HashReader } from '../../shared/transparency/tree.ts'
import { createOneByOne } from '../one-by-one.ts'
import type { StoredCheckpoint, Store, TreeHead } from '../store/store.ts'
import type { LedgerIdentity, LedgerKey } from './keys.ts'

/** The ledger, as its witnesses and auditors see it. */
export interface Checkpoints {
  readonly origin: string
  /** All keys that ever signed, the oldest first. */
  readonly keys: readonly LedgerKey[]
  /** Verifier keys of those that sign now. */
  vkeys(): readonly string[]
  /** The checkpoint that was signed last; signs nothing. */
  published(): StoredCheckpoint
  /**
   * A checkpoint over all that is committed, signed now where there is none.
   *
   * @throws Fault `ledger_rolled_back` where the ledger no longer begins with what was signed; or of the store
   */
  current(): Promise<StoredCheckpoint>
  /** Proof that an entry is in the tree of this size. @throws RangeError where it is not */
  inclusion(seq: number, size: number): Promise<readonly Uint8Array[]>
  /** Proof that the tree of the new size begins with that of the old. @param oldSize - at least 1 */
  consistency(oldSize: number, newSize: number): Promise<readonly Uint8Array[]>
  /** Told of each new checkpoint. */
  subscribe(tell: (checkpoint: StoredCheckpoint) => void): void
  close(): void
}

/** What is needed. */
export interface CheckpointsDeps {
  readonly store: Pick<Store, 'head' | 'tile' | 'checkpoint' | 'putCheckpoint'>
  readonly identity: LedgerIdentity
  /** How often the ledger is looked at, in milliseconds. */
  readonly everyMs: number
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

const US_PER_MS = 1000

/** Begins, with a first checkpoint over what is there. Rejects as `current` does. */
export async function openCheckpoints(deps: CheckpointsDeps): Promise<Checkpoints> {
  const last = await deps.store.checkpoint()
  const checkpoints = new SignedCheckpoints(deps, last)
  await checkpoints.current()
  checkpoints.begin()
  return checkpoints
}

class SignedCheckpoints implements Checkpoints {
  readonly #deps: CheckpointsDeps
  readonly #oneByOne = createOneByOne()
  readonly #listeners = new Set<(checkpoint: StoredCheckpoint) => void>()
  #last: StoredCheckpoint | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(deps: CheckpointsDeps, last: StoredCheckpoint | undefined) {
    this.#deps = deps
    this.#last = last
  }

  get origin(): string {
    return this.#deps.identity.origin
  }

  get keys(): readonly LedgerKey[] {
    return this.#deps.identity.keys
  }

  begin(): void {
    this.#timer = setInterval(() => {
      this.current().catch((error: unknown) => {
        const message = 'the ledger cannot be signed'
        const isRolledBack = error instanceof Fault && error.code === 'ledger_rolled_back'
        if (isRolledBack) this.#deps.log.fatal({ error: messageOf(error) }, message)
        else this.#deps.log.error({ error: messageOf(error) }, message)
      })
    }, this.#deps.everyMs)
    this.#timer.unref()
  }

  vkeys(): readonly string[] {
    return this.#deps.identity.signers.map(({ vkey }) => vkey)
  }

  published(): StoredCheckpoint {
    if (this.#last === undefined) throw new Fault('store_failed', 'there is no checkpoint yet')
    return this.#last
  }

  async current(): Promise<StoredCheckpoint> {
    // looked at after the queue: one signature serves all who waited
    return this.#oneByOne('sign', async () => {
      const head = await this.#deps.store.head()
      const last = this.#last
      if (last?.size === head.size && sameHash(last.root, head.root)) return last
      if (last !== undefined && last.size > 0) await this.#mustBegin(head, last)
      return this.#sign(head)
    })
  }

  inclusion(seq: number, size: number): Promise<readonly Uint8Array[]> {
    return makeInclusionProof(seq, size, this.#hashes(size))
  }

  consistency(oldSize: number, newSize: number): Promise<readonly Uint8Array[]> {
    return makeConsistencyProof(oldSize, newSize, this.#hashes(newSize))
  }

  subscribe(tell: (checkpoint: StoredCheckpoint) => void): void {
    this.#listeners.add(tell)
  }

  close(): void {
    clearInterval(this.#timer)
  }

  async #mustBegin(head: TreeHead, last: TreeHead): Promise<void> {
    const holds =
      head.size > last.size &&
      verifyConsistency(
        last.size,
        head.size,
        await this.consistency(last.size, head.size),
        last.root,
        head.root,
      )
    if (!holds)
      throw new Fault(
        'ledger_rolled_back',
        `the ledger of ${head.size} entries does not begin with the ${last.size} that were signed`,
      )
  }

  async #sign({ size, root }: TreeHead): Promise<StoredCheckpoint> {
    const { store, identity, now } = this.#deps
    const note = await signCheckpoint({ origin: this.origin, size, root }, identity.signers)
    const checkpoint = { size, root, timeUs: Math.floor(now() * US_PER_MS), note }
    await store.putCheckpoint(checkpoint)
    this.#last = checkpoint
    for (const tell of this.#listeners) tell(checkpoint)
    return checkpoint
  }

  #hashes(size: number): HashReader {
    return tileHashReader(size, async (level, index, width) => {
      const bytes = await this.#deps.store.tile(level, index, width)
      if (bytes === undefined) throw new RangeError(`the ledger has fewer than ${size} entries`)
      return bytes
    })
  }
}
