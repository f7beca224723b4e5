/**
 * Reads along in a tar archive that goes by, as `kubectl cp` sends it, and says what files it has. Content is hashed, not kept. Nothing is
 * lost by it: what is not understood as part of an archive is handed back, and from there on everything is.
 */
import { createHash, type Hash } from 'node:crypto'
import { isUsual, parsePax, sizeOf, type PaxRecords } from './pax.ts'
import {
  BLOCK_BYTES,
  isZero,
  mapGoesOn,
  parseHeader,
  text,
  typeOf,
  type FileType,
  type TarHeader,
} from './tar-header.ts'

export { tarStream } from './tar-command.ts'

/** A member of an archive. Names are the archive's: they may hold anything, `..` and control characters too. */
export interface TarFile {
  readonly name: string
  readonly type: FileType
  /** Bytes of content, as stored; where `truncated`, those that came. */
  readonly size: number
  /** Permission bits. */
  readonly mode?: number
  /** Of the content that came, hexadecimal; absent for types without content. */
  readonly sha256?: string
  /** What a link points to. */
  readonly linkName?: string
  /** The stream ended, or stopped to be an archive, within the content. */
  readonly truncated?: true
}

/** Reads along in one direction of a stream. */
export interface FileWatch {
  /** @returns what of the piece, and of what was kept back before it, is no archive, in order; belongs to the piece as far as it can */
  push(bytes: Buffer): readonly Buffer[]
  /** The stream has ended. @returns what was kept back and is no archive */
  end(): readonly Buffer[]
}

/** Most bytes of long names and pax records before a member; what has more is not taken for an archive. */
export const MAX_PRELUDE_BYTES = 256 * 1024

/** Longest name, and longest target of a link, in bytes: PATH_MAX of Linux. Any two fit into one event, however they are escaped. */
const MAX_NAME_BYTES = 4096

/** What was read before the header of a member, and applies to it. */
interface Prelude {
  name?: string
  linkName?: string
  pax?: PaxRecords
}

/** The member whose content goes by. */
interface Member {
  readonly header: TarHeader
  readonly file: Omit<TarFile, 'size' | 'sha256'>
  readonly hash: Hash
  size: number
  left: number
  /** Blocks of a sparse file's map come first. */
  map: boolean
}

type State = 'header' | 'records' | 'map' | 'content' | 'padding' | 'plain'

const NONE: readonly Buffer[] = []
const NOTHING = Buffer.alloc(0)

/**
 * Begins to read along.
 *
 * @param onFile - called with each member once its content has gone by
 */
export function watchTar(onFile: (file: TarFile) => void): FileWatch {
  return new Watch(onFile)
}

class Watch implements FileWatch {
  readonly #onFile: (file: TarFile) => void
  #state: State = 'header'
  /** A block, records or padding, of which `#wanted` bytes are needed. */
  #partial: Buffer = NOTHING
  #partialBytes = 0
  #wanted = BLOCK_BYTES
  /** All since the last member, to be handed back should no member follow. */
  #sinceMember: Buffer[] = []
  #sinceMemberBytes = 0
  #recordsHeader: TarHeader | undefined
  #prelude: Prelude = {}
  #global: PaxRecords = new Map()
  #member: Member | undefined
  #begun = false

  constructor(onFile: (file: TarFile) => void) {
    this.#onFile = onFile
  }

  push(bytes: Buffer): readonly Buffer[] {
    const plain: Buffer[] = []
    let at = 0
    while (at < bytes.length) {
      if (this.#state === 'plain') {
        plain.push(bytes.subarray(at))
        break
      }
      at += this.#state === 'content' ? this.#content(bytes, at) : this.#collect(bytes, at, plain)
    }
    return plain
  }

  end(): readonly Buffer[] {
    if (this.#state === 'plain') return NONE
    if (this.#state === 'content' || this.#state === 'map') this.#report(true)
    const left = [...this.#sinceMember, this.#partial.subarray(0, this.#partialBytes)]
    this.#become('plain', 0)
    if (this.#begun && left.every(isZero)) return NONE
    return left.filter((piece) => piece.length > 0)
  }

  /** Takes content. @returns how many bytes */
  #content(bytes: Buffer, at: number): number {
    const member = this.#member
    if (member === undefined) throw new Error('content of no member')
    const piece = bytes.subarray(at, at + member.left)
    member.hash.update(piece)
    member.left -= piece.length
    if (member.left === 0) this.#contentEnds(member)
    return piece.length
  }

  #contentEnds(member: Member): void {
    this.#report(false)
    const over = member.size % BLOCK_BYTES
    if (over === 0) this.#become('header', BLOCK_BYTES)
    else this.#become('padding', BLOCK_BYTES - over)
  }

  /** Takes a part of what is needed whole. @returns how many bytes */
  #collect(bytes: Buffer, at: number, plain: Buffer[]): number {
    const piece = bytes.subarray(at, at + this.#wanted - this.#partialBytes)
    const isWhole = this.#partialBytes + piece.length === this.#wanted
    if (isWhole && this.#partialBytes === 0) {
      this.#whole(piece, plain)
      return piece.length
    }
    if (this.#partialBytes === 0) this.#partial = Buffer.allocUnsafe(this.#wanted)
    piece.copy(this.#partial, this.#partialBytes)
    this.#partialBytes += piece.length
    if (isWhole) this.#whole(this.#partial, plain)
    return piece.length
  }

  #whole(whole: Buffer, plain: Buffer[]): void {
    if (this.#state === 'header') this.#header(whole, plain)
    else if (this.#state === 'records') this.#records(whole, plain)
    else if (this.#state === 'map') this.#map(whole)
    else {
      if (!isZero(whole)) plain.push(whole)
      this.#become('header', BLOCK_BYTES)
    }
  }

  #header(block: Buffer, plain: Buffer[]): void {
    const header = parseHeader(block)
    if (header === undefined) {
      // Zeros end an archive, and fill its last record. Another may follow.
      const ends = this.#begun && this.#sinceMember.length === 0 && isZero(block)
      if (ends) this.#become('header', BLOCK_BYTES)
      else this.#giveUp(block, plain)
      return
    }
    if (!'xgXLK'.includes(header.flag)) this.#begin(header, block, plain)
    else if (this.#sinceMemberBytes + header.size > MAX_PRELUDE_BYTES) this.#giveUp(block, plain)
    else {
      this.#remember(block)
      this.#recordsHeader = header
      const padded = Math.ceil(header.size / BLOCK_BYTES) * BLOCK_BYTES
      this.#become('records', padded)
      if (padded === 0) this.#records(NOTHING, plain)
    }
  }

  /** Takes the long name, or the records, that stand before a member. */
  #records(padded: Buffer, plain: Buffer[]): void {
    const header = this.#recordsHeader
    if (header === undefined) throw new Error('records of no header')
    const bytes = padded.subarray(0, header.size)
    if (!isZero(padded.subarray(header.size)) || !this.#apply(header, bytes)) {
      this.#giveUp(padded, plain)
      return
    }
    if (header.flag === 'g') this.#forget()
    else this.#remember(padded)
    this.#become('header', BLOCK_BYTES)
  }

  /** @returns false where the bytes are not what the header says */
  #apply(header: TarHeader, bytes: Buffer): boolean {
    if (header.flag === 'L') return this.#applyName('name', bytes)
    if (header.flag === 'K') return this.#applyName('linkName', bytes)
    return this.#applyPax(header, bytes)
  }

  /** One long name of a kind, and nothing behind it. */
  #applyName(kind: 'name' | 'linkName', bytes: Buffer): boolean {
    const end = bytes.indexOf(0)
    if (this.#prelude[kind] !== undefined || (end !== -1 && !isZero(bytes.subarray(end))))
      return false
    this.#prelude[kind] = text(bytes)
    return true
  }

  #applyPax(header: TarHeader, bytes: Buffer): boolean {
    const records = parsePax(bytes)
    if (records === undefined || sizeOf(records) === -1) return false
    const isGlobal = header.flag === 'g'
    if (!isGlobal && this.#prelude.pax !== undefined) return false
    if (isGlobal) this.#global = records
    else this.#prelude.pax = records
    // Records that nobody looks at could carry anything: they show in the manifest, as a file does.
    if (isGlobal || !isUsual(records)) {
      const sha256 = createHash('sha256').update(bytes).digest('hex')
      const type = isGlobal ? 'global-header' : 'extended-header'
      this.#onFile({ name: header.name, type, size: bytes.length, sha256 })
      this.#begun = true
    }
    return true
  }

  #begin(header: TarHeader, block: Buffer, plain: Buffer[]): void {
    const size = this.#sizeOf(header)
    const file = this.#fileOf(header)
    if (size === undefined || isLong(file.name) || isLong(file.linkName)) {
      this.#giveUp(block, plain)
      return
    }
    this.#forget()
    this.#begun = true
    const hash = createHash('sha256')
    this.#member = { header, file, hash, size, left: size, map: header.moreMap }
    if (header.moreMap) this.#become('map', BLOCK_BYTES)
    else this.#beginContent(this.#member)
  }

  #beginContent(member: Member): void {
    this.#become('content', 0)
    if (member.left === 0) this.#contentEnds(member)
  }

  /** A block of a sparse file's map: stored with the content, so hashed and counted with it. */
  #map(block: Buffer): void {
    const member = this.#member
    if (member === undefined) throw new Error('a map of no member')
    member.hash.update(block)
    member.size += BLOCK_BYTES
    if (!mapGoesOn(block)) this.#beginContent(member)
  }

  #sizeOf(header: TarHeader): number | undefined {
    if (typeHasNoContent(header)) return 0
    const own = this.#prelude.pax
    const records = own?.has('size') === true ? own : this.#global
    const size = sizeOf(records) ?? header.size
    // Padded, it has to be a number still.
    return size <= Number.MAX_SAFE_INTEGER - BLOCK_BYTES ? size : undefined
  }

  #record(key: string): string | undefined {
    const own = this.#prelude.pax?.get(key)
    if (own !== undefined) return own === '' ? undefined : own
    const common = this.#global.get(key)
    return common === '' ? undefined : common
  }

  #fileOf(header: TarHeader): Member['file'] {
    const { name, linkName } = this.#prelude
    const sparseName = this.#record('GNU.sparse.name')
    const type = sparseName === undefined ? typeOf(header.flag) : 'sparse'
    const link = this.#record('linkpath') ?? linkName ?? header.linkName
    return {
      name: sparseName ?? this.#record('path') ?? name ?? header.name,
      type,
      ...(header.mode !== undefined && { mode: header.mode }),
      ...((type === 'symlink' || type === 'hardlink') && { linkName: link }),
    }
  }

  #report(truncated: boolean): void {
    const member = this.#member
    if (member === undefined) return
    this.#member = undefined
    const withContent = !typeHasNoContent(member.header)
    this.#onFile({
      ...member.file,
      size: member.size - member.left,
      ...(withContent && { sha256: member.hash.digest('hex') }),
      ...(truncated && { truncated }),
    })
  }

  #remember(bytes: Buffer): void {
    this.#sinceMember.push(Buffer.from(bytes))
    this.#sinceMemberBytes += bytes.length
  }

  #forget(): void {
    this.#sinceMember = []
    this.#sinceMemberBytes = 0
    this.#prelude = {}
  }

  #become(state: State, wanted: number): void {
    this.#state = state
    this.#wanted = wanted
    this.#partial = NOTHING
    this.#partialBytes = 0
  }

  /** No archive, or none any more: all since the last member is output like any other, and all that follows. */
  #giveUp(bytes: Buffer, plain: Buffer[]): void {
    plain.push(...this.#sinceMember)
    if (bytes.length > 0) plain.push(bytes)
    this.#forget()
    this.#become('plain', 0)
  }
}

function typeHasNoContent({ flag }: TarHeader): boolean {
  return '123456'.includes(flag)
}

function isLong(name = ''): boolean {
  return Buffer.byteLength(name) > MAX_NAME_BYTES
}
