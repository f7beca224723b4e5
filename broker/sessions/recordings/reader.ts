/** What reads recordings: the API's side of this room. */
import type { Session, SessionPage } from '../../../shared/recording/session-wire.ts'
import type { Refusal } from '../../../shared/reasons.ts'
import type { Killed } from './types.ts'

/** Which sessions; all that is given must hold. Texts are compared whole. */
export interface SessionFilter {
  /** Beginning of the id. */
  readonly prefix?: string
  readonly kind?: Session['kind']
  readonly subject?: string
  readonly agent?: string
  readonly cluster?: string
  readonly namespace?: string
  readonly name?: string
  readonly state?: Session['state']
  /** Began at this time or later, milliseconds since the epoch. */
  readonly sinceMs?: number
  /** Began before. */
  readonly untilMs?: number
}

/** Part of the stream of events, in bytes of it. */
export interface EventRange {
  readonly from: number
  /** Exclusive; all that is durable when left out. */
  readonly to?: number
}

/**
 * See the head of the file. What is not there or cannot be read here is refused: `session_unknown`, `session_unrecorded`, `session_expired`,
 * `session_elsewhere`. A recording that is not as it was written is a Fault `recording_corrupt`, thrown where it shows: behind what is good.
 */
export interface RecordingReader {
  session(id: string): Promise<Session | undefined>
  /**
   * The newest first. A page may be short, or empty, and still have a `next`: so many documents are looked at, no more.
   *
   * @param before - `next` of the page before
   */
  list(filter: SessionFilter, limit: number, before?: string): Promise<SessionPage>
  /** Decrypted; each chunk was checked by its tag, and stands where it belongs. Of a running session what is durable. */
  events(id: string, range?: EventRange): Promise<AsyncIterable<Buffer> | Refusal>
  /** Chunks as they are stored, to be verified without the key. */
  sealed(id: string): Promise<AsyncIterable<Buffer> | Refusal>
  /** Bytes of events, durable so far. */
  size(id: string): Promise<number | Refusal>
  /**
   * Follows a running session of this broker: events from `from` on as far as they are durable, then each chunk's as it becomes so, without a gap
   * and none twice.
   *
   * @param onEnd - called once when nothing follows; with the fault where it could not be read
   * @returns ends it; or `session_over`, `session_elsewhere`
   */
  follow(
    id: string,
    from: number,
    listener: (events: Buffer) => void,
    onEnd?: (fault?: unknown) => void,
  ): Promise<(() => void) | Refusal>
  /** Ends a running session, of any broker: in a second where it is another's. @returns `session_unknown`, `session_over` */
  kill(id: string, by: Killed): Promise<Refusal | undefined>
}
