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

/** What one pass over all processes found. */
export interface HolderScan {
  /** By socket inode, at most one holding for each process. An inode nobody holds is absent. */
  readonly holdings: ReadonlyMap<number, readonly Holding[]>
  /** How many processes could not be read, or not to the end: each of them may be one more holder. */
  readonly unread: number
}

interface Pass {
  readonly root: string
  readonly wanted: ReadonlyMap<string, number>
  readonly found: Map<number, Holding[]>
}

/**
 * One synchronous pass over all processes for all the sockets asked for. A process that ends meanwhile does not count.
 *
 * @param root - `/proc`, or a fixture
 */
export function findHolders(root: string, inodes: Iterable<number>): HolderScan {
  const wanted = new Map<string, number>()
  for (const inode of inodes) wanted.set(`socket:[${inode}]`, inode)
  const pass: Pass = { root, wanted, found: new Map() }
  let unread = 0
  let seen = 0
  for (const name of readdirSync(root)) {
    if (!isNumber(name)) continue
    seen += 1
    if (seen > MAX_PROCESSES || !searchProcess(pass, name)) unread += 1
  }
  return { holdings: pass.found, unread }
}

/** The link target of a holding's descriptor as of now; undefined once it is closed or the process is gone. */
export function holdingTarget(root: string, holding: Holding): string | undefined {
  try {
    return readlinkSync(`${root}/${holding.pid}/task/${holding.tid}/fd/${holding.fd}`)
  } catch {
    return undefined
  }
}

/** Whether the process could be read to the end, or is gone. */
function searchProcess(pass: Pass, pid: string): boolean {
  const tids = list(`${pass.root}/${pid}/task`)
  if (tids === 'gone') return true
  if (tids === 'denied') return isKernelThread(pass.root, pid)
  let complete = true
  for (const tid of tids) {
    const fds = list(`${pass.root}/${pid}/task/${tid}/fd`)
    if (fds === 'gone') continue
    if (fds === 'denied' || fds.length > MAX_DESCRIPTORS || !searchTable(pass, pid, tid, fds))
      complete = false
  }
  return complete || isKernelThread(pass.root, pid)
}

function searchTable(pass: Pass, pid: string, tid: string, fds: readonly string[]): boolean {
  let complete = true
  for (const fd of fds) {
    try {
      const inode = pass.wanted.get(readlinkSync(`${pass.root}/${pid}/task/${tid}/fd/${fd}`))
      if (inode !== undefined) note(pass.found, inode, { pid: Number(pid), tid: Number(tid), fd })
    } catch (error) {
      if (!isGone(error)) complete = false
    }
  }
  return complete
}

function note(found: Map<number, Holding[]>, inode: number, holding: Holding): void {
  const known = found.get(inode)
  if (known === undefined) found.set(inode, [holding])
  else if (!known.some(({ pid }) => pid === holding.pid)) known.push(holding)
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

function isNumber(text: string): boolean {
  return /^\d+$/.test(text)
}
