/**
 * The spool: where recordings are written first, on a disk of the broker's own. `ID/NNNNNN.seg` under its folder; what is appended is
 * durable when its promise settles. A folder belongs to one broker, and has an id of its own, which stays when the broker starts anew.
 */
import { randomUUID } from 'node:crypto'
import {
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  rmdir,
  stat,
  statfs,
  truncate,
} from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, Fault } from '../../../shared/errors.ts'
import { isRequestId } from '../../../shared/request-id.ts'
import { MAX_SEGMENT_BYTES } from './segments.ts'
import type { Segment } from './segments.ts'
import type { SealedChunk } from './seal.ts'
import type { SessionsSettings } from './settings.ts'

const FOLDER_MODE = 0o700
const FILE_MODE = 0o600
const SUFFIX = '.seg'
const SEGMENT_DIGITS = 6
const SEGMENT_NAME = /^(\d{6,})\.seg$/
const ID_FILE = 'spool-id'
/** A look at the disk's free space counts for so long, in milliseconds. */
const FREE_LOOK_MS = 1_000

/** What is asked of a segment's file; tests put one in its place that fails. */
export interface SegmentHandle {
  writev(parts: readonly Uint8Array[], position: number): Promise<{ readonly bytesWritten: number }>
  datasync(): Promise<void>
  stat(): Promise<{ readonly nlink: number }>
  close(): Promise<void>
}

/** Opens a segment's file, which must not be there yet. */
export type OpenSegment = (path: string) => Promise<SegmentHandle>

/** What the spool needs. */
export interface SpoolDeps {
  /** Its folder; made where it is missing. */
  readonly dir: string
  readonly settings: SessionsSettings['spool']
  /** Milliseconds, any origin. */
  readonly now: () => number
  readonly openSegment?: OpenSegment
  /** Free bytes of the folder's disk. */
  readonly freeBytes?: (dir: string) => Promise<number>
}

/** A recording that is being written. One append at a time. */
export interface SpoolFile {
  /** Rejects with the system's error, or a Fault `recording_failed`; nothing may be appended afterwards. */
  append(chunks: readonly SealedChunk[]): Promise<void>
  /** What is durable, segment by segment; the last one may grow. */
  segments(): readonly Segment[]
  /** Nothing is appended any more. Never rejects. */
  close(): Promise<void>
}

/** See the head of the file. */
export interface Spool {
  /** Of this folder, for as long as it is there. */
  readonly id: string
  /**
   * Makes a recording's folder and its first segment, durable.
   *
   * @param onFull - told the number of each segment that will not be written any more but the last
   * @returns rejects with Fault `recording_failed` where the spool or its disk is full, or with the system's error
   */
  create(id: string, onFull: (segment: number) => void): Promise<SpoolFile>
  /** A segment whole; undefined where it is not here. */
  read(id: string, segment: number): Promise<Buffer | undefined>
  pathOf(id: string, segment: number): string
  /** Forgets what lies behind so many bytes of a segment. */
  cut(id: string, segment: number, bytes: number): Promise<void>
  /** Sessions of which something is here. */
  ids(): Promise<readonly string[]>
  /** Numbers of a session's segments that are here, ascending. */
  segmentsOf(id: string): Promise<readonly number[]>
  /** Removes a segment, also where something else has moved it away already. @param bytes - how large it was */
  remove(id: string, segment: number, bytes: number): Promise<void>
  /** Removes a session's folder, if nothing is in it. */
  removeEmpty(id: string): Promise<void>
  /** Bytes in all. */
  readonly usedBytes: number
}

/** Opens it, and counts what is there. @returns rejects with the system's error where the folder cannot be used */
export async function openSpool(deps: SpoolDeps): Promise<Spool> {
  await mkdir(deps.dir, { recursive: true, mode: FOLDER_MODE })
  const spool = new DiskSpool(deps, await idOf(deps.dir))
  await spool.count()
  return spool
}

async function idOf(dir: string): Promise<string> {
  const file = join(dir, ID_FILE)
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
  }
  const handle = await open(`${file}.new`, 'w', FILE_MODE)
  await handle.writeFile(`${randomUUID()}\n`)
  await handle.sync()
  await handle.close()
  await rename(`${file}.new`, file)
  await syncFolder(dir)
  return idOf(dir)
}

/** Makes the names in a folder durable. */
export async function syncFolder(dir: string): Promise<void> {
  const handle = await open(dir, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** `000000.seg`. */
export function segmentName(segment: number): string {
  return String(segment).padStart(SEGMENT_DIGITS, '0') + SUFFIX
}

class DiskSpool implements Spool {
  readonly id: string
  readonly #deps: SpoolDeps
  #used = 0
  #free: { readonly atMs: number; readonly bytes: number } | undefined

  constructor(deps: SpoolDeps, id: string) {
    this.#deps = deps
    this.id = id
  }

  get usedBytes(): number {
    return this.#used
  }

  async count(): Promise<void> {
    for (const id of await this.ids()) {
      for (const segment of await this.segmentsOf(id)) {
        const { size } = await stat(this.pathOf(id, segment))
        this.#used += size
      }
    }
  }

  async create(id: string, onFull: (segment: number) => void): Promise<SpoolFile> {
    const { maxBytes, minFreeBytes } = this.#deps.settings
    if (this.#used >= maxBytes)
      throw new Fault('recording_failed', `the spool has its ${maxBytes} bytes`)
    await this.#mustBeFree(minFreeBytes)
    const folder = join(this.#deps.dir, id)
    await mkdir(folder, { mode: FOLDER_MODE })
    const file = new DiskFile({
      ...{ folder, onFull, openSegment: this.#deps.openSegment ?? openSegment },
      mayOpen: () => this.#mustBeFree(minFreeBytes / 2),
      onGrown: (bytes) => {
        this.#used += bytes
      },
    })
    try {
      await file.open()
      await syncFolder(this.#deps.dir)
    } catch (error) {
      await file.close()
      await rm(folder, { recursive: true, force: true })
      throw error
    }
    return file
  }

  async read(id: string, segment: number): Promise<Buffer | undefined> {
    try {
      return await readFile(this.pathOf(id, segment))
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined
      throw error
    }
  }

  pathOf(id: string, segment: number): string {
    return join(this.#deps.dir, id, segmentName(segment))
  }

  async cut(id: string, segment: number, bytes: number): Promise<void> {
    const path = this.pathOf(id, segment)
    const handle = await open(path, 'r+')
    try {
      const { size } = await handle.stat()
      if (size <= bytes) return
      await truncate(path, bytes)
      await handle.sync()
      this.#used -= size - bytes
    } finally {
      await handle.close()
    }
  }

  async ids(): Promise<readonly string[]> {
    return (await readdir(this.#deps.dir)).filter(isRequestId).sort()
  }

  async segmentsOf(id: string): Promise<readonly number[]> {
    const names = await namesIn(join(this.#deps.dir, id))
    return names
      .flatMap((name) => SEGMENT_NAME.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((a, b) => a - b)
  }

  async remove(id: string, segment: number, bytes: number): Promise<void> {
    await rm(this.pathOf(id, segment), { force: true })
    this.#used -= bytes
  }

  async removeEmpty(id: string): Promise<void> {
    try {
      await rmdir(join(this.#deps.dir, id))
    } catch (error) {
      if (!['ENOENT', 'ENOTEMPTY'].includes(codeOf(error) ?? '')) throw error
    }
  }

  async #mustBeFree(bytes: number): Promise<void> {
    const { dir, now, freeBytes = freeBytesOf } = this.#deps
    if (this.#free === undefined || now() - this.#free.atMs >= FREE_LOOK_MS)
      this.#free = { atMs: now(), bytes: await freeBytes(dir) }
    if (this.#free.bytes < bytes)
      throw new Fault('recording_failed', `the spool’s disk has ${this.#free.bytes} bytes free`)
  }
}

async function namesIn(dir: string): Promise<readonly string[]> {
  try {
    return await readdir(dir)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return []
    throw error
  }
}

async function freeBytesOf(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir)
  return bavail * bsize
}

function openSegment(path: string): Promise<SegmentHandle> {
  return open(path, 'wx', FILE_MODE)
}

interface FileDeps {
  readonly folder: string
  readonly openSegment: OpenSegment
  readonly onFull: (segment: number) => void
  readonly onGrown: (bytes: number) => void
  /** Rejects where no further segment may be begun. */
  readonly mayOpen: () => Promise<void>
}

class DiskFile implements SpoolFile {
  readonly #deps: FileDeps
  readonly #segments: { chunks: number; bytes: number }[] = []
  #handle: SegmentHandle | undefined
  /** Of the last segment. */
  #size = 0

  constructor(deps: FileDeps) {
    this.#deps = deps
  }

  /** Begins the next segment. */
  async open(): Promise<void> {
    const { folder, openSegment: begin } = this.#deps
    this.#handle = await begin(join(folder, segmentName(this.#segments.length)))
    await syncFolder(folder)
    this.#segments.push({ chunks: 0, bytes: 0 })
    this.#size = 0
  }

  async append(chunks: readonly SealedChunk[]): Promise<void> {
    let from = 0
    let size = this.#size
    for (const [index, { sealedBytes }] of chunks.entries()) {
      if (size > 0 && size + sealedBytes > MAX_SEGMENT_BYTES) {
        await this.#write(chunks.slice(from, index))
        await this.#next()
        from = index
        size = 0
      }
      size += sealedBytes
    }
    await this.#write(chunks.slice(from))
  }

  segments(): readonly Segment[] {
    return this.#segments.map((segment) => ({ ...segment }))
  }

  async close(): Promise<void> {
    const handle = this.#handle
    this.#handle = undefined
    // what was to be durable is so already
    await handle?.close().catch(() => undefined)
  }

  async #next(): Promise<void> {
    const full = this.#segments.length - 1
    await this.close()
    await this.#deps.mayOpen()
    await this.open()
    this.#deps.onFull(full)
  }

  async #write(chunks: readonly SealedChunk[]): Promise<void> {
    const handle = this.#handle
    if (handle === undefined) throw new Fault('recording_failed', 'the recording is closed')
    if (chunks.length === 0) return
    const parts = chunks.flatMap(({ header, ciphertext, tag }) => [header, ciphertext, tag])
    const bytes = chunks.reduce((sum, { sealedBytes }) => sum + sealedBytes, 0)
    await writeAll(handle, parts, bytes, this.#size)
    // a file that was removed takes bytes as before, and nobody finds them again
    const [{ nlink }] = await Promise.all([handle.stat(), handle.datasync()])
    if (nlink === 0) throw new Fault('recording_failed', 'the recording’s file was removed')
    this.#size += bytes
    this.#deps.onGrown(bytes)
    const segment = this.#segments.at(-1)
    if (segment === undefined) return
    segment.chunks += chunks.length
    segment.bytes += chunks.reduce((sum, { ciphertext }) => sum + ciphertext.length, 0)
  }
}

/** A full disk takes the beginning first, and says so with the next call. */
async function writeAll(
  handle: SegmentHandle,
  parts: readonly Uint8Array[],
  bytes: number,
  position: number,
): Promise<void> {
  let { bytesWritten: done } = await handle.writev(parts, position)
  while (done < bytes) {
    const rest = Buffer.concat(parts).subarray(done)
    const { bytesWritten } = await handle.writev([rest], position + done)
    if (bytesWritten === 0) throw new Fault('recording_failed', 'the disk takes no more')
    done += bytesWritten
  }
}
