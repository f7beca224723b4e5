/**
 * The sidecar's own calls to the broker: registration, the state of held requests, and that of the pod's other containers. The broker's certificate must
 * be signed by the pinned authority. Answers are decoded before use; the broker's refusals come back as values, a
 * missing broker is thrown as the transport's error.
 */
import { isRecord } from '../shared/config-source.ts'
import { Fault } from '../shared/errors.ts'
import { CLUSTER_HEADER } from '../shared/headers.ts'
import { APPROVAL_STATES, NEIGHBOUR_STATES } from '../shared/wire-constants.ts'
import type { NeighbourState } from '../shared/wire-constants.ts'
import type { HeldRequest } from '../shared/wire.ts'
import type { BrokerConnections } from './broker-connections.ts'

/** Largest answer that is read, in bytes. */
const MAX_ANSWER_BYTES = 65_536
/** How long the broker may take beyond the wait that it was asked for, in milliseconds. */
const ANSWER_LIMIT_MS = 10_000

/** Answer to a registration. */
export interface Registered {
  readonly podUid: string
  readonly keyId: string
}

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
  /** Says that the client was told to come back; `ok: false` where it was decided meanwhile. */
  park(token: string, id: string): Promise<Reply<unknown>>
  /** What the containers beside this sidecar do, as the cluster knows it. */
  neighbours(token: string, signal: AbortSignal): Promise<Reply<NeighbourState>>
}

interface Call<T> {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly token: string
  /** The answer, or undefined for one that cannot be read. */
  readonly decode: (value: unknown) => T | undefined
  readonly body?: object
  readonly waitMs?: number
  readonly signal?: AbortSignal
}

/**
 * A client over connections to the broker.
 *
 * @param cluster - the cluster that the token belongs to
 */
export function createBrokerClient(connections: BrokerConnections, cluster: string): BrokerClient {
  async function call<T>(options: Call<T>): Promise<Reply<T>> {
    const { method, path, token, decode, body, waitMs = 0, signal } = options
    const json = body === undefined ? undefined : JSON.stringify(body)
    const { status, text } = await connections.ask({
      method,
      path,
      headers: {
        authorization: `Bearer ${token}`,
        [CLUSTER_HEADER]: cluster,
        accept: 'application/json',
        ...(json === undefined ? {} : { 'content-type': 'application/json' }),
      },
      limitMs: waitMs + ANSWER_LIMIT_MS,
      maxBytes: MAX_ANSWER_BYTES,
      ...(json === undefined ? {} : { body: json }),
      ...(signal === undefined ? {} : { signal }),
    })
    if (status < 200 || status > 299) return { ok: false, status }
    const value = decode(parseJson(text))
    if (value === undefined)
      throw new Fault('broker_protocol', `the answer to ${path} cannot be read`)
    return { ok: true, value }
  }

  return {
    register: (token, proof) =>
      call({
        method: 'POST',
        path: '/v1/sidecars',
        token,
        decode: decodeRegistered,
        body: { proof },
      }),
    poll: (token, id, waitSeconds, signal) =>
      call({
        method: 'GET',
        path: `/v1/requests/${encodeURIComponent(id)}?wait=${waitSeconds}`,
        token,
        decode: decodeHeld,
        waitMs: waitSeconds * 1000,
        signal,
      }),
    cancel: (token, id) => call(afterHold(token, id, 'cancel')),
    park: (token, id) => call(afterHold(token, id, 'park')),
    neighbours: (token, signal) =>
      call({ method: 'GET', path: '/v1/sidecar/pod', token, decode: decodeNeighbours, signal }),
  }
}

function afterHold(token: string, id: string, what: 'cancel' | 'park'): Call<true> {
  const path = `/v1/requests/${encodeURIComponent(id)}/${what}`
  return { method: 'POST', path, token, decode: () => true }
}

function decodeRegistered(value: unknown): Registered | undefined {
  if (!isRecord(value)) return undefined
  const { podUid, keyId } = value
  return typeof podUid === 'string' && typeof keyId === 'string' ? { podUid, keyId } : undefined
}

/** The field of `podStateSchema` in shared/wire.ts. */
function decodeNeighbours(value: unknown): NeighbourState | undefined {
  return isRecord(value) ? NEIGHBOUR_STATES.find((name) => name === value['neighbours']) : undefined
}

/** The fields of `heldRequestSchema` in shared/wire.ts. */
function decodeHeld(value: unknown): HeldRequest | undefined {
  if (!isRecord(value)) return undefined
  const { id, expiresAt, reason, reviewer } = value
  const state = APPROVAL_STATES.find((name) => name === value['state'])
  if (typeof id !== 'string' || typeof expiresAt !== 'string' || state === undefined)
    return undefined
  if (!isOptionalText(reason) || !isOptionalText(reviewer)) return undefined
  return {
    id,
    expiresAt,
    state,
    ...(reason === undefined ? {} : { reason }),
    ...(reviewer === undefined ? {} : { reviewer }),
  }
}

function isOptionalText(value: unknown): value is string | undefined {
  return value === undefined || typeof value === 'string'
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
