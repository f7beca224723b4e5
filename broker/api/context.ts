/** What else the process of a held request did: what a reviewer wants to know before a decision. */
import { z } from 'zod'
import type { AuditEvent, Context } from '../../shared/wire.ts'
import type { EventFilter, StoredApproval, Store } from '../store/store.ts'

/** Requests that are shown. */
const MAX_CONTEXT = 20

/** What is shown of an intent; of entries that were cut to fit, what is left. */
const intentSchema = z.object({
  request: z.object({
    verb: z.string(),
    resource: z.string(),
    subresource: z.string(),
    apiGroup: z.string(),
    namespace: z.string(),
    name: z.string(),
    path: z.string(),
  }),
  decision: z.object({ effect: z.string() }),
})

/** The latest requests of the same agent in the same pod, or of the same direct client; reading them is written down. */
export async function readContext(
  store: Store,
  approval: StoredApproval,
  actor: string,
): Promise<Context> {
  const { id, podUid, agent, subject } = approval
  const own: EventFilter = podUid === undefined ? { subject } : { podUid, agent }
  const filter = { ...own, cluster: approval.cluster, kind: 'intent' }
  // one more than is shown: the intent of the request itself is among them
  const events = await store.events(filter, MAX_CONTEXT + 1)
  const items = events.filter(({ requestId }) => requestId !== id).flatMap(toItem)
  const query = JSON.stringify({ contextOf: id })
  const shown = items.slice(0, MAX_CONTEXT)
  await store.append([
    { kind: 'system', event: 'audit_read', actor, detail: { query, returned: shown.length } },
  ])
  return { items: shown }
}

function toItem({ time, requestId = '', entry }: AuditEvent): Context['items'] {
  const intent = intentSchema.safeParse(entry)
  if (!intent.success) return []
  const { request, decision } = intent.data
  const { verb, namespace, name, subresource, apiGroup } = request
  const path = subresource === '' ? request.resource : `${request.resource}/${subresource}`
  const resource = apiGroup === '' ? path : `${path}.${apiGroup}`
  const isNone = request.resource === ''
  return [
    {
      ...{ time, requestId, effect: decision.effect, verb, namespace, name },
      resource: isNone ? request.path : resource,
    },
  ]
}
