/** The size of a terminal as it travels: `{"Width": columns, "Height": rows}` (client-go, tools/remotecommand/resize.go: two uint16). */
import { z } from 'zod'
import type { TerminalSize } from './streams.ts'

/** Longest text of one size, in bytes. */
const MAX_SIZE_BYTES = 256

const side = z.int().min(0).max(65_535)
const sizeSchema = z.strictObject({ Width: side, Height: side })

/** Reads one size; undefined where it is none. */
export function readSize(bytes: Buffer): TerminalSize | undefined {
  if (bytes.length > MAX_SIZE_BYTES) return undefined
  try {
    const read = sizeSchema.safeParse(JSON.parse(bytes.toString('utf8')))
    return read.success ? { columns: read.data.Width, rows: read.data.Height } : undefined
  } catch {
    return undefined
  }
}

/** One size, as a line: readers take one after the other from a stream. */
export function writeSize({ columns, rows }: TerminalSize): Buffer {
  return Buffer.from(`${JSON.stringify({ Width: columns, Height: rows })}\n`)
}

/** Reads sizes from a stream of them, in pieces of any length. */
export interface SizeReader {
  /** @returns the sizes that are complete; undefined where what came is none */
  push(bytes: Buffer): readonly TerminalSize[] | undefined
}

const CLOSING_BRACE = 0x7d

/** Makes a reader. A size has no braces within, so that each ends at the first one. */
export function createSizeReader(): SizeReader {
  let rest = Buffer.alloc(0)
  return {
    push(bytes) {
      rest = rest.length === 0 ? Buffer.from(bytes) : Buffer.concat([rest, bytes])
      const sizes: TerminalSize[] = []
      for (;;) {
        const end = rest.indexOf(CLOSING_BRACE)
        if (end < 0) break
        const size = readSize(rest.subarray(0, end + 1))
        if (size === undefined) return undefined
        sizes.push(size)
        rest = rest.subarray(end + 1)
      }
      return rest.length > MAX_SIZE_BYTES ? undefined : sizes
    },
  }
}
