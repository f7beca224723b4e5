/** Clusters: who is registered and how they are; registering, changing and removing is for admins. */
import { createHash } from 'node:crypto'
import express from 'express'
import type { Router } from 'express'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { createOneByOne } from '../one-by-one.ts'
import { problemsOf } from '../audit/query.ts'
import { MAX_CLUSTERS } from '../clusters/registry.ts'
import type { Clusters, ClusterStatus } from '../clusters/registry.ts'
import { placed, registeredSchema } from '../clusters/settings.ts'
import type { RegisteredCluster } from '../clusters/settings.ts'
import type { Issuer } from '../credentials/parts.ts'
import { examine } from '../doctor/doctor.ts'
import type { PeopleAuthenticator, Person } from '../identity/people.ts'
import { ROLES } from '../identity/roles.ts'
import type { SystemEntry } from '../ledger/entry.ts'
import type { Store } from '../store/store.ts'
import type { Result } from './answers.ts'
import { createWithRole } from './with-role.ts'

/** What these routes need. */
export interface ClusterRoutesDeps {
  readonly people: PeopleAuthenticator
  readonly store: Store
  readonly clusters: Clusters
  /** Folder of the credentials that registered clusters may name; without it none can be registered. */
  readonly clusterSecretsDir: string | undefined
  /** The broker as issuer, where it is one. */
  readonly issuer: Issuer | undefined
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** The routes under `/v1/clusters`. @param json - reads a JSON body */
export function clusterRoutes(deps: ClusterRoutesDeps, json: express.RequestHandler): Router {
  const router = express.Router({ caseSensitive: true, strict: true })
  // what is there is looked at and then changed: two changes at once would both find the name free
  const oneByOne = createOneByOne()
  const change = (work: () => Promise<Result>): Promise<Result> => oneByOne('clusters', work)
  const withRole = createWithRole(deps.people)
  router.get(
    '/clusters',
    withRole(ROLES, () => Promise.resolve({ items: deps.clusters.list() })),
  )
  router.post(
    '/clusters',
    json,
    withRole(['admin'], (person, request) =>
      change(() => register(deps, person, request.body, undefined)),
    ),
  )
  router.put(
    '/clusters/:name',
    json,
    withRole(['admin'], (person, request) =>
      change(() => register(deps, person, request.body, String(request.params['name']))),
    ),
  )
  router.post(
    '/clusters/:name/check',
    withRole(['admin'], (person, request) => check(deps, person, String(request.params['name']))),
  )
  router.delete(
    '/clusters/:name',
    withRole(['admin'], (person, request) =>
      change(() => remove(deps, person, String(request.params['name']))),
    ),
  )
  return router
}

/** Registers a cluster, or changes the one named in the path. */
async function register(
  { clusters, store, clusterSecretsDir }: ClusterRoutesDeps,
  person: Person,
  body: unknown,
  path: string | undefined,
): Promise<Result> {
  if (clusterSecretsDir === undefined)
    return refuse('body_invalid', 'this broker has no clusterSecretsDir')
  const parsed = registeredSchema.safeParse(body)
  if (!parsed.success) return refuse('body_invalid', problemsOf(parsed.error))
  const { data } = parsed
  if (path !== undefined && path !== data.name)
    return refuse('body_invalid', 'path and body name different clusters')
  const refusal = conflict(clusters, data.name, path !== undefined)
  if (refusal !== undefined) return refusal
  const event = path === undefined ? 'cluster_registered' : 'cluster_changed'
  await store.put([{ kind: 'cluster', id: data.name, body: data }], [entryOf(event, person, data)])
  const { name, server, ...status } = await clusters.put(placed(data, clusterSecretsDir), 'api')
  return { name, server, ...status }
}

async function remove(
  { clusters, store }: ClusterRoutesDeps,
  person: Person,
  name: string,
): Promise<Result> {
  const refusal = conflict(clusters, name, true)
  if (refusal !== undefined) return refusal
  const entry: SystemEntry = {
    ...{ kind: 'system', event: 'cluster_removed', actor: person.name, detail: { cluster: name } },
  }
  await store.put([{ kind: 'cluster', id: name, body: undefined }], [entry])
  await clusters.remove(name)
  return { name, removed: true }
}

/** Has the doctor look at a cluster; what was tried there stands in its own audit log too, so that the ledger says by whom. */
async function check(
  { clusters, store, issuer, now }: ClusterRoutesDeps,
  person: Person,
  name: string,
): Promise<Result> {
  const cluster = clusters.get(name)
  const settings = clusters.settingsOf(name)
  if (cluster === undefined || settings === undefined) return refuse('cluster_unknown')
  if (isRefusal(cluster)) return cluster
  const report = await examine({ issuer, now }, cluster.connection, settings)
  if (isRefusal(report)) return report
  const failed = report.probes.filter(({ outcome }) => outcome === 'failed').length
  await store.append([
    {
      ...{ kind: 'system', event: 'cluster_checked', actor: person.name },
      detail: { cluster: name, mode: report.mode, probes: report.probes.length, failed },
    },
  ])
  return { ...report }
}

/** What of the configuration is, the API does not change; what is there is not registered twice. */
function conflict(clusters: Clusters, name: string, isThere: boolean): Refusal | undefined {
  const all: readonly ClusterStatus[] = clusters.list()
  const found = all.find((cluster) => cluster.name === name)
  if (isThere && found === undefined) return refuse('cluster_unknown')
  if (found?.source === 'file' || (!isThere && found !== undefined))
    return refuse('cluster_conflict', name)
  if (!isThere && all.length >= MAX_CLUSTERS)
    return refuse('cluster_conflict', `there are ${MAX_CLUSTERS} clusters already`)
  return undefined
}

/** The authority by its digest: an entry is evidence of what was trusted, not a copy of it. */
function entryOf(
  event: 'cluster_registered' | 'cluster_changed',
  person: Person,
  { name, server, ca, credential, policies }: RegisteredCluster,
): SystemEntry {
  return {
    kind: 'system',
    event,
    actor: person.name,
    detail: {
      cluster: name,
      server,
      caSha256: createHash('sha256').update(ca).digest('hex'),
      credential:
        'issuer' in credential
          ? 'issuer'
          : Object.values(credential)
              .filter((value) => typeof value === 'string')
              .join(','),
      policies: policies?.join(',') ?? '*',
    },
  }
}
