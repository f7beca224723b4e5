/**
 * Gets one request to the broker and its answer to the client, over as many attempts as it takes: a broker that
 * restarted is registered with and asked again, a held request is sent again once it is approved. A write that the
 * broker may have got is never repeated. The same for ordinary requests and upgrades.
 */
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { AgentTag } from '../shared/agent-tag.ts'
import { messageOf } from '../shared/errors.ts'
import type { Log } from '../shared/json-log.ts'
import { isRefusal, refuse } from '../shared/reasons.ts'
import type { Refusal } from '../shared/reasons.ts'
import type { Callers } from './caller/caller.ts'
import type { Credentials } from './headers.ts'
import type { Holds } from './hold.ts'
import { heldId, holdSecondsOf, isKeyUnknown } from './outcome.ts'
import type { Outcome, Word } from './outcome.ts'
import type { Metrics } from './metrics.ts'
import type { Outage } from './outage.ts'
import type { Registration } from './registration.ts'
import type { Signer } from './signer.ts'
import type { TokenSource } from './token.ts'

/** How long an approved request is tried again while the broker cannot be reached, in milliseconds: a restart must not cost the approval. */
const CLAIM_LIMIT_MS = 60_000
/** Pause between tries, in milliseconds. */
const RETRY_PAUSE_MS = 500

/** What delivering needs. */
export interface DeliverDeps {
  readonly callers: Callers
  readonly token: TokenSource
  readonly signer: Signer
  readonly registration: Registration
  readonly holds: Holds
  readonly log: Log
  readonly metrics: Pick<Metrics, 'lookup'>
  readonly outage: Outage
  /** Milliseconds, monotonic. */
  readonly now: () => number
}

/** A request on its way. */
export interface Delivery {
  /** The accepted connection that it came on. */
  readonly socket: Socket
  /** The process that sent it, as found when its head arrived. */
  readonly caller: AgentTag
  /** Whether it may be sent again although the broker may have got it: true for reads only. */
  readonly repeatable: boolean
  /** Aborted when the client leaves. */
  readonly left: AbortSignal
  /** One attempt. */
  readonly send: (credentials: Credentials) => Promise<Outcome>
}

/** How it ended, where there is something left to be answered. */
export type Delivered = { readonly kind: 'done' | 'left' } | Word | Refusal

/** What one request has been through. */
interface Progress {
  /** Id of the approval that the next attempt claims. */
  approved?: string
  /** Until when that claim is tried while the broker is away. */
  claimUntil: number
  registeredAgain: boolean
  /** Whether it is sent again although the broker may have got it: once, since it may be what ended the broker. */
  repeated: boolean
}

/** Sends a request until there is an end to it. Rejects only when signing fails. */
export async function deliver(deps: DeliverDeps, delivery: Delivery): Promise<Delivered> {
  const progress: Progress = { claimUntil: 0, registeredAgain: false, repeated: false }
  let caller: AgentTag | Refusal = delivery.caller
  for (;;) {
    const credentials = await credentialsOf(deps, caller, progress.approved)
    if (isRefusal(credentials)) return credentials
    const generation = deps.registration.generation()
    const outcome = await delivery.send(credentials)
    if (outcome.kind !== 'failed' && outcome.kind !== 'left') deps.outage.over()
    if (outcome.kind === 'done' || outcome.kind === 'left') return outcome
    const next =
      outcome.kind === 'word'
        ? await afterWord(deps, delivery, progress, outcome, generation)
        : await afterFailure(deps, delivery, progress, outcome)
    if (next !== 'again') return next
    // Asked anew for each repeat: a hold may have lasted long.
    caller = await identifyCaller(deps, delivery.socket)
  }
}

/** The tag of whoever holds the other end now; refused where that cannot be told, or is another than before. */
export async function identifyCaller(
  { callers, log, metrics, now }: Pick<DeliverDeps, 'callers' | 'log' | 'metrics' | 'now'>,
  socket: Socket,
): Promise<AgentTag | Refusal> {
  const startedAt = now()
  try {
    const found = await callers.identify(socket)
    metrics.lookup(isRefusal(found) ? found.refused : found.verdict, now() - startedAt)
    return found
  } catch (error) {
    log.error({ error: messageOf(error) }, 'a caller could not be looked up')
    return refuse('caller_unidentified', 'the lookup failed')
  }
}

async function credentialsOf(
  { token, signer }: DeliverDeps,
  caller: AgentTag | Refusal,
  approved: string | undefined,
): Promise<Credentials | Refusal> {
  if (isRefusal(caller)) return caller
  const bearer = token.read()
  if (bearer === undefined) return refuse('token_unavailable')
  return { token: bearer, tag: await signer.sign(caller), approved }
}

async function afterWord(
  { registration, holds, log, now }: DeliverDeps,
  delivery: Delivery,
  progress: Progress,
  word: Word,
  generation: number,
): Promise<Delivered | 'again'> {
  if (isKeyUnknown(word) && !progress.registeredAgain) {
    progress.registeredAgain = true
    return (await registration.renew(generation)) ? 'again' : word
  }
  if (word.status !== 202) return word
  const id = heldId(word)
  if (id === undefined || progress.approved !== undefined) {
    log.error({ request: progress.approved }, 'the broker held a request in an unexpected way')
    return refuse('internal', 'the broker’s answer cannot be understood')
  }
  log.info({ request: id }, 'a request is held')
  const decision = await holds.wait(id, delivery.left, holdSecondsOf(word))
  if (decision.kind === 'left') return decision
  if (decision.kind === 'refused') return decision.refusal
  progress.approved = id
  progress.claimUntil = now() + CLAIM_LIMIT_MS
  // The broker may have restarted during the hold, so it may ask for the key once more.
  progress.registeredAgain = false
  return 'again'
}

/** What was not sent may be sent whatever it is; what the broker may have got only where that changes nothing. */
async function afterFailure(
  { now, log, outage }: DeliverDeps,
  delivery: Delivery,
  progress: Progress,
  { sent, code }: Extract<Outcome, { kind: 'failed' }>,
): Promise<Delivered | 'again'> {
  if (delivery.left.aborted) return { kind: 'left' }
  const until = Math.max(outage.noticed(), progress.claimUntil)
  const repeatable = delivery.repeatable && progress.approved === undefined && !progress.repeated
  if ((!sent || repeatable) && now() < until) {
    progress.repeated ||= sent
    const paused = sleep(RETRY_PAUSE_MS, true, { signal: delivery.left })
    return (await paused.catch(() => false)) ? 'again' : { kind: 'left' }
  }
  log.warn({ sent, code }, 'the broker did not answer')
  return refuse(sent ? 'broker_lost' : 'broker_unavailable')
}
