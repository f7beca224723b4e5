/** What the broker answers about sessions, read; beside what shared/recording/session-wire.ts has. */
import { isRefusal } from '../shared/reasons.ts'
import { isRequestId } from '../shared/request-id.ts'
import { createEventReader } from '../shared/recording/events.ts'
import { viewEvent } from '../shared/recording/payloads.ts'
import type { EventView } from '../shared/recording/payloads.ts'
import { CallError } from './client.ts'
import type { BrokerClient } from './client.ts'
import { UsageError } from './settings.ts'

/** Address of a session, below the broker's. @throws UsageError where it is not the id of one */
export function sessionPath(text: string): string {
  return `v1/sessions/${sessionId(text)}`
}

/** @throws UsageError where it is not the id of a session */
export function sessionId(text: string): string {
  const id = text.toLowerCase()
  if (!isRequestId(id)) throw new UsageError('the id is not one of a session')
  return id
}

/** The events of a recording, as they come; throws {@link CallError} at the first that is none. */
export async function* viewsOf(client: BrokerClient, path: string): AsyncGenerator<EventView> {
  const reader = createViewReader()
  for await (const bytes of client.download(`${path}/events`, new URLSearchParams()))
    yield* reader.read(bytes)
  reader.end()
}

/** Events out of bytes in pieces of any size. Both methods throw {@link CallError}: at the first that is none, and where the last is cut off. */
export interface ViewReader {
  read(bytes: Uint8Array): Generator<EventView>
  end(): void
}

/** Makes one. */
export function createViewReader(): ViewReader {
  const reader = createEventReader()
  return {
    *read(bytes) {
      for (const event of reader.read(bytes)) {
        const view = viewEvent(event)
        if (isRefusal(view)) throw corrupt(view.detail)
        yield view
      }
      if (reader.refused !== undefined) throw corrupt(reader.refused.detail)
    },
    end() {
      const refusal = reader.end()
      if (refusal !== undefined) throw corrupt(refusal.detail)
    },
  }
}

function corrupt(detail = 'no events'): CallError {
  return new CallError(`the recording is not readable: ${detail}`)
}
