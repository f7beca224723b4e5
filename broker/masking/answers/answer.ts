/**
 * How an answer is masked (docs/decisions/0010): by what its request asked for, its status, and what it says it is. What is neither JSON nor
 * text that may be text is not passed on. What an answer says is not believed: JSON is read strictly, and what is no JSON breaks off.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { Fault } from '../../../shared/errors.ts'
import type { Masking } from '../../../shared/policy/masking.ts'
import type { MaskedRecord } from '../../ledger/entry.ts'
import { maskText } from '../detectors/masker.ts'
import { createJsonMasker } from '../objects/masker.ts'
import type { JsonMasker, MaskedAnswer, MaskedFields, Placeholders } from '../types.ts'
import type { AnswerSort } from './sort.ts'
import { maskedRecord, maskedWarning, WATCH_WARNING } from './told.ts'
import { createTextAnswer } from './text.ts'

/** What is known of an answer by its request. */
export interface AnswerTerms {
  readonly masking: Masking
  readonly placeholders: Placeholders
  readonly sort: AnswerSort
  /** It is for a part of an object; some of these are texts. */
  readonly isPart: boolean
  readonly method: string
  /** Events follow one another for as long as the client likes. */
  readonly isWatch: boolean
  /** Nothing may be kept from the client, as it may be all that comes for a while. */
  readonly longRunning: boolean
  readonly write: boolean
  /** It is for Secrets, or for a group of whose kinds fields are hidden, by what the request says. */
  readonly ofSecrets: boolean
  /** In place of the real one, for tests. */
  readonly createJson?: (answer: MaskedAnswer) => JsonMasker
}

/** Begins to mask answers to one request. */
export interface AnswerMasking {
  /** @param headers - unpacked where the answer was compressed by gzip (unpack.ts) */
  begin(status: number, headers: IncomingHttpHeaders): MaskedBody
}

/** One answer on its way. What `push` and `end` throw is Fault `answer_unmaskable`: nothing more may go on. */
export interface MaskedBody {
  /** What goes on of the head: nothing that tells how long the answer was, or what it hashes to. */
  readonly headers: IncomingHttpHeaders
  /** Head and bytes go on as they come: a watch, or a text. Otherwise it is best to wait for the end, within bounds. */
  readonly atOnce: boolean
  /** There is no body, whatever the head says (RFC 9110, 6.4.1). */
  readonly bodiless: boolean
  push(chunk: Buffer): readonly Buffer[]
  end(): readonly Buffer[]
  /** Bytes that {@link flush} would give out: they wait for what comes behind them. */
  readonly held: number
  flush(): readonly Buffer[]
  /** What its user is told of what was hidden so far. @param isWhole - the answer has ended */
  warning(isWhole: boolean): string | undefined
  /** What the ledger keeps of it. */
  record(): MaskedRecord | undefined
}

/** Longest text of an error, in bytes. */
export const MAX_ERROR_TEXT_BYTES = 64 * 1024

const PARTIAL_CONTENT = 206
const FIRST_ERROR = 400
const BODILESS: ReadonlySet<number> = new Set([204, 205, 304])
const JSON_TYPE = /^application\/(?:json|[a-z0-9.-]+\+json)$/
const TEXT_TYPE = /^text\/[a-z0-9.+-]+$/
/** An API server's own texts, and a balancer's in front of it. */
const ERROR_TYPES: ReadonlySet<string> = new Set(['text/plain', 'text/html'])
/** Encodings in which ASCII is ASCII: in others detectors find nothing. */
const CHARSETS: ReadonlySet<string> = new Set(['', 'utf-8', 'us-ascii', 'iso-8859-1'])
const JSON_CHARSETS: ReadonlySet<string> = new Set(['', 'utf-8', 'us-ascii'])
/** They say how long the answer was, or what of: of what was hidden, too. */
const ABOUT_BYTES: ReadonlySet<string> = new Set([
  'content-length',
  'content-encoding',
  'content-range',
  'accept-ranges',
  'etag',
  'content-md5',
  'digest',
  'content-digest',
  'repr-digest',
])
const NOTHING: MaskedFields = { count: 0, fields: [], more: false }

/** Prepares for the answer of one request. */
export function createAnswerMasking(terms: AnswerTerms): AnswerMasking {
  return {
    begin: (status, headers) => {
      const form = formOf(terms, status, headers)
      const body = bodyOf(terms, form)
      const atOnce = isAtOnce(terms, form)
      return {
        ...{ headers: maskedHeaders(headers), bodiless: form.as === 'nothing', atOnce },
        ...passing(body),
        get held() {
          return body.held
        },
        warning: (isWhole) => {
          if (!atOnce) return maskedWarning(body.masked, isWhole)
          return terms.isWatch && terms.ofSecrets ? WATCH_WARNING : undefined
        },
        record: () => maskedRecord(terms.masking.profiles, body.masked),
      }
    },
  }
}

type Form =
  | { readonly as: 'json'; readonly shape: MaskedAnswer['shape'] }
  | { readonly as: 'text'; readonly isError: boolean }
  | { readonly as: 'nothing' }
  | { readonly as: 'unmaskable'; readonly problem: string }

function formOf(terms: AnswerTerms, status: number, headers: IncomingHttpHeaders): Form {
  if (terms.method === 'HEAD' || BODILESS.has(status)) return { as: 'nothing' }
  const problem = problemOf(status, headers)
  if (problem !== undefined) return { as: 'unmaskable', problem }
  const { type, charset } = mediaType(headers['content-type'])
  if (JSON_TYPE.test(type) && JSON_CHARSETS.has(charset)) {
    const isWatch = terms.isWatch && status < FIRST_ERROR
    return { as: 'json', shape: isWatch ? 'watch' : 'object' }
  }
  if (CHARSETS.has(charset) && mayBeText(terms, status, type)) {
    return { as: 'text', isError: status >= FIRST_ERROR }
  }
  return { as: 'unmaskable', problem: 'neither JSON nor text' }
}

/** Why the bytes of an answer are not its text. */
function problemOf(status: number, headers: IncomingHttpHeaders): string | undefined {
  if (status === PARTIAL_CONTENT) return 'a part of an answer'
  const encoding = headers['content-encoding'] ?? 'identity'
  if (encoding.trim().toLowerCase() === 'identity') return undefined
  return 'compressed in a way that was not asked for'
}

/** Whether text is what such a request is answered with. A Kubernetes object in text could not be told from one. */
function mayBeText({ sort, isPart }: AnswerTerms, status: number, type: string): boolean {
  if (status >= FIRST_ERROR) return type === '' || ERROR_TYPES.has(type)
  switch (sort) {
    case 'log':
      return type === '' || TEXT_TYPE.test(type)
    case 'kubelet':
    case 'other':
      return TEXT_TYPE.test(type)
    case 'objects':
      return isPart && type === 'text/plain'
    case 'passed':
      return true
  }
}

/** Type and charset in lower case, empty where there is none; a type that cannot be read is `?`. */
function mediaType(header: string | readonly string[] | undefined): {
  readonly type: string
  readonly charset: string
} {
  if (header === undefined) return { type: '', charset: '' }
  if (typeof header !== 'string') return { type: '?', charset: '' }
  const [type = '', ...parameters] = header.split(';').map((part) => part.trim().toLowerCase())
  const charset = parameters.find((parameter) => parameter.startsWith('charset='))
  return {
    type: type === '' || type.includes(',') ? '?' : type,
    charset: (charset ?? '').slice('charset='.length).replaceAll('"', ''),
  }
}

function isAtOnce({ longRunning }: AnswerTerms, form: Form): boolean {
  if (form.as === 'json') return form.shape === 'watch'
  return form.as === 'text' && !form.isError && longRunning
}

type Body = Pick<MaskedBody, 'push' | 'end' | 'flush' | 'held'> & { readonly masked: MaskedFields }

function bodyOf(terms: AnswerTerms, form: Form): Body {
  switch (form.as) {
    case 'json':
      return jsonBody(terms, form.shape)
    case 'text':
      return form.isError
        ? errorBody(terms)
        : createTextAnswer(terms.sort === 'log' ? 'log' : 'text')
    case 'nothing':
      return noBody('an answer that has none has a body')
    case 'unmaskable':
      return noBody(form.problem)
  }
}

function jsonBody(
  { masking, placeholders, write, ofSecrets, createJson = createJsonMasker }: AnswerTerms,
  shape: MaskedAnswer['shape'],
): Body {
  const masker = createJson({ masking, placeholders, shape, write, aboutSecrets: ofSecrets })
  return {
    push: (chunk) => masker.push(chunk),
    end: () => masker.end(),
    flush: () => [],
    held: 0,
    get masked() {
      return masker.masked
    },
  }
}

/** The text of an error, as a whole: what looks like JSON in it is read as JSON, whatever it says it is. */
function errorBody(terms: AnswerTerms): Body {
  const pieces: Buffer[] = []
  let bytes = 0
  let masked = NOTHING
  return {
    push: (chunk) => {
      bytes += chunk.length
      if (bytes > MAX_ERROR_TEXT_BYTES) throw unmaskable('an error text that is too long')
      pieces.push(chunk)
      return []
    },
    end: () => {
      const text = Buffer.concat(pieces)
      const isJson = /^[\s\ufeff]*[{[]/.test(text.toString())
      const body = isJson ? jsonBody(terms, 'object') : createTextAnswer('text')
      const out = [...body.push(text), ...body.end()]
      ;({ masked } = body)
      return out
    },
    flush: () => [],
    held: 0,
    get masked() {
      return masked
    },
  }
}

function noBody(problem: string): Body {
  return {
    push: () => {
      throw unmaskable(problem)
    },
    end: () => [],
    flush: () => [],
    held: 0,
    masked: NOTHING,
  }
}

/** An answer without a single byte has nothing to hide, whatever it says it is. */
function passing(body: Body): Pick<Body, 'push' | 'end' | 'flush'> {
  let isEmpty = true
  return {
    push: (chunk) => {
      if (chunk.length === 0) return []
      isEmpty = false
      return body.push(chunk)
    },
    end: () => (isEmpty ? [] : body.end()),
    flush: () => body.flush(),
  }
}

function unmaskable(problem: string): Fault {
  return new Fault('answer_unmaskable', problem)
}

function maskedHeaders(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const kept: IncomingHttpHeaders = {}
  for (const [name, value] of Object.entries(headers)) {
    if (ABOUT_BYTES.has(name) || value === undefined) continue
    kept[name] = name === 'warning' ? warningTexts(value) : value
  }
  return kept
}

/** Texts of an API server, and of webhooks behind it. */
function warningTexts(value: string | readonly string[]): string | string[] {
  return typeof value === 'string' ? maskText(value).text : value.map((text) => maskText(text).text)
}
