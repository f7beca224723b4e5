/** Entries of the ledger, as far as the join needs them. Entries of other clusters, and those that forwarded nothing, are none. */
import { z } from 'zod'
import { microsOf, pathOf } from './facts.ts'
import type { Intent, Outcome } from './facts.ts'

const requestSchema = z.object({
  isResourceRequest: z.boolean(),
  verb: z.string(),
  apiGroup: z.string(),
  resource: z.string(),
  subresource: z.string(),
  namespace: z.string(),
  name: z.string(),
  path: z.string(),
  query: z.string(),
  attributes: z.object({ objectName: z.string().optional() }).optional(),
})
const timed = { time: z.string(), cluster: z.string() }
const entrySchema = z.discriminatedUnion('kind', [
  z.object({
    ...timed,
    kind: z.literal('intent'),
    requestId: z.string(),
    request: requestSchema,
    credential: z.object({ mode: z.string(), user: z.string() }).optional(),
  }),
  z.object({
    ...timed,
    kind: z.literal('outcome'),
    requestId: z.string(),
    status: z.number(),
    reason: z.string().optional(),
  }),
  z.object({
    kind: z.literal('system'),
    time: z.string(),
    event: z.string(),
    detail: z.record(z.string(), z.union([z.string(), z.number()])),
  }),
])
const previewSchema = z.object({
  cluster: z.string(),
  auditId: z.string(),
  path: z.string(),
  status: z.number(),
})

/** Names of one cluster in the ledger: it may have been registered anew, or twice. */
export type Clusters = ReadonlySet<string>

/** What an entry says; `time` where it says nothing that is joined, but that the ledger goes as far as this. */
export type LedgerFact =
  | {
      readonly is: 'intent'
      readonly atUs: number
      readonly intent: Intent
      readonly outcome?: Outcome
    }
  | {
      readonly is: 'outcome'
      readonly atUs: number
      readonly id: string
      readonly outcome: Outcome
    }
  /** Somebody had the cluster checked: the broker tried what must be refused. */
  | { readonly is: 'checked'; readonly atUs: number }
  | { readonly is: 'time'; readonly atUs: number }

const timeSchema = z.object({ time: z.string(), kind: z.string() })
/** Kinds that the join knows; one that it does not is of a newer broker. */
const KNOWN: ReadonlySet<string> = new Set(['intent', 'outcome', 'system'])

/** @returns undefined for what is no entry of a ledger */
export function readFact(value: unknown, seq: number, clusters: Clusters): LedgerFact | undefined {
  const timed = timeSchema.safeParse(value)
  const atUs = timed.success ? microsOf(timed.data.time) : undefined
  if (!timed.success || atUs === undefined) return undefined
  if (!KNOWN.has(timed.data.kind)) return { is: 'time', atUs }
  const parsed = entrySchema.safeParse(value)
  if (!parsed.success) return undefined
  const entry = parsed.data
  if (entry.kind === 'system') return systemFact(entry, seq, clusters, atUs)
  if (!clusters.has(entry.cluster)) return { is: 'time', atUs }
  if (entry.kind === 'intent') return intentFact(entry, seq, atUs)
  const { status, reason, requestId: id } = entry
  return { is: 'outcome', atUs, id, outcome: { atUs, status, reason } }
}

type Entry = z.infer<typeof entrySchema>

function intentFact(
  { requestId: id, request, credential }: Extract<Entry, { kind: 'intent' }>,
  seq: number,
  atUs: number,
): LedgerFact {
  if (credential === undefined) return { is: 'time', atUs }
  const { isResourceRequest: isResource, attributes, query, ...facts } = request
  const intent: Intent = {
    ...{ kind: 'intent', id, seq, atUs, isResource },
    facts: { ...facts, user: credential.user },
    auditUser: credential.mode === 'issuer' ? credential.user : undefined,
    objectName: attributes?.objectName ?? request.name,
    uri: query === '' ? request.path : `${request.path}?${query}`,
  }
  return { is: 'intent', atUs, intent }
}

function systemFact(
  { event, detail }: Extract<Entry, { kind: 'system' }>,
  seq: number,
  clusters: Clusters,
  atUs: number,
): LedgerFact | undefined {
  if (!clusters.has(String(detail['cluster']))) return { is: 'time', atUs }
  if (event === 'cluster_checked') return { is: 'checked', atUs }
  if (event !== 'approval_preview') return { is: 'time', atUs }
  const parsed = previewSchema.safeParse(detail)
  if (!parsed.success) return undefined
  const { auditId: id, path: uri, status } = parsed.data
  const intent: Intent = {
    ...{ kind: 'preview', id, seq, atUs, uri, objectName: '' },
    // of a preview, the path is what is known of the call
    isResource: false,
    auditUser: undefined,
    facts: { path: pathOf(uri) },
  }
  return { is: 'intent', atUs, intent, outcome: { atUs, status, reason: undefined } }
}
