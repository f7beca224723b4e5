/** What the broker answers about sessions, read; beside what shared/recording/session-wire.ts has. */
import { z } from 'zod'
import { isRefusal } from '../shared/reasons.ts'
import { isRequestId } from '../shared/request-id.ts'
import { createEventReader } from '../shared/recording/events.ts'
import { viewEvent } from '../shared/recording/payloads.ts'
import type { EventView } from '../shared/recording/payloads.ts'
import { CallError } from './client.ts'
import type { BrokerClient } from './client.ts'
import { UsageError } from './settings.ts'

/** Answer of `POST /v1/sessions/ID/view`. */
export const viewSchema = z.object({ url: z.string(), expiresAt: z.string() })

/** A line of `GET /v1/sessions/grep`: a match, or what was searched. */
export const grepLineSchema = z.union([
  z.object({
    id: z.string(),
    startedAt: z.string(),
    atUs: z.int().min(0),
    stream: z.string(),
    line: z.int().min(0),
    text: z.string(),
  }),
  z.object({
    searched: z.int().min(0),
    /** Sessions with more matches than are shown. */
    cut: z.array(z.string()).optional(),
    /** Sessions that could not be read. */
    unread: z.array(z.string()).optional(),
    more: z.string().optional(),
  }),
])

/** See {@link grepLineSchema}. */
export type GrepLine = z.infer<typeof grepLineSchema>

/** Answer of `GET /v1/sessions/ID/details`: what in a recording is no output of a terminal. */
export const detailsSchema = z.object({
  items: z.array(z.object({ type: z.string(), atUs: z.int().min(0), value: z.unknown() })),
  more: z.array(z.string()),
})

/** See {@link detailsSchema}. */
export type Details = z.infer<typeof detailsSchema>

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
