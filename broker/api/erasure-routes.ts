/**
 * Forgetting a person: the salts and values behind their pseudonyms are removed, the entries stay as they are
 * (broker/ledger/personal.ts; docs/evidence-privacy.md says what else may still name somebody).
 */
import express from 'express'
import type { Request, Router } from 'express'
import { refuse } from '../../shared/reasons.ts'
import { erasureSchema } from '../../shared/wire.ts'
import type { Erased } from '../../shared/wire.ts'
import { problemsOf } from '../audit/query.ts'
import { sameName } from '../approvals/reviewers.ts'
import type { PeopleAuthenticator, Person } from '../identity/people.ts'
import type { SystemEntry } from '../ledger/entry.ts'
import type { Store } from '../store/store.ts'
import type { Result } from './answers.ts'
import { createWithRole } from './with-role.ts'

/** What these routes need. */
export interface ErasureRoutesDeps {
  readonly people: PeopleAuthenticator
  readonly store: Pick<Store, 'erase'>
}

/** The route `/v1/ledger/erase`. @param json - reads a JSON body */
export function erasureRoutes(
  { people, store }: ErasureRoutesDeps,
  json: express.RequestHandler,
): Router {
  const router = express.Router({ caseSensitive: true, strict: true })
  const withRole = createWithRole(people)
  router.post(
    '/ledger/erase',
    json,
    withRole(['admin'], (person, request) => erase(store, person, request)),
  )
  return router
}

async function erase(
  store: ErasureRoutesDeps['store'],
  person: Person,
  request: Request,
): Promise<Result> {
  const body = erasureSchema.safeParse(request.body)
  if (!body.success) return refuse('body_invalid', problemsOf(body.error))
  const { name, reason } = body.data
  // it is written down, and stays
  if (repeats(reason, name)) return refuse('body_invalid', 'the reason must not name the person')
  const pseudonyms = await store.erase(name, (found) => erasedEntry(person.name, reason, found))
  const answer: Erased = { pseudonyms }
  return { ...answer }
}

/** What the ledger says of an erasure: which pseudonyms lead nowhere from now on, never whose they were. */
export function erasedEntry(
  actor: string,
  reason: string,
  pseudonyms: readonly string[],
): SystemEntry {
  const detail = { reason, count: pseudonyms.length, pseudonyms: pseudonyms.join(',') }
  return { kind: 'system', event: 'personal_erased', actor, detail }
}

function repeats(reason: string, name: string): boolean {
  return sameName(reason, name) || reason.toLowerCase().includes(name.toLowerCase())
}
