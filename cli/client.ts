/** Calls to the broker. TLS is always verified, redirects are never followed, and answers are checked before they are believed. */
import { Agent, request } from 'undici'
import { z } from 'zod'
import { codeOf, messageOf } from '../shared/errors.ts'
import type { BrokerSettings } from './settings.ts'

/** How long connecting, and each pause in an answer, may take, in milliseconds. */
const TIMEOUT_MS = 30_000
/** Longest answer read, in bytes: a page of 1000 entries of 64 KiB. */
const MAX_ANSWER_BYTES = 80 * 1024 * 1024

/** The broker refused or could not be asked, or what was asked for cannot be done; exit code 1. The message is untrusted text. */
export class CallError extends Error {
  override readonly name = 'CallError'
  /** The broker's reason code, where it gave one; untrusted as well. */
  readonly code: string | undefined
  constructor(message: string, code?: string) {
    super(message)
    this.code = code
  }
}

/** A server-sent event; its data is not yet checked. */
export interface ServerEvent {
  readonly name: string
  readonly data: unknown
  /** The data as it came. */
  readonly text: string
}

/** A connection to the broker. */
export interface BrokerClient {
  /** @param path - below the broker's address, without leading slash */
  get<T>(schema: z.ZodType<T>, path: string, query?: URLSearchParams): Promise<T>
  /** An answer that is text as it stands. */
  text(path: string): Promise<string>
  post<T>(schema: z.ZodType<T>, path: string, body: object): Promise<T>
  put<T>(schema: z.ZodType<T>, path: string, body: object): Promise<T>
  delete<T>(schema: z.ZodType<T>, path: string): Promise<T>
  /** Server-sent events, until the broker ends them; a broken connection is a {@link CallError}. */
  events(path: string): AsyncIterable<ServerEvent>
  /** A file of any size, as it comes; one that breaks off is a {@link CallError}. */
  download(path: string, query: URLSearchParams): AsyncIterable<Buffer>
  close(): Promise<void>
}

const problemSchema = z.object({
  title: z.string(),
  code: z.string(),
  detail: z.string().optional(),
  requestId: z.string().optional(),
})

function withQuery(target: URL, query: URLSearchParams | undefined): URL {
  if (query !== undefined) target.search = query.toString()
  return target
}

/** Makes a client; nothing is connected yet. Its methods reject with {@link CallError}. */
export function createClient({ url, token, ca }: BrokerSettings): BrokerClient {
  const dispatcher = agentFor(ca, MAX_ANSWER_BYTES)
  // events may go on for ever; each of them is bounded by itself
  const endless = agentFor(ca, -1)
  const base = url.href.endsWith('/') ? url.href : `${url.href}/`
  const headers = headersFor(token)
  let closing: Promise<unknown> | undefined

  async function exchange(
    target: URL,
    options: { method: 'GET' | 'POST' | 'PUT' | 'DELETE'; body?: string; accept?: string },
  ): Promise<string> {
    const { accept = headers.accept, ...sent } = options
    const type = options.body === undefined ? {} : { 'content-type': 'application/json' }
    let status: number
    let text: string
    try {
      const response = await request(target, {
        ...sent,
        dispatcher,
        headers: { ...headers, ...type, accept },
      })
      status = response.statusCode
      text = await response.body.text()
    } catch (error) {
      throw unreachable(error)
    }
    if (status !== 200) throw problemOf(status, parseJson(text))
    return text
  }

  async function call<T>(
    schema: z.ZodType<T>,
    target: URL,
    options: Parameters<typeof exchange>[1],
  ): Promise<T> {
    const parsed = schema.safeParse(parseJson(await exchange(target, options)))
    if (!parsed.success) throw new CallError('the broker’s answer is not what was expected')
    return parsed.data
  }

  return {
    get: (schema, path, query) =>
      call(schema, withQuery(new URL(path, base), query), { method: 'GET' }),
    text: (path) => exchange(new URL(path, base), { method: 'GET', accept: 'text/plain' }),
    post: (schema, path, body) =>
      call(schema, new URL(path, base), { method: 'POST', body: JSON.stringify(body) }),
    put: (schema, path, body) =>
      call(schema, new URL(path, base), { method: 'PUT', body: JSON.stringify(body) }),
    delete: (schema, path) => call(schema, new URL(path, base), { method: 'DELETE' }),
    events: (path) => follow(new URL(path, base), endless, headers),
    download: (path, query) =>
      open(withQuery(new URL(path, base), query), endless, { ...headers, accept: '*/*' }),
    async close() {
      // ends events that are still being read; who interrupts them closes a second time
      closing ??= Promise.all([dispatcher.close(), endless.destroy()])
      await closing
    },
  }
}

function headersFor(token: string | undefined): { accept: string; authorization?: string } {
  const accept = 'application/json'
  return token === undefined ? { accept } : { accept, authorization: `Bearer ${token}` }
}

function agentFor(ca: BrokerSettings['ca'], maxResponseSize: number): Agent {
  return new Agent({
    // Said in so many words: NODE_TLS_REJECT_UNAUTHORIZED must not be able to switch it off.
    connect: {
      timeout: TIMEOUT_MS,
      rejectUnauthorized: true,
      ...(ca === undefined ? {} : { ca }),
    },
    headersTimeout: TIMEOUT_MS,
    bodyTimeout: TIMEOUT_MS,
    maxResponseSize,
  })
}

function follow(
  target: URL,
  dispatcher: Agent,
  headers: Record<string, string>,
): AsyncGenerator<ServerEvent> {
  return readEvents(open(target, dispatcher, { ...headers, accept: 'text/event-stream' }))
}

/** The body of an answer, as it comes. */
async function* open(
  target: URL,
  dispatcher: Agent,
  headers: Record<string, string>,
): AsyncGenerator<Buffer> {
  try {
    const { statusCode, body } = await request(target, { dispatcher, headers })
    if (statusCode !== 200) {
      throw problemOf(statusCode, parseJson(await body.text()))
    }
    for await (const chunk of body) yield Buffer.from(chunk)
  } catch (error) {
    throw error instanceof CallError ? error : unreachable(error)
  }
}

function unreachable(error: unknown): CallError {
  return new CallError(`cannot reach the broker: ${codeOf(error) ?? messageOf(error)}`)
}

/** Events as the broker writes them: `event:` and one line of `data:`; comments are signs of life. */
async function* readEvents(body: AsyncIterable<Buffer>): AsyncGenerator<ServerEvent> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const chunk of body) {
    text += decoder.decode(chunk, { stream: true })
    const blocks = text.split('\n\n')
    text = blocks.pop() ?? ''
    if (text.length > MAX_ANSWER_BYTES) throw new CallError('an event of the broker is too long')
    for (const block of blocks) {
      const lines = block.split('\n')
      const field = (name: string): string | undefined =>
        lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2)
      const data = field('data')
      if (data !== undefined)
        yield { name: field('event') ?? 'message', data: parseJson(data), text: data }
    }
  }
}

function problemOf(status: number, value: unknown): CallError {
  const problem = problemSchema.safeParse(value)
  if (!problem.success) return new CallError(`the broker answered with status ${status}`)
  const { title, detail, code, requestId } = problem.data
  const text = detail === undefined ? title : `${title}: ${detail}`
  const more = requestId === undefined ? code : `${code}, request ${requestId}`
  return new CallError(`${text} (${more})`, code)
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
