/**
 * The registered clusters, each with a way of its own: pools, authority, credentials, token checks, policy scope. One that
 * cannot be opened is refused by itself and tried again; it holds up neither the broker's start nor any other cluster.
 */
import { readFile } from 'node:fs/promises'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { openConnection } from '../credentials/connection.ts'
import type { ClusterConnection } from '../credentials/connection.ts'
import {
  checkByKeys,
  checkByReview,
  createTokenVerifier,
} from '../identity/service-account-tokens.ts'
import type { TokenVerifier } from '../identity/service-account-tokens.ts'
import type { ClusterSettings } from './settings.ts'

/** How often broken clusters are tried again, and certificates' files looked at, in milliseconds. */
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
  readonly credential: 'token' | 'certificate'
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
  /** What the certificates' files held when the way was opened. */
  files: string | undefined
}

/** What the registry needs. */
export interface ClustersDeps {
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /** Called when a cluster is gone, or another one has its name. */
  readonly onForget?: (name: string) => void
  /** See {@link LOOK_AGAIN_MS}; tests shorten it. */
  readonly lookAgainMs?: number
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

  list(): readonly ClusterStatus[] {
    return [...this.#slots.values()].map(statusOf)
  }

  async put(settings: ClusterSettings, source: ClusterSource): Promise<ClusterStatus> {
    const { name } = settings
    const before = this.#slots.get(name)
    const slot = { settings, source, cluster: undefined, problem: undefined, files: undefined }
    this.#slots.set(name, slot)
    this.#deps.onForget?.(name)
    await closed(before)
    await this.#open(slot)
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
    await Promise.all([...this.#slots.values()].map(closed))
  }

  /** Opens the way to a cluster, in place of an earlier one, which ends with what is open on it. */
  async #open(slot: Slot): Promise<void> {
    const { settings } = slot
    const { log, now } = this.#deps
    try {
      const files = await certificateFiles(settings)
      const connection = await openConnection(settings, now)
      // the name may be another cluster's by now
      if (this.#slots.get(settings.name) !== slot) {
        await connection.close()
        return
      }
      const before = slot.cluster?.connection
      slot.cluster = { connection, verifier: verifierOf(settings, connection, now) }
      slot.files = files
      slot.problem = undefined
      // not waited for: a watch may go on for long
      void before?.drain()
    } catch (error) {
      const problem = messageOf(error)
      if (slot.problem !== problem)
        log.error({ cluster: settings.name, problem }, 'a cluster cannot be opened')
      slot.problem = problem
    }
  }

  async #lookAfter(slot: Slot): Promise<void> {
    if (slot.cluster === undefined) {
      await this.#open(slot)
      return
    }
    const files = await certificateFiles(slot.settings).catch(() => undefined)
    if (files !== undefined && files !== slot.files) {
      this.#deps.log.info({ cluster: slot.settings.name }, 'certificates of a cluster have changed')
      await this.#open(slot)
    }
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
  await slot?.cluster?.connection.close()
}

/** The cluster itself, for those to whom it is all one why there is none. */
export function usable(clusters: Pick<Clusters, 'get'>, name: string): Cluster | undefined {
  const found = clusters.get(name)
  return found === undefined || isRefusal(found) ? undefined : found
}

function statusOf({ settings, source, cluster, problem }: Slot): ClusterStatus {
  const { name, server, credential, policies } = settings
  return {
    name,
    server,
    source,
    credential: 'tokenFile' in credential ? 'token' : 'certificate',
    ...(policies === undefined ? {} : { policies }),
    state: cluster === undefined ? 'broken' : 'open',
    ...(problem === undefined ? {} : { problem }),
  }
}

/** The authority, and the broker's own certificate and key where it has one there; tokens are read again at each use. */
async function certificateFiles(settings: ClusterSettings): Promise<string> {
  const { credential } = settings
  const names = [
    ...('caFile' in settings ? [settings.caFile] : []),
    ...('certFile' in credential ? [credential.certFile, credential.keyFile] : []),
  ]
  const texts = await Promise.all(names.map((name) => readFile(name, 'utf8')))
  return texts.join('\n')
}
