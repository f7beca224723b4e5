/**
 * Describes one process from procfs. What the kernel holds (ids, start time, executable, container) is kept apart
 * from what the process can write itself (its arguments and environment): see declared.ts for those.
 */
import { readFileSync, readlinkSync, statSync } from 'node:fs'
import type { ProcessRef } from '../../shared/agent-tag.ts'
import { MAX_ANCESTORS, MAX_FIELD_LENGTH } from '../../shared/tag-constants.ts'

/** Bytes that the ancestors of a tag may take as JSON: the broker reads tags of up to 8192 characters, signature included. */
const MAX_ANCESTOR_BYTES = 2560

/** Of chmod(2). */
const WRITABLE_BY_ALL = 0o002

/** Which program runs in a process right now. Any difference means that another program has been executed. */
export interface Image {
  /** Clock ticks from boot to the start of the process; `exec` does not change it. */
  readonly startTicks: string
  /** Path of the executable, cut to the length of a tag's field. */
  readonly exe: string | undefined
  /** Changes with every `exec` where address-space randomisation is on, the same executable included. Never leaves the sidecar. */
  readonly execMark: string
}

/** The kernel-held facts of a process. */
export interface ProcessFacts {
  readonly pid: number
  readonly image: Image
  /** Effective ids. */
  readonly uid: number
  readonly gid: number
  /** Whether its user, who is not root, or anybody may write the executed file: what it does says little of its author then. */
  readonly exeIsWritable: boolean
  readonly containerId: string | undefined
  readonly ancestors: readonly ProcessRef[]
}

interface Stat {
  readonly parent: number
  readonly startTicks: string
  readonly stackStart: string
}

/**
 * The facts of a process, or undefined when it went away, changed while it was read, or may not be read.
 *
 * @param root - `/proc`, or a fixture
 * @param tid - a living thread of it: the first thread may have ended while others go on
 * @param folder - the process's own folder, by a handle where its number could come to mean another process
 */
export function describeProcess(
  root: string,
  pid: number,
  tid: number,
  folder = `${root}/${pid}`,
): ProcessFacts | undefined {
  const image = readImage(folder, pid, tid)
  const status = readText(`${folder}/task/${tid}/status`)
  const uid = effectiveId(status, 'Uid')
  const gid = effectiveId(status, 'Gid')
  if (image?.exe === undefined || uid === undefined || gid === undefined) return undefined
  const exeIsWritable = isWritableBy(uid, `${folder}/task/${tid}/exe`)
  const containerId = readContainerId(`${folder}/task/${tid}/cgroup`)
  const ancestors = readAncestors(root, folder)
  const after = readImage(folder, pid, tid)
  if (after === undefined || !sameImage(image, after)) return undefined
  // A parent that ended meanwhile leaves its number to anybody.
  if (!sameChain(ancestors, readAncestors(root, folder))) return undefined
  return { pid, image, uid, gid, exeIsWritable, containerId, ancestors }
}

/** The program in a process as of now; undefined when it is gone. */
export function readImage(folder: string, pid: number, tid: number): Image | undefined {
  const leader = readStat(`${folder}/stat`)
  const thread = tid === pid ? leader : readStat(`${folder}/task/${tid}/stat`)
  if (leader === undefined || thread === undefined) return undefined
  const link = `${folder}/task/${tid}/exe`
  return {
    startTicks: leader.startTicks,
    exe: readLink(link),
    execMark: `${thread.stackStart}:${fileMark(link)}`,
  }
}

/** Whether nothing has been executed between two readings. */
export function sameImage(a: Image, b: Image): boolean {
  return a.startTicks === b.startTicks && a.exe === b.exe && a.execMark === b.execMark
}

/**
 * Fields of a `stat` line. The second field is the program's own name in parentheses and may hold spaces and
 * parentheses, so the line is split at the last one.
 */
export function parseStat(text: string): Stat | undefined {
  const end = text.lastIndexOf(')')
  if (end === -1) return undefined
  const fields = text
    .slice(end + 2)
    .trim()
    .split(' ')
  const [parent, startTicks, stackStart] = [fields[1], fields[19], fields[25] ?? '0']
  if (parent === undefined || startTicks === undefined) return undefined
  if (!/^\d+$/.test(parent) || !/^\d{1,20}$/.test(startTicks)) return undefined
  return { parent: Number(parent), startTicks, stackStart }
}

/** The container id of a `cgroup` file (v1 and v2): the last path segment that is one, as containerd, CRI-O and Docker write it. */
export function parseContainerId(text: string): string | undefined {
  let found: string | undefined
  for (const line of text.split('\n')) {
    const path = line.split(':').slice(2).join(':')
    for (const segment of path.split('/')) {
      const match = /^(?:[a-z-]+[-:])?([0-9a-f]{64})(?:\.scope)?$/.exec(segment)
      if (match?.[1] !== undefined) found = match[1]
    }
    if (found !== undefined) return found
  }
  return undefined
}

/** Parents, nearest first, up to the first process of the namespace, as far as they fit into a tag. */
function readAncestors(root: string, folder: string): readonly ProcessRef[] {
  const ancestors: ProcessRef[] = []
  let bytes = 0
  let next = readStat(`${folder}/stat`)?.parent ?? 0
  while (next > 0 && ancestors.length < MAX_ANCESTORS) {
    const stat = readStat(`${root}/${next}/stat`)
    if (stat === undefined) break
    const exe = readLink(`${root}/${next}/exe`)
    const containerId = readContainerId(`${root}/${next}/cgroup`)
    const ancestor = {
      pid: next,
      startTicks: stat.startTicks,
      ...(exe === undefined ? {} : { exe }),
      ...(containerId === undefined ? {} : { containerId }),
    }
    bytes += Buffer.byteLength(JSON.stringify(ancestor))
    if (bytes > MAX_ANCESTOR_BYTES) break
    ancestors.push(ancestor)
    next = stat.parent
  }
  return ancestors
}

function sameChain(a: readonly ProcessRef[], b: readonly ProcessRef[]): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}

function readStat(path: string): Stat | undefined {
  const text = readText(path)
  return text === undefined ? undefined : parseStat(text)
}

function readContainerId(path: string): string | undefined {
  const text = readText(path)
  return text === undefined ? undefined : parseContainerId(text)
}

/** `Uid:` and `Gid:` of a status file list real, effective, saved and file-system id. */
function effectiveId(status: string | undefined, name: 'Uid' | 'Gid'): number | undefined {
  const match = new RegExp(`^${name}:\\t\\d+\\t(\\d+)\\t`, 'm').exec(status ?? '')
  return match?.[1] === undefined ? undefined : Number(match[1])
}

/** Which file is executed: its path alone can be renamed over. */
function fileMark(link: string): string {
  try {
    const { dev, ino } = statSync(link)
    return `${dev}:${ino}`
  } catch {
    return ''
  }
}

/** By owner and mode: a file of another user may lie in a folder of this one's, but then it is another file that is executed. */
function isWritableBy(uid: number, link: string): boolean {
  try {
    const { uid: owner, mode } = statSync(link)
    return (mode & WRITABLE_BY_ALL) !== 0 || (uid !== 0 && owner === uid)
  } catch {
    return false
  }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return undefined
  }
}

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path).slice(0, MAX_FIELD_LENGTH).toWellFormed()
  } catch {
    return undefined
  }
}
