/**
 * The issuer's keys, for people: which there are, and replacing one that somebody else may have. An API server keeps an old
 * key until it meets a token of one that it does not know, so each is shown one at once.
 */
import express from 'express'
import type { Router } from 'express'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { IssuerKeys, KeyReplaced } from '../../shared/wire.ts'
import { createOneByOne } from '../one-by-one.ts'
import type { Clusters } from '../clusters/registry.ts'
import { clusterJson } from '../credentials/cluster-json.ts'
import { keyStates } from '../credentials/key-times.ts'
import type { Issuer } from '../credentials/parts.ts'
import type { PeopleAuthenticator, Person } from '../identity/people.ts'
import { ROLES } from '../identity/roles.ts'
import type { Role } from '../identity/roles.ts'
import type { SystemEntry } from '../ledger/entry.ts'
import type { Store } from '../store/store.ts'
import type { Result } from './answers.ts'
import { createWithRole } from './with-role.ts'

/** Needs an identity, and changes nothing: to anybody whom it knows an API server answers it. */
const MEETING_PATH = '/version'
const UNAUTHORIZED = 401
const NOTICE =
  'one instance of each API server was shown the new key; where several stand behind one address, each takes tokens of the old key until it meets one of the new: send requests until all have, or restart them'

/** What these routes need. */
export interface IssuerKeyRoutesDeps {
  readonly people: PeopleAuthenticator
  readonly store: Pick<Store, 'append'>
  readonly clusters: Pick<Clusters, 'get' | 'list'>
  /** The broker as issuer, where it is one. */
  readonly issuer: Issuer | undefined
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** The routes under `/v1/issuer`. */
export function issuerKeyRoutes(deps: IssuerKeyRoutesDeps): Router {
  const router = express.Router({ caseSensitive: true, strict: true })
  const oneByOne = createOneByOne()
  const withRole = (
    roles: readonly Role[],
    handle: (issuer: Issuer, person: Person) => Promise<Result>,
  ): express.RequestHandler =>
    createWithRole(deps.people)(roles, (person) => {
      const { issuer } = deps
      return issuer === undefined
        ? Promise.resolve(refuse('path_unknown', 'this broker is no issuer'))
        : handle(issuer, person)
    })
  router.get(
    '/issuer',
    withRole(ROLES, (issuer) => Promise.resolve({ ...shown(issuer, deps.now()) })),
  )
  router.post(
    '/issuer/replace',
    withRole(['admin'], (issuer, person) =>
      oneByOne('issuer', () => replace(deps, issuer, person)),
    ),
  )
  return router
}

function shown({ url, keys }: Issuer, nowMs: number): IssuerKeys {
  const list = keys.list()
  const signs = list.length === 0 ? '' : keys.current().kid
  return {
    url,
    keys: keyStates(list, signs, nowMs).map(({ kid, createdMs, state, sinceMs }) => ({
      ...{ kid, state },
      created: new Date(createdMs).toISOString(),
      since: new Date(sinceMs).toISOString(),
    })),
  }
}

/** Written down before and after: a broker that ends in between has said what it was about to do. */
async function replace(
  { store, clusters }: IssuerKeyRoutesDeps,
  { keys, parts }: Issuer,
  { name: actor }: Person,
): Promise<Result> {
  const write = (detail: SystemEntry['detail']): Promise<unknown> =>
    store.append([{ kind: 'system', event: 'issuer_key_replaced', actor, detail }])
  const old = keys.list().map(({ kid }) => kid)
  await write({ stage: 'asked', kids: old.join(',') })
  const replaced = await keys.replace()
  if (isRefusal(replaced)) {
    await write({ stage: 'refused', problem: replaced.detail ?? '' })
    return replaced
  }
  const { kid } = replaced
  parts.ownCalls.renew()
  const met = await showNewKey(clusters)
  const count = (wanted: string): number => met.filter(({ outcome }) => outcome === wanted).length
  await write({
    ...{ stage: 'replaced', kid, clusters: met.length },
    ...{ taken: count('taken'), refused: count('refused'), unreachable: count('unreachable') },
  })
  const answer: KeyReplaced = { kid, clusters: met, notice: NOTICE }
  return { ...answer }
}

/** Asks each cluster of mode `issuer` something, by a token of the new key. */
function showNewKey(clusters: IssuerKeyRoutesDeps['clusters']): Promise<KeyReplaced['clusters']> {
  const ours = clusters.list().filter(({ credential }) => credential === 'issuer')
  return Promise.all(
    ours.map(async ({ name }): Promise<KeyReplaced['clusters'][number]> => {
      const cluster = clusters.get(name)
      if (cluster === undefined || isRefusal(cluster))
        return { name, outcome: 'unreachable', problem: 'the way to it cannot be opened' }
      const answer = await clusterJson(cluster.connection, 'GET', MEETING_PATH)
      if (!('problem' in answer)) return { name, outcome: 'taken' }
      const { problem, status } = answer
      return { name, outcome: status === UNAUTHORIZED ? 'refused' : 'unreachable', problem }
    }),
  )
}
