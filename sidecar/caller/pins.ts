/**
 * Processes pinned by open handles rather than by number: a handle on the folder of a process never leads to another
 * one that gets its number, and a handle on its memory map reads as empty once another program has been executed
 * (proc(5), `/proc/PID/maps`; start time and number stay the same then).
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { constants } from 'node:fs'
import { parseStat } from './process.ts'

/** Most processes that are kept pinned, with three handles each. */
export const MAX_PINS = 256
/** Most processes whose executed programs are counted. */
const MAX_COUNTED = 4096
/** Longest line of a `stat` file, in bytes. */
const MAX_STAT_BYTES = 1024

/** One process, as it was when it was pinned. */
export interface Pin {
  readonly pid: number
  /** The folder of the process, by the handle: `PATH/exe`, `PATH/task/TID/fd/N`. */
  readonly path: string
  /** How many other programs this process was seen to execute before. */
  readonly execOrdinal: number
  /** Whether it is alive and runs what it ran when it was pinned; false as well once the pin was given up for others. */
  isUnchanged(): boolean
}

/** The pinned processes of one sidecar. */
export interface Pins {
  /**
   * The pin of a process, a new one where the old one has changed; undefined when the process is gone or may not be read.
   *
   * @param tid - a living thread of it
   */
  pin(pid: number, tid: number): Pin | undefined
  close(): void
}

/** @param root - `/proc` */
export function createPins(root: string): Pins {
  return new PinTable(root)
}

/** The oldest in use first, as a Map keeps the order of insertion. */
class PinTable implements Pins {
  readonly #root: string
  readonly #pins = new Map<number, ProcessPin>()
  /** By number and start time of the process. */
  readonly #counts = new Map<string, { readonly ordinal: number; readonly mark: string }>()

  constructor(root: string) {
    this.#root = root
  }

  pin(pid: number, tid: number): Pin | undefined {
    const old = this.#pins.get(pid)
    this.#pins.delete(pid)
    if (old?.isUnchanged() === true) {
      this.#pins.set(pid, old)
      return old
    }
    const executed = old?.isSameProcess() === true
    // Start times count hundredths of a second: another process may have got number and time of one that ended.
    if (old !== undefined && !executed) this.#counts.delete(old.key)
    old?.close()
    const handles = openHandles(`${this.#root}/${pid}`, tid)
    if (handles === undefined) return undefined
    const key = `${pid} ${handles.startTicks}`
    const ordinal = this.#count(key, handles.stackStart, executed)
    const pin = new ProcessPin(pid, key, handles, ordinal)
    this.#pins.set(pid, pin)
    this.#evict()
    return pin
  }

  close(): void {
    for (const pin of this.#pins.values()) pin.close()
    this.#pins.clear()
  }

  /** A pin that changed has seen an exec; for one given up meanwhile, the stack's place tells, where it is random. */
  #count(process: string, mark: string, changed: boolean): number {
    const before = this.#counts.get(process)
    this.#counts.delete(process)
    const executed = before !== undefined && (changed || before.mark !== mark)
    const ordinal = (before?.ordinal ?? 0) + (executed ? 1 : 0)
    this.#counts.set(process, { ordinal, mark })
    for (const [oldest] of this.#counts) {
      if (this.#counts.size <= MAX_COUNTED) break
      this.#counts.delete(oldest)
    }
    return ordinal
  }

  #evict(): void {
    for (const [pid, pin] of this.#pins) {
      if (this.#pins.size <= MAX_PINS) break
      this.#pins.delete(pid)
      pin.close()
    }
  }
}

interface Handles {
  readonly folder: number
  readonly maps: number
  readonly stat: number
  readonly startTicks: string
  readonly stackStart: string
}

class ProcessPin implements Pin {
  readonly pid: number
  readonly path: string
  readonly execOrdinal: number
  /** Number and start time. */
  readonly key: string
  readonly #handles: Handles
  #open = true

  constructor(pid: number, key: string, handles: Handles, execOrdinal: number) {
    this.pid = pid
    this.key = key
    this.path = folderOf(handles.folder)
    this.execOrdinal = execOrdinal
    this.#handles = handles
  }

  /** The map alone would do, but a process that shares its memory (CLONE_VM) keeps the old one alive. */
  isUnchanged(): boolean {
    const { maps, stat, stackStart } = this.#handles
    return this.#open && !isEmpty(maps) && readStatHandle(stat)?.stackStart === stackStart
  }

  isSameProcess(): boolean {
    return this.#open && readStatHandle(this.#handles.stat) !== undefined
  }

  close(): void {
    if (!this.#open) return
    this.#open = false
    closeHandles(this.#handles)
  }
}

/** All through the handle on the folder, so that all are of one process. */
function openHandles(path: string, tid: number): Handles | undefined {
  const opened: number[] = []
  const open = (file: string, flags: number): number => {
    const fd = openSync(file, flags)
    opened.push(fd)
    return fd
  }
  try {
    const folder = open(path, constants.O_RDONLY | constants.O_DIRECTORY)
    const task = `${folderOf(folder)}/task/${tid}`
    const maps = open(`${task}/maps`, constants.O_RDONLY)
    const stat = open(`${task}/stat`, constants.O_RDONLY)
    const facts = readStatHandle(stat)
    if (facts !== undefined && !isEmpty(maps)) return { folder, maps, stat, ...facts }
  } catch {
    // Gone, or not to be read: the same to the caller.
  }
  for (const fd of opened) closeSync(fd)
  return undefined
}

function closeHandles({ folder, maps, stat }: Handles): void {
  for (const fd of [folder, maps, stat]) closeSync(fd)
}

/** The folder behind a handle of this process; Node has no openat(2). */
function folderOf(handle: number): string {
  return `/proc/self/fd/${handle}`
}

const oneByte = Buffer.alloc(1)
const statBytes = Buffer.alloc(MAX_STAT_BYTES)

function isEmpty(handle: number): boolean {
  try {
    return readSync(handle, oneByte, 0, 1, 0) === 0
  } catch {
    return true
  }
}

function readStatHandle(handle: number): Pick<Handles, 'startTicks' | 'stackStart'> | undefined {
  try {
    const size = readSync(handle, statBytes, 0, statBytes.length, 0)
    const stat = parseStat(statBytes.toString('latin1', 0, size))
    return stat && { startTicks: stat.startTicks, stackStart: stat.stackStart }
  } catch {
    return undefined
  }
}
