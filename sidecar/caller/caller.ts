/**
 * Names the process at the other end of an accepted connection. The answer is bound to the connection itself: the
 * row of our own end must carry the inode of the socket that was accepted, so a process that takes over a dead
 * client's port is never taken for it. A connection keeps its answer only as long as cheap readings show that
 * nothing can have changed; otherwise everything is looked up again, and whoever holds it by then is refused: bytes
 * of both may have arrived. Trust boundary: all facts come from the kernel.
 */
import type { Socket } from 'node:net'
import type { AgentTag } from '../../shared/agent-tag.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { createPlaces } from '../places.ts'
import type { Places } from '../places.ts'
import { createAcceptedConnections } from './accepted.ts'
import type { AcceptedClient, AcceptedConnections } from './accepted.ts'
import { changedMeanwhile, heldBySeveral, nobody, notFound } from './conclusion.ts'
import type { Conclusion } from './conclusion.ts'
import { createDescriber } from './describer.ts'
import type { Describer } from './describer.ts'
import type { ExeHash, ExeHashes } from './exe-hash.ts'
import { createHolderIndex, holdingTarget, SearchLimitError, targetIn } from './holders.ts'
import type { HolderIndex, Holding } from './holders.ts'
import { createPins } from './pins.ts'
import type { Pin, Pins } from './pins.ts'
import { SharedSearch } from './shared-search.ts'
import type { SocketRow, SocketTable } from './socket-table.ts'
import { judge } from './verdict.ts'
import type { IdentityLevel } from './verdict.ts'

/**
 * Longest time without a full search while requests come, in milliseconds: a descriptor can be handed over without
 * any new process (SCM_RIGHTS, pidfd_getfd).
 */
const FULL_SEARCH_AFTER_MS = 1000
/** After so long one is begun while requests come that can still do without it. */
const REFRESH_AFTER_MS = 750
/** Pauses before a lookup is tried again, in milliseconds: a process may be between fork and exec, when both hold all files. */
const RETRY_PAUSES_MS = [5, 20] as const
/** Most lookups that wait at one time, for each user that made a socket and altogether. */
export const MAX_WAITING_PER_UID = 256
export const MAX_WAITING = 1024

/** What a full search came to. */
export interface Survey {
  /** How many processes it looked at. */
  readonly seen: number
  /** How many of them it could not read. */
  readonly unread: number
  /** Whether the first process of the namespace was among them. */
  readonly sawFirst: boolean
}

/** Who is calling. */
export interface Callers {
  /** Notes the ends of a connection just accepted; undefined when the client is gone already. */
  accept(socket: Socket): AcceptedClient | undefined
  /**
   * The tag of the process that holds the client's end now. Lookups that arrive together share one search. Refused
   * when somebody else holds it than at the last request, and when there is too much to search.
   */
  identify(socket: Socket): Promise<AgentTag | Refusal>
  /** Whether any process still holds the client's end: false once a client that ended its side is gone. */
  isHeld(socket: Socket): boolean
  /** A full search, for nobody in particular. @throws SearchLimitError */
  survey(): Promise<Survey>
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
  /** What the holding's descriptor leads to. */
  readonly link: string
  readonly pin: Pin
}

interface Recheck {
  readonly known: Known
  readonly resolve: (found: 'unchanged' | 'unknown' | Conclusion) => void
  readonly reject: (error: unknown) => void
}

/** A process that seems to hold a connection, before everything is read at one moment. */
interface Candidate {
  readonly inode: number
  readonly holding: Holding
  readonly pin: Pin
  readonly exeHash: ExeHash
}

interface Pending {
  readonly socket: Socket
  readonly uid: number
  readonly attempt: number
  readonly resolve: (answer: AgentTag | Refusal) => void
  readonly reject: (error: unknown) => void
}

/** Makes the lookups of one sidecar. Reads the boot id, so it throws where there is no procfs. */
export function createCallers(deps: CallerDeps): Callers {
  return new Lookups(deps)
}

class Lookups implements Callers {
  readonly #deps: CallerDeps
  readonly #describer: Describer
  readonly #accepted: AcceptedConnections
  readonly #known = new WeakMap<Socket, Known>()
  /** Who held a connection when it was looked at last, whatever came of it. */
  readonly #heldBy = new WeakMap<Socket, string>()
  /** The user that a connection was of when only that was looked at. */
  readonly #userOf = new WeakMap<Socket, number>()
  readonly #searches: SharedSearch<Pending>
  readonly #index: HolderIndex
  readonly #pins: Pins
  /** Who waits for a search, by user; all are 0 where a look at one connection costs a look at all. */
  readonly #waiting: Places<number>
  #rechecks: Recheck[] = []
  #candidates: { readonly pending: Pending; readonly candidate: Candidate }[] = []

  constructor(deps: CallerDeps) {
    this.#deps = deps
    this.#index = createHolderIndex(deps.procRoot, deps.shareFiles, deps.now)
    const each = deps.table.perConnection ? MAX_WAITING_PER_UID : MAX_WAITING
    this.#waiting = createPlaces({ all: MAX_WAITING, each })
    this.#searches = new SharedSearch<Pending>({
      search: () => this.#index.search(),
      found: (pending) => {
        this.#lookAtAll(pending)
      },
      failed: (pending, error) => {
        for (const { reject } of pending) reject(error)
      },
      now: deps.now,
    })
    this.#pins = createPins(deps.procRoot)
    this.#accepted = createAcceptedConnections(deps.table)
    this.#describer = createDescriber(deps.procRoot, deps.now)
  }

  accept(socket: Socket): AcceptedClient | undefined {
    return this.#accepted.note(socket)
  }

  isHeld(socket: Socket): boolean {
    return this.#accepted.isHeld(socket)
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
    if (known !== undefined) {
      const found = await this.#recheck(known)
      if (found === 'unchanged') return known.tag
      this.#known.delete(socket)
      if (found !== 'unknown') return this.#compare(socket, found)
    }
    let uid = 0
    if (this.#deps.table.perConnection) {
      const client = this.#accepted.row(socket)
      if (typeof client === 'string') return this.#compare(socket, nobody(client))
      uid = client.uid
    }
    return this.#waitForSearch(socket, uid)
  }

  async survey(): Promise<Survey> {
    await this.#index.search()
    const { seen, sawFirst } = this.#index.processes()
    return { seen, unread: this.#index.unread(), sawFirst }
  }

  close(): void {
    this.#index.close()
    this.#pins.close()
  }

  /** Without the pod's processes in sight: who made the socket is all that the kernel tells. */
  #byContainer(socket: Socket, why: string): AgentTag | Refusal {
    const client = this.#accepted.row(socket)
    if (typeof client === 'string') return nobody(client).tag
    const { uid, cgroupId } = client
    const before = this.#userOf.get(socket) ?? uid
    this.#userOf.set(socket, before)
    if (before !== uid) return refuse('connection_identity_changed')
    const facts = { uid, ...(cgroupId === undefined ? {} : { cgroupId }) }
    return judge({ kind: 'container', why, socket: facts })
  }

  /**
   * Whether holder and program are those of the last search. Asked for all requests that one turn of the event loop has
   * brought, when it has: what they share is read once, and after their bytes.
   */
  #recheck(known: Known): Promise<'unchanged' | 'unknown' | Conclusion> {
    return new Promise((resolve, reject) => {
      this.#rechecks.push({ known, resolve, reject })
      if (this.#rechecks.length > 1) return
      setImmediate(() => {
        this.#recheckAll()
      })
    })
  }

  #recheckAll(): void {
    const batch = this.#rechecks
    this.#rechecks = []
    try {
      const searched = this.#knowsAllHolders()
      const seen = batch.map(({ known }) => (searched ? this.#seenOf(known) : 'unknown'))
      // Last: a process that is unchanged now has had its number all the while.
      const unchanged = new Map<Pin, boolean>()
      for (const [at, { known, resolve }] of batch.entries()) {
        const found = seen[at] ?? 'unknown'
        const pin = unchanged.get(known.pin) ?? (found === 'unchanged' && known.pin.isUnchanged())
        if (found === 'unchanged') unchanged.set(known.pin, pin)
        resolve(found === 'unchanged' && !pin ? 'unknown' : found)
      }
    } catch (error) {
      for (const { reject } of batch) reject(error)
    }
  }

  /** Whether the last search and a look at what was started since tell all holders as of now. */
  #knowsAllHolders(): boolean {
    if (this.#searchAge() > REFRESH_AFTER_MS) this.#searches.refresh()
    return this.#index.searchNew() && this.#isSearchFresh() && this.#unread() === 0
  }

  /** Processes that could not be searched, as far as they count. */
  #unread(): number {
    return this.#deps.unreadable === 'ignore' ? 0 : this.#index.unread()
  }

  #isSearchFresh(): boolean {
    return this.#searchAge() <= FULL_SEARCH_AFTER_MS
  }

  #searchAge(): number {
    return this.#deps.now() - this.#index.searchedAt()
  }

  #seenOf({ inode, holding, link }: Known): 'unchanged' | 'unknown' | Conclusion {
    const holdings = this.#index.holdings(inode)
    if (holdings.length > 1) {
      const several = heldBySeveral(this.#deps.procRoot, holdings)
      return several.lookAgain === 'never' ? several : 'unknown'
    }
    if (holdings.some(({ pid }) => pid !== holding.pid)) return 'unknown'
    return holdingTarget(this.#deps.procRoot, holding) === link ? 'unchanged' : 'unknown'
  }

  #waitForSearch(socket: Socket, uid: number): Promise<AgentTag | Refusal> {
    const leave = this.#waiting.take(uid)
    if (leave === undefined) return Promise.resolve(refuse('attribution_busy'))
    return new Promise<AgentTag | Refusal>((resolve, reject) => {
      this.#searches.wait({ socket, uid, attempt: 0, resolve, reject })
    }).finally(leave)
  }

  #lookAtAll(batch: readonly Pending[]): void {
    const rows = this.#accepted.rows(batch.map(({ socket }) => socket))
    for (const [at, pending] of batch.entries())
      this.#look(pending, rows[at] ?? 'no row').catch((error: unknown) => {
        pending.reject(error)
      })
  }

  /** Tries once more what may come out otherwise, and ends the lookup else. */
  #conclude(pending: Pending, conclusion: Conclusion): void {
    const { socket, attempt } = pending
    const { holders, lookAgain } = conclusion
    const before = this.#heldBy.get(socket)
    const changed = before !== undefined && before !== holders
    const pauseMs = RETRY_PAUSES_MS[attempt]
    const again = lookAgain === 'always' || (lookAgain === 'ifChanged' && changed)
    if (pauseMs === undefined || !again) {
      pending.resolve(this.#compare(socket, conclusion))
      return
    }
    setTimeout(() => {
      this.#searches.wait({ ...pending, attempt: attempt + 1 })
    }, pauseMs)
  }

  /** The tag, unless somebody else held the connection before. */
  #compare(socket: Socket, { holders, tag }: Conclusion): AgentTag | Refusal {
    const before = this.#heldBy.get(socket)
    this.#heldBy.set(socket, before ?? holders)
    if (before === undefined || before === holders) return tag
    this.#known.delete(socket)
    return refuse('connection_identity_changed')
  }

  /** Who seems to hold a connection, of those that the last search found. */
  async #look(pending: Pending, client: SocketRow | string): Promise<void> {
    if (typeof client === 'string') {
      this.#conclude(pending, nobody(client))
      return
    }
    const [holding] = this.#index.holdings(client.inode)
    if (holding === undefined) {
      this.#conclude(pending, notFound(this.#index.unread()))
      return
    }
    const pin = this.#pins.pin(holding.pid, holding.tid)
    if (pin === undefined) {
      this.#conclude(pending, changedMeanwhile('the process'))
      return
    }
    const exeHash = await this.#deps.hashes.of(`${pin.path}/task/${holding.tid}/exe`)
    this.#candidates.push({ pending, candidate: { inode: client.inode, holding, pin, exeHash } })
    if (this.#candidates.length === 1)
      setImmediate(() => {
        this.#settleAll()
      })
  }

  /** All that must hold at one moment, for those that are known so far, with nothing waited for in between. */
  #settleAll(): void {
    const batch = this.#candidates
    this.#candidates = []
    try {
      if (!this.#index.searchNew()) throw new SearchLimitError('too many new processes')
      const rows = this.#accepted.rows(batch.map(({ pending }) => pending.socket))
      for (const [at, { pending, candidate }] of batch.entries())
        this.#conclude(pending, this.#settle(pending.socket, candidate, rows[at] ?? 'no row'))
    } catch (error) {
      for (const { pending } of batch) pending.reject(error)
    }
  }

  #settle(
    socket: Socket,
    { inode, holding, pin, exeHash }: Candidate,
    client: SocketRow | string,
  ): Conclusion {
    if (!this.#isSearchFresh()) return changedMeanwhile('the search is too old; something')
    const holdings = this.#index.holdings(inode)
    if (holdings.length > 1) return heldBySeveral(this.#deps.procRoot, holdings)
    const found = this.#describer.describe(holding, pin, exeHash, this.#unread())
    const link = `socket:[${inode}]`
    const isHolder = holdings[0]?.pid === holding.pid && targetIn(pin.path, holding) === link
    if (typeof client === 'string' || client.inode !== inode || !isHolder)
      return changedMeanwhile('the connection')
    if (found === undefined || !pin.isUnchanged()) return changedMeanwhile('the process')
    // It came through a set-user-ID program, or from a process of another user.
    if (client.uid !== found.process.uid)
      return nobody(`user ${found.process.uid} holds a connection that user ${client.uid} made`)
    const tag = judge(found)
    if (tag.verdict === 'exclusive') this.#known.set(socket, { tag, holding, inode, link, pin })
    return { holders: found.instanceId, tag, lookAgain: 'ifChanged' }
  }
}
