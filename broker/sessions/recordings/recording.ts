/** A recording while it runs: its chunks, and what document and ledger say of them. */
import { messageOf } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/log.ts'
import type { ChainState } from '../../../shared/recording/chain.ts'
import type { Session } from '../../../shared/recording/session-wire.ts'
import type { SessionEntry } from '../../ledger/entry.ts'
import { sessionEntry, unmark } from './documents.ts'
import type { Documents, SessionDocument } from './documents.ts'
import type { Segment } from './segments.ts'
import type { SpoolFile } from './spool.ts'
import type { Ended, Killed, RecordingWriter } from './types.ts'
import { ChunkWriter } from './writer.ts'

/** How often the ledger is told how far a recording is, in milliseconds. */
const PROGRESS_MS = 30_000
/** Waits before another attempt to write down the end, in milliseconds: doubled up to the second. */
const FIRST_RETRY_MS = 1_000
const MAX_RETRY_MS = 60_000
const DAY_MS = 86_400_000

/** What it needs. */
export interface RunningDeps {
  readonly id: string
  readonly cluster: string
  readonly key: Buffer
  readonly file: SpoolFile
  readonly documents: Documents
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly progressMs?: number
  readonly chunkAgeMs?: number
  /** Told once, when document and ledger have its end. */
  readonly onEnded: (id: string) => void
}

/** See the head of the file. */
export class RunningRecording implements RecordingWriter {
  readonly #deps: RunningDeps
  readonly #chunks: ChunkWriter
  readonly #killed = new AbortController()
  readonly #timer: NodeJS.Timeout
  #progress: Promise<void> | undefined
  #told = 0
  #ending: Promise<void> | undefined
  #retry: NodeJS.Timeout | undefined
  readonly #over = Promise.withResolvers<undefined>()

  constructor(deps: RunningDeps) {
    this.#deps = deps
    this.#chunks = new ChunkWriter(deps)
    this.#timer = setInterval(() => {
      this.#progress ??= this.#tellProgress().finally(() => {
        this.#progress = undefined
      })
    }, deps.progressMs ?? PROGRESS_MS)
    this.#timer.unref()
  }

  get bytes(): number {
    return this.#chunks.bytes
  }

  get failed(): AbortSignal {
    return this.#chunks.failed
  }

  get killed(): AbortSignal {
    return this.#killed.signal
  }

  /** What is durable. */
  get durable(): ChainState {
    return this.#chunks.durable
  }

  /** Settles when nothing is written any more. */
  get over(): Promise<void> {
    return this.#over.promise
  }

  get key(): Buffer {
    return this.#deps.key
  }

  segments(): readonly Segment[] {
    return this.#deps.file.segments()
  }

  write(event: Uint8Array, payload?: Uint8Array): void {
    this.#chunks.write(event, payload)
  }

  room(): Promise<void> | undefined {
    return this.#chunks.room()
  }

  follow(listener: (events: Uint8Array) => void): () => void {
    return this.#chunks.follow(listener)
  }

  /** Tells the session that somebody ends it. */
  kill(by: Killed): void {
    this.#killed.abort(by)
  }

  end(how: Ended): Promise<void> {
    this.#ending ??= this.#end(how)
    return this.#ending
  }

  /** Leaves it as it is: the next broker closes what did not come to its end. Never rejects. */
  close(): Promise<void> {
    clearInterval(this.#timer)
    clearTimeout(this.#retry)
    return this.#deps.file.close()
  }

  async #end(how: Ended): Promise<void> {
    clearInterval(this.#timer)
    await this.#chunks.close()
    await this.#progress
    this.#over.resolve(undefined)
    await this.#writeEnd(how, FIRST_RETRY_MS)
  }

  /** Never rejects. */
  async #writeEnd(how: Ended, retryMs: number): Promise<void> {
    const { id, documents, log, now, onEnded } = this.#deps
    const { durable, failed } = this.#chunks
    const at = now()
    const change = (
      document: SessionDocument,
    ): { document: SessionDocument; entries: SessionEntry[] } | undefined => {
      // a first attempt of which the store did not say that it succeeded
      if (document.session.state !== 'running') return undefined
      const state = failed.aborted ? 'failed' : 'ended'
      const session = endedSession(document, state, how, durable, at)
      const entries = [sessionEntry(session, 'ended', endDetail(how, durable, state))]
      return { document: { ...this.#counted(document), session }, entries }
    }
    try {
      await documents.change(id, change, [unmark(id)])
      onEnded(id)
    } catch (error) {
      log.error(
        { requestId: id, error: messageOf(error) },
        'the end of a session could not be written down',
      )
      this.#retry = setTimeout(
        () => void this.#writeEnd(how, Math.min(retryMs * 2, MAX_RETRY_MS)),
        retryMs,
      )
      this.#retry.unref()
    }
  }

  /** Never rejects. */
  async #tellProgress(): Promise<void> {
    const { durable } = this.#chunks
    if (durable.chunks === this.#told || this.failed.aborted) return
    try {
      await this.#deps.documents.change(this.#deps.id, (document) => {
        const { recording } = document.session
        if (recording === undefined) return undefined
        const session = { ...document.session, recording: { ...recording, ...durable } }
        const entries = [sessionEntry(session, 'progress', { ...durable })]
        return { document: { ...this.#counted(document), session }, entries }
      })
      this.#told = durable.chunks
    } catch (error) {
      this.#chunks.fail(error)
    }
  }

  #counted({ session, kept }: SessionDocument): SessionDocument {
    return kept === undefined
      ? { session }
      : { session, kept: { ...kept, segments: [...this.segments()] } }
  }
}

/** A session when it is over. @param atMs - when that was */
export function endedSession(
  { session, kept }: SessionDocument,
  state: 'ended' | 'failed' | 'cut',
  how: Partial<Ended>,
  durable: ChainState,
  atMs: number,
): Session {
  const { recording } = session
  const days = kept?.retainDays
  const expires =
    days === undefined ? {} : { expiresAt: new Date(atMs + days * DAY_MS).toISOString() }
  return {
    ...{ ...session, state, endedAt: new Date(atMs).toISOString() },
    ...(how.result === undefined ? {} : { result: how.result }),
    ...(how.totals === undefined ? {} : { totals: how.totals }),
    ...(how.ending === undefined ? {} : { ending: how.ending }),
    ...(recording === undefined ? {} : { recording: { ...recording, ...durable, ...expires } }),
  }
}

function endDetail(
  { result, totals, ending }: Ended,
  durable: ChainState,
  state: string,
): SessionEntry['detail'] {
  return {
    ...{ state, ...durable, ...totals },
    ...(result === undefined ? {} : { status: result.status }),
    ...(result?.exitCode === undefined ? {} : { exitCode: result.exitCode }),
    ...(ending === undefined ? {} : { ending }),
  }
}
