/** Checks that bytes are UTF-8 as they come (RFC 3629), whatever pieces they come in. */
import { isUtf8 } from 'node:buffer'
import { unmaskable } from './reader.ts'

/** Most bytes of one character. */
const MAX_BYTES = 4

/** See the head of the file. */
export class Utf8Check {
  /** The beginning of a character. */
  #rest: Buffer = Buffer.alloc(0)

  /** @throws Fault `answer_unmaskable` */
  push(chunk: Buffer): void {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    const whole = bytes.length - unfinished(bytes)
    if (!isUtf8(bytes.subarray(0, whole))) throw unmaskable('it is not UTF-8')
    this.#rest = bytes.subarray(whole)
  }

  /** @throws Fault `answer_unmaskable` where a character is not complete */
  end(): void {
    if (this.#rest.length > 0) throw unmaskable('it is not UTF-8')
  }
}

/** How many bytes at the end begin a character that goes on. */
function unfinished(bytes: Buffer): number {
  for (let back = 1; back < MAX_BYTES && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back] ?? 0
    if (byte < 0x80) return 0
    if (byte >= 0xc0) return lengthOf(byte) > back ? back : 0
  }
  return 0
}

function lengthOf(lead: number): number {
  if (lead >= 0xf0) return 4
  return lead >= 0xe0 ? 3 : 2
}
