/** Events out of the bytes of a recording. */
import { createEventReader } from '../../shared/recording/events.ts'
import type { RecordedEvent } from '../../shared/recording/events.ts'
import { viewEvent } from '../../shared/recording/payloads.ts'
import type { EventView } from '../../shared/recording/payloads.ts'
import { Fault } from '../../shared/errors.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'

/** Thrown where bytes are no events: it is too late then for a refusal, or a caller makes one of it. */
class CorruptRecording extends Error {
  readonly refusal: Refusal

  constructor(refusal: Refusal) {
    super(refusal.detail ?? refusal.refused)
    this.name = 'CorruptRecording'
    this.refusal = refusal
  }
}

/** What was thrown as a refusal, where it says that the recording is not as it was written. */
export function corruptOf(error: unknown): Refusal | undefined {
  if (error instanceof CorruptRecording) return error.refusal
  if (error instanceof Fault && error.code === 'recording_corrupt')
    return refuse('recording_corrupt', error.message)
  return undefined
}

/** Events, read one by one; throws {@link CorruptRecording} at the first that is not readable. */
export async function* viewsOf(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<EventView> {
  for await (const event of eventsOf(bytes)) {
    const view = viewEvent(event)
    if (isRefusal(view)) throw new CorruptRecording(view)
    yield view
  }
}

/** Events out of bytes in pieces of any size; throws {@link CorruptRecording} where they are none, or end within one. */
export async function* eventsOf(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<RecordedEvent> {
  const reader = createEventReader()
  for await (const piece of bytes) {
    yield* reader.read(piece)
    if (reader.refused !== undefined) throw new CorruptRecording(reader.refused)
  }
  const refusal = reader.end()
  if (refusal !== undefined) throw new CorruptRecording(refusal)
}
