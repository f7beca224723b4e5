/** Questions about sessions, out of query strings and headers. As in broker/audit/query.ts nothing is guessed. */
import type { Request } from 'express'
import { z } from 'zod'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { SESSION_KINDS, SESSION_STATES } from '../../shared/recording/session-wire.ts'
import { onceEach, problemsOf } from '../audit/query.ts'
import { queryOf } from './people-routes.ts'
import type { SessionFilter } from '../sessions/recordings/reader.ts'

/** Sessions of one page at most. */
const MAX_SESSIONS = 500
/** Sessions of one page when nothing else is asked for. */
export const DEFAULT_SESSIONS = 50
/** Longest value of one condition, in characters. */
const MAX_VALUE_LENGTH = 512
/** Longest text to search for, in characters. */
export const MAX_TEXT_LENGTH = 256

const text = z.string().min(1).max(MAX_VALUE_LENGTH)
const time = z.iso.datetime({ offset: true }).transform((value) => Date.parse(value))
const wholeNumber = z
  .string()
  .regex(/^\d{1,15}$/, 'expected a whole number')
  .transform(Number)
const filterShape = {
  cluster: text.optional(),
  namespace: text.optional(),
  name: text.optional(),
  kind: z.enum(SESSION_KINDS).optional(),
  subject: text.optional(),
  agent: text.optional(),
  state: z.enum(SESSION_STATES).optional(),
  since: time.optional(),
  until: time.optional(),
}
/** Query of `GET /v1/sessions`. */
export const sessionsQuerySchema = z.strictObject({
  ...filterShape,
  limit: wholeNumber.pipe(z.int().min(1).max(MAX_SESSIONS)).optional(),
  cursor: z
    .string()
    .regex(/^[0-9a-z-]{1,64}$/, 'not one of ours')
    .optional(),
})
/** Query of `GET /v1/sessions/grep`. */
export const grepQuerySchema = z.strictObject({
  ...filterShape,
  text: z
    .string()
    .min(1)
    .max(MAX_TEXT_LENGTH)
    .regex(/^[^\r\n]*$/, 'lines are searched one by one'),
  ignoreCase: z.enum(['true', 'false']).optional(),
  cursor: z
    .string()
    .regex(/^[\w-]{1,512}$/, 'not one of ours')
    .optional(),
})
/** Query of `GET /v1/sessions/{id}/follow`. */
export const followQuerySchema = z.strictObject({
  from: wholeNumber.pipe(z.int().min(0)).optional(),
  format: z.enum(['events', 'asciicast']).optional(),
})

/** Reads a query by its schema. */
export function readQuery<T>(schema: z.ZodType<T>, request: Request): T | Refusal {
  const raw = onceEach(queryOf(request))
  if (isRefusal(raw)) return raw
  const parsed = schema.safeParse(raw.values)
  return parsed.success ? parsed.data : refuse('query_invalid', problemsOf(parsed.error))
}

/** Refuses where there is a query. */
export function noQuery(request: Request): Refusal | undefined {
  return queryOf(request).size > 0 ? refuse('query_invalid') : undefined
}

type Conditions = z.infer<z.ZodObject<typeof filterShape>>

/** The conditions of a question. Such that no session can meet are a mistake. */
export function filterOf(query: Conditions): SessionFilter | Refusal {
  const { since, until } = query
  if (since !== undefined && until !== undefined && since >= until)
    return refuse('query_invalid', 'since is not before until: nothing lies between')
  return {
    ...conditionsOf(query),
    ...(since === undefined ? {} : { sinceMs: since }),
    ...(until === undefined ? {} : { untilMs: until }),
  }
}

function conditionsOf(query: Conditions): SessionFilter {
  const { cluster, namespace, name, kind, subject, agent, state } = query
  return {
    ...(cluster === undefined ? {} : { cluster }),
    ...(namespace === undefined ? {} : { namespace }),
    ...(name === undefined ? {} : { name }),
    ...(kind === undefined ? {} : { kind }),
    ...(subject === undefined ? {} : { subject }),
    ...(agent === undefined ? {} : { agent }),
    ...(state === undefined ? {} : { state }),
  }
}

/** A part of a recording's events: from byte `from` up to, and without, byte `to`. */
export interface ByteRange {
  readonly from: number
  readonly to: number
}

const RANGE = /^bytes=(\d{0,15})-(\d{0,15})$/

/**
 * The part that a request asks for (RFC 9110, 14.2). What is no single range of bytes counts as none, as that section has it; so does one with
 * `If-Range`, because nothing here has a validator.
 *
 * @param size - bytes that there are
 * @returns undefined for all of it; `range_unsatisfiable` where nothing of it is there
 */
export function rangeOf(
  headers: Request['headers'],
  size: number,
): ByteRange | undefined | Refusal {
  const [, first = '', last = ''] = RANGE.exec(headers.range ?? '') ?? []
  if (headers['if-range'] !== undefined) return undefined
  if (first === '') return last === '' ? undefined : within(size - Number(last), size, size)
  if (last === '') return within(Number(first), size, size)
  return Number(last) < Number(first) ? undefined : within(Number(first), Number(last) + 1, size)
}

function within(from: number, to: number, size: number): ByteRange | Refusal {
  const range = { from: Math.max(from, 0), to: Math.min(to, size) }
  return range.from < range.to ? range : refuse('range_unsatisfiable', `it has ${size} bytes`)
}
