/** The recordings of this broker, wired: spool, keys, documents, archive, what reads them, and what takes care of them. */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { codeOf, Fault, messageOf } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/log.ts'
import type { Recording } from '../../../shared/policy/decision.ts'
import { firstHash } from '../../../shared/recording/chain.ts'
import type { SessionFacts } from '../../../shared/recording/session-wire.ts'
import type { Store } from '../../store/store.ts'
import { createDocuments, sessionEntry } from './documents.ts'
import type { Documents, SessionDocument } from './documents.ts'
import { KEY_BYTES, openKeyFiles, vaultKeys } from './keys.ts'
import type { MasterKeys } from './keys.ts'
import { RunningRecording } from './recording.ts'
import type { SessionsSettings } from './settings.ts'
import { openSpool } from './spool.ts'
import type { Spool, SpoolDeps } from './spool.ts'
import type { Recordings, RecordingWriter } from './types.ts'

const SPOOL_DIR = 'recordings'
const KEYS_DIR = 'recording-keys'

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
}

/** See the head of the file. */
export interface OpenRecordings extends Recordings {
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
  return new AllRecordings({ settings, deps, spool, keys, documents })
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
  readonly keys: MasterKeys
  readonly documents: Documents
}

class AllRecordings implements OpenRecordings {
  readonly #parts: Parts
  readonly #running = new Map<string, RunningRecording>()

  constructor(parts: Parts) {
    this.#parts = parts
  }

  async begin(facts: SessionFacts, terms: Recording): Promise<RecordingWriter> {
    const { deps } = this.#parts
    try {
      return await this.#begin(facts, terms)
    } catch (error) {
      const { id } = facts
      deps.log.error(
        { requestId: id, code: codeOf(error), error: messageOf(error) },
        'no recording could be begun',
      )
      if (error instanceof Fault && error.code === 'recording_failed') throw error
      throw new Fault('recording_failed', 'the recording could not be begun', { cause: error })
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

  async close(): Promise<void> {
    for (const recording of this.#running.values()) recording.close()
    this.#parts.keys.close()
    return Promise.resolve()
  }

  async #begin(facts: SessionFacts, terms: Recording): Promise<RecordingWriter> {
    const { spool, keys, documents, deps } = this.#parts
    const { id, cluster } = facts
    const key = randomBytes(KEY_BYTES)
    const wrapped = await keys.wrap(key, id)
    const file = await spool.create(id, () => undefined)
    const document = this.#documentOf(facts, terms, wrapped)
    const { mode, stdin, mask } = terms
    try {
      const detail = { kind: facts.kind, mode, stdin, masked: mask }
      await documents.create(document, [sessionEntry(facts, 'started', detail)])
    } catch (error) {
      // what stays is taken care of at the next start: whether the document is there is not known
      await file.close()
      throw error
    }
    const recording = new RunningRecording({
      ...{ id, cluster, key, file, documents, log: deps.log, now: deps.now },
      ...(deps.chunkAgeMs === undefined ? {} : { chunkAgeMs: deps.chunkAgeMs }),
      ...(deps.progressMs === undefined ? {} : { progressMs: deps.progressMs }),
      onEnded: () => {
        this.#running.delete(id)
      },
      onOver: () => undefined,
    })
    this.#running.set(id, recording)
    return recording
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
