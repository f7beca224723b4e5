/**
 * What a broker finds in its spool: recordings that were running when it ended are closed (state `cut`), and whatever is over is given to the
 * archive. Only the broker that has the spool can do so: a session whose broker never comes back stays `running`.
 */
import { messageOf } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/log.ts'
import { ChunkReader, firstHash, nextHash } from '../../../shared/recording/chain.ts'
import type { Chunk, ChainState } from '../../../shared/recording/chain.ts'
import type { Archive } from './archive.ts'
import { sessionEntry, unmark } from './documents.ts'
import type { Documents, SessionDocument } from './documents.ts'
import type { MasterKeys } from './keys.ts'
import type { Mover } from './mover.ts'
import { lookUp } from './reading.ts'
import { endedSession } from './recording.ts'
import { openChunk } from './seal.ts'
import type { Segment } from './segments.ts'
import type { Spool } from './spool.ts'

/** What is needed. */
export interface RecoveryDeps {
  readonly spool: Spool
  readonly archive: Archive
  readonly keys: Pick<MasterKeys, 'unwrap'>
  readonly documents: Documents
  readonly mover: Pick<Mover, 'add'>
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /** Whether a session of this broker is being recorded now. */
  readonly isRunning: (id: string) => boolean
}

/** Looks through the spool, and the marks, once. Never rejects: what cannot be taken care of now stays for the next look. */
export async function lookThrough(deps: RecoveryDeps): Promise<void> {
  const { spool, log } = deps
  try {
    for (const id of await spool.ids()) {
      if (deps.isRunning(id)) continue
      await takeCare(deps, id).catch((error: unknown) => {
        log.error(
          { requestId: id, error: messageOf(error) },
          'a recording in the spool stays as it is',
        )
      })
    }
    await removeMarks(deps)
  } catch (error) {
    log.error({ error: messageOf(error) }, 'the spool could not be looked through')
  }
}

/** Of sessions that ended in the moment in which somebody ended them. */
async function removeMarks({ documents, isRunning }: RecoveryDeps): Promise<void> {
  for (const { id } of await documents.marks()) {
    if (isRunning(id) || (await documents.read(id))?.session.state === 'running') continue
    await documents.removeMark(id)
  }
}

async function takeCare(deps: RecoveryDeps, id: string): Promise<void> {
  const { spool, documents, mover, log, isRunning } = deps
  const document = await documents.read(id)
  // one that was begun meanwhile has its document now
  if (isRunning(id)) return
  if (document === undefined) {
    if (!(await removeEmptyRecording(spool, id)))
      log.warn({ requestId: id }, 'a recording in the spool is not in the store')
    return
  }
  const { session, kept } = document
  if (session.state === 'running' && kept?.spool === spool.id) await closeCut(deps, document)
  const segments = await spool.segmentsOf(id)
  for (const segment of segments) mover.add(id, segment)
  if (segments.length === 0) await settle(deps, id)
}

/** What was begun, and never got as far as the store. @returns whether nothing was in it */
async function removeEmptyRecording(spool: Spool, id: string): Promise<boolean> {
  for (const segment of await spool.segmentsOf(id)) {
    if ((await spool.read(id, segment))?.length !== 0) return false
    await spool.remove(id, segment, 0)
  }
  await spool.removeEmpty(id)
  return true
}

/** To be called when a segment has left the spool: the last one ends the matter. */
export async function settle(
  { spool, documents, isRunning }: Pick<RecoveryDeps, 'spool' | 'documents' | 'isRunning'>,
  id: string,
): Promise<void> {
  if (isRunning(id) || (await spool.segmentsOf(id)).length > 0) return
  await documents.change(id, ({ session, kept }) =>
    kept === undefined || kept.archived || session.state === 'running'
      ? undefined
      : { document: { session, kept: { ...kept, archived: true } }, entries: [] },
  )
  await spool.removeEmpty(id)
}

async function closeCut(deps: RecoveryDeps, document: SessionDocument): Promise<void> {
  const { documents, log, now } = deps
  const { id } = document.session
  const found = await wholeChunks(deps, document)
  await documents.change(
    id,
    (current) => {
      if (current.session.state !== 'running' || current.kept === undefined) return undefined
      const session = endedSession(current, 'cut', { ending: 'broker_ended' }, found.state, now())
      const { isComplete, isLess } = found
      const detail = { ...found.state, isComplete, ...(isLess ? { isLess } : {}) }
      return {
        document: { session, kept: { ...current.kept, segments: [...found.segments] } },
        entries: [sessionEntry(session, 'cut', detail)],
      }
    },
    [unmark(id)],
  )
  log.warn({ requestId: id, ...found.state }, 'a session that ran when the broker ended was closed')
}

interface Whole {
  readonly state: ChainState
  readonly segments: readonly Segment[]
  /** The last chunk is there: the session had ended, and only that was not written down. */
  readonly isComplete: boolean
  /** The ledger knows of more, or of others. */
  readonly isLess: boolean
}

/** Whole chunks from the beginning on; what is torn behind them is removed. */
async function wholeChunks(deps: RecoveryDeps, { session, kept }: SessionDocument): Promise<Whole> {
  const { id, recording } = session
  const count = new Count(id, await goodChunks(deps, id, kept?.key), recording)
  const segments: Segment[] = []
  for (let number = 0; ; number += 1) {
    const bytes = await lookUp(deps, id, number)
    if (bytes === undefined) break
    const before = count.state
    const good = count.take(bytes)
    const { chunks, bytes: events } = count.state
    segments.push({ chunks: chunks - before.chunks, bytes: events - before.bytes })
    if (good === bytes.length) continue
    // what the ledger knows of stays as it is found
    const isUnknown = chunks >= (recording?.chunks ?? 0)
    const isHere = (await deps.spool.segmentsOf(id)).at(-1) === number
    if (isUnknown && isHere) await deps.spool.cut(id, number, good)
    break
  }
  return { state: count.state, segments, isComplete: count.isComplete, isLess: !count.hasKnown }
}

/** Goes along the chunks, segment by segment. */
class Count {
  state: ChainState
  /** The last chunk was there. */
  isComplete = false
  /** What the ledger knows of was there. */
  hasKnown: boolean
  readonly #isGood: (chunk: Chunk) => boolean
  readonly #known: Partial<ChainState>
  #hash: Buffer

  constructor(id: string, isGood: (chunk: Chunk) => boolean, known: Partial<ChainState> = {}) {
    this.#hash = firstHash(id)
    this.state = { chunks: 0, bytes: 0, runningSha256: this.#hash.toString('hex') }
    this.#isGood = isGood
    this.#known = known
    this.hasKnown = (known.chunks ?? 0) === 0
  }

  /** @returns how many bytes of the segment are whole chunks */
  take(segment: Buffer): number {
    let good = 0
    const chunks = new ChunkReader(this.state.chunks).take(segment)
    for (let next = chunks.next(); next.done !== true; next = chunks.next()) {
      const { header, body, eventBytes, isLast } = next.value
      if (!this.#isGood(next.value)) break
      good += header.length + body.length
      this.#hash = nextHash(this.#hash, header, body)
      const runningSha256 = this.#hash.toString('hex')
      const { chunks: before, bytes } = this.state
      this.state = { chunks: before + 1, bytes: bytes + eventBytes, runningSha256 }
      this.isComplete = isLast
      const { chunks: known, runningSha256: hash } = this.#known
      if (this.state.chunks === known && runningSha256 === hash) this.hasKnown = true
    }
    return good
  }
}

/** A disk that lost power may have a chunk's length and not its bytes: its tag tells, where the key can be had now. */
async function goodChunks(
  { keys, log }: RecoveryDeps,
  id: string,
  wrapped: string | undefined,
): Promise<(chunk: Chunk) => boolean> {
  try {
    const key = await keys.unwrap(wrapped ?? '', id)
    const idBytes = Buffer.from(id)
    return (chunk) => {
      try {
        openChunk(key, idBytes, chunk)
        return true
      } catch {
        return false
      }
    }
  } catch (error) {
    log.warn(
      { requestId: id, error: messageOf(error) },
      'a cut recording is closed without looking into it',
    )
    return () => true
  }
}
