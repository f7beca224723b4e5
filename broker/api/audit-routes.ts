/** What auditors ask for: entries, one entry, entries as they come, and exports. Each reading is itself evidence (PCI DSS 10.2.1.3), written before the answer. */
import express from 'express'
import type { Request, Response, Router } from 'express'
import type { Logger } from '../../shared/log.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { AuditEntry } from '../../shared/wire.ts'
import type { Approvals } from '../approvals/types.ts'
import type { CheckpointSource } from '../audit/export/range.ts'
import { makeCursor, readEventsQuery, readExportQuery, readWatchQuery } from '../audit/query.ts'
import type { EventsQuery, WatchQuery } from '../audit/query.ts'
import type { PeopleAuthenticator, Person } from '../identity/people.ts'
import type { SystemEntry } from '../ledger/entry.ts'
import type { Store } from '../store/store.ts'
import { answer } from './answers.ts'
import type { Result } from './answers.ts'
import { createAuditExport } from './audit-export.ts'
import { createAuditWatch } from './audit-watch.ts'
import { queryOf } from './people-routes.ts'
import { authorized, createWithRole } from './with-role.ts'

/** What these routes need. */
export interface AuditRoutesDeps {
  readonly approvals: Pick<Approvals, 'closed'>
  readonly store: Store
  readonly people: PeopleAuthenticator
  /** Signs what exports end with. */
  readonly checkpoints: CheckpointSource
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** Address of the proof that an entry is in the ledger (C2SP tlog-proof; broker/api/ledger-routes.ts). */
export function proofPath(seq: number): string {
  return `/v1/ledger/proof/${seq}`
}

/** The routes under `/v1/audit`. */
export function auditRoutes(deps: AuditRoutesDeps): Router {
  const { people, store } = deps
  const router = express.Router({ caseSensitive: true, strict: true })
  const withRole = createWithRole(people)
  router.get(
    '/audit/events',
    withRole(['auditor'], (person, request) => list(store, person, request)),
  )
  router.get(
    '/audit/events/:seq',
    withRole(['auditor'], (person, request) => show(store, person, request)),
  )
  const streamed = (
    handle: (person: Person, request: Request, response: Response) => Promise<void>,
  ): express.RequestHandler => {
    return (request, response, next) => {
      // express answers HEAD by GET: it would read all, and send nothing
      if (request.method !== 'GET') {
        next()
        return
      }
      authorized(people, request, ['auditor'])
        .then(async (person) => {
          if (isRefusal(person)) answer(response, person)
          else await handle(person, request, response)
        })
        .catch(next)
    }
  }
  const watch = createAuditWatch({ ...deps, closed: deps.approvals.closed })
  router.get(
    '/audit/watch',
    streamed(async (person, request, response) => {
      const query = resumed(readWatchQuery(queryOf(request)), request)
      if (isRefusal(query)) answer(response, query)
      else await watch(person, query, response)
    }),
  )
  const exported = createAuditExport(deps)
  router.get(
    '/audit/export',
    streamed(async (person, request, response) => {
      const query = readExportQuery(queryOf(request))
      if (isRefusal(query)) answer(response, query)
      else await exported(person, query, response)
    }),
  )
  return router
}

async function list(store: Store, person: Person, request: Request): Promise<Result> {
  const query = readEventsQuery(queryOf(request))
  if (isRefusal(query)) return query
  const { filter, limit, before } = query
  // One more than asked for tells whether there is a next page.
  const found = await store.events(filter, limit + 1, before)
  const items = found.slice(0, limit)
  await store.append([readEntry(person, { query: describe(query), returned: items.length })])
  const last = items.at(-1)
  return found.length > limit && last !== undefined
    ? { items, next: makeCursor(last.seq) }
    : { items }
}

/** Longest number of an entry, in digits. */
const SEQ = /^\d{1,15}$/

async function show(store: Store, person: Person, request: Request): Promise<Result> {
  if (queryOf(request).size > 0) return refuse('query_invalid')
  const place = String(request.params['seq'])
  if (!SEQ.test(place)) return refuse('entry_unknown')
  const seq = Number(place)
  const [[event], [leaf]] = await Promise.all([store.events({}, 1, seq + 1), store.leaves(seq, 1)])
  const found = event?.seq === seq && leaf?.seq === seq ? { ...event, leaf: leaf.bytes } : undefined
  const query = JSON.stringify({ seq })
  await store.append([readEntry(person, { query, returned: found === undefined ? 0 : 1 })])
  if (found === undefined) return refuse('entry_unknown')
  const bytes = Buffer.from(found.leaf).toString('base64')
  const entry: AuditEntry = { ...found, leaf: bytes, proof: proofPath(seq) }
  return { ...entry }
}

/** What a client of server-sent events says when it comes again (HTML, 9.2.3) counts more than the address it was given. */
function resumed(query: WatchQuery | Refusal, request: Request): WatchQuery | Refusal {
  const last = request.headers['last-event-id']
  if (isRefusal(query) || last === undefined || last === '') return query
  if (typeof last !== 'string' || !SEQ.test(last))
    return refuse('query_invalid', 'Last-Event-ID: not one of ours')
  return { ...query, after: Number(last) }
}

function readEntry({ name }: Person, detail: SystemEntry['detail']): SystemEntry {
  return { kind: 'system', event: 'audit_read', actor: name, detail }
}

function describe({ filter, limit, before }: EventsQuery): string {
  return JSON.stringify({ ...filter, limit, before })
}
