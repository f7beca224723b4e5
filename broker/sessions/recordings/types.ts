/** What a session and its recorder see of recordings: begun before anything is dialled, written while it runs, sealed at its end. */
import type { Recording } from '../../../shared/policy/decision.ts'
import type {
  SessionEnding,
  SessionFacts,
  SessionResult,
  SessionTotals,
} from '../../../shared/recording/session-wire.ts'

/** The recordings of this broker. */
export interface Recordings {
  /**
   * Begins a recording: makes and wraps its key, opens its file, and makes its document and its ledger entry `started` durable.
   *
   * @param facts - all that is known of the session before it runs; `facts.id` is the request's id
   * @param terms - of policy; `terms.mode` is not `off`
   * @returns rejects with Fault `recording_failed` when it cannot be: nothing may be dialled then
   */
  begin(facts: SessionFacts, terms: Recording): Promise<RecordingWriter>
  /**
   * Keeps a session without streams (state `ended`, no recording), such as a change of ephemeral containers.
   *
   * @returns rejects as `begin` does
   */
  note(facts: SessionFacts): Promise<void>
}

/** A recording that is being written. It is single: one session writes it, in order. */
export interface RecordingWriter {
  /**
   * Takes the bytes of one event (shared/recording/events.ts). Never throws; after a failure nothing is taken any more.
   * A long payload may come apart from its event's head: it is copied once, and not kept.
   * What is written is durable a second later, or when `MAX_CHUNK_BYTES` have come.
   */
  write(event: Uint8Array, payload?: Uint8Array): void
  /** Undefined while there is room for more; else settles when there is again, or when the recording has failed. */
  room(): Promise<void> | undefined
  /** Bytes of events taken so far. */
  readonly bytes: number
  /** Aborted with a Fault `recording_failed` once nothing more can be written. */
  readonly failed: AbortSignal
  /** Aborted when somebody ends the session (`POST /v1/sessions/ID/kill`); the reason is a `Killed`. */
  readonly killed: AbortSignal
  /** Calls back with each chunk's events once they are durable. @returns ends it */
  follow(listener: (events: Uint8Array) => void): () => void
  /**
   * Writes what is left, seals the last chunk, and makes document and ledger entry `ended` durable. The caller has written the
   * event `end`. Settles, and never rejects, also where the recording had failed: its document then says so.
   */
  end(how: Ended): Promise<void>
}

/** How a session ended. */
export interface Ended {
  /** Absent where nothing said so. */
  readonly result?: SessionResult
  readonly totals: SessionTotals
  /** Why it ended, where not by itself. */
  readonly ending?: SessionEnding
}

/** Who ended a session, and why. */
export interface Killed {
  readonly actor: string
  readonly reason: string
}
