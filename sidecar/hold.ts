/**
 * Waits out a held request. The broker keeps it, so a broker that restarts loses nothing and is simply asked again.
 * Ends with the decision, with the time that the rule or this sidecar allows, or when the client leaves. A client whose
 * time is over is told to come back, and the request goes on waiting at the broker; of a client that left the broker is
 * told, and the rule says whether anybody still decides on it.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { messageOf } from '../shared/errors.ts'
import type { Log } from '../shared/json-log.ts'
import { refuse } from '../shared/reasons.ts'
import type { Refusal } from '../shared/reasons.ts'
import { MAX_WAIT_S } from '../shared/wire-constants.ts'
import type { HeldRequest } from '../shared/wire.ts'
import type { BrokerClient, Reply } from './broker-client.ts'
import type { TokenSource } from './token.ts'

const MS_PER_S = 1000
/** First and longest pause before the broker is asked again after a failure, in milliseconds. */
const FIRST_PAUSE_MS = 500
const LONGEST_PAUSE_MS = 5000
/** A pending answer that came sooner than this is not asked for again at once, in milliseconds. */
const SHORTEST_POLL_MS = 500

/** How a hold ended. */
export type Decision =
  | { readonly kind: 'approved' }
  | { readonly kind: 'refused'; readonly refusal: Refusal }
  | { readonly kind: 'left' }

/** Waits for decisions. */
export interface Holds {
  /**
   * Waits for the decision on a held request.
   *
   * @param left - aborted when the client leaves
   * @param holdSeconds - how long the rule keeps the client waiting; this sidecar's own limit counts too
   */
  wait(id: string, left: AbortSignal, holdSeconds?: number): Promise<Decision>
}

/** What waiting needs. */
export interface HoldDeps {
  readonly broker: BrokerClient
  readonly token: TokenSource
  readonly log: Log
  /** Longest wait of one request, in milliseconds. */
  readonly limitMs: number
  /** Aborted when the sidecar ends. */
  readonly closing: AbortSignal
  /** Milliseconds, monotonic. */
  readonly now: () => number
}

/** See {@link Holds}. */
export function createHolds(deps: HoldDeps): Holds {
  const { log, closing, now } = deps
  return {
    async wait(id, left, holdSeconds = Infinity): Promise<Decision> {
      const until = now() + Math.min(deps.limitMs, holdSeconds * MS_PER_S)
      const ended = AbortSignal.any([left, closing])
      let pauseMs = FIRST_PAUSE_MS
      while (!ended.aborted && now() < until) {
        const askedAt = now()
        const reply = await ask(deps, id, until - askedAt, ended)
        if (reply?.ok === true) {
          const decision = decide(reply.value)
          if (decision !== undefined) return decision
          pauseMs = FIRST_PAUSE_MS
          await pause(SHORTEST_POLL_MS - (now() - askedAt), ended)
        } else {
          if (reply?.status === 404) return refused(refuse('request_unknown', id))
          await pause(Math.min(pauseMs, until - now()), ended)
          pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)
        }
      }
      await tell(deps, id, ended.aborted ? 'cancel' : 'park')
      if (left.aborted) return { kind: 'left' }
      log.info(
        { request: id, closing: closing.aborted },
        'a held request is not waited for any more',
      )
      return refused(
        closing.aborted
          ? refuse('shutting_down')
          : refuse('approval_pending', `request ${id}: nestgate approvals show ${id}`),
      )
    },
  }
}

/** One poll; undefined when no answer came. */
async function ask(
  { broker, token, log }: HoldDeps,
  id: string,
  remainingMs: number,
  ended: AbortSignal,
): Promise<Reply<HeldRequest> | undefined> {
  const bearer = token.read()
  if (bearer === undefined) return undefined
  const waitSeconds = Math.max(1, Math.min(MAX_WAIT_S, Math.floor(remainingMs / 1000)))
  try {
    return await broker.poll(bearer, id, waitSeconds, ended)
  } catch (error) {
    if (!ended.aborted) log.debug({ request: id, error: messageOf(error) }, 'poll failed')
    return undefined
  }
}

/** What a state means for the request that waits; undefined while nobody has decided. */
function decide({ id, state, reason, reviewer }: HeldRequest): Decision | undefined {
  const said = [reviewer, reason].filter((text) => text !== undefined).join(': ')
  const words = said === '' ? `request ${id}` : said
  switch (state) {
    case 'PENDING':
      return undefined
    case 'APPROVED':
      return { kind: 'approved' }
    case 'DENIED':
      return refused(refuse('approval_denied', words))
    case 'EXPIRED':
      return refused(refuse('approval_expired', `request ${id}`))
    case 'CANCELLED':
      return refused(refuse('approval_cancelled', `request ${id}`))
    case 'REVOKED':
      return refused(refuse('approval_revoked', words))
    case 'EXECUTING':
    case 'SUCCEEDED':
    case 'FAILED':
    case 'UNKNOWN':
      return refused(refuse('approval_spent', `request ${id}`))
  }
}

function refused(refusal: Refusal): Decision {
  return { kind: 'refused', refusal }
}

/** Best effort: what the broker is not told of expires there. */
async function tell(
  { broker, token, log }: HoldDeps,
  id: string,
  what: 'cancel' | 'park',
): Promise<void> {
  const bearer = token.read()
  if (bearer === undefined) return
  try {
    await broker[what](bearer, id)
  } catch (error) {
    log.warn(
      { request: id, error: messageOf(error) },
      'the broker could not be told of a hold’s end',
    )
  }
}

async function pause(ms: number, ended: AbortSignal): Promise<void> {
  if (ms > 0) await sleep(ms, undefined, { signal: ended }).catch(() => undefined)
}
