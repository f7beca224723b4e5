/**
 * Which processes hold a socket. Every visible process is searched, thread by thread, because a thread can have
 * file descriptors of its own (`unshare(CLONE_FILES)`); the search never stops at the first hit, since a second
 * holder is exactly what must be found. What may not be read is counted, never taken for absence.
 */
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs'
import { setImmediate as immediate } from 'node:timers/promises'
import { codeOf } from '../../shared/errors.ts'

/** Most processes that one search looks at. */
export const MAX_PROCESSES = 4096
/** Most file descriptors of one thread that one search looks at. */
export const MAX_DESCRIPTORS = 65_536
/** Most processor time that one full search takes, in milliseconds. */
export const MAX_SEARCH_CPU_MS = 250
/** Longest that a full search keeps other work waiting, in milliseconds. */
const SLICE_MS = 5
/** Most processor time that the search of new processes takes, in milliseconds; it is done in one go. */
const MAX_NEW_CPU_MS = 25
/** Most descriptors for one socket that are kept of one process. */
const MAX_DESCRIPTORS_OF_ONE_SOCKET = 64
/** Descriptors read between two looks at the clock. */
const DESCRIPTORS_PER_LOOK = 256
/** Longest line of /proc/loadavg, in bytes. */
const MAX_LOADAVG_BYTES = 128

/** The first process of a namespace. */
const FIRST_PID = '1'
/** PF_KTHREAD of include/linux/sched.h: a kernel thread, which has no files. */
const KERNEL_THREAD_FLAG = 0x0020_0000n
/** Fields of proc_pid_stat(5), counted from the one behind the name. */
const STAT_STATE = 0
const STAT_FLAGS = 6

/** A descriptor through which a process holds a socket. */
export interface Holding {
  /** Process (thread group). */
  readonly pid: number
  /** Thread whose table has the descriptor; the process itself in most cases. */
  readonly tid: number
  readonly fd: string
}

/** There is more to search than may be: nobody can be named then. */
export class SearchLimitError extends Error {}

/**
 * Who holds which socket, as of the last full search and what was started since. A full search alone sees everything:
 * between two of them a descriptor may move between processes that were there already.
 */
export interface HolderIndex {
  /**
   * A full search: every thread of every process, once, in slices between which other work goes on. Until it is done
   * the answers are those of the search before.
   *
   * @throws SearchLimitError when there is more to search than the limits allow
   */
  search(): Promise<void>
  /**
   * Searches, at once, only the processes started since the last search; does nothing when none was. A new thread of
   * an old process needs no look: what it can hold its process held, or gets in a way that no such look would see.
   *
   * @returns whether it got to the end: where there is too much for one go, only a full search tells
   * @throws SearchLimitError
   */
  searchNew(): boolean
  /** When the last full search began, in milliseconds of the clock given; -Infinity before the first. */
  searchedAt(): number
  /** Those that hold a socket at this moment, of those that the searches found; at most one holding for each process. */
  holdings(inode: number): readonly Holding[]
  /** How many processes could not be read: each of them may be one more holder. */
  unread(): number
  /** How many processes the last searches looked at, those that could not be read included, and whether the first was one. */
  processes(): { readonly seen: number; readonly sawFirst: boolean }
  /** Gives the handle on the process table back. */
  close(): void
}

/**
 * An index that is empty until it is searched for the first time.
 *
 * @param root - `/proc`, or a fixture
 * @param shareFiles - whether two threads have one table of files, where that can be told: then it is read once
 * @param now - milliseconds, monotonic
 */
export function createHolderIndex(
  root: string,
  shareFiles: ShareFiles = () => false,
  now: () => number = () => performance.now(),
): HolderIndex {
  return new Index(root, shareFiles, now)
}

type ShareFiles = (a: number, b: number) => boolean

/** A process that holds a socket, with the descriptors for it: one that was closed since may leave others. */
interface Holder {
  readonly holdings: Holding[]
  /** Whether there are more than are kept, so that it cannot be told when the last one is closed. */
  more: boolean
}

/** What searches have found so far. */
class Found {
  /** By inode, then by process. */
  readonly holders = new Map<number, Map<number, Holder>>()
  readonly processes = new Set<string>()
  readonly unread = new Set<string>()

  note(inode: number, holding: Holding): void {
    const holders = this.holders.get(inode) ?? new Map<number, Holder>()
    this.holders.set(inode, holders)
    const holder = holders.get(holding.pid)
    if (holder === undefined) holders.set(holding.pid, { holdings: [holding], more: false })
    else if (holder.holdings.length < MAX_DESCRIPTORS_OF_ONE_SOCKET) holder.holdings.push(holding)
    else holder.more = true
  }
}

/** A process that takes over the number of one that ended is found by the next full search, like a descriptor handed over. */
class Index implements HolderIndex {
  readonly #root: string
  readonly #shareFiles: ShareFiles
  readonly #lastPidFile: LastPid
  readonly #now: () => number
  #found = new Found()
  #searchedAt = -Infinity
  #lastPid = ''

  constructor(root: string, shareFiles: ShareFiles, now: () => number) {
    this.#root = root
    this.#shareFiles = shareFiles
    this.#now = now
    this.#lastPidFile = openLastPid(root)
  }

  async search(): Promise<void> {
    const found = new Found()
    const startedAt = this.#now()
    // Read first: what starts during the search is looked at again by the next one.
    const lastPid = this.#lastPidFile.read()
    let spentMs = 0
    let sliceCpu = cpuMs()
    let sliceAt = performance.now()
    for (const seen of searchSteps(this.#root, this.#shareFiles, found)) {
      if (performance.now() - sliceAt < SLICE_MS) continue
      spentMs += cpuMs() - sliceCpu
      if (spentMs > MAX_SEARCH_CPU_MS)
        throw new SearchLimitError(`the files of ${seen} processes took too long already`)
      await immediate()
      sliceCpu = cpuMs()
      sliceAt = performance.now()
    }
    // One that began later may have ended sooner.
    if (startedAt < this.#searchedAt) return
    this.#found = found
    this.#searchedAt = startedAt
    this.#lastPid = lastPid
  }

  searchNew(): boolean {
    const lastPid = this.#lastPidFile.read()
    if (lastPid === this.#lastPid) return true
    const startCpu = cpuMs()
    const steps = searchSteps(this.#root, this.#shareFiles, this.#found)
    while (steps.next().done !== true) if (cpuMs() - startCpu > MAX_NEW_CPU_MS) return false
    this.#lastPid = lastPid
    return true
  }

  searchedAt(): number {
    return this.#searchedAt
  }

  holdings(inode: number): readonly Holding[] {
    const target = `socket:[${inode}]`
    const holders = this.#found.holders.get(inode)?.values() ?? []
    return [...holders].flatMap(({ holdings, more }) => {
      const open = holdings.find((holding) => holdingTarget(this.#root, holding) === target)
      return open ?? (more ? holdings.slice(0, 1) : [])
    })
  }

  unread(): number {
    return this.#found.unread.size
  }

  processes(): { seen: number; sawFirst: boolean } {
    const { processes } = this.#found
    return { seen: processes.size, sawFirst: processes.has(FIRST_PID) }
  }

  close(): void {
    this.#lastPidFile.close()
  }
}

/** Looks at all processes that `found` does not know yet; stops to breathe with the number of them so far. */
function* searchSteps(
  root: string,
  shareFiles: ShareFiles,
  found: Found,
): Generator<number, void, void> {
  let seen = 0
  for (const pid of readdirSync(root)) {
    if (!isNumber(pid)) continue
    seen += 1
    if (seen > MAX_PROCESSES) throw new SearchLimitError(`more than ${MAX_PROCESSES} processes`)
    if (found.processes.has(pid)) continue
    const complete = yield* searchProcess(root, shareFiles, pid, found)
    if (complete === 'gone') continue
    found.processes.add(pid)
    if (!complete && !isKernelThread(root, pid)) found.unread.add(pid)
    yield seen
  }
}

/** Whether the process could be read to the end. */
function* searchProcess(
  root: string,
  shareFiles: ShareFiles,
  pid: string,
  found: Found,
): Generator<number, boolean | 'gone', void> {
  const tids = list(`${root}/${pid}/task`)
  if (tids === 'gone') return 'gone'
  if (tids === 'denied') return false
  // The first thread is the first in the list, so that its table is read before others are compared with it.
  for (const tid of tids) {
    yield found.processes.size
    if (tid !== pid && shareFiles(Number(pid), Number(tid))) continue
    const complete = yield* searchTable(`${root}/${pid}/task/${tid}/fd/`, found, (inode, fd) => {
      found.note(inode, { pid: Number(pid), tid: Number(tid), fd })
    })
    if (!complete && !hasEnded(`${root}/${pid}/task/${tid}/stat`)) return false
  }
  return true
}

/** Whether one table of files could be read to the end, or is gone. */
function* searchTable(
  folder: string,
  found: Found,
  note: (inode: number, fd: string) => void,
): Generator<number, boolean, void> {
  const fds = list(folder)
  if (fds === 'gone') return true
  if (fds === 'denied') return false
  if (fds.length > MAX_DESCRIPTORS)
    throw new SearchLimitError(`more than ${MAX_DESCRIPTORS} files of one process`)
  for (const [at, fd] of fds.entries()) {
    if (at % DESCRIPTORS_PER_LOOK === DESCRIPTORS_PER_LOOK - 1) yield found.processes.size
    const target = linkTarget(folder + fd)
    // The right to read is one of the whole process, not of each file.
    if (target === 'denied') return false
    if (target.startsWith('socket:[')) note(Number(target.slice(8, -1)), fd)
  }
  return true
}

/** The newest process id given out in this process namespace; it moves with every new process or thread. */
interface LastPid {
  read(): string
  close(): void
}

/** Kept open: opening costs five times as much as reading, and it is read for every request. */
function openLastPid(root: string): LastPid {
  const fd = openSync(`${root}/loadavg`, 'r')
  const bytes = Buffer.alloc(MAX_LOADAVG_BYTES)
  return {
    read: () =>
      bytes
        .toString('latin1', 0, readSync(fd, bytes, 0, bytes.length, 0))
        .trim()
        .split(' ')
        .at(-1) ?? '',
    close(): void {
      closeSync(fd)
    },
  }
}

function cpuMs(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}

/** The link target of a holding's descriptor as of now; undefined once it is closed or the process is gone. */
export function holdingTarget(root: string, { pid, tid, fd }: Holding): string | undefined {
  return targetIn(`${root}/${pid}`, { tid, fd })
}

/** The same in the folder of the process, where that is known by a handle. */
export function targetIn(
  folder: string,
  { tid, fd }: Pick<Holding, 'tid' | 'fd'>,
): string | undefined {
  try {
    return readlinkSync(`${folder}/task/${tid}/fd/${fd}`)
  } catch {
    return undefined
  }
}

/** Where a descriptor leads; empty when it is closed. */
function linkTarget(path: string): string {
  try {
    return readlinkSync(path)
  } catch (error) {
    return isGone(error) ? '' : 'denied'
  }
}

function list(path: string): readonly string[] | 'gone' | 'denied' {
  try {
    return readdirSync(path)
  } catch (error) {
    return isGone(error) ? 'gone' : 'denied'
  }
}

function isGone(error: unknown): boolean {
  const code = codeOf(error)
  return code === 'ENOENT' || code === 'ESRCH'
}

function isKernelThread(root: string, pid: string): boolean {
  const flags = statField(`${root}/${pid}/stat`, STAT_FLAGS)
  if (flags === 'gone') return true
  return flags !== undefined && isNumber(flags) && (BigInt(flags) & KERNEL_THREAD_FLAG) !== 0n
}

/** Whether a thread has ended and only waits to be noticed: it has no files left, but its folder is root's alone. */
function hasEnded(path: string): boolean {
  const state = statField(path, STAT_STATE)
  return state === 'gone' || state === 'Z' || state === 'X'
}

/** A field after the name; `stat` is readable to everybody, so this answers for what is closed otherwise. */
function statField(path: string, at: number): string | undefined {
  try {
    const text = readFileSync(path, 'latin1')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[at]
  } catch (error) {
    return isGone(error) ? 'gone' : undefined
  }
}

function isNumber(text: string): boolean {
  return /^\d+$/.test(text)
}
