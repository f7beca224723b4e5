/** Files of lines, of any size, plain or compressed (gzip, also several members one after the other). */
import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { pipeline } from 'node:stream'
import { createGunzip } from 'node:zlib'

/** Longest line, in bytes: an event of level RequestResponse has two objects of at most 1.5 MiB each, escaped. */
export const MAX_LINE_BYTES = 64 * 1024 * 1024
const NEWLINE = 10
const GZIP = Buffer.from([0x1f, 0x8b])

/** A line. */
export interface Line {
  readonly text: string
  /** From 1. */
  readonly number: number
  /** Without it, it is the last one of a file that is still written, or was cut. */
  readonly isEnded: boolean
}

/** The lines of a file, as they come. Throws the system's error, zlib's, and an error for a line that is too long. */
export async function* readLines(file: string): AsyncGenerator<Line> {
  let number = 0
  let [parts, length]: [Buffer[], number] = [[], 0]
  const take = (isEnded: boolean): Line => {
    const text = Buffer.concat(parts).toString('utf8')
    ;[parts, length, number] = [[], 0, number + 1]
    return { text, number, isEnded }
  }
  for await (const chunk of await chunks(file)) {
    let start = 0
    for (;;) {
      const end = chunk.indexOf(NEWLINE, start)
      const part = chunk.subarray(start, end < 0 ? chunk.length : end)
      length += part.length
      if (length > MAX_LINE_BYTES) throw new Error(`line ${number + 1} is too long`)
      parts.push(part)
      if (end < 0) break
      yield take(true)
      start = end + 1
    }
  }
  if (length > 0) yield take(false)
}

async function chunks(file: string): Promise<AsyncIterable<Buffer>> {
  const isPacked = await isCompressed(file)
  const stream = createReadStream(file)
  if (!isPacked) return stream
  // an error of either ends the iteration
  return pipeline(stream, createGunzip(), () => undefined)
}

async function isCompressed(file: string): Promise<boolean> {
  const handle = await open(file)
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(2), 0, 2, 0)
    return bytesRead === 2 && buffer.equals(GZIP)
  } finally {
    await handle.close()
  }
}

/** JSON, or undefined. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** What goes with a time into {@link byTime}. */
export interface Timed {
  readonly atUs: number
}

/** Several sequences as one, by time as far as each of them is; holds one item of each. */
export async function* byTime<T extends Timed>(
  sources: readonly AsyncIterable<T>[],
): AsyncGenerator<T> {
  const iterators = sources.map((source) => source[Symbol.asyncIterator]())
  const heads: { readonly item: T; readonly iterator: AsyncIterator<T> }[] = []
  const pull = async (iterator: AsyncIterator<T>): Promise<void> => {
    const next = await iterator.next()
    if (next.done !== true) heads.push({ item: next.value, iterator })
  }
  try {
    for (const iterator of iterators) await pull(iterator)
    for (;;) {
      const first = heads.reduce<(typeof heads)[number] | undefined>(
        (least, head) => (least === undefined || head.item.atUs < least.item.atUs ? head : least),
        undefined,
      )
      if (first === undefined) return
      heads.splice(heads.indexOf(first), 1)
      yield first.item
      await pull(first.iterator)
    }
  } finally {
    for (const iterator of iterators) await iterator.return?.()
  }
}
