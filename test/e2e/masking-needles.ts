/** Secrets that are planted, and the search for any piece of them, in whatever spelling. */
import { createHash, randomBytes } from 'node:crypto'
import { gzipSync } from 'node:zlib'

/** A secret, in the form in which people keep it. */
export interface Planted {
  /** What is written into an object. */
  readonly value: Buffer
  /** What of it is secret; every piece of it is searched for. */
  readonly parts: readonly Buffer[]
}

/** Letters and digits that occur nowhere else. */
export function newSecret(length = 40): string {
  let text = ''
  while (text.length < length)
    text += randomBytes(48)
      .toString('base64')
      .replace(/[^a-z0-9]/gi, '')
  return text.slice(0, length)
}

/** A secret within a text. */
export function plant(around: (secret: string) => string = (secret) => secret): Planted {
  const secret = newSecret()
  return { value: Buffer.from(around(secret)), parts: [Buffer.from(secret)] }
}

/** A private key, as far as anybody sees. */
export function plantPem(): Planted {
  const lines = [1, 2, 3].map(() => newSecret(64))
  const text = ['-----BEGIN PRIVATE KEY-----', ...lines, '-----END PRIVATE KEY-----', '']
  return { value: Buffer.from(text.join('\n')), parts: lines.map((line) => Buffer.from(line)) }
}

/** Bytes that are no text. */
export function plantBinary(): Planted {
  const value = Buffer.concat([Buffer.from([0, 0xff, 0xfe]), randomBytes(45)])
  return { value, parts: [value] }
}

/** Length of what every gzip begins with (RFC 1952, 2.3.1). */
const GZIP_HEADER = 10

/** What Helm keeps of a release: base64 of gzip, of which a Secret has base64 again. */
export function plantHelm(): Planted {
  const release = { name: 'shop', config: { password: newSecret() }, manifest: newSecret(200) }
  const packed = gzipSync(JSON.stringify(release))
  const secret = packed.subarray(GZIP_HEADER + 4, -8)
  return { value: Buffer.from(packed.toString('base64')), parts: [secret] }
}

/** Fewest characters of an encoding that count as found, by how many a byte of the secret takes in it. */
const WINDOW = 12
const SPARSE_BYTES = 8

const reversed = (text: string): string => Buffer.from(text, 'latin1').reverse().toString('latin1')
const bytewise = (bytes: Buffer, spell: (hex: string) => string): string =>
  [...bytes].map((byte) => spell(byte.toString(16).padStart(2, '0'))).join('')

/** Base64 of some bytes, wherever in something longer they begin; what neighbours have a part in is left out. */
function base64s(bytes: Buffer): readonly string[] {
  return [0, 1, 2].map((shift) => {
    const text = Buffer.concat([Buffer.alloc(shift), bytes]).toString('base64')
    const whole = text.replace(/=+$/, '')
    const end = whole.length === text.length ? whole.length : whole.length - 1
    return whole.slice(shift === 0 ? 0 : shift + 1, end)
  })
}

interface Spelling {
  readonly name: string
  readonly text: string
  /** Length of the pieces that are searched for. */
  readonly window: number
}

function spellings(bytes: Buffer): readonly Spelling[] {
  const once = base64s(bytes)
  const twice = once.flatMap((text) => base64s(Buffer.from(text)))
  const dense = [
    { name: 'plain', text: bytes.toString('latin1') },
    { name: 'UTF-8 of Latin-1', text: Buffer.from(bytes.toString('latin1')).toString('latin1') },
    ...once.map((text) => ({ name: 'base64', text })),
    ...twice.map((text) => ({ name: 'base64 twice', text })),
    ...[...once, ...twice].map((text) => ({
      name: 'base64url',
      text: text.replaceAll('+', '-').replaceAll('/', '_'),
    })),
  ]
  const sparse = [
    { name: 'hex', text: bytes.toString('hex') },
    { name: 'HEX', text: bytes.toString('hex').toUpperCase() },
    { name: 'URL', text: bytewise(bytes, (hex) => `%${hex}`) },
    { name: 'URL in capitals', text: bytewise(bytes, (hex) => `%${hex.toUpperCase()}`) },
    { name: 'JSON escapes', text: bytewise(bytes, (hex) => `\\u00${hex}`) },
  ]
  const hashes = ['sha256', 'sha1', 'md5'].flatMap((hash) =>
    (['hex', 'base64', 'base64url'] as const).map((encoding) => ({
      name: `${hash} in ${encoding}`,
      text: createHash(hash).update(bytes).digest(encoding),
    })),
  )
  return [
    ...[...dense, ...hashes].flatMap(({ name, text }) => [
      { name, text, window: WINDOW },
      { name: `${name} backwards`, text: reversed(text), window: WINDOW },
    ]),
    ...sparse.map(({ name, text }) => {
      const perByte = text.length / bytes.length
      return { name, text, window: perByte * SPARSE_BYTES }
    }),
  ]
}

/** Bytes by which a place is looked up before anything else. */
const HEAD = 3
const HEADS = 2 ** (8 * HEAD)

/** Finds any piece of what was planted, in one pass. */
export class Needles {
  readonly #heads = new Uint8Array(HEADS)
  /** Names by piece, by the pieces' length. */
  readonly #pieces = new Map<number, Map<string, string>>()

  /** Adds what was planted under a name. */
  add(name: string, { value, parts }: Planted): void {
    for (const bytes of [...parts, value])
      for (const spelling of spellings(bytes)) {
        // of the whole value, which has parts that are no secret, only hashes are looked for
        if (bytes === value && !parts.includes(value) && !/^(sha|md5)/.test(spelling.name)) continue
        this.#addSpelling(`${name} (${spelling.name})`, spelling)
      }
  }

  #addSpelling(name: string, { text, window }: Spelling): void {
    const pieces = this.#pieces.get(window) ?? new Map<string, string>()
    this.#pieces.set(window, pieces)
    for (let at = 0; at + window <= text.length; at += 1) {
      const piece = text.slice(at, at + window)
      if (!pieces.has(piece)) pieces.set(piece, name)
      const bytes = Buffer.from(piece, 'latin1')
      this.#heads[bytes.readUIntBE(0, HEAD)] = 1
    }
  }

  /** What is found in some bytes, each name once. */
  in(bytes: Buffer): readonly string[] {
    const found = new Set<string>()
    let head = 0
    for (let at = 0; at < bytes.length; at += 1) {
      head = ((head << 8) | (bytes[at] ?? 0)) & (HEADS - 1)
      if (this.#heads[head] === 0) continue
      const from = at - HEAD + 1
      for (const [window, pieces] of this.#pieces) {
        const name = pieces.get(bytes.toString('latin1', from, from + window))
        if (name !== undefined) found.add(name)
      }
    }
    return [...found]
  }
}
