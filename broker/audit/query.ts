/**
 * A question about the ledger, out of a query string. Nothing is guessed: an unknown name, a name given
 * twice or a value that does not fit is refused, because a filter that silently does nothing makes an
 * auditor believe that something did not happen.
 */
import { z } from 'zod'
import { refuse } from '../../shared/reasons.ts'
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

const querySchema = z.strictObject({
  since: time.optional(),
  until: time.optional(),
  kind: z.enum(['intent', 'outcome', 'refusal', 'approval', 'system']).optional(),
  cluster: text.optional(),
  requestId: text.optional(),
  subject: text.optional(),
  agent: text.optional(),
  ancestor: text.optional(),
  podUid: text.optional(),
  exe: text.optional(),
  verb: text.optional(),
  resource: text.optional(),
  namespace: text.optional(),
  name: text.optional(),
  effect: z.enum(['allow', 'hold', 'deny']).optional(),
  rule: text.optional(),
  reviewer: text.optional(),
  status: wholeNumber.transform(Number).pipe(z.int().min(0).max(999)).optional(),
  limit: wholeNumber.transform(Number).pipe(z.int().min(1).max(MAX_EVENTS)).optional(),
  cursor: z.string().max(64).optional(),
})

/** Reads a question. @param parameters - decoded pairs of the query string */
export function readEventsQuery(parameters: Iterable<[string, string]>): EventsQuery | Refusal {
  const raw = onceEach(parameters)
  if ('refused' in raw) return raw
  const parsed = querySchema.safeParse(raw.values)
  if (!parsed.success) return refuse('query_invalid', problemsOf(parsed.error))
  const { since, until, limit = DEFAULT_EVENTS, cursor, ...rest } = parsed.data
  const conditions = Object.entries({ ...rest, sinceMs: since, untilMs: until })
  const filter: EventFilter = Object.fromEntries(
    conditions.filter(([, value]) => value !== undefined),
  )
  if (cursor === undefined) return { filter, limit }
  const before = readCursor(cursor)
  if (before === undefined) return refuse('query_invalid', 'cursor: not one of ours')
  return { filter, limit, before }
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
