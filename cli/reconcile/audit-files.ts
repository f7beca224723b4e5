/** A cluster's audit log: files of JSON lines, or of EventLists as webhook backends write them; rotated files in any order. */
import { z } from 'zod'
import { readCall } from './audit-event.ts'
import type { IsBroker } from './audit-event.ts'
import type { Call } from './facts.ts'
import { MAX_LINE_BYTES, parseJson, readLines } from './lines.ts'

/** Places that are told of what could not be read, at most. */
const MAX_PLACES = 20

const listSchema = z.object({ kind: z.literal('EventList'), items: z.array(z.unknown()) })

/** What reading came upon beside events. */
export interface Reading {
  /** Last lines without their end: the file is still written, or was copied while it was. */
  halfLines: number
  /** What is no event, or no entry: how often, and where. */
  unreadable: number
  readonly places: string[]
}

/** An empty one. */
export function newReading(): Reading {
  return { halfLines: 0, unreadable: 0, places: [] }
}

/** Notes what could not be read. */
export function noteUnreadable(reading: Reading, place: string): void {
  reading.unreadable += 1
  if (reading.places.length < MAX_PLACES) reading.places.push(place)
}

/** The events of one file, as they come. Throws where the file itself cannot be read. */
export async function* auditCalls(
  file: string,
  isBroker: IsBroker,
  reading: Reading,
): AsyncGenerator<Call> {
  for await (const { value, place } of values(file, reading)) {
    const list = listSchema.safeParse(value)
    for (const item of list.success ? list.data.items : [value]) {
      const call = readCall(item, isBroker)
      if (call === undefined) noteUnreadable(reading, place)
      else yield call
    }
  }
}

interface Value {
  readonly value: unknown
  readonly place: string
}

async function* values(file: string, reading: Reading): AsyncGenerator<Value> {
  let isFirst = true
  const lines = readLines(file)
  for await (const { text, number, isEnded } of lines) {
    if (text.trim() === '') continue
    const value = parseJson(text)
    const place = `${file}:${number}`
    if (value !== undefined) yield { value, place }
    // one document over many lines
    else if (isFirst && isEnded && text.startsWith('{'))
      yield* document(lines, text, place, reading)
    else if (isEnded) noteUnreadable(reading, place)
    else reading.halfLines += 1
    isFirst = false
  }
}

async function* document(
  lines: AsyncIterable<{ readonly text: string }>,
  first: string,
  place: string,
  reading: Reading,
): AsyncGenerator<Value> {
  const parts = [first]
  let length = first.length
  for await (const { text } of lines) {
    length += text.length
    if (length > MAX_LINE_BYTES) throw new Error('a document that is too long')
    parts.push(text)
  }
  const value = parseJson(parts.join('\n'))
  if (value === undefined) noteUnreadable(reading, place)
  else yield { value, place }
}
