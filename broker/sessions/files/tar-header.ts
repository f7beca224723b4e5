/**
 * One header block of a tar archive: POSIX ustar and pax, GNU, and the old form without a magic word. The bytes are the other side's: what
 * is not understood is undefined, never an exception. Sources: POSIX.1-2017 pax, "Extended Header" and "ustar Interchange Format"; GNU tar
 * manual, "Basic Tar Format".
 */

/** Bytes of a block: headers are one, content is padded to whole ones. */
export const BLOCK_BYTES = 512

/** What a member is. */
export type FileType =
  | 'file'
  | 'directory'
  | 'symlink'
  | 'hardlink'
  | 'character-device'
  | 'block-device'
  | 'fifo'
  | 'sparse'
  | 'global-header'
  | 'extended-header'
  | 'other'

/** A header as it stands, before long names and pax records are applied. */
export interface TarHeader {
  readonly name: string
  /** The type byte as a character: `0`, `5`, `x`, … */
  readonly flag: string
  /** Bytes that follow, without padding; 0 for types that have none. */
  readonly size: number
  readonly mode: number | undefined
  readonly linkName: string
  /** Old GNU sparse form: a block with more of the map follows. */
  readonly moreMap: boolean
}

const NAME = [0, 100] as const
const MODE = [100, 108] as const
const SIZE = [124, 136] as const
const CHECKSUM = [148, 156] as const
const FLAG = 156
const LINK_NAME = [157, 257] as const
const MAGIC = [257, 265] as const
const PREFIX = [345, 500] as const
const MORE_MAP = 482
const MORE_MAP_IN_MAP = 504

const NUMBER_BASE_256 = 0x80
const SPACE = 0x20
/** Links, devices, directories, fifos: readers take no content of them, whatever their size field says. */
const WITHOUT_CONTENT = new Set(['1', '2', '3', '4', '5', '6'])

const TYPES: ReadonlyMap<string, FileType> = new Map([
  ['0', 'file'],
  ['7', 'file'],
  ['1', 'hardlink'],
  ['2', 'symlink'],
  ['3', 'character-device'],
  ['4', 'block-device'],
  ['5', 'directory'],
  ['6', 'fifo'],
  ['S', 'sparse'],
  ['g', 'global-header'],
])

/** What a type byte stands for. */
export function typeOf(flag: string): FileType {
  return TYPES.get(flag) ?? 'other'
}

/** Whether a block is the end of an archive: all zeros. */
export function isZero(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0)
}

/** Whether another block of a sparse file's map follows this one. */
export function mapGoesOn(block: Buffer): boolean {
  return block[MORE_MAP_IN_MAP] !== 0
}

/** @returns undefined where the block is no header: its checksum or its size does not hold */
export function parseHeader(block: Buffer): TarHeader | undefined {
  if (!checksumHolds(block)) return undefined
  const stated = parseNumber(block.subarray(...SIZE))
  if (stated === undefined) return undefined
  const name = nameOf(block)
  const flag = flagOf(block, name)
  return {
    name,
    flag,
    size: WITHOUT_CONTENT.has(flag) ? 0 : stated,
    mode: parseNumber(block.subarray(...MODE)),
    linkName: text(block.subarray(...LINK_NAME)),
    moreMap: flag === 'S' && block[MORE_MAP] !== 0,
  }
}

/** The sum of all bytes, those of the field itself as blanks; some old tars took them as signed. */
function checksumHolds(block: Buffer): boolean {
  const stated = parseNumber(block.subarray(...CHECKSUM))
  if (stated === undefined || stated === 0) return false
  let sum = 0
  let signed = 0
  for (let at = 0; at < BLOCK_BYTES; at++) {
    const byte = at >= CHECKSUM[0] && at < CHECKSUM[1] ? SPACE : (block[at] ?? 0)
    sum += byte
    signed += byte < 0x80 ? byte : byte - 0x100
  }
  return stated === sum || stated === signed
}

/** Octal digits, or base 256 where the first bit is set (GNU). @returns undefined for anything else, and above 2^53 */
function parseNumber(field: Buffer): number | undefined {
  const first = field[0] ?? 0
  if (first >= NUMBER_BASE_256)
    return first === NUMBER_BASE_256 ? base256(field.subarray(1)) : undefined
  const octal = /^ *([0-7]*)[ \0]*$/.exec(field.toString('latin1'))
  return octal === null ? undefined : Number.parseInt(octal[1] === '' ? '0' : (octal[1] ?? ''), 8)
}

function base256(digits: Buffer): number | undefined {
  let value = 0
  for (const digit of digits) value = value * 256 + digit
  return Number.isSafeInteger(value) ? value : undefined
}

/** Up to the first NUL. */
export function text(field: Buffer): string {
  const end = field.indexOf(0)
  return field.toString('utf8', 0, end === -1 ? field.length : end)
}

function nameOf(block: Buffer): string {
  const name = text(block.subarray(...NAME))
  // GNU writes `ustar` and two blanks there, and has other things where POSIX has the prefix.
  const posix = block.toString('latin1', MAGIC[0], MAGIC[0] + 6) === 'ustar\0'
  const prefix = posix ? text(block.subarray(...PREFIX)) : ''
  return prefix === '' ? name : `${prefix}/${name}`
}

function flagOf(block: Buffer, name: string): string {
  const flag = block[FLAG] ?? 0
  if (flag !== 0) return String.fromCharCode(flag)
  return name.endsWith('/') ? '5' : '0'
}
