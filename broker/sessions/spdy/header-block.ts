/**
 * Header blocks of SPDY/3 (draft-mbelshe-httpbis-spdy-00, section 2.6.10): names and values, in one zlib stream for each direction
 * of a connection, with a dictionary.
 *
 *   count u32 | count times: length u32, name, length u32, value
 *
 * Nothing is compressed on the way out: a secret beside something that an attacker chooses would show in the length (CRIME).
 */
import { createInflate } from 'node:zlib'
import type { Inflate } from 'node:zlib'

/**
 * The longest header block, in bytes before compression, either way. With what zlib adds it fits in the 4 KiB that Go's reader takes
 * at once: what that has not taken when the headers are complete, spdystream calls a wrong size.
 */
export const MAX_HEADER_BLOCK_BYTES = 4 * 1024 - 16
/** The most headers in one block. */
export const MAX_HEADERS = 64

/** Words of the dictionary, each of which has its length before it. */
const WORDS =
  'options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow authorization cache-control connection content-base content-encoding content-language content-length content-location content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin'
/** What follows them, word for word. */
const REST =
  '100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.'

/** The dictionary of SPDY/3. */
export const DICTIONARY: Buffer = Buffer.concat([
  ...WORDS.split(' ').flatMap((word) => text(word.replace('_', ' '))),
  Buffer.from(REST, 'latin1'),
])

/** The head of a zlib stream (RFC 1950) that begins with the dictionary: deflate with a window of 32 KiB, and Adler-32 of it. */
const ZLIB_HEAD = Buffer.from('7820e3c6a7c2', 'hex')
/** An empty stored block: what Z_SYNC_FLUSH ends with. Go's reader hands nothing on before it. */
const FLUSH = Buffer.from('000000ffff', 'hex')

/** Writes header blocks as stored blocks of deflate (RFC 1951, 3.2.4). */
export class HeaderDeflater {
  #begun = false

  /** @param headers - names in lower case. @throws RangeError when they are longer than {@link MAX_HEADER_BLOCK_BYTES} */
  deflate(headers: Readonly<Record<string, string>>): Buffer {
    const plain = encodeHeaders(headers)
    if (plain.length > MAX_HEADER_BLOCK_BYTES) throw new RangeError('the headers are too long')
    const head = Buffer.alloc(5)
    head.writeUInt16LE(plain.length, 1)
    head.writeUInt16LE(0xffff - plain.length, 3)
    const parts = [head, plain, FLUSH]
    if (!this.#begun) parts.unshift(ZLIB_HEAD)
    this.#begun = true
    return Buffer.concat(parts)
  }
}

/** What is called with the headers of a block, or with why it is invalid. */
export type Inflated = (headers: ReadonlyMap<string, string> | string) => void

/** Reads header blocks, one at a time, in the order of the wire. After one that is invalid no other can be read. */
export class HeaderInflater {
  #inflate: Inflate | undefined
  #parts: Buffer[] = []
  #length = 0
  #done: Inflated | undefined
  #destroyed = false

  /** @param done - called once, later; never after {@link destroy} */
  inflate(block: Buffer, done: Inflated): void {
    this.#done = done
    this.#inflate ??= this.#create()
    this.#inflate.write(block, (error) => {
      if (error === undefined || error === null) this.#settle()
      else this.#fail('a header block that cannot be inflated')
    })
  }

  /** Frees what zlib holds. */
  destroy(): void {
    this.#destroyed = true
    this.#done = undefined
    this.#inflate?.destroy()
  }

  #create(): Inflate {
    const inflate = createInflate({
      dictionary: DICTIONARY,
      chunkSize: MAX_HEADER_BLOCK_BYTES,
    })
    inflate.on('error', () => {
      this.#fail('a header block that cannot be inflated')
    })
    inflate.on('data', (part: Buffer) => {
      this.#length += part.length
      if (this.#length > MAX_HEADER_BLOCK_BYTES) this.#fail('a header block that is too long')
      else this.#parts.push(part)
    })
    return inflate
  }

  #settle(): void {
    const plain = Buffer.concat(this.#parts)
    this.#parts = []
    this.#length = 0
    this.#finish(decodeHeaders(plain))
  }

  #fail(why: string): void {
    this.#parts = []
    this.#finish(why)
    this.destroy()
  }

  #finish(result: ReadonlyMap<string, string> | string): void {
    const done = this.#done
    this.#done = undefined
    if (!this.#destroyed) done?.(result)
  }
}

/** A block before compression. */
export function encodeHeaders(headers: Readonly<Record<string, string>>): Buffer {
  const entries = Object.entries(headers)
  return Buffer.concat([
    length(entries.length),
    ...entries.flatMap(([name, value]) => [...text(name), ...text(value)]),
  ])
}

/**
 * Reads a block strictly: what two readers could take for different things is refused.
 *
 * @returns by name, in lower case; several values of one name are joined by NUL, as they came. A text: why it is invalid
 */
export function decodeHeaders(plain: Buffer): ReadonlyMap<string, string> | string {
  if (plain.length < 4) return 'a header block that is cut short'
  const count = plain.readUInt32BE(0)
  if (count > MAX_HEADERS) return 'too many headers'
  const headers = new Map<string, string>()
  let at = 4
  for (let index = 0; index < count; index++) {
    const name = textAt(plain, at)
    const value = name === undefined ? undefined : textAt(plain, at + 4 + name.length)
    if (name === undefined || value === undefined) return 'a header block that is cut short'
    if (!/^[!-@[-~]+$/.test(name)) return 'a header name that is empty or not in lower case'
    if (headers.has(name)) return 'a header that is there twice'
    headers.set(name, value)
    at += 8 + name.length + value.length
  }
  return at === plain.length ? headers : 'bytes behind the last header'
}

/** One character is one byte. */
function textAt(plain: Buffer, at: number): string | undefined {
  if (plain.length - at < 4) return undefined
  const end = at + 4 + plain.readUInt32BE(at)
  return end > plain.length ? undefined : plain.toString('latin1', at + 4, end)
}

function text(value: string): [Buffer, Buffer] {
  const bytes = Buffer.from(value, 'latin1')
  return [length(bytes.length), bytes]
}

function length(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32BE(value)
  return bytes
}
