/**
 * Names the process at the other end of an accepted connection. The answer is bound to the connection itself: the
 * row of our own end must carry the inode of the socket that was accepted, so a process that takes over a dead
 * client's port is never taken for it. A connection keeps its answer only as long as cheap readings show that
 * nothing can have changed; otherwise everything is looked up again. Trust boundary: all facts come from the kernel.
 */
import { createHmac, randomBytes } from 'node:crypto'
import { fstatSync, readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import type { AgentTag } from '../../shared/agent-tag.ts'
import { isRecord } from '../../shared/config.ts'
import { isKubectlProxy, readArguments, readDeclared } from './declared.ts'
import { createHolderIndex, holdingTarget } from './holders.ts'
import type { HolderIndex, Holding } from './holders.ts'
import { describeProcess, readImage, sameImage } from './process.ts'
import type { Image, ProcessFacts } from './process.ts'
import { TCP_STATE } from './socket-table.ts'
import type { Connection, ConnectionRows, SocketTable } from './socket-table.ts'
import { baseName, isRelay, judge } from './verdict.ts'
import type { Findings } from './verdict.ts'

/**
 * Longest time without a full search while requests come, in milliseconds: a descriptor can be handed over without
 * any new process (SCM_RIGHTS, pidfd_getfd).
 */
const FULL_SEARCH_AFTER_MS = 1000
/** Longest pause between two full searches, in milliseconds. */
const LONGEST_PAUSE_MS = 250
/** How often a lookup is tried while the process changes under it. */
const ATTEMPTS = 2

const CLIENT_STATES: ReadonlySet<number> = new Set([
  TCP_STATE.established,
  TCP_STATE.finWait1,
  TCP_STATE.finWait2,
])
const OWN_STATES: ReadonlySet<number> = new Set([TCP_STATE.established, TCP_STATE.closeWait])

/** Who is calling. */
export interface Callers {
  /** Notes the ends of a connection just accepted; false when the client is gone already. */
  accept(socket: Socket): boolean
  /** The tag of the process that holds the client's end now. Lookups that arrive together share one search. */
  identify(socket: Socket): Promise<AgentTag>
  /** Whether any process still holds the client's end: false once a client that ended its side is gone. */
  isHeld(socket: Socket): boolean
}

/** What the lookups need. */
export interface CallerDeps {
  /** `/proc`, or a fixture. */
  readonly procRoot: string
  readonly table: SocketTable
  /** What processes that may not be searched mean; `ignore` trusts that none of them holds the socket. */
  readonly unreadable: 'refuse' | 'ignore'
  /** Milliseconds, monotonic. */
  readonly now: () => number
}

/** What is known of a connection between two of its requests. */
interface Known {
  readonly tag: AgentTag
  readonly holding: Holding
  readonly inode: number
  readonly image: Image
}

interface Pending {
  readonly socket: Socket
  readonly resolve: (tag: AgentTag) => void
  readonly reject: (error: unknown) => void
}

/** Makes the lookups of one sidecar. Reads the boot id, so it throws where there is no procfs. */
export function createCallers(deps: CallerDeps): Callers {
  return new Lookups(deps)
}

class Lookups implements Callers {
  readonly #deps: CallerDeps
  readonly #bootId: string
  /** Instance ids must not tell what they are made of: the exec mark is an address of the process. */
  readonly #instanceKey = randomBytes(32)
  readonly #connections = new WeakMap<Socket, Connection>()
  readonly #known = new WeakMap<Socket, Known>()
  readonly #index: HolderIndex
  #pending: Pending[] = []
  #searchedAt = -Infinity
  /** Not before this time is everything searched again: searches take at most half of the time, and share it. */
  #nextSearchAt = -Infinity

  constructor(deps: CallerDeps) {
    this.#deps = deps
    this.#index = createHolderIndex(deps.procRoot)
    this.#bootId = readFileSync(`${deps.procRoot}/sys/kernel/random/boot_id`, 'latin1').trim()
  }

  accept(socket: Socket): boolean {
    const { remoteAddress, remotePort, localAddress, localPort } = socket
    if (remoteAddress === undefined || remotePort === undefined) return false
    if (localAddress === undefined || localPort === undefined) return false
    this.#connections.set(socket, {
      client: { address: remoteAddress, port: remotePort },
      own: { address: localAddress, port: localPort },
    })
    return true
  }

  identify(socket: Socket): Promise<AgentTag> {
    const known = this.#known.get(socket)
    if (known !== undefined && this.#stillTrue(known)) return Promise.resolve(known.tag)
    this.#known.delete(socket)
    return new Promise((resolve, reject) => {
      this.#pending.push({ socket, resolve, reject })
      if (this.#pending.length === 1) this.#schedule()
    })
  }

  isHeld(socket: Socket): boolean {
    const connection = this.#connections.get(socket)
    if (connection === undefined) return false
    const inode = this.#deps.table.find([connection])[0]?.client?.inode
    return inode !== undefined && inode !== 0
  }

  /** Readings that together show that holder and program are those of the last search. */
  #stillTrue(known: Known): boolean {
    const { procRoot, now, unreadable } = this.#deps
    if (now() - this.#searchedAt > FULL_SEARCH_AFTER_MS) return false
    this.#index.searchNew()
    if (unreadable === 'refuse' && this.#index.unread() > 0) return false
    const [holding, ...others] = this.#index.holdings(known.inode)
    if (others.length > 0 || holding?.pid !== known.holding.pid) return false
    const image = readImage(procRoot, known.holding.pid, known.holding.tid)
    return image !== undefined && sameImage(image, known.image)
  }

  #schedule(): void {
    const search = (): void => {
      this.#searchPending()
    }
    const pauseMs = this.#nextSearchAt - this.#deps.now()
    if (pauseMs <= 0) setImmediate(search)
    else setTimeout(search, pauseMs)
  }

  #searchPending(): void {
    const batch = this.#pending
    this.#pending = []
    let waiting = batch
    try {
      for (let attempt = 1; waiting.length > 0; attempt += 1) {
        waiting = this.#searchOnce(waiting, attempt === ATTEMPTS)
      }
    } catch (error) {
      for (const { reject } of batch) reject(error)
    }
  }

  /** Answers what it can; returns those whose process changed under the search, none when `last`. */
  #searchOnce(batch: readonly Pending[], last: boolean): Pending[] {
    const { table, now } = this.#deps
    const startedAt = now()
    const tracked = batch.map(({ socket }) => this.#connections.get(socket))
    const asked = tracked.filter((connection) => connection !== undefined)
    const rows = new Map(table.find(asked).map((found, at) => [asked[at], found]))
    this.#index.search()
    this.#searchedAt = startedAt
    this.#nextSearchAt = now() + Math.min(now() - startedAt, LONGEST_PAUSE_MS)
    const again: Pending[] = []
    for (const [at, pending] of batch.entries()) {
      const tag = this.#conclude(pending.socket, rows.get(tracked[at]) ?? {})
      if (tag !== undefined) pending.resolve(tag)
      else if (last) pending.resolve(judge(none('the process changed while it was looked at')))
      else again.push(pending)
    }
    return again
  }

  /** The tag of one connection, or undefined when the process changed while it was read. */
  #conclude(socket: Socket, rows: ConnectionRows): AgentTag | undefined {
    const { procRoot } = this.#deps
    const problem = connectionProblem(rows, ownInode(socket))
    if (problem !== undefined || rows.client === undefined) return judge(none(problem ?? 'no row'))
    const { inode } = rows.client
    const holdings = this.#index.holdings(inode)
    const [holding, ...others] = holdings
    if (holding === undefined) return judge(none(noHolderReason(this.#index.unread())))
    if (others.length > 0) return judge({ kind: 'several', pids: holdings.map(({ pid }) => pid) })
    const process = describeProcess(procRoot, holding.pid, holding.tid)
    if (process === undefined) return undefined
    if (holdingTarget(procRoot, holding) !== `socket:[${inode}]`) return undefined
    const tag = judge(this.#oneHolder(process, this.#index.unread()))
    if (tag.verdict === 'exclusive')
      this.#known.set(socket, { tag, holding, inode, image: process.image })
    return tag
  }

  #oneHolder(process: ProcessFacts, unread: number): Findings {
    const { procRoot, unreadable } = this.#deps
    const exe = process.image.exe ?? ''
    const relay =
      isRelay(exe) ||
      (baseName(exe) === 'kubectl' && isKubectlProxy(readArguments(procRoot, process.pid)))
    return {
      kind: 'one',
      process,
      declared: readDeclared(procRoot, process.pid),
      instanceId: this.#instanceId(process),
      bootId: this.#bootId,
      unread: unreadable === 'ignore' ? 0 : unread,
      relay,
    }
  }

  /** Stable for one run of one program in one process, for as long as this sidecar runs. */
  #instanceId({ pid, image }: ProcessFacts): string {
    const parts = [this.#bootId, pid, image.startTicks, image.exe, image.execMark]
    return createHmac('sha256', this.#instanceKey)
      .update(JSON.stringify(parts))
      .digest('hex')
      .slice(0, 32)
  }
}

/** Why these rows are not those of the accepted connection; undefined when they are. */
export function connectionProblem(
  { client, own }: ConnectionRows,
  acceptedInode: number | undefined,
): string | undefined {
  if (acceptedInode === undefined || own === undefined) return 'the connection is closed'
  if (own.inode !== acceptedInode) return 'the connection is closed and its port is in use again'
  if (!OWN_STATES.has(own.state)) return 'the connection is closed'
  if (client === undefined) return 'the client’s end is not in the kernel’s table'
  if (client.inode === 0) return 'no process holds the client’s end any more'
  if (!CLIENT_STATES.has(client.state)) return 'the client’s end is not connected'
  return undefined
}

function noHolderReason(unread: number): string {
  return unread === 0
    ? 'no process holds the client’s end'
    : `no process that may be searched holds the client’s end; ${unread} may not be`
}

function none(why: string): Findings {
  return { kind: 'none', why }
}

/** The inode of the accepted socket itself. Node has no public way to a socket's descriptor. */
function ownInode(socket: Socket): number | undefined {
  if (!('_handle' in socket) || !isRecord(socket._handle)) return undefined
  const { fd } = socket._handle
  if (typeof fd !== 'number' || fd < 0) return undefined
  try {
    return fstatSync(fd).ino
  } catch {
    return undefined
  }
}
