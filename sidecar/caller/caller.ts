/**
 * Names the process at the other end of an accepted connection. The answer is bound to the connection itself: the
 * row of our own end must carry the inode of the socket that was accepted, so a process that takes over a dead
 * client's port is never taken for it. A connection keeps its answer only as long as cheap readings show that
 * nothing can have changed; otherwise everything is looked up again, and whoever holds it by then is refused: bytes
 * of both may have arrived. Trust boundary: all facts come from the kernel.
 */
import { createHmac, randomBytes } from 'node:crypto'
import { fstatSync, readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { AgentTag } from '../../shared/agent-tag.ts'
import { isRecord } from '../../shared/config-source.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { isKubectlProxy, readArguments, readDeclared } from './declared.ts'
import type { ExeHash, ExeHashes } from './exe-hash.ts'
import { createHolderIndex, SearchLimitError, targetIn } from './holders.ts'
import type { HolderIndex, Holding } from './holders.ts'
import { createPins } from './pins.ts'
import type { Pin, Pins } from './pins.ts'
import { describeProcess } from './process.ts'
import type { ProcessFacts } from './process.ts'
import { TCP_STATE } from './socket-table.ts'
import type { Connection, ConnectionRows, SocketRow, SocketTable } from './socket-table.ts'
import { baseName, isRelay, judge } from './verdict.ts'
import type { Findings, IdentityLevel } from './verdict.ts'

/**
 * Longest time without a full search while requests come, in milliseconds: a descriptor can be handed over without
 * any new process (SCM_RIGHTS, pidfd_getfd).
 */
const FULL_SEARCH_AFTER_MS = 1000
/** Longest pause between two full searches, in milliseconds. */
const LONGEST_PAUSE_MS = 250
/** Pauses before a lookup is tried again, in milliseconds: a process may be between fork and exec, when both hold all files. */
const RETRY_PAUSES_MS = [5, 20] as const
/** Most lookups that wait at one time, for each user that made a socket and altogether. */
const MAX_WAITING_PER_UID = 256
const MAX_WAITING = 1024

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
  /**
   * The tag of the process that holds the client's end now. Lookups that arrive together share one search. Refused
   * when somebody else holds it than at the last request, and when there is too much to search.
   */
  identify(socket: Socket): Promise<AgentTag | Refusal>
  /** Whether any process still holds the client's end: false once a client that ended its side is gone. */
  isHeld(socket: Socket): boolean
  /** A full search, for nobody in particular: how many processes it looked at, and how many of them it could not read. @throws SearchLimitError */
  survey(): Promise<{ readonly seen: number; readonly unread: number }>
  /** Gives all handles on processes back; nothing may be asked after that. */
  close(): void
}

/** What the lookups need. */
export interface CallerDeps {
  /** `/proc` */
  readonly procRoot: string
  readonly table: SocketTable
  /** Whether two threads have one table of files, where that can be told. */
  readonly shareFiles?: (a: number, b: number) => boolean
  readonly hashes: ExeHashes
  /** What processes that may not be searched mean; `ignore` trusts that none of them holds the socket. */
  readonly unreadable: 'refuse' | 'ignore'
  /** Asked at each lookup. */
  readonly level: () => IdentityLevel
  /** Milliseconds, monotonic. */
  readonly now: () => number
}

/** What is known of a connection between two of its requests. */
interface Known {
  readonly tag: AgentTag
  readonly holding: Holding
  readonly inode: number
  readonly pin: Pin
}

interface Pending {
  readonly socket: Socket
  readonly uid: number
  readonly attempt: number
  readonly resolve: (answer: AgentTag | Refusal) => void
  readonly reject: (error: unknown) => void
}

/** What one look at a connection came to: who holds it, as a text to compare, and the tag of that. */
interface Conclusion {
  readonly holders: string
  readonly tag: AgentTag
  /** Whether another look may tell more. */
  readonly unsettled: boolean
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
  /** Who held a connection when it was looked at last, whatever came of it. */
  readonly #heldBy = new WeakMap<Socket, string>()
  readonly #index: HolderIndex
  readonly #pins: Pins
  readonly #waiting = new Map<number, number>()
  #waitingTotal = 0
  #pending: Pending[] = []
  #searchedAt = -Infinity
  /** Not before this time is everything searched again: searches take at most half of the time, and share it. */
  #nextSearchAt = -Infinity

  constructor(deps: CallerDeps) {
    this.#deps = deps
    this.#index = createHolderIndex(deps.procRoot, deps.shareFiles)
    this.#pins = createPins(deps.procRoot)
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

  async identify(socket: Socket): Promise<AgentTag | Refusal> {
    try {
      return await this.#identify(socket)
    } catch (error) {
      if (error instanceof SearchLimitError) return refuse('attribution_busy', error.message)
      throw error
    }
  }

  async #identify(socket: Socket): Promise<AgentTag | Refusal> {
    const level = this.#deps.level()
    if (level.kind === 'container') return this.#byContainer(socket, level.why)
    const known = this.#known.get(socket)
    if (known !== undefined && this.#stillTrue(known)) return known.tag
    this.#known.delete(socket)
    let uid = 0
    if (this.#deps.table.perConnection) {
      const client = this.#rows(socket)
      if (typeof client === 'string') return this.#compare(socket, nobody(client))
      uid = client.uid
    }
    return this.#waitForSearch(socket, uid)
  }

  isHeld(socket: Socket): boolean {
    const connection = this.#connections.get(socket)
    if (connection === undefined) return false
    const inode = this.#deps.table.find([connection])[0]?.client?.inode
    return inode !== undefined && inode !== 0
  }

  async survey(): Promise<{ seen: number; unread: number }> {
    await this.#index.search()
    return { seen: this.#index.seen(), unread: this.#index.unread() }
  }

  close(): void {
    this.#index.close()
    this.#pins.close()
  }

  /** Without the pod's processes in sight: who made the socket is all that the kernel tells. */
  #byContainer(socket: Socket, why: string): AgentTag {
    const client = this.#rows(socket)
    if (typeof client === 'string') return judge(none(client))
    const { uid, cgroupId } = client
    const facts = { uid, ...(cgroupId === undefined ? {} : { cgroupId }) }
    return judge({ kind: 'container', why, socket: facts })
  }

  /** Readings that together show that holder and program are those of the last search. */
  #stillTrue({ inode, holding, pin }: Known): boolean {
    const { now, unreadable } = this.#deps
    if (now() - this.#searchedAt > FULL_SEARCH_AFTER_MS) return false
    this.#index.searchNew()
    if (unreadable === 'refuse' && this.#index.unread() > 0) return false
    if (this.#index.holders(inode) > 1 && this.#index.holdings(inode).length > 1) return false
    return targetIn(pin.path, holding) === `socket:[${inode}]` && pin.isUnchanged()
  }

  #waitForSearch(socket: Socket, uid: number): Promise<AgentTag | Refusal> {
    const waiting = this.#waiting.get(uid) ?? 0
    const most = this.#deps.table.perConnection ? MAX_WAITING_PER_UID : MAX_WAITING
    if (waiting >= most || this.#waitingTotal >= MAX_WAITING)
      return Promise.resolve(refuse('attribution_busy'))
    this.#waiting.set(uid, waiting + 1)
    this.#waitingTotal += 1
    return new Promise<AgentTag | Refusal>((resolve, reject) => {
      this.#enqueue({ socket, uid, attempt: 0, resolve, reject })
    }).finally(() => {
      this.#waitingTotal -= 1
      const left = (this.#waiting.get(uid) ?? 1) - 1
      if (left === 0) this.#waiting.delete(uid)
      else this.#waiting.set(uid, left)
    })
  }

  #enqueue(pending: Pending): void {
    this.#pending.push(pending)
    if (this.#pending.length > 1) return
    const pauseMs = this.#nextSearchAt - this.#deps.now()
    if (pauseMs <= 0) setImmediate(() => void this.#searchPending())
    else setTimeout(() => void this.#searchPending(), pauseMs)
  }

  /** Never rejects. */
  async #searchPending(): Promise<void> {
    const batch = this.#pending
    this.#pending = []
    const { now } = this.#deps
    const startedAt = now()
    try {
      await this.#index.search()
      this.#searchedAt = startedAt
    } catch (error) {
      for (const { reject } of batch) reject(error)
      return
    } finally {
      this.#nextSearchAt = now() + Math.min(now() - startedAt, LONGEST_PAUSE_MS)
    }
    for (const pending of batch)
      this.#conclude(pending).catch((error: unknown) => {
        pending.reject(error)
      })
  }

  async #conclude(pending: Pending): Promise<void> {
    const { socket, attempt } = pending
    const conclusion = await this.#look(socket)
    const before = this.#heldBy.get(socket)
    const changed = before !== undefined && before !== conclusion.holders
    const pauseMs = RETRY_PAUSES_MS[attempt]
    if (pauseMs !== undefined && (conclusion.unsettled || changed)) {
      await sleep(pauseMs)
      this.#enqueue({ ...pending, attempt: attempt + 1 })
      return
    }
    pending.resolve(this.#compare(socket, conclusion))
  }

  /** The tag, unless somebody else held the connection before. */
  #compare(socket: Socket, { holders, tag }: Conclusion): AgentTag | Refusal {
    const before = this.#heldBy.get(socket)
    this.#heldBy.set(socket, before ?? holders)
    if (before === undefined || before === holders) return tag
    this.#known.delete(socket)
    return refuse('connection_identity_changed')
  }

  /** Who holds a connection, of those that the last search found. */
  async #look(socket: Socket): Promise<Conclusion> {
    const client = this.#rows(socket)
    if (typeof client === 'string') return nobody(client)
    const [holding] = this.#index.holdings(client.inode)
    if (holding === undefined) return nobody(noHolderReason(this.#index.unread()))
    const pin = this.#pins.pin(holding.pid, holding.tid)
    if (pin === undefined) return changedMeanwhile('the process')
    const exeHash = await this.#deps.hashes.of(`${pin.path}/task/${holding.tid}/exe`)
    return this.#settle(socket, client.inode, holding, pin, exeHash)
  }

  /** All that must hold at one moment, with nothing waited for in between. */
  #settle(socket: Socket, inode: number, holding: Holding, pin: Pin, exeHash: ExeHash): Conclusion {
    if (this.#deps.now() - this.#searchedAt > FULL_SEARCH_AFTER_MS)
      return changedMeanwhile('the search is too old; something')
    this.#index.searchNew()
    const pids = this.#index.holdings(inode).map(({ pid }) => pid)
    if (pids.length > 1) {
      pids.sort((a, b) => a - b)
      const tag = judge({ kind: 'several', pids })
      return { holders: `shared ${pids.join(' ')}`, tag, unsettled: true }
    }
    const found = this.#describe(holding, pin, exeHash)
    const client = this.#rows(socket)
    const sameSocket = typeof client !== 'string' && client.inode === inode
    if (!sameSocket || targetIn(pin.path, holding) !== `socket:[${inode}]`)
      return changedMeanwhile('the connection')
    if (found === undefined || !pin.isUnchanged()) return changedMeanwhile('the process')
    const tag = judge(found)
    if (tag.verdict === 'exclusive') this.#known.set(socket, { tag, holding, inode, pin })
    return { holders: found.instanceId, tag, unsettled: false }
  }

  /** The row of the client's end, or why it cannot be that of the accepted connection. */
  #rows(socket: Socket): SocketRow | string {
    const connection = this.#connections.get(socket)
    const rows = connection === undefined ? {} : (this.#deps.table.find([connection])[0] ?? {})
    return connectionProblem(rows, ownInode(socket)) ?? rows.client ?? 'no row'
  }

  #describe(
    { pid, tid }: Holding,
    pin: Pin,
    exeHash: ExeHash,
  ): Extract<Findings, { kind: 'one' }> | undefined {
    const { procRoot, unreadable } = this.#deps
    const process = describeProcess(procRoot, pid, tid, pin.path)
    if (process === undefined) return undefined
    const exe = process.image.exe ?? ''
    const relay =
      isRelay(exe) || (baseName(exe) === 'kubectl' && isKubectlProxy(readArguments(pin.path)))
    return {
      kind: 'one',
      process,
      exeHash,
      execOrdinal: pin.execOrdinal,
      declared: readDeclared(pin.path),
      instanceId: this.#instanceId(process, pin.execOrdinal),
      bootId: this.#bootId,
      unread: unreadable === 'ignore' ? 0 : this.#index.unread(),
      relay,
    }
  }

  /** Stable for one run of one program in one process, for as long as this sidecar runs. */
  #instanceId({ pid, image }: ProcessFacts, execOrdinal: number): string {
    const parts = [this.#bootId, pid, image.startTicks, image.exe, image.execMark, execOrdinal]
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

/** Nobody holds it, for all that can be seen. */
function nobody(why: string): Conclusion {
  return { holders: 'nobody', tag: judge(none(why)), unsettled: false }
}

function changedMeanwhile(what: string): Conclusion {
  return { ...nobody(`${what} changed while it was looked at`), unsettled: true }
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
