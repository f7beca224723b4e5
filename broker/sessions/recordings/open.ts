/** The recordings of this broker, wired: spool, keys, documents, archive, what reads them, and what takes care of them. */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { codeOf, Fault, messageOf } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/log.ts'
import type { Recording } from '../../../shared/policy/decision.ts'
import { isRefusal, refuse } from '../../../shared/reasons.ts'
import type { Refusal } from '../../../shared/reasons.ts'
import { firstHash } from '../../../shared/recording/chain.ts'
import type { Session, SessionFacts, SessionPage } from '../../../shared/recording/session-wire.ts'
import type { Store } from '../../store/store.ts'
import { bucketArchive, folderArchive } from './archive.ts'
import type { Archive } from './archive.ts'
import { createDocuments, sessionEntry } from './documents.ts'
import type { Documents, SessionDocument } from './documents.ts'
import { startFollowing } from './following.ts'
import { KEY_BYTES, openKeyFiles, vaultKeys } from './keys.ts'
import type { MasterKeys } from './keys.ts'
import { listSessions } from './listing.ts'
import { createMover } from './mover.ts'
import type { Mover } from './mover.ts'
import type { EventRange, RecordingReader, SessionFilter } from './reader.ts'
import { find, readEvents, readSealed } from './reading.ts'
import type { ReadingDeps } from './reading.ts'
import { RunningRecording } from './recording.ts'
import { lookThrough, settle } from './recovery.ts'
import type { RecoveryDeps } from './recovery.ts'
import { Retention } from './retention.ts'
import type { SessionsSettings } from './settings.ts'
import { openSpool } from './spool.ts'
import type { Spool, SpoolDeps } from './spool.ts'
import type { Killed, Recordings, RecordingWriter } from './types.ts'

const SPOOL_DIR = 'recordings'
const KEYS_DIR = 'recording-keys'
const ARCHIVE_DIR = 'archive'
/** How often the spool is looked through for what was left behind, and how often for what is too old, in milliseconds. */
const LOOK_MS = 600_000
const RETENTION_MS = 3_600_000
/** How often a broker with running sessions looks whether somebody ended one at another broker, in milliseconds. */
const KILL_POLL_MS = 1_000

/** What they need. */
export interface RecordingsDeps {
  readonly store: Store
  /** The broker's own folder. */
  readonly dataDir: string
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /** For tests: shorter times, and files and disks that fail. */
  readonly chunkAgeMs?: number
  readonly progressMs?: number
  readonly openSegment?: NonNullable<SpoolDeps['openSegment']>
  readonly freeBytes?: NonNullable<SpoolDeps['freeBytes']>
  readonly archiveMs?: number
  readonly archiveWaitMs?: number
  readonly everyMs?: { readonly look?: number; readonly retain?: number; readonly poll?: number }
}

/** See the head of the file. */
export interface OpenRecordings extends Recordings, RecordingReader {
  /** Stops what runs beside the sessions; they have ended before. */
  close(): Promise<void>
}

/**
 * Opens them.
 *
 * @returns rejects where the spool's folder or the master keys cannot be used
 */
export async function openRecordings(
  settings: SessionsSettings,
  deps: RecordingsDeps,
): Promise<OpenRecordings> {
  const { store, dataDir, log, now } = deps
  const spool = await openSpool({
    ...{ dir: join(dataDir, SPOOL_DIR), settings: settings.spool, now },
    ...(deps.openSegment === undefined ? {} : { openSegment: deps.openSegment }),
    ...(deps.freeBytes === undefined ? {} : { freeBytes: deps.freeBytes }),
  })
  const keys = await openKeys(settings, dataDir, now)
  const documents = createDocuments(store, log)
  const archive = openArchive(settings, deps)
  return new AllRecordings({ settings, deps, spool, archive, keys, documents })
}

function openArchive(
  { archive }: SessionsSettings,
  { dataDir, archiveMs }: RecordingsDeps,
): Archive {
  if (archive === undefined) return folderArchive(join(dataDir, ARCHIVE_DIR), true)
  if ('s3' in archive) return bucketArchive(archive.s3, archiveMs)
  return folderArchive(archive.directory, false)
}

function openKeys(
  { keys }: SessionsSettings,
  dataDir: string,
  now: () => number,
): Promise<MasterKeys> {
  if (keys !== undefined && 'vault' in keys) return Promise.resolve(vaultKeys(keys.vault, now))
  return openKeyFiles(keys?.dir ?? join(dataDir, KEYS_DIR))
}

interface Parts {
  readonly settings: SessionsSettings
  readonly deps: RecordingsDeps
  readonly spool: Spool
  readonly archive: Archive
  readonly keys: MasterKeys
  readonly documents: Documents
}

class AllRecordings implements OpenRecordings {
  readonly #parts: Parts
  /** Also those that are over, until document and ledger have their end. */
  readonly #running = new Map<string, RunningRecording>()
  readonly #beginning = new Set<string>()
  readonly #mover: Mover
  readonly #reading: ReadingDeps
  readonly #timers: readonly NodeJS.Timeout[]
  readonly #work = new Set<Promise<unknown>>()
  readonly #busy = new Set<string>()

  constructor(parts: Parts) {
    const { spool, archive, keys, documents, deps } = parts
    this.#parts = parts
    this.#mover = createMover({
      ...{ spool, archive, log: deps.log },
      onMoved: (id) => settle(this.#recovery, id),
      ...(deps.archiveWaitMs === undefined ? {} : { firstWaitMs: deps.archiveWaitMs }),
    })
    this.#reading = { spool, archive, keys, documents, running: this.#running }
    const retention = new Retention({ documents, archive, log: deps.log, now: deps.now })
    const look = (): void => {
      this.#once('look', () => lookThrough(this.#recovery))
    }
    const retain = (): void => {
      this.#once('retain', () => retention.look())
    }
    const poll = (): void => {
      this.#once('poll', () => this.#pollMarks())
    }
    const every = { look: LOOK_MS, retain: RETENTION_MS, poll: KILL_POLL_MS, ...deps.everyMs }
    this.#timers = [
      setInterval(look, every.look),
      setInterval(retain, every.retain),
      setInterval(poll, every.poll),
    ]
    for (const timer of this.#timers) timer.unref()
    look()
    retain()
  }

  async begin(facts: SessionFacts, terms: Recording): Promise<RecordingWriter> {
    const { log } = this.#parts.deps
    const { id } = facts
    this.#beginning.add(id)
    try {
      return await this.#begin(facts, terms)
    } catch (error) {
      const what = { requestId: id, code: codeOf(error), error: messageOf(error) }
      log.error(what, 'no recording could be begun')
      if (error instanceof Fault && error.code === 'recording_failed') throw error
      throw new Fault('recording_failed', 'the recording could not be begun', { cause: error })
    } finally {
      this.#beginning.delete(id)
    }
  }

  async note(facts: SessionFacts): Promise<void> {
    const endedAt = new Date(this.#parts.deps.now()).toISOString()
    const session = { ...facts, state: 'ended', endedAt } as const
    try {
      const entries = [sessionEntry(session, 'ended', { kind: facts.kind })]
      await this.#parts.documents.create({ session }, entries)
    } catch (error) {
      throw new Fault('recording_failed', 'the session could not be kept', { cause: error })
    }
  }

  async session(id: string): Promise<Session | undefined> {
    return (await this.#parts.documents.read(id))?.session
  }

  list(filter: SessionFilter, limit: number, before?: string): Promise<SessionPage> {
    return listSessions(this.#parts.documents, filter, limit, before)
  }

  async events(
    id: string,
    range: EventRange = { from: 0 },
  ): Promise<AsyncIterable<Buffer> | Refusal> {
    const found = await find(this.#reading, id)
    return isRefusal(found) ? found : readEvents(this.#reading, found, range)
  }

  async sealed(id: string): Promise<AsyncIterable<Buffer> | Refusal> {
    const found = await find(this.#reading, id)
    return isRefusal(found) ? found : readSealed(this.#reading, found)
  }

  async size(id: string): Promise<number | Refusal> {
    const found = await find(this.#reading, id)
    return isRefusal(found) ? found : found.bytes
  }

  async follow(
    id: string,
    from: number,
    listener: (events: Buffer) => void,
    onEnd: (fault?: unknown) => void = () => undefined,
  ): Promise<(() => void) | Refusal> {
    const own = this.#running.get(id)
    if (own !== undefined)
      return startFollowing(this.#reading, { id, own }, from, { listener, onEnd })
    const session = await this.session(id)
    if (session === undefined) return refuse('session_unknown')
    return refuse(session.state === 'running' ? 'session_elsewhere' : 'session_over')
  }

  async kill(id: string, by: Killed): Promise<Refusal | undefined> {
    const { documents } = this.#parts
    const session = await this.session(id)
    if (session === undefined) return refuse('session_unknown')
    if (session.state !== 'running') return refuse('session_over')
    const { actor, reason } = by
    // where it is marked already, the first one to do so ends it
    await documents.mark({ id, actor, reason }, sessionEntry(session, 'killed', { reason }, actor))
    this.#running.get(id)?.kill({ actor, reason })
    return undefined
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer)
    await Promise.all([...this.#running.values()].map((recording) => recording.close()))
    await this.#mover.close()
    await Promise.all(this.#work)
    await this.#parts.archive.close()
    this.#parts.keys.close()
  }

  get #recovery(): RecoveryDeps {
    const { spool, archive, keys, documents, deps } = this.#parts
    return {
      ...{ spool, archive, keys, documents, mover: this.#mover, log: deps.log, now: deps.now },
      isRunning: (id) => this.#running.has(id) || this.#beginning.has(id),
    }
  }

  async #begin(facts: SessionFacts, terms: Recording): Promise<RecordingWriter> {
    const { spool, keys, documents, deps } = this.#parts
    const { id, cluster } = facts
    const key = randomBytes(KEY_BYTES)
    const wrapped = await keys.wrap(key, id)
    const file = await spool.create(id, (segment) => {
      this.#mover.add(id, segment)
    })
    const { mode, stdin, mask } = terms
    try {
      const detail = { kind: facts.kind, mode, stdin, masked: mask }
      const document = this.#documentOf(facts, terms, wrapped)
      await documents.create(document, [sessionEntry(facts, 'started', detail)])
    } catch (error) {
      // what stays is taken care of later: whether the document is there is not known
      await file.close()
      throw error
    }
    const recording = new RunningRecording({
      ...{ id, cluster, key, file, documents, log: deps.log, now: deps.now },
      ...(deps.chunkAgeMs === undefined ? {} : { chunkAgeMs: deps.chunkAgeMs }),
      ...(deps.progressMs === undefined ? {} : { progressMs: deps.progressMs }),
      onEnded: () => {
        this.#running.delete(id)
        this.#beside(this.#archive(id))
      },
    })
    this.#running.set(id, recording)
    return recording
  }

  /** Gives what is left to the archive; never rejects. */
  async #archive(id: string): Promise<void> {
    try {
      const segments = await this.#parts.spool.segmentsOf(id)
      for (const segment of segments) this.#mover.add(id, segment)
      if (segments.length === 0) await settle(this.#recovery, id)
    } catch (error) {
      const what = { requestId: id, error: messageOf(error) }
      this.#parts.deps.log.error(what, 'a recording stays in the spool for now')
    }
  }

  /** Sessions that somebody ended at another broker; never rejects. */
  async #pollMarks(): Promise<void> {
    if (this.#running.size === 0) return
    try {
      for (const { id, actor, reason } of await this.#parts.documents.marks())
        this.#running.get(id)?.kill({ actor, reason })
    } catch (error) {
      this.#parts.deps.log.error(
        { error: messageOf(error) },
        'it is not known whether sessions were ended',
      )
    }
  }

  /** Not again while it still runs. @param work - never rejects */
  #once(name: string, work: () => Promise<unknown>): void {
    if (this.#busy.has(name)) return
    this.#busy.add(name)
    this.#beside(work().finally(() => this.#busy.delete(name)))
  }

  /** Waits for it at the end. @param work - never rejects */
  #beside(work: Promise<unknown>): void {
    const own = work.finally(() => this.#work.delete(own))
    this.#work.add(own)
  }

  #documentOf(facts: SessionFacts, terms: Recording, key: string): SessionDocument {
    const { spool, settings } = this.#parts
    const retainDays = terms.retainDays ?? settings.retainDays
    const runningSha256 = firstHash(facts.id).toString('hex')
    return {
      session: {
        ...{ ...facts, state: 'running' },
        recording: {
          mode: terms.mode === 'best_effort' ? 'best_effort' : 'required',
          ...{ masked: terms.mask, stdin: terms.stdin, chunks: 0, bytes: 0, runningSha256 },
        },
      },
      kept: {
        ...{ spool: spool.id, key, segments: [], archived: false },
        ...(retainDays === undefined ? {} : { retainDays }),
      },
    }
  }
}
