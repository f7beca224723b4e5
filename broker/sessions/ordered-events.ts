/** Events in the order of their times: what comes while earlier output is kept back (masked-stream.ts) waits for it. */
import type { RecordingWriter } from './recordings/types.ts'

/** An event that is not written yet. */
export interface WaitingEvent {
  readonly head: Buffer
  readonly payload: Uint8Array
  readonly atUs: number
}

/** See the head of the file. What waits is written with the next event; when nothing is kept back, with this one. */
export class OrderedEvents {
  readonly #writer: Pick<RecordingWriter, 'write'>
  readonly #horizonUs: () => number
  readonly #waiting: WaitingEvent[] = []

  /** @param horizonUs - the time of what is kept back; Infinity where nothing is */
  constructor(writer: Pick<RecordingWriter, 'write'>, horizonUs: () => number) {
    this.#writer = writer
    this.#horizonUs = horizonUs
  }

  write(event: WaitingEvent): void {
    const { head, payload, atUs } = event
    const horizonUs = this.#horizonUs()
    if (this.#waiting.length === 0 && atUs <= horizonUs) {
      this.#writer.write(head, payload)
      return
    }
    const before = this.#waiting.findLastIndex((other) => other.atUs <= atUs)
    this.#waiting.splice(before + 1, 0, event)
    const later = this.#waiting.findIndex((other) => other.atUs > horizonUs)
    const due = this.#waiting.splice(0, later === -1 ? this.#waiting.length : later)
    for (const one of due) this.#writer.write(one.head, one.payload)
  }
}
