/**
 * A running recording, read at its follower's pace. What is durable is read from where it lies; only who has read all of it is told of what comes, and of
 * that little waits: whoever falls behind by more reads it from where it lies, too.
 */
import { isRefusal } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { RecordingReader } from '../sessions/recordings/reader.ts'

/** Bytes that wait for a follower at most. */
export const MAX_WAITING_BYTES = 1024 * 1024

/** Told parts that were not asked for yet. */
class Waiting {
  readonly #parts: Uint8Array[] = []
  #bytes = 0
  #wake: (() => void) | undefined
  /** Set once nothing is told any more: too much waited, the session is over, or it could not be read. */
  closed: 'behind' | 'over' | { readonly fault: unknown } | undefined

  add(part: Uint8Array): void {
    if (this.closed !== undefined) return
    this.#bytes += part.length
    if (this.#bytes > MAX_WAITING_BYTES) this.close('behind')
    else this.#parts.push(part)
    this.#wake?.()
  }

  close(how: NonNullable<Waiting['closed']>): void {
    this.closed ??= how
    this.#wake?.()
  }

  /** The next part; undefined once there is none and it is closed, or `signal` is aborted. */
  async next(signal: AbortSignal): Promise<Uint8Array | undefined> {
    while (this.#parts.length === 0 && this.closed === undefined && !signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<undefined>()
      this.#wake = () => {
        resolve(undefined)
      }
      signal.addEventListener('abort', this.#wake, { once: true })
      await promise
      signal.removeEventListener('abort', this.#wake)
    }
    if (signal.aborted) return undefined
    const part = this.#parts.shift()
    this.#bytes -= part?.length ?? 0
    return part
  }
}

/**
 * Follows a session from byte `from` on; each part is whole events. It ends with the session, or when `signal` is aborted; it throws where the
 * recording cannot be read.
 *
 * @returns what refuses it: `session_over` where it does not run
 */
export async function followed(
  reader: RecordingReader,
  id: string,
  from: number,
  signal: AbortSignal,
): Promise<AsyncGenerator<Uint8Array> | Refusal> {
  // says whether it can be followed at all; it is asked for again when all that is there was read
  const stop = await reader.follow(id, Number.MAX_SAFE_INTEGER, () => undefined)
  if (isRefusal(stop)) return stop
  stop()
  return parts(reader, id, from, signal)
}

async function* parts(
  reader: RecordingReader,
  id: string,
  from: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  let at = from
  while (!signal.aborted) {
    for await (const part of await read(reader, id, at)) {
      if (isAborted(signal)) return
      at += part.length
      yield part
    }
    const waiting = new Waiting()
    const stop = await reader.follow(
      id,
      at,
      (part) => {
        waiting.add(Buffer.from(part))
      },
      (fault) => {
        waiting.close(fault === undefined ? 'over' : { fault })
      },
    )
    if (isRefusal(stop)) {
      // it ended after the last look: what came until then is there
      if (stop.refused === 'session_over') yield* await read(reader, id, at)
      return
    }
    try {
      for (
        let part = await waiting.next(signal);
        part !== undefined;
        part = await waiting.next(signal)
      ) {
        at += part.length
        yield part
      }
    } finally {
      stop()
    }
    if (typeof waiting.closed === 'object') throw waiting.closed.fault
    if (waiting.closed === 'over') {
      yield* await read(reader, id, at)
      return
    }
  }
}

/** A call, because the compiler takes a property that was false for false ever after. */
function isAborted(signal: AbortSignal): boolean {
  return signal.aborted
}

/** What is durable from there on. */
async function read(
  reader: RecordingReader,
  id: string,
  from: number,
): Promise<AsyncIterable<Uint8Array>> {
  const size = await reader.size(id)
  const events =
    typeof size !== 'number' || size > from ? await reader.events(id, { from }) : none()
  if (isRefusal(events)) throw new Error(`it cannot be read further: ${events.refused}`)
  return events
}

// eslint-disable-next-line @typescript-eslint/require-await -- an iterable without parts
async function* none(): AsyncGenerator<Uint8Array> {
  yield* []
}
