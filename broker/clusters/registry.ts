/**
 * The registered clusters, each with a way of its own: pools, authority, credentials, token checks, policy scope. One that
 * cannot be opened is refused by itself and tried again; it holds up neither the broker's start nor any other cluster.
 */
import { messageOf } from '../../shared/errors.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { connectionWith, readMaterial } from '../credentials/connection.ts'
import type {
  ClusterConnection,
  ConnectionDeps,
  ConnectionMaterial,
} from '../credentials/connection.ts'
import {
  checkByKeys,
  checkByReview,
  createTokenVerifier,
} from '../identity/service-account-tokens.ts'
import type { TokenVerifier } from '../identity/service-account-tokens.ts'
import type { ClusterSettings } from './settings.ts'

/** How often broken clusters are tried again, and files of authorities and certificates looked at, in milliseconds. */
export const LOOK_AGAIN_MS = 10_000
/** Clusters in all. */
export const MAX_CLUSTERS = 500

/** Who told of a cluster: the configuration, which the API cannot change, or the API. */
export type ClusterSource = 'file' | 'api'

/** A cluster to which there is a way. */
export interface Cluster {
  readonly connection: ClusterConnection
  readonly verifier: TokenVerifier
}

/** A cluster as people see it; nothing of its credentials but their kind. */
export interface ClusterStatus {
  readonly name: string
  readonly server: string
  readonly source: ClusterSource
  readonly credential: 'token' | 'certificate' | 'issuer'
  readonly policies?: readonly string[]
  /** `open`: there is a way, though nobody may have gone it yet. */
  readonly state: 'open' | 'broken'
  /** Why it is broken. */
  readonly problem?: string
}

/** See the head of the file. */
export interface Clusters {
  /** Undefined for one that nobody registered, `cluster_unusable` for one to which there is no way now. */
  get(name: string): Cluster | Refusal | undefined
  /** Names of the policies that hold for a cluster; undefined for all. */
  policiesOf(name: string): readonly string[] | undefined
  /** What is known of a cluster, whether there is a way to it or not. */
  settingsOf(name: string): ClusterSettings | undefined
  list(): readonly ClusterStatus[]
  /** Registers a cluster, in place of an earlier one of its name. Opens the way, or keeps trying. */
  put(settings: ClusterSettings, source: ClusterSource): Promise<ClusterStatus>
  /** Forgets a cluster and cuts what is open to it. */
  remove(name: string): Promise<void>
  close(): Promise<void>
}

interface Slot {
  readonly settings: ClusterSettings
  readonly source: ClusterSource
  cluster: Cluster | undefined
  problem: string | undefined
  /** Of the files, as they were when the way was opened. */
  digest: string | undefined
  /** Earlier ways on which something is still open. */
  readonly draining: Set<ClusterConnection>
  /** Set while its files are looked at. */
  looking: Promise<void> | undefined
}

/** What the registry needs. */
export interface ClustersDeps extends ConnectionDeps {
  /** See {@link LOOK_AGAIN_MS}; tests shorten it. */
  readonly lookAgainMs?: number
  /** Called when a cluster is gone, or another one has its name. */
  readonly onForget?: (name: string) => void
}

/** Makes an empty registry and starts looking after what comes into it. */
export function createClusters(deps: ClustersDeps): Clusters {
  return new Registry(deps)
}

class Registry implements Clusters {
  readonly #deps: ClustersDeps
  readonly #slots = new Map<string, Slot>()
  readonly #timer: NodeJS.Timeout

  constructor(deps: ClustersDeps) {
    this.#deps = deps
    this.#timer = setInterval(() => {
      for (const slot of this.#slots.values()) void this.#lookAfter(slot)
    }, deps.lookAgainMs ?? LOOK_AGAIN_MS)
    this.#timer.unref()
  }

  get(name: string): Cluster | Refusal | undefined {
    const slot = this.#slots.get(name)
    if (slot === undefined) return undefined
    return slot.cluster ?? refuse('cluster_unusable', name)
  }

  policiesOf(name: string): readonly string[] | undefined {
    return this.#slots.get(name)?.settings.policies
  }

  settingsOf(name: string): ClusterSettings | undefined {
    return this.#slots.get(name)?.settings
  }

  list(): readonly ClusterStatus[] {
    return [...this.#slots.values()].map(statusOf)
  }

  async put(settings: ClusterSettings, source: ClusterSource): Promise<ClusterStatus> {
    const { name } = settings
    const before = this.#slots.get(name)
    const slot: Slot = {
      ...{ settings, source, cluster: undefined, problem: undefined, digest: undefined },
      ...{ draining: new Set<ClusterConnection>(), looking: undefined },
    }
    this.#slots.set(name, slot)
    this.#deps.onForget?.(name)
    await closed(before)
    await this.#lookAfter(slot)
    return statusOf(slot)
  }

  async remove(name: string): Promise<void> {
    const slot = this.#slots.get(name)
    this.#slots.delete(name)
    this.#deps.onForget?.(name)
    await closed(slot)
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    const all = [...this.#slots.values()]
    this.#slots.clear()
    await Promise.all(all.map(closed))
  }

  /** Opens the way to a cluster, or a new one where its files have changed. Never rejects. */
  #lookAfter(slot: Slot): Promise<void> {
    slot.looking ??= this.#look(slot).finally(() => {
      slot.looking = undefined
    })
    return slot.looking
  }

  async #look(slot: Slot): Promise<void> {
    const { name } = slot.settings
    try {
      const material = await readMaterial(slot.settings)
      // the name may be another cluster's by now
      if (this.#slots.get(name) === slot && material.digest !== slot.digest)
        this.#open(slot, material)
      slot.problem = undefined
    } catch (error) {
      const problem = messageOf(error)
      if (slot.problem !== problem)
        this.#deps.log.error({ cluster: name, problem }, 'a cluster cannot be opened')
      slot.problem = problem
    }
  }

  /** Opens the way, in place of an earlier one, whose streams go on. @throws Error when the material cannot be used */
  #open(slot: Slot, material: ConnectionMaterial): void {
    const { settings, draining } = slot
    const { log, now } = this.#deps
    const connection = connectionWith(settings, material, this.#deps)
    const before = slot.cluster?.connection
    slot.cluster = { connection, verifier: verifierOf(settings, connection, now) }
    slot.digest = material.digest
    if (before === undefined) return
    log.info({ cluster: settings.name }, 'authority or certificate of a cluster have changed')
    draining.add(before)
    // not waited for: a watch may go on for long
    void before.drain().finally(() => draining.delete(before))
  }
}

function verifierOf(
  { serviceAccountTokens: tokens }: ClusterSettings,
  connection: ClusterConnection,
  now: () => number,
): TokenVerifier {
  const check =
    tokens.verify === 'jwks'
      ? checkByKeys(connection, tokens.issuer, now)
      : checkByReview(connection, now)
  return createTokenVerifier(check, now)
}

async function closed(slot: Slot | undefined): Promise<void> {
  const last = slot?.cluster?.connection
  const all = [...(slot?.draining ?? []), ...(last === undefined ? [] : [last])]
  await Promise.all(all.map((connection) => connection.close()))
}

/** The cluster itself, for those to whom it is all one why there is none. */
export function usable(clusters: Pick<Clusters, 'get'>, name: string): Cluster | undefined {
  const found = clusters.get(name)
  return found === undefined || isRefusal(found) ? undefined : found
}

function kindOf(credential: ClusterSettings['credential']): ClusterStatus['credential'] {
  if ('issuer' in credential) return 'issuer'
  return 'tokenFile' in credential ? 'token' : 'certificate'
}

function statusOf({ settings, source, cluster, problem }: Slot): ClusterStatus {
  const { name, server, credential, policies } = settings
  return {
    name,
    server,
    source,
    credential: kindOf(credential),
    ...(policies === undefined ? {} : { policies }),
    state: cluster === undefined ? 'broken' : 'open',
    ...(problem === undefined ? {} : { problem }),
  }
}
