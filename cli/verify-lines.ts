/** Lines of a file that may be of any size: read piece by piece, and its last line without reading the rest. */
import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'

/** Longest line that is read, bytes; an entry has at most 64 KiB, a third more as base 64. */
export const MAX_LINE_BYTES = 1024 * 1024
const READ_BYTES = 128 * 1024
const HEAD_BYTES = 4096
const NEWLINE = 0x0a

/** The lines of a file in batches, without their ends. A line that is too long ends them, as undefined. */
export async function* linesOf(file: string): AsyncGenerator<readonly (string | undefined)[]> {
  let rest: Uint8Array = new Uint8Array()
  const chunks: AsyncIterable<Buffer> = createReadStream(file, { highWaterMark: READ_BYTES })
  for await (const chunk of chunks) {
    const piece = Buffer.concat([rest, chunk])
    const end = piece.lastIndexOf(NEWLINE)
    rest = piece.subarray(end + 1)
    if (end >= 0) yield piece.toString('utf8', 0, end).split('\n')
    if (rest.length > MAX_LINE_BYTES) {
      yield [undefined]
      return
    }
  }
  if (rest.length > 0) yield [Buffer.from(rest).toString('utf8')]
}

/** The last line of a file that is not empty, as far as it is not too long. */
export async function lastLineOf(file: string): Promise<string> {
  const opened = await open(file)
  try {
    const { size } = await opened.stat()
    const length = Math.min(size, MAX_LINE_BYTES)
    const tail = Buffer.alloc(length)
    const { bytesRead } = await opened.read(tail, 0, length, size - length)
    return tail.toString('utf8', 0, bytesRead).trimEnd().split('\n').at(-1) ?? ''
  } finally {
    await opened.close()
  }
}

/** The first characters of a file, to see what it is. */
export async function headOf(file: string): Promise<string> {
  const opened = await open(file)
  try {
    const head = Buffer.alloc(HEAD_BYTES)
    const { bytesRead } = await opened.read(head, 0, HEAD_BYTES, 0)
    return head.toString('utf8', 0, bytesRead)
  } finally {
    await opened.close()
  }
}
