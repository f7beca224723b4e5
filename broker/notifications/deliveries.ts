/**
 * Delivery to one receiver: one message at a time, in order, tried again with growing pauses under the same id until it is
 * taken, given up, or pushed out by newer ones. Nothing here is waited for by a decision, and nothing fails one.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { readFile } from 'node:fs/promises'
import { Agent, request } from 'undici'
import { codeOf, Fault, messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { readPrivateFile } from '../../shared/private-file.ts'
import { bodyOf } from './messages.ts'
import type { Notification } from './messages.ts'
import { isReceiver } from './settings.ts'
import type { TargetSettings } from './settings.ts'
import { readSecrets, signedHeaders } from './signature.ts'

/** Messages that wait for one receiver; the oldest goes first when it is full. */
export const MAX_QUEUED = 1_000
/** First and longest pause before a message is tried again, in milliseconds. */
export const FIRST_PAUSE_MS = 2_000
export const LONGEST_PAUSE_MS = 10 * 60_000
/** How long a message is tried, in milliseconds. */
export const GIVE_UP_MS = 24 * 3600_000
/** How long a message is tried that the receiver refuses (4xx), in milliseconds: one that it never takes must not hold up all others. */
export const REFUSED_GIVE_UP_MS = 10 * 60_000
/** Statuses by which a receiver says that it is busy, and not that the message is wrong. */
const LATER: ReadonlySet<number> = new Set([408, 425, 429])
/** Longest wait for an answer, in milliseconds. */
const ANSWER_MS = 10_000
/** The receiver wants no more (Standard Webhooks, "Disabling endpoints"). */
const GONE = 410
const MS_PER_S = 1000

/** Delivers to one receiver. */
export interface Delivery {
  /** Takes a message. Never throws, never waits. */
  push(notification: Notification): void
  /** Stops; what was not delivered is announced again when the broker starts, as far as it still waits. */
  close(): Promise<void>
}

/** What delivering needs. */
export interface DeliveryDeps {
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /** Pauses; tests shorten them. */
  readonly firstPauseMs?: number
  readonly refusedMs?: number
}

/** Starts delivering to a receiver. */
export function createDelivery(target: TargetSettings, deps: DeliveryDeps): Delivery {
  const { log, now, firstPauseMs = FIRST_PAUSE_MS, refusedMs = REFUSED_GIVE_UP_MS } = deps
  const queue: Notification[] = []
  const stop = new AbortController()
  let running: Promise<void> | undefined
  let isGone = false

  async function deliver(notification: Notification): Promise<void> {
    const { id } = notification
    const began = now()
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
      const tried = await attempt(target, notification, now(), stop.signal)
      if (tried.kind === 'taken') return
      if (tried.kind === 'gone') {
        isGone = true
        queue.length = 0
        log.warn({ target: target.name }, 'a receiver wants no more notifications')
        return
      }
      log.warn({ target: target.name, id, problem: tried.problem }, 'a notification was not taken')
      const waitMs = pauseFor(pauseMs, tried.retryAfterMs)
      if (now() + waitMs > began + (tried.refused ? refusedMs : GIVE_UP_MS)) {
        log.error({ target: target.name, id }, 'a notification was given up')
        return
      }
      await sleep(waitMs, undefined, { signal: stop.signal })
    }
  }

  async function run(): Promise<void> {
    for (;;) {
      const next = queue.shift()
      if (next === undefined) break
      try {
        await deliver(next)
      } catch (error) {
        // ended in the middle of a pause
        if (stop.signal.aborted) break
        log.error({ target: target.name, error: messageOf(error) }, 'a notification failed')
      }
    }
    // at once: a message that comes before others learn that this has ended would be left lying
    running = undefined
  }

  return {
    push(notification): void {
      if (isGone || stop.signal.aborted) return
      if (queue.length >= MAX_QUEUED) {
        const dropped = queue.shift()
        log.error(
          { target: target.name, id: dropped?.id },
          'a notification was dropped: too many wait',
        )
      }
      queue.push(notification)
      running ??= run()
    },
    async close() {
      stop.abort()
      await running
    },
  }
}

/** The pause before the next attempt: as long as the receiver asks for, within bounds; no two brokers come back in step. */
function pauseFor(ownMs: number, askedMs: number): number {
  return Math.min(Math.max(askedMs, ownMs * (0.75 + Math.random() / 2)), LONGEST_PAUSE_MS)
}

type Attempt =
  | { readonly kind: 'taken' }
  | { readonly kind: 'gone' }
  | {
      readonly kind: 'failed'
      readonly problem: string
      readonly retryAfterMs: number
      /** The receiver says that it is this message that it does not take. */
      readonly refused: boolean
    }

/** One attempt; files are read anew, so that a replaced secret or authority counts. */
async function attempt(
  target: TargetSettings,
  notification: Notification,
  nowMs: number,
  ended: AbortSignal,
): Promise<Attempt> {
  let dispatcher: Agent | undefined
  try {
    const url = target.url ?? (await readPrivateFile(target.urlFile ?? '')).trim()
    if (!isReceiver(url)) return failed('the address is none that may be sent to')
    const body = bodyOf(notification, target)
    const headers = await headersFor(target, notification.id, body, nowMs)
    if (headers === undefined) return failed('the secret file has no usable secret')
    const ca = target.caFile === undefined ? {} : { ca: await readAuthority(target.caFile) }
    dispatcher = new Agent({ connect: { timeout: ANSWER_MS, rejectUnauthorized: true, ...ca } })
    const answer = await request(url, {
      method: 'POST',
      dispatcher,
      body,
      headers: { 'content-type': 'application/json', ...headers },
      headersTimeout: ANSWER_MS,
      bodyTimeout: ANSWER_MS,
      // the answer's head is all that is of interest; a receiver may not keep us by a slow body
      signal: AbortSignal.any([ended, AbortSignal.timeout(ANSWER_MS)]),
    })
    answer.body.on('error', () => undefined)
    return attemptOf(answer.statusCode, answer.headers['retry-after'])
  } catch (error) {
    if (error instanceof Fault) return failed(error.message)
    return failed(codeOf(error) ?? 'the receiver cannot be reached')
  } finally {
    await dispatcher?.destroy()
  }
}

/** What a receiver's answer says. */
function attemptOf(status: number, later: unknown): Attempt {
  if (status === GONE) return { kind: 'gone' }
  if (status >= 200 && status < 300) return { kind: 'taken' }
  const refused = status >= 400 && status < 500 && !LATER.has(status)
  return { ...failed(`status ${status}`, retryAfter(later)), refused }
}

function failed(problem: string, retryAfterMs = 0): Attempt & { kind: 'failed' } {
  return { kind: 'failed', problem, retryAfterMs, refused: false }
}

/** @throws Error where there is no certificate: an empty file would stand for all authorities that Node knows */
async function readAuthority(file: string): Promise<string> {
  const pem = await readFile(file, 'utf8')
  if (!pem.includes('-----BEGIN CERTIFICATE-----')) throw new Error('the CA has no certificate')
  return pem
}

async function headersFor(
  { format, secretFile }: TargetSettings,
  id: string,
  body: string,
  nowMs: number,
): Promise<Readonly<Record<string, string>> | undefined> {
  if (format === 'slack' || secretFile === undefined) return {}
  const keys = readSecrets(await readPrivateFile(secretFile))
  return keys === undefined
    ? undefined
    : signedHeaders(id, Math.floor(nowMs / MS_PER_S), body, keys)
}

/** `Retry-After` in milliseconds, where it is a number of seconds. */
function retryAfter(value: unknown): number {
  return typeof value === 'string' && /^\d{1,6}$/.test(value) ? Number(value) * 1000 : 0
}
