/**
 * Naming: what policy, approvals and ledger call a process and those that started it. One place, after
 * identification and before the decision. A name is the operator's (registrations.ts) or says that there is none,
 * `unregistered/CONTAINER/EXECUTABLE`; nothing in it can be set by the process.
 *
 * A tag keeps its names: with a keep-alive connection, every request after the first finds them without waiting.
 */
import type { AgentTag, ProcessRef, Verdict } from '../../shared/agent-tag.ts'
import { MAX_ANCESTORS } from '../../shared/agent-tag.ts'
import { userKey } from './container-users.ts'
import { USERS_LIFE_MS } from './containers.ts'
import type { Containers, ContainerIdentity, ContainerTable } from './containers.ts'
import { UNREGISTERED } from './registrations.ts'
import type { Match, Matcher, ProcessFacts } from './registrations.ts'
import type { Caller } from './sidecars.ts'
import type { PodIdentity } from './service-account-tokens.ts'

/** What a caller is called. */
export interface Names {
  readonly agent: string
  /** Names of its ancestors, from the parent outwards; at most {@link MAX_ANCESTORS}. */
  readonly chain: readonly string[]
  /** Its container, where the API server has named it. */
  readonly container?: ContainerIdentity
}

/** Names callers. */
export interface Naming {
  /** A promise only where the API server has to be asked about a container; it does not reject. */
  name(caller: Caller): Names | Promise<Names>
}

/** How long names of which a container is missing are used before they are looked at again, in milliseconds. */
const INCOMPLETE_MS = 1_000
/** Digits of a container id that are shown, as `crictl` shows them. */
const CONTAINER_PREFIX = 13

/** Verdicts under which the tag's facts are those of the process that holds the connection. */
export const PROCESS_LEVEL: ReadonlySet<Verdict> = new Set(['exclusive', 'relay'])

interface Remembered {
  readonly cluster: string
  readonly podUid: string
  readonly names: Names
  readonly untilMs: number
}

interface Attempt {
  readonly names: Names
  /** Every container that was asked for is known. */
  readonly complete: boolean
  /** The process itself, not an ancestor, has a registration that waits for its container's name. */
  readonly undecided: boolean
}

/** @param matcher - of the configured registrations */
export function createNaming(deps: {
  readonly matcher: Matcher
  readonly containers: Containers
  readonly now: () => number
}): Naming {
  const { matcher, containers, now } = deps
  // by the object that identification keeps for a verified tag; it goes when that goes
  const remembered = new WeakMap<AgentTag, Remembered>()
  const keep = ({ pod, tag }: Caller, { names, complete }: Attempt): Names => {
    const lifeMs = tag.socket === undefined ? Infinity : USERS_LIFE_MS
    const untilMs = now() + (complete ? lifeMs : INCOMPLETE_MS)
    remembered.set(tag, { cluster: pod.cluster, podUid: pod.podUid, names, untilMs })
    return names
  }
  const lookUp = async (caller: Caller, ids: readonly string[]): Promise<Names> => {
    const { pod, tag } = caller
    const first = attempt(matcher, caller, await containers.ask(pod, ids))
    const own = tag.verified?.containerId
    if (!first.undecided || own === undefined) return keep(caller, first)
    return keep(caller, attempt(matcher, caller, await containers.settle(pod, own)))
  }
  return {
    name(caller): Names | Promise<Names> {
      const { pod, tag } = caller
      const before = remembered.get(tag)
      if (
        before?.cluster === pod.cluster &&
        before.podUid === pod.podUid &&
        before.untilMs > now()
      ) {
        return before.names
      }
      const ids = containerIds(tag)
      const table = containers.known(pod, ids)
      if (table === undefined) return lookUp(caller, ids)
      const found = attempt(matcher, caller, table)
      // a container too new to be known is worth a wait, once; settle() ends it
      return found.undecided && before === undefined ? lookUp(caller, ids) : keep(caller, found)
    },
  }
}

/** What the caller's container, and those of its ancestors, are found by. */
function containerIds({ verified, socket }: AgentTag): readonly string[] {
  if (verified === undefined) return socket === undefined ? [] : [userKey(socket.uid)]
  const ids = [verified, ...verified.ancestors].map(({ containerId }) => containerId)
  return [...new Set(ids.filter((id) => id !== undefined))]
}

function attempt(matcher: Matcher, { pod, tag }: Caller, table: ContainerTable): Attempt {
  const { verified } = tag
  const own = ownFacts(pod, tag, table)
  const match = matcher(own)
  const ancestors = PROCESS_LEVEL.has(tag.verdict) ? (verified?.ancestors ?? []) : []
  const links = ancestors
    .slice(0, MAX_ANCESTORS)
    .map((ancestor) => ({ ...NO_FACTS, ...refFacts(pod, ancestor, table) }))
  const names: Names = {
    agent: nameOf(match, own),
    chain: links.map((link) => nameOf(matcher(link), link)),
    ...(own.container === undefined ? {} : { container: own.container }),
  }
  return {
    names,
    complete: containerIds(tag).every((id) => table.has(id)),
    undecided: match.kind === 'undecided',
  }
}

/** Facts that a tag says of the caller itself only. */
const NO_FACTS = { sha256: undefined, uid: undefined }

function ownFacts(pod: PodIdentity, tag: AgentTag, table: ContainerTable): ProcessFacts {
  const { verified, verdict } = tag
  if (verified === undefined) return { pod, ...NO_FACTS, ...socketFacts(tag, table) }
  const facts = refFacts(pod, verified, table)
  // a process was found, but others may hold the connection too: only the container is taken for proved
  if (verdict === 'container_only') return { ...facts, ...NO_FACTS, exe: undefined }
  if (!PROCESS_LEVEL.has(verdict)) return { pod, ...NO_FACTS, ...NO_PROCESS }
  return { ...facts, sha256: verified.exeSha256, uid: verified.uid }
}

/** Where the sidecar sees no processes, the user that made the socket may name the container. */
function socketFacts(
  { verdict, socket }: AgentTag,
  table: ContainerTable,
): Pick<ProcessFacts, 'exe' | 'containerId' | 'container'> {
  if (verdict !== 'container_only' || socket === undefined) return NO_PROCESS
  return { ...NO_PROCESS, container: table.get(userKey(socket.uid)) }
}

const NO_PROCESS = { exe: undefined, containerId: undefined, container: undefined }

function refFacts(
  pod: PodIdentity,
  { exe, containerId }: ProcessRef,
  table: ContainerTable,
): Omit<ProcessFacts, 'sha256' | 'uid'> {
  const container = containerId === undefined ? undefined : table.get(containerId)
  return { pod, exe, containerId, container }
}

function nameOf(match: Match, { exe, containerId, container }: ProcessFacts): string {
  if (match.kind === 'registered') return match.name
  const where = container?.name ?? containerId?.slice(0, CONTAINER_PREFIX) ?? 'no-container'
  return `${UNREGISTERED}/${where}/${exe?.split('/').at(-1) ?? 'unknown'}`
}
