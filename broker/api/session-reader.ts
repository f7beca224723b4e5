/** What the routes of sessions ask of the recordings; broker/sessions/recordings/ has it. */
import type { Refusal } from '../../shared/reasons.ts'
import type {
  Session,
  SessionKind,
  SessionPage,
  SessionState,
} from '../../shared/recording/session-wire.ts'
import type { Killed } from '../sessions/recordings/types.ts'

/** Which sessions; all conditions that are given must hold. Texts are compared whole. */
export interface SessionFilter {
  readonly cluster?: string
  readonly namespace?: string
  readonly name?: string
  readonly kind?: SessionKind
  readonly subject?: string
  readonly agent?: string
  readonly state?: SessionState
  /** Inclusive, milliseconds since the epoch. */
  readonly sinceMs?: number
  /** Exclusive. */
  readonly untilMs?: number
}

/** A part of a recording's events: from byte `from` up to, and without, byte `to`. */
export interface ByteRange {
  readonly from: number
  readonly to: number
}

/**
 * The sessions that this broker can read. An iterable is read from as its consumer asks, and throws a Fault where the recording cannot be
 * read further; returning it early frees what it holds.
 */
export interface SessionReader {
  /** @returns `session_unknown` where there is none */
  session(id: string): Promise<Session | Refusal>
  /** Sessions, newest first. @param cursor - `next` of the page before */
  list(filter: SessionFilter, limit: number, cursor?: string): Promise<SessionPage | Refusal>
  /** Bytes of the events that are readable now. @returns `session_unrecorded`, `session_expired`, `session_elsewhere` where there are none */
  size(id: string): Promise<number | Refusal>
  /** The events' bytes, in pieces of any size; as many as there are now where no range is given. */
  events(id: string, range?: ByteRange): Promise<AsyncIterable<Uint8Array> | Refusal>
  /** The sealed chunks as they are stored, in order (shared/recording/chain.ts). */
  sealed(id: string): Promise<AsyncIterable<Uint8Array> | Refusal>
  /**
   * The events of a running session from byte `from` on, each piece whole events, as they become durable; it ends with the session.
   * Nothing is kept for a consumer that does not ask.
   *
   * @param from - where an event begins
   * @param signal - ends it early
   * @returns `session_over` where the session does not run any more
   */
  follow(
    id: string,
    from: number,
    signal: AbortSignal,
  ): Promise<AsyncIterable<Uint8Array> | Refusal>
  /** Ends a running session; its ledger entry is durable when this settles. @returns the session, `session_over`, `session_elsewhere` */
  kill(id: string, by: Killed): Promise<Session | Refusal>
}
