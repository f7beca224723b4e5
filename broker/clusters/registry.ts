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

/** How often broken clusters are tried again, and authorities' files looked at, in milliseconds. */
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
  /** Of the authority's file, as it was when the way was opened. */
  caText: string | undefined
}

/** What the registry needs. */
export interface ClustersDeps {
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /** Called when a cluster is gone, or another one has its name. */
  readonly onForget?: (name: string) => void
}

/** Makes an empty registry and starts looking after what comes into it. */
export function createClusters({ log, now, onForget }: ClustersDeps): Clusters {
  const slots = new Map<string, Slot>()

  async function open(slot: Slot): Promise<void> {
    const { settings } = slot
    const { name } = settings
    try {
      const caText = await authorityText(settings)
      const connection = await openConnection(settings, now)
      // the name may be another cluster's by now
      if (slots.get(name) !== slot) {
        await connection.close()
        return
      }
      const before = slot.cluster?.connection
      const { serviceAccountTokens: tokens } = settings
      const check =
        tokens.verify === 'jwks'
          ? checkByKeys(connection, tokens.issuer, now)
          : checkByReview(connection, now)
      slot.cluster = { connection, verifier: createTokenVerifier(check, now) }
      slot.caText = caText
      slot.problem = undefined
      // not waited for: a watch may go on for long
      void before?.drain()
    } catch (error) {
      const problem = messageOf(error)
      if (slot.problem !== problem)
        log.error({ cluster: name, problem }, 'a cluster cannot be opened')
      slot.problem = problem
    }
  }

  async function lookAfter(slot: Slot): Promise<void> {
    if (slot.cluster === undefined) {
      await open(slot)
      return
    }
    const text = await authorityText(slot.settings).catch(() => undefined)
    if (text !== undefined && text !== slot.caText) {
      log.info({ cluster: slot.settings.name }, 'the authority of a cluster has changed')
      await open(slot)
    }
  }

  const timer = setInterval(() => {
    for (const slot of slots.values()) void lookAfter(slot)
  }, LOOK_AGAIN_MS)
  timer.unref()

  return {
    get(name) {
      const slot = slots.get(name)
      if (slot === undefined) return undefined
      return slot.cluster ?? refuse('cluster_unusable', name)
    },
    policiesOf: (name) => slots.get(name)?.settings.policies,
    list: () => [...slots.values()].map(statusOf),
    async put(settings, source) {
      const { name } = settings
      const before = slots.get(name)
      const slot = { settings, source, cluster: undefined, problem: undefined, caText: undefined }
      slots.set(name, slot)
      onForget?.(name)
      await before?.cluster?.connection.close()
      await open(slot)
      return statusOf(slot)
    },
    async remove(name) {
      const slot = slots.get(name)
      slots.delete(name)
      onForget?.(name)
      await slot?.cluster?.connection.close()
    },
    async close() {
      clearInterval(timer)
      await Promise.all([...slots.values()].map(({ cluster }) => cluster?.connection.close()))
    },
  }
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

async function authorityText(settings: ClusterSettings): Promise<string> {
  return 'caPem' in settings ? settings.caPem : readFile(settings.caFile, 'utf8')
}
