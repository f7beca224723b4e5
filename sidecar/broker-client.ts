/**
 * The sidecar's own calls to the broker: registration, and the state of held requests. The broker's certificate must
 * be signed by the pinned authority. Answers are decoded before use; the broker's refusals come back as values, a
 * missing broker is thrown as the transport's error.
 */
import type { Dispatcher } from 'undici'
import type { z } from 'zod'
import { Fault } from '../shared/errors.ts'
import { CLUSTER_HEADER } from '../shared/headers.ts'
import { heldRequestSchema, registeredSchema } from '../shared/wire.ts'
import type { HeldRequest } from '../shared/wire.ts'

/** Largest answer that is read, in bytes. */
const MAX_ANSWER_BYTES = 65_536
/** How long the broker may take beyond the wait that it was asked for, in milliseconds. */
const ANSWER_LIMIT_MS = 10_000

/** Answer to a registration. */
export type Registered = z.infer<typeof registeredSchema>

/** What the broker answered. */
export type Reply<T> =
  { readonly ok: true; readonly value: T } | { readonly ok: false; readonly status: number }

/** Calls of `/v1`. Each throws the transport's error, or a Fault `broker_protocol` for an answer that cannot be read. */
export interface BrokerClient {
  register(token: string, proof: string): Promise<Reply<Registered>>
  /** The state of a held request; waits up to `waitSeconds` while it is pending. */
  poll(
    token: string,
    id: string,
    waitSeconds: number,
    signal: AbortSignal,
  ): Promise<Reply<HeldRequest>>
  /** Withdraws a held request; `ok: false` where it was decided meanwhile. */
  cancel(token: string, id: string): Promise<Reply<unknown>>
}

interface Call<T> {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly token: string
  readonly schema?: z.ZodType<T>
  readonly body?: object
  readonly waitMs?: number
  readonly signal?: AbortSignal
}

/**
 * A client over connections to the broker's origin.
 *
 * @param cluster - the cluster that the token belongs to
 */
export function createBrokerClient(
  dispatcher: Dispatcher,
  origin: string,
  cluster: string,
): BrokerClient {
  async function call<T>(options: Call<T>): Promise<Reply<T | undefined>> {
    const { method, path, token, schema, body, waitMs = 0, signal } = options
    const answer = await dispatcher.request({
      origin,
      method,
      path,
      headers: {
        authorization: `Bearer ${token}`,
        [CLUSTER_HEADER]: cluster,
        accept: 'application/json',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      body: body === undefined ? null : JSON.stringify(body),
      headersTimeout: waitMs + ANSWER_LIMIT_MS,
      bodyTimeout: ANSWER_LIMIT_MS,
      ...(signal === undefined ? {} : { signal }),
    })
    const text = await readText(answer.body)
    if (answer.statusCode < 200 || answer.statusCode > 299)
      return { ok: false, status: answer.statusCode }
    return { ok: true, value: schema === undefined ? undefined : decode(schema, text, path) }
  }

  return {
    register: (token, proof) =>
      call({
        method: 'POST',
        path: '/v1/sidecars',
        token,
        schema: registeredSchema,
        body: { proof },
      }).then(required),
    poll: (token, id, waitSeconds, signal) =>
      call({
        method: 'GET',
        path: `/v1/requests/${encodeURIComponent(id)}?wait=${waitSeconds}`,
        token,
        schema: heldRequestSchema,
        waitMs: waitSeconds * 1000,
        signal,
      }).then(required),
    cancel: (token, id) =>
      call({ method: 'POST', path: `/v1/requests/${encodeURIComponent(id)}/cancel`, token }),
  }
}

function required<T>(reply: Reply<T | undefined>): Reply<T> {
  if (!reply.ok) return reply
  if (reply.value === undefined) throw new Fault('broker_protocol', 'the answer is empty')
  return { ok: true, value: reply.value }
}

async function readText(body: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of body) {
    size += chunk.length
    if (size > MAX_ANSWER_BYTES) throw new Fault('broker_protocol', 'the answer is too large')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function decode<T>(schema: z.ZodType<T>, text: string, path: string): T {
  const result = schema.safeParse(parseJson(text))
  if (!result.success) throw new Fault('broker_protocol', `the answer to ${path} cannot be read`)
  return result.data
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
