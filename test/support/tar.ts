/** Tar archives of any shape, block by block. */

/** Fields of a header block. */
export interface HeaderFields {
  readonly name: string
  readonly size?: number
  readonly mode?: number
  readonly flag?: string
  readonly linkName?: string
  /** The size as GNU writes it above 8 GiB. */
  readonly base256?: boolean
  /** The size as it stands, whatever it is. */
  readonly sizeField?: string
}

/** A block of 512 bytes that begins with these. */
export function block(text: string | Buffer): Buffer {
  const bytes = Buffer.alloc(512)
  Buffer.from(text).copy(bytes)
  return bytes
}

/** Content, padded to whole blocks. */
export function padded(text: string | Buffer): Buffer {
  const content = Buffer.from(text)
  return Buffer.concat([content, Buffer.alloc((512 - (content.length % 512)) % 512)])
}

/** A header with a right checksum. */
export function header({ name, size = 0, mode = 0, flag = '0', ...others }: HeaderFields): Buffer {
  const bytes = Buffer.alloc(512)
  bytes.write(name, 0)
  bytes.write(`${mode.toString(8).padStart(7, '0')}\0`, 100)
  if (others.base256 === true) {
    bytes.writeUInt8(0x80, 124)
    bytes.writeBigUInt64BE(BigInt(size), 128)
  } else bytes.write(others.sizeField ?? `${size.toString(8).padStart(11, '0')}\0`, 124, 'latin1')
  bytes.write(flag, 156)
  bytes.write(others.linkName ?? '', 157)
  bytes.write('ustar\u000000', 257)
  bytes.write(' '.repeat(8), 148)
  const sum = bytes.reduce((total, byte) => total + byte, 0)
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return bytes
}

/** Records of a pax header. */
export function pax(records: Readonly<Record<string, string>>): Buffer {
  const lines = Object.entries(records).map(([key, value]) => {
    const rest = Buffer.byteLength(` ${key}=${value}\n`)
    let length = rest + String(rest).length
    length = rest + String(length).length
    return `${length} ${key}=${value}\n`
  })
  return Buffer.from(lines.join(''))
}

/** All behind each other. */
export function archive(...parts: readonly Buffer[]): Buffer {
  return Buffer.concat(parts)
}
