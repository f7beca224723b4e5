/**
 * What each cluster serves: resources, their subresources and their scope, from its own discovery. A request for anything
 * else is denied before policy sees it, because a rule about a kind says nothing about what an API server makes of a name
 * that it does not know, nor of a cluster-scoped object reached by a namespaced path (CVE-2019-11247).
 *
 * Each group version is asked for when the first request for it comes (`/api/v1`, `/apis/GROUP/VERSION`: served by every
 * Kubernetes), so an aggregated API that is down disturbs nobody but its own callers.
 */
import { z } from 'zod'
import type { Logger } from '../../shared/log.ts'
import { resourcePath } from '../../shared/kubernetes/request-info.ts'
import type { RequestInfo } from '../../shared/kubernetes/request-info.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { clusterJson } from '../credentials/cluster-json.ts'
import type { ClusterConnection } from '../credentials/connection.ts'

/** How long an answer is used without asking again, in milliseconds. */
export const FRESH_MS = 10 * 60_000
/** How long an answer is used while the cluster does not answer, in milliseconds. */
export const STALE_MS = 60 * 60_000
/** Something unknown is asked for again no sooner than this, in milliseconds: a CRD may have just been made. */
export const UNKNOWN_AGAIN_MS = 5_000
/** Group versions of one cluster that are kept; the one longest unused goes first. */
export const MAX_GROUP_VERSIONS = 500
/** Questions to one cluster at once: whoever makes names up must not make the broker ask for each. */
export const MAX_ASKING = 16

/** A resource, or a subresource, that a cluster serves. */
export interface ServedResource {
  readonly apiGroup: string
  /** With subresource, as in RBAC rules. */
  readonly resource: string
  readonly namespaced: boolean
  readonly verbs: readonly string[]
}

/** See the head of the file. */
export interface Kinds {
  /**
   * Whether the cluster serves what a request is for, in this scope; a promise only where it has to be asked.
   *
   * @returns `kind_unknown`, or `discovery_unavailable` where the cluster says nothing about that group version
   */
  check(
    connection: ClusterConnection,
    info: RequestInfo,
  ): Refusal | undefined | Promise<Refusal | undefined>
  /** What is known of a cluster now: of the group versions that were asked for. */
  served(cluster: string): readonly ServedResource[]
  /** Forgets a cluster that is not registered any more. */
  readonly forget: (cluster: string) => void
}

const listSchema = z.object({
  kind: z.literal('APIResourceList'),
  resources: z.array(
    z.object({
      name: z.string(),
      namespaced: z.boolean(),
      verbs: z.array(z.string()).default([]),
    }),
  ),
})

/** What one group version serves; empty where the cluster says that there is no such group version. */
type Served = ReadonlyMap<string, ServedResource>

interface Known {
  served: Served
  fetchedMs: number
}

interface Entry {
  known: Known | undefined
  /** When it was last asked for, whatever came of it. */
  askedMs: number
  asking: Promise<void> | undefined
}

/** @param now - milliseconds since the epoch */
export function createKinds(deps: { readonly log: Logger; readonly now: () => number }): Kinds {
  const { log, now } = deps
  const clusters = new Map<string, Map<string, Entry>>()

  const entryOf = (cluster: string, path: string): Entry => {
    const entries = clusters.get(cluster) ?? new Map<string, Entry>()
    clusters.set(cluster, entries)
    const found = entries.get(path) ?? { known: undefined, askedMs: 0, asking: undefined }
    // the youngest is last
    entries.delete(path)
    if (entries.size >= MAX_GROUP_VERSIONS) entries.delete(leastOf(entries))
    entries.set(path, found)
    return found
  }

  const ask = (connection: ClusterConnection, path: string, entry: Entry): Promise<void> => {
    entry.askedMs = now()
    entry.asking ??= fetchServed(connection, path)
      .then((served) => {
        if (typeof served !== 'string') entry.known = { served, fetchedMs: now() }
        else log.warn({ cluster: connection.name, path, problem: served }, 'discovery failed')
      })
      .finally(() => {
        entry.asking = undefined
      })
    return entry.asking
  }

  /** Questions to a cluster that are under way. */
  const askingOf = (cluster: string): number =>
    [...(clusters.get(cluster)?.values() ?? [])].filter(({ asking }) => asking !== undefined).length

  const conclude = (entry: Entry, info: RequestInfo): Refusal | undefined => {
    const known = usable(entry, now())
    return known === undefined
      ? refuse('discovery_unavailable', groupVersion(info))
      : checkScope(known.served, info)
  }

  return {
    check(connection, info) {
      if (!info.isResourceRequest) return undefined
      const path = groupVersionPath(info)
      const entry = entryOf(connection.name, path)
      const known = usable(entry, now())
      if (known !== undefined && checkScope(known.served, info) === undefined) {
        if (known.fetchedMs + FRESH_MS <= now() && entry.askedMs + UNKNOWN_AGAIN_MS <= now())
          void ask(connection, path, entry)
        return undefined
      }
      // many who ask for what is not there share one question
      if (entry.asking === undefined && entry.askedMs + UNKNOWN_AGAIN_MS > now())
        return conclude(entry, info)
      if (entry.asking === undefined && askingOf(connection.name) >= MAX_ASKING)
        return refuse('discovery_unavailable', 'too much is asked for at once')
      return (entry.asking ?? ask(connection, path, entry)).then(() => conclude(entry, info))
    },
    served: (cluster) =>
      [...(clusters.get(cluster)?.values() ?? [])].flatMap(({ known }) => [
        ...(known?.served.values() ?? []),
      ]),
    forget(cluster): void {
      clusters.delete(cluster)
    },
  }
}

/** What is forgotten first: a group version that there is not, of which anybody can name any number; else the one longest unused. */
function leastOf(entries: ReadonlyMap<string, Entry>): string {
  let oldest: string | undefined
  for (const [path, { known, asking }] of entries) {
    oldest ??= path
    if (asking === undefined && (known === undefined || known.served.size === 0)) return path
  }
  return oldest ?? ''
}

function usable({ known }: Entry, nowMs: number): Known | undefined {
  return known !== undefined && known.fetchedMs + STALE_MS > nowMs ? known : undefined
}

function groupVersion({ apiGroup, apiVersion }: RequestInfo): string {
  return apiGroup === '' ? apiVersion : `${apiGroup}/${apiVersion}`
}

function groupVersionPath({ apiGroup, apiVersion }: RequestInfo): string {
  const version = encodeURIComponent(apiVersion)
  return apiGroup === '' ? `/api/${version}` : `/apis/${encodeURIComponent(apiGroup)}/${version}`
}

/** What a group version serves, or why that is not known. */
async function fetchServed(connection: ClusterConnection, path: string): Promise<Served | string> {
  const answer = await clusterJson(connection, 'GET', path)
  if ('problem' in answer) return answer.status === 404 ? new Map() : answer.problem
  const parsed = listSchema.safeParse(answer.json)
  if (!parsed.success) return 'the answer is no APIResourceList'
  const [, , group = ''] = path.startsWith('/apis/') ? path.split('/') : []
  const apiGroup = decodeURIComponent(group)
  return new Map(
    parsed.data.resources.map(({ name, namespaced, verbs }) => [
      name,
      { apiGroup, resource: name, namespaced, verbs },
    ]),
  )
}

/** Whether a group version serves the resource of a request in the scope that its path has. */
function checkScope(served: Served, info: RequestInfo): Refusal | undefined {
  const resource = resourcePath(info)
  const found = served.get(resource)
  if (found === undefined) return refuse('kind_unknown', `${resource} in ${groupVersion(info)}`)
  const inNamespace = info.namespace !== '' && info.resource !== 'namespaces'
  if (inNamespace && !found.namespaced)
    return refuse('kind_unknown', `${resource} is cluster-scoped, and the path names a namespace`)
  if (!inNamespace && found.namespaced && info.name !== '' && !isCollection(info))
    return refuse('kind_unknown', `${resource} is namespaced, and the path names no namespace`)
  return undefined
}

/** A list or watch over all namespaces may name an object by its field selector. */
function isCollection({ verb }: RequestInfo): boolean {
  return verb === 'list' || verb === 'watch'
}
