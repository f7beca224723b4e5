/**
 * Between the store's own types and rows. Rows are decoded with the schemas of the wire: a file that was
 * tampered with, or half restored, becomes a fault and not a strange object.
 */
import { z } from 'zod'
import { isRecord } from '../../shared/config.ts'
import { Fault } from '../../shared/errors.ts'
import { approvalSchema, givenReviewSchema } from '../../shared/wire.ts'
import type { AuditEvent } from '../../shared/wire.ts'
import type { Entry } from '../ledger/entry.ts'
import { termsOf } from '../ledger/terms.ts'
import { formatMicros, serializeEntry } from '../ledger/serialize.ts'
import type {
  RecordChange,
  SameRequest,
  StoredApproval,
  StoredCheckpoint,
  StoredLeaf,
  StoredRecord,
  Transition,
  TreeHead,
} from './store.ts'
import { decodeRange, rangeRoot } from '../../shared/transparency/tree.ts'
import type { Change, Leaf, NewApproval, NewRecord, SameQuery } from './calls.ts'

/** All of a held request that its row's columns do not hold. */
const factsSchema = approvalSchema
  .omit({ id: true, state: true, expiresAt: true, reason: true, reviewer: true, createdAt: true })
  .omit({ decidedAt: true, missing: true, reviews: true, clientWaits: true, review: true })
  .omit({ closing: true, revocation: true, reuseEnded: true })
  .extend({ instanceId: z.string(), podUid: z.string().optional(), callerKey: z.string() })

const { closing, revocation } = approvalSchema.shape
const progressSchema = z.object({
  reviews: z.array(givenReviewSchema.extend({ names: z.array(z.string()) })),
  clientWaits: z.boolean(),
  closing,
  revocation,
  reuseEnded: z.literal(true).optional(),
  neverBegan: z.boolean().optional(),
  broker: z.string().optional(),
})

const approvalRowSchema = z.object({
  id: z.string(),
  version: z.number(),
  state: approvalSchema.shape.state,
  created_at: z.string(),
  expires_at: z.string(),
  decided_at: z.string().nullable(),
  granted_at: z.string().nullable(),
  review: z.enum(['open', 'closed']).nullable(),
  reviewer: z.string().nullable(),
  reason: z.string().nullable(),
  progress: z.string(),
  facts: z.string(),
})

const bytes = z.instanceof(Uint8Array)
const leafRowSchema = z.object({ seq: z.number(), time_us: z.number(), leaf: bytes })
const recordRowSchema = z.object({ id: z.string(), version: z.number(), body: z.string() })
const headRowSchema = z.object({ size: z.number(), edge: bytes, first_seq: z.number() })
const checkpointRowSchema = z.object({
  size: z.number(),
  time_us: z.number(),
  root: bytes,
  note: z.string(),
})

const textDecoder = new TextDecoder('utf-8', { fatal: true })

/** An entry as it is stored. @param timeUs - whole microseconds since the epoch */
export function toLeaf(entry: Entry, timeUs: number): Leaf {
  const bytes = serializeEntry(entry, timeUs)
  // of what is stored, not of what was meant: what was cut is not found
  return { timeUs, bytes, terms: termsOf(decodeEntry(bytes)) }
}

/** A change of a document as it is stored. */
export function toNewRecord({ kind, id, version, body }: RecordChange): NewRecord {
  return {
    ...{ kind, id, version: version ?? null },
    body: body === undefined ? null : JSON.stringify(body),
  }
}

/** A held request as it is stored. */
export function toNewApproval(approval: StoredApproval): NewApproval {
  const { id, version, state, createdAt, expiresAt, review, progress, ...rest } = approval
  const { cluster } = rest
  return {
    ...{ id, version, state, createdAt, expiresAt, cluster },
    foldKey: foldKey(approval),
    review: review ?? null,
    progress: JSON.stringify(progress),
    facts: JSON.stringify(rest),
  }
}

/** A question as the database is asked it. */
export function toSameQuery(request: SameRequest): SameQuery {
  return {
    foldKey: foldKey(request),
    grantedSince: new Date(request.grantedSinceMs).toISOString(),
    deniedSince: new Date(request.deniedSinceMs).toISOString(),
  }
}

/** The digest has no space in it, so no two pairs have one key. */
function foldKey({ digest, callerKey }: { digest: string; callerKey: string }): string {
  return `${digest} ${callerKey}`
}

/** A transition as it is stored: it counts as a decision when it names a reviewer. */
export function toChange(transition: Transition): Change {
  const { id, version, to, reviewer, reason, nowMs, expiresAtMs, progress } = transition
  return {
    id,
    version,
    to,
    reviewer: reviewer ?? null,
    reason: reason ?? null,
    decidedAt: reviewer === undefined ? null : new Date(nowMs).toISOString(),
    expiresAt: expiresAtMs === undefined ? null : new Date(expiresAtMs).toISOString(),
    grantedAt: transition.granted === undefined ? null : new Date(nowMs).toISOString(),
    review: transition.review ?? null,
    progress: progress === undefined ? null : JSON.stringify(progress),
  }
}

/** Decodes a row of approvals. @throws {@link Fault} `store_failed` */
export function fromApprovalRow(value: unknown): StoredApproval {
  const row = decode(approvalRowSchema, value)
  const { closing, revocation, reuseEnded, neverBegan, broker, ...progress } = decode(
    progressSchema,
    parseJson(row.progress),
  )
  return {
    ...decode(factsSchema, parseJson(row.facts)),
    id: row.id,
    version: row.version,
    state: row.state,
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    progress: {
      ...progress,
      ...(closing === undefined ? {} : { closing }),
      ...(revocation === undefined ? {} : { revocation }),
      ...(reuseEnded === undefined ? {} : { reuseEnded }),
      ...(neverBegan === undefined ? {} : { neverBegan }),
      ...(broker === undefined ? {} : { broker }),
    },
    ...(row.decided_at === null ? {} : { decidedAt: row.decided_at }),
    ...(row.granted_at === null ? {} : { grantedAt: row.granted_at }),
    ...(row.review === null ? {} : { review: row.review }),
    ...(row.reviewer === null ? {} : { reviewer: row.reviewer }),
    ...(row.reason === null ? {} : { reason: row.reason }),
  }
}

/** Decodes a row of records. @throws {@link Fault} `store_failed` */
export function fromRecordRow(value: unknown): StoredRecord {
  const { id, version, body } = decode(recordRowSchema, value)
  return { id, version, body: parseJson(body) }
}

/** Decodes a row of the ledger. @throws {@link Fault} `store_failed` */
export function fromLeafRow(value: unknown): StoredLeaf {
  const { seq, time_us: timeUs, leaf } = decode(leafRowSchema, value)
  return { seq, timeUs, bytes: leaf }
}

/** Decodes the row of the ledger's head. @throws {@link Fault} `store_failed` */
export function fromHeadRow(value: unknown): TreeHead & { readonly firstSeq: number } {
  const { size, edge, first_seq: firstSeq } = decode(headRowSchema, value)
  const range = decodeRange(size, edge)
  if (range === undefined)
    throw new Fault('store_failed', 'the head of the ledger is not as expected')
  return { size, root: rangeRoot(range), firstSeq }
}

/** Decodes a row of checkpoints. @throws {@link Fault} `store_failed` */
export function fromCheckpointRow(value: unknown): StoredCheckpoint {
  const { time_us: timeUs, ...rest } = decode(checkpointRowSchema, value)
  return { ...rest, timeUs }
}

/** Decodes the content of a payload. @throws {@link Fault} `store_failed` */
export function fromPayloadRow(value: unknown): Uint8Array {
  return decode(z.object({ content: bytes }), value).content
}

/** Decodes a pseudonym and the value behind it. @throws {@link Fault} `store_failed` */
export function fromPersonalRow(value: unknown): readonly [pseudonym: string, value: string] {
  const row = decode(z.object({ pseudonym: z.string(), value: z.string() }), value)
  return [row.pseudonym, row.value]
}

/** An entry as people read it. @throws {@link Fault} `store_failed` */
export function toEvent({ seq, timeUs, bytes: leaf }: StoredLeaf): AuditEvent {
  const entry = decodeEntry(leaf)
  const { kind, requestId } = entry
  return {
    seq,
    time: formatMicros(timeUs),
    kind: typeof kind === 'string' ? kind : 'unknown',
    ...(typeof requestId === 'string' ? { requestId } : {}),
    entry,
  }
}

/** The JSON of an entry. @throws {@link Fault} `store_failed` */
function decodeEntry(leaf: Uint8Array): Readonly<Record<string, unknown>> {
  const entry = parseJson(textOf(leaf))
  if (!isRecord(entry)) throw new Fault('store_failed', 'a ledger entry is not an object')
  return entry
}

/** Decodes a list of rows. @throws {@link Fault} `store_failed` */
export function fromRows<T>(value: unknown, fromRow: (row: unknown) => T): readonly T[] {
  if (!Array.isArray(value)) throw new Fault('store_failed', 'expected rows')
  return value.map((row) => fromRow(row))
}

/** A value of an answer of the database. @throws {@link Fault} `store_failed` */
export function decode<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const where = result.error.issues.map((issue) => issue.path.join('.')).join(', ')
  throw new Fault('store_failed', `a stored row is not as expected in: ${where}`)
}

function textOf(bytes: Uint8Array): string {
  try {
    return textDecoder.decode(bytes)
  } catch (error) {
    throw new Fault('store_failed', 'a stored entry is not UTF-8', { cause: error })
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new Fault('store_failed', 'a stored value is not JSON', { cause: error })
  }
}
