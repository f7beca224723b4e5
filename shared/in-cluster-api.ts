/**
 * Asks the API server of the cluster that the process runs in, as the process's own service account. Requests are few
 * and small: an object read or written by name. Answers are outside input: they are bounded, and handed out as `unknown`. An
 * error names the method, the path and the server's reason, never a body: the server's own message may repeat what was sent.
 */
import { readFile } from 'node:fs/promises'
import { Agent, request } from 'undici'
import { z } from 'zod'
import { codeOf, messageOf } from './errors.ts'
import { readPrivateFile } from './private-file.ts'
import { watchFile } from './watched-file.ts'

/** Time for one request, in milliseconds, its answer included. */
const REQUEST_LIMIT_MS = 10_000
/** Largest answer that is read, in bytes; the API server stores objects of 1.5 MiB at most. */
const MAX_ANSWER_BYTES = 4 * 1024 * 1024
/** Connections at once. */
const MAX_CONNECTIONS = 4

/** How to reach the API server; see `kubernetes` in injection/config.ts. */
export interface ApiServer {
  /** Base URL. */
  readonly server: string
  /** PEM file of its CA. Read again when it changes. */
  readonly caFile: string
  /** File with a token for it. Read again when it changes, at the latest a second later. */
  readonly tokenFile: string
}

/**
 * Why the API server did not do it. `conflict`: the object has changed since it was read (409 `Conflict`); `exists`: there
 * is one of that name (409 `AlreadyExists`); `unauthorized`: the token is not accepted; `rejected`: any other answer that
 * is no 2xx; `unreachable`: no answer, or none that can be read, and for a write it is not known whether it was done.
 */
export type ApiErrorCode =
  'not_found' | 'conflict' | 'exists' | 'forbidden' | 'unauthorized' | 'rejected' | 'unreachable'

/** A request that was not done. Its message holds no part of a body and no token. */
export class ApiError extends Error {
  readonly code: ApiErrorCode
  /** Status of the answer, where there was one. */
  readonly status: number | undefined

  constructor(code: ApiErrorCode, message: string, status?: number, options?: ErrorOptions) {
    super(message, options)
    this.name = 'ApiError'
    this.code = code
    this.status = status
  }
}

/** Whether something thrown is an {@link ApiError} with one of these codes. */
export function isApiError(error: unknown, ...codes: readonly ApiErrorCode[]): boolean {
  return error instanceof ApiError && codes.includes(error.code)
}

/** Kinds of patch, by the content types that the API server knows. */
const PATCH_TYPES = {
  json: 'application/json-patch+json',
  merge: 'application/merge-patch+json',
  strategic: 'application/strategic-merge-patch+json',
} as const

/** See the head of the file. Each rejects with an {@link ApiError}, and with the signal's reason once `signal` is aborted. */
export interface InClusterApi {
  /** Reads an object. @param path - from `/`, with a query where one is wanted */
  get(path: string): Promise<unknown>
  /** Creates an object in a collection. */
  create(collection: string, object: object): Promise<unknown>
  /** Replaces an object; compare-and-set where the object carries `metadata.resourceVersion`. */
  update(path: string, object: object): Promise<unknown>
  /** Changes an object. */
  patch(path: string, type: keyof typeof PATCH_TYPES, patch: object): Promise<unknown>
  /** Cuts what is under way. */
  close(): Promise<void>
}

/** What a client may be given. */
export interface InClusterOptions {
  /** Ends requests under way and all later ones. */
  readonly signal?: AbortSignal
  /** See {@link REQUEST_LIMIT_MS}, the default. */
  readonly requestLimitMs?: number
  /** See {@link MAX_ANSWER_BYTES}, the default. */
  readonly maxAnswerBytes?: number
}

const statusSchema = z.object({ reason: z.string().regex(/^[A-Za-z]{1,40}$/) })

/** A client. Files are read with the first request, so that making it cannot fail. */
export function createInClusterApi(
  settings: ApiServer,
  options: InClusterOptions = {},
): InClusterApi {
  const now = (): number => performance.now()
  const caFile = watchFile(settings.caFile, now, (path) => readFile(path, 'utf8'))
  const tokenFile = watchFile(settings.tokenFile, now, readPrivateFile)
  const { requestLimitMs = REQUEST_LIMIT_MS, maxAnswerBytes = MAX_ANSWER_BYTES } = options
  let current: { readonly ca: string; readonly agent: Agent } | undefined
  const agentFor = (ca: string): Agent => {
    if (current?.ca === ca) return current.agent
    // What is under way on the old connections may end there.
    void current?.agent.close()
    const agent = new Agent({
      connect: { ca },
      connections: MAX_CONNECTIONS,
      maxResponseSize: maxAnswerBytes,
    })
    current = { ca, agent }
    return agent
  }
  const send = async (line: Line): Promise<unknown> => {
    const limit = AbortSignal.timeout(requestLimitMs)
    const signals = options.signal === undefined ? [limit] : [options.signal, limit]
    const said = `${line.method} ${line.path.split('?')[0] ?? ''}`
    const answer = await ask(line, said, {
      server: settings.server,
      signal: AbortSignal.any(signals),
      files: () => Promise.all([caFile.read(), tokenFile.read()]),
      agentFor,
    }).catch((error: unknown) => {
      options.signal?.throwIfAborted()
      throw error
    })
    if (answer.status >= 200 && answer.status < 300) return answer.body
    throw refused(said, answer)
  }
  return {
    get: (path) => send({ method: 'GET', path }),
    create: (path, body) => send({ method: 'POST', path, body, type: 'application/json' }),
    update: (path, body) => send({ method: 'PUT', path, body, type: 'application/json' }),
    patch: (path, type, body) => send({ method: 'PATCH', path, body, type: PATCH_TYPES[type] }),
    async close(): Promise<void> {
      await current?.agent.destroy()
      current = undefined
    },
  }
}

interface Line {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH'
  readonly path: string
  readonly body?: object
  readonly type?: string
}

interface Way {
  readonly server: string
  readonly signal: AbortSignal
  /** Certificates of the CA, and the token. */
  readonly files: () => Promise<readonly [string, string]>
  readonly agentFor: (ca: string) => Agent
}

interface Answer {
  readonly status: number
  readonly body: unknown
}

async function ask({ method, path, body, type }: Line, said: string, way: Way): Promise<Answer> {
  try {
    const [ca, token] = await way.files()
    const answer = await request(new URL(path, way.server), {
      method,
      dispatcher: way.agentFor(ca),
      headers: {
        authorization: `Bearer ${token.trim()}`,
        accept: 'application/json',
        ...(type === undefined ? {} : { 'content-type': type }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: way.signal,
    })
    const text = await answer.body.text()
    return { status: answer.statusCode, body: parsed(text, answer.statusCode) }
  } catch (error) {
    const why = codeOf(error) ?? messageOf(error)
    throw new ApiError('unreachable', `${said}: ${why}`, undefined, { cause: error })
  }
}

/** What a refusal says in its body matters less than its status: a proxy's may be HTML. */
function parsed(text: string, status: number): unknown {
  try {
    return JSON.parse(text)
  } catch {
    if (status >= 300) return undefined
    throw new Error('the answer is not JSON')
  }
}

function refused(said: string, { status, body }: Answer): ApiError {
  const reason = statusSchema.safeParse(body).data?.reason
  const words = reason === undefined ? String(status) : `${status} ${reason}`
  return new ApiError(codeFor(status, reason), `${said}: ${words}`, status)
}

function codeFor(status: number, reason: string | undefined): ApiErrorCode {
  if (status === 409) return reason === 'AlreadyExists' ? 'exists' : 'conflict'
  if (status === 404) return 'not_found'
  if (status === 403) return 'forbidden'
  if (status === 401) return 'unauthorized'
  return 'rejected'
}
