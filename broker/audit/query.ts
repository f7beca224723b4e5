/**
 * A question about the ledger, out of a query string. Nothing is guessed: an unknown name, a name given
 * twice or a value that does not fit is refused, because a filter that silently does nothing makes an
 * auditor believe that something did not happen.
 */
import { z } from 'zod'
import { EXPORT_FORMATS } from '../../shared/audit-filters.ts'
import type { ExportFormat } from '../../shared/audit-filters.ts'
import { ACTIONS } from '../../shared/kubernetes/attributes.ts'
import { isRefusal, REASONS, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { EventFilter } from '../store/store.ts'

/** Entries of one page at most. */
export const MAX_EVENTS = 1000
/** Entries of one page when nothing else is asked for. */
const DEFAULT_EVENTS = 100
/** Longest value of one condition, in characters; paths of programs are the longest things to ask for. */
const MAX_VALUE_LENGTH = 512
/** First part of every cursor: says how the rest is read. */
const CURSOR_VERSION = '1'

/** A question: which entries, how many, from where. */
export interface EventsQuery {
  readonly filter: EventFilter
  readonly limit: number
  /** Only entries with a lower sequence number. */
  readonly before?: number
}

const text = z.string().min(1).max(MAX_VALUE_LENGTH)
const time = z.iso.datetime({ offset: true }).transform((value) => Date.parse(value))
const wholeNumber = z.string().regex(/^\d{1,15}$/, 'expected a whole number')
/** Codes of refusals, and how else a request can end (`OutcomeEntry.reason`). */
const reason = z
  .string()
  .refine(
    (value) => Object.hasOwn(REASONS, value) || ENDINGS.includes(value),
    'not a reason of docs/errors.md',
  )
const ENDINGS: readonly string[] = ['client_left', 'stream_broken', 'broker_restarted', 'revoked']

const filterShape = {
  since: time.optional(),
  until: time.optional(),
  kind: z.enum(['intent', 'outcome', 'refusal', 'approval', 'session', 'system']).optional(),
  event: z
    .string()
    .regex(/^[a-z_]{1,64}$/, 'expected the name of an event')
    .optional(),
  cluster: text.optional(),
  requestId: text.optional(),
  subject: text.optional(),
  agent: text.optional(),
  ancestor: text.optional(),
  process: text.optional(),
  podUid: text.optional(),
  exe: text.optional(),
  verb: text.optional(),
  action: z.enum(ACTIONS).optional(),
  resource: text.optional(),
  namespace: text.optional(),
  name: text.optional(),
  effect: z.enum(['allow', 'hold', 'deny']).optional(),
  reason: reason.optional(),
  rule: text.optional(),
  reviewer: text.optional(),
  status: wholeNumber.transform(Number).pipe(z.int().min(0).max(999)).optional(),
}
const seq = wholeNumber.transform(Number).pipe(z.int().min(0))

/** Query of `GET /v1/audit/events`. */
export const eventsQuerySchema = z.strictObject({
  ...filterShape,
  limit: wholeNumber.transform(Number).pipe(z.int().min(1).max(MAX_EVENTS)).optional(),
  cursor: z.string().max(64).optional(),
})
/** Query of `GET /v1/audit/watch`. */
export const watchQuerySchema = z.strictObject({ ...filterShape, after: seq.optional() })
/** Query of `GET /v1/audit/export`. */
export const exportQuerySchema = z.strictObject({
  ...filterShape,
  format: z.enum(EXPORT_FORMATS),
  from: seq.optional(),
  to: seq.optional(),
  after: seq.optional(),
})

type FilterValues = Partial<
  Record<keyof typeof filterShape, string | number | undefined> & {
    since: number | undefined
    until: number | undefined
  }
>

/** Reads a question. @param parameters - decoded pairs of the query string */
export function readEventsQuery(parameters: Iterable<[string, string]>): EventsQuery | Refusal {
  const read = readQuery(eventsQuerySchema, parameters)
  if (isRefusal(read)) return read
  const { limit = DEFAULT_EVENTS, cursor, ...rest } = read.values
  const filter = filterOf(rest)
  if (isRefusal(filter)) return filter
  if (cursor === undefined) return { filter, limit }
  const before = readCursor(cursor)
  if (before === undefined) return refuse('query_invalid', 'cursor: not one of ours')
  return { filter, limit, before }
}

/** A question about what is to come. */
export interface WatchQuery {
  readonly filter: EventFilter
  /** Only entries with a higher sequence number; left out, those that are written from now on. */
  readonly after?: number
}

/** Reads the question of a watch. */
export function readWatchQuery(parameters: Iterable<[string, string]>): WatchQuery | Refusal {
  const read = readQuery(watchQuerySchema, parameters)
  if (isRefusal(read)) return read
  const { after, ...rest } = read.values
  const filter = filterOf(rest)
  if (isRefusal(filter)) return filter
  return after === undefined ? { filter } : { filter, after }
}

/** What to export. */
export interface ExportQuery {
  readonly format: ExportFormat
  readonly filter: EventFilter
  /** The conditions as they were given, for the export to say. */
  readonly asked: Readonly<Record<string, string>>
  /** First entry. */
  readonly from?: number
  /** The entry after the last one. */
  readonly to?: number
  /** Of a `jsonl` that broke off: the last entry that came. */
  readonly after?: number
}

/** Reads the question of an export. */
export function readExportQuery(parameters: Iterable<[string, string]>): ExportQuery | Refusal {
  const read = readQuery(exportQuerySchema, parameters)
  if (isRefusal(read)) return read
  const { format, from, to, after, ...rest } = read.values
  const filter = filterOf(rest)
  if (isRefusal(filter)) return filter
  if (from !== undefined && to !== undefined && from >= to)
    return refuse('query_invalid', 'from is not below to: nothing lies between')
  if (after !== undefined && !goesOn(format, after, from, to))
    return refuse('query_invalid', 'after: goes with jsonl, and is from `from` up to `to`')
  const asked = Object.fromEntries(
    Object.entries(read.raw).filter(([name]) => Object.hasOwn(filterShape, name)),
  )
  return {
    ...{ format, filter, asked },
    ...(from === undefined ? {} : { from }),
    ...(to === undefined ? {} : { to }),
    ...(after === undefined ? {} : { after }),
  }
}

/** Whoever goes on must say of what: the range is that of the manifest that came. */
function goesOn(format: ExportFormat, after: number, from = NaN, to = NaN): boolean {
  return format === 'jsonl' && from <= after && after < to
}

function readQuery<T>(
  schema: z.ZodType<T>,
  parameters: Iterable<[string, string]>,
): { readonly values: T; readonly raw: Readonly<Record<string, string>> } | Refusal {
  const raw = onceEach(parameters)
  if ('refused' in raw) return raw
  const parsed = schema.safeParse(raw.values)
  if (!parsed.success) return refuse('query_invalid', problemsOf(parsed.error))
  return { values: parsed.data, raw: raw.values }
}

/** Conditions that no entry can meet are a mistake: an empty answer would read like evidence. */
function filterOf({ since, until, ...rest }: FilterValues): EventFilter | Refusal {
  if (since !== undefined && until !== undefined && since >= until)
    return refuse('query_invalid', 'since is not before until: nothing lies between')
  if (rest.event !== undefined && rest.kind !== undefined && rest.kind !== 'system')
    return refuse('query_invalid', 'event: only entries of kind system have one')
  const conditions = Object.entries({ ...rest, sinceMs: since, untilMs: until })
  return Object.fromEntries(conditions.filter(([, value]) => value !== undefined))
}

/** A cursor that continues below `seq`. Opaque to clients; entries that are written later do not move it. */
export function makeCursor(seq: number): string {
  return Buffer.from(`${CURSOR_VERSION}:${seq}`).toString('base64url')
}

function readCursor(cursor: string): number | undefined {
  const [version, seq = ''] = Buffer.from(cursor, 'base64url').toString('latin1').split(':')
  return version === CURSOR_VERSION && /^\d{1,15}$/.test(seq) ? Number(seq) : undefined
}

/** The pairs as a record; refuses a name that is there twice. */
export function onceEach(
  parameters: Iterable<[string, string]>,
): { readonly values: Readonly<Record<string, string>> } | Refusal {
  const values = new Map<string, string>()
  for (const [name, value] of parameters) {
    if (values.has(name)) return refuse('query_invalid', `${quoted(name)} is there twice`)
    values.set(name, value)
  }
  return { values: Object.fromEntries(values) }
}

/** Problems of a query as one line; only names are told, never values. */
export function problemsOf(error: z.ZodError): string {
  return error.issues
    .map((issue) =>
      issue.code === 'unrecognized_keys'
        ? `unknown: ${issue.keys.map(quoted).join(', ')}`
        : `${issue.path.join('.')}: ${issue.message.toLowerCase()}`,
    )
    .join('; ')
}

/** Longest name that a message repeats, in characters. */
const MAX_QUOTED_LENGTH = 40

function quoted(name: string): string {
  return JSON.stringify(name.slice(0, MAX_QUOTED_LENGTH))
}
