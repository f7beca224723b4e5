/** Captured bodies, by the hash that an intent names (broker/gateway/payload.ts). */
import express from 'express'
import type { Request, Router } from 'express'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { CapturedPayload } from '../../shared/wire.ts'
import type { PeopleAuthenticator, Person } from '../identity/people.ts'
import type { Store } from '../store/store.ts'
import type { Result } from './answers.ts'
import { queryOf } from './people-routes.ts'
import { createWithRole } from './with-role.ts'

const SHA256 = /^[0-9a-f]{64}$/

/** What these routes need. */
export interface PayloadRoutesDeps {
  readonly people: PeopleAuthenticator
  readonly store: Pick<Store, 'append' | 'payload'>
}

/** The route `/v1/audit/payloads/SHA256`. */
export function payloadRoutes({ people, store }: PayloadRoutesDeps): Router {
  const router = express.Router({ caseSensitive: true, strict: true })
  router.get(
    '/audit/payloads/:sha256',
    createWithRole(people)(['auditor'], (person, request) => read(store, person, request)),
  )
  return router
}

/** Reading it is itself evidence, written before the answer, also where there is nothing. */
async function read(
  store: PayloadRoutesDeps['store'],
  { name: actor }: Person,
  request: Request,
): Promise<Result> {
  const sha256 = String(request.params['sha256'])
  if (!SHA256.test(sha256)) return unknown()
  if (queryOf(request).size > 0) return refuse('query_invalid')
  const content = await store.payload(sha256)
  const detail = { query: JSON.stringify({ payload: sha256 }), returned: content ? 1 : 0 }
  await store.append([{ kind: 'system', event: 'audit_read', actor, detail }])
  if (content === undefined) return unknown()
  const answer: CapturedPayload = { sha256, content: Buffer.from(content).toString() }
  return { ...answer }
}

function unknown(): Refusal {
  return refuse('path_unknown', 'no captured body has this hash; it may have been pruned')
}
