/**
 * Which processes hold a socket. Every visible process is searched, thread by thread, because a thread can have
 * file descriptors of its own (`unshare(CLONE_FILES)`); the search never stops at the first hit, since a second
 * holder is exactly what must be found. What may not be read is counted, never taken for absence.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { codeOf } from '../../shared/errors.ts'

/** Most processes that one pass looks at; more than that counts as unread. */
export const MAX_PROCESSES = 4096
/** Most file descriptors of one thread that one pass looks at; more than that counts as unread. */
export const MAX_DESCRIPTORS = 65_536

/** PF_KTHREAD of include/linux/sched.h: a kernel thread, which has no files. */
const KERNEL_THREAD_FLAG = 0x0020_0000n

/** A descriptor through which a process holds a socket. */
export interface Holding {
  /** Process (thread group). */
  readonly pid: number
  /** Thread whose table has the descriptor; the process itself in most cases. */
  readonly tid: number
  readonly fd: string
}

/**
 * Who holds which socket, as of the last full search and what was started since. A full search alone sees everything:
 * between two of them a descriptor may move between processes that were there already.
 */
export interface HolderIndex {
  /** A full search: every thread of every process, once, synchronously. */
  search(): void
  /** Searches only what was started since the last search; does nothing when nothing was. */
  searchNew(): void
  /** Those that hold a socket at this moment, of those that the searches found; at most one holding for each process. */
  holdings(inode: number): readonly Holding[]
  /** How many processes could not be read, or not to the end: each of them may be one more holder. */
  unread(): number
}

/**
 * An index that is empty until it is searched for the first time.
 *
 * @param root - `/proc`, or a fixture
 */
export function createHolderIndex(root: string): HolderIndex {
  return new Index(root)
}

/** A thread that takes over the number of one that ended is found by the next full search, like a descriptor handed over. */
class Index implements HolderIndex {
  readonly #root: string
  #found = new Map<number, Holding[]>()
  #tasks = new Set<string>()
  #unread = new Set<string>()
  #lastPid = ''

  constructor(root: string) {
    this.#root = root
  }

  search(): void {
    this.#found = new Map()
    this.#tasks = new Set()
    this.#unread = new Set()
    // Read first: what starts during the search is looked at again by the next one.
    this.#lastPid = readLastPid(this.#root)
    this.#searchProcesses()
  }

  searchNew(): void {
    const lastPid = readLastPid(this.#root)
    if (lastPid === this.#lastPid) return
    this.#lastPid = lastPid
    this.#searchProcesses()
  }

  holdings(inode: number): readonly Holding[] {
    const target = `socket:[${inode}]`
    const known = this.#found.get(inode) ?? []
    return known.filter((holding) => holdingTarget(this.#root, holding) === target)
  }

  unread(): number {
    return this.#unread.size
  }

  /** Looks at all threads that it has not looked at yet. */
  #searchProcesses(): void {
    let seen = 0
    for (const pid of readdirSync(this.#root)) {
      if (!isNumber(pid)) continue
      seen += 1
      if (seen > MAX_PROCESSES || !this.#searchProcess(pid)) this.#unread.add(pid)
    }
  }

  /** Whether the process could be read to the end, or is gone. */
  #searchProcess(pid: string): boolean {
    const tids = list(`${this.#root}/${pid}/task`)
    if (tids === 'gone') return true
    if (tids === 'denied') return isKernelThread(this.#root, pid)
    let complete = true
    for (const tid of tids) {
      const task = `${pid}/task/${tid}`
      if (this.#tasks.has(task)) continue
      const fds = list(`${this.#root}/${task}/fd`)
      if (fds === 'gone') continue
      this.#tasks.add(task)
      if (fds === 'denied' || fds.length > MAX_DESCRIPTORS || !this.#searchTable(pid, tid, fds))
        complete = false
    }
    return complete || isKernelThread(this.#root, pid)
  }

  #searchTable(pid: string, tid: string, fds: readonly string[]): boolean {
    const folder = `${this.#root}/${pid}/task/${tid}/fd/`
    let complete = true
    for (const fd of fds) {
      try {
        const target = readlinkSync(folder + fd)
        if (target.startsWith('socket:['))
          this.#note(Number(target.slice(8, -1)), { pid: Number(pid), tid: Number(tid), fd })
      } catch (error) {
        if (!isGone(error)) complete = false
      }
    }
    return complete
  }

  #note(inode: number, holding: Holding): void {
    const known = this.#found.get(inode)
    if (known === undefined) this.#found.set(inode, [holding])
    else if (!known.some(({ pid }) => pid === holding.pid)) known.push(holding)
  }
}

/** The link target of a holding's descriptor as of now; undefined once it is closed or the process is gone. */
export function holdingTarget(root: string, holding: Holding): string | undefined {
  try {
    return readlinkSync(`${root}/${holding.pid}/task/${holding.tid}/fd/${holding.fd}`)
  } catch {
    return undefined
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

/** `stat` is readable to everybody, so this answers for processes that are closed otherwise. */
function isKernelThread(root: string, pid: string): boolean {
  try {
    const text = readFileSync(`${root}/${pid}/stat`, 'latin1')
    const flags = text.slice(text.lastIndexOf(')') + 2).split(' ')[6]
    return flags !== undefined && isNumber(flags) && (BigInt(flags) & KERNEL_THREAD_FLAG) !== 0n
  } catch (error) {
    return isGone(error)
  }
}

/** The newest process id given out in this process namespace; it moves with every new process or thread. */
function readLastPid(root: string): string {
  return readFileSync(`${root}/loadavg`, 'latin1').trim().split(' ').at(-1) ?? ''
}

function isNumber(text: string): boolean {
  return /^\d+$/.test(text)
}
