/**
 * Finds out when the pod's other containers are through for good, where this sidecar is an ordinary container: a Job is
 * complete only when it has ended too. That a container has ended can be seen from here, at best; that it is not started
 * again only the cluster knows, so the broker is asked, when there is reason to. Without an answer this sidecar goes on.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { codeOf, messageOf } from '../shared/errors.ts'
import type { Log } from '../shared/json-log.ts'
import type { NeighbourState } from '../shared/wire-constants.ts'
import type { BrokerClient } from './broker-client.ts'
import type { TokenSource } from './token.ts'

/** How often it is looked whether there is reason to ask, and the first pause between two questions, in milliseconds. */
export const LOOK_EVERY_MS = 1000
/** The longest pause between two questions, in milliseconds: a Job whose agents stay silent is late by no more. */
export const LONGEST_PAUSE_MS = 30_000

/** What finding out needs. */
export interface NeighboursDeps {
  readonly broker: Pick<BrokerClient, 'neighbours'>
  readonly token: TokenSource
  readonly log: Log
  /** Whether no other container seems to run. */
  readonly seemGone: () => boolean
  /** Aborted when the pod is told to end: then nothing is started again, whatever was answered before. */
  readonly ending: AbortSignal
  /** Aborted when the sidecar closes. */
  readonly closing: AbortSignal
  /** Waits; ends early with the signal. For tests. */
  readonly pause?: (ms: number, signal: AbortSignal) => Promise<void>
}

/**
 * Settles when it is over: true once the others are through, false when the sidecar closes before. Never rejects.
 *
 * The first question comes with the first reason; while the reason lasts, the pauses between questions double.
 */
export async function neighboursEnd(deps: NeighboursDeps): Promise<boolean> {
  const { seemGone, ending, closing, pause = wait } = deps
  let pauseMs = LOOK_EVERY_MS
  let waitedMs = 0
  for (;;) {
    await pause(LOOK_EVERY_MS, closing)
    if (closing.aborted) return false
    if (!seemGone()) {
      pauseMs = LOOK_EVERY_MS
      waitedMs = 0
      continue
    }
    waitedMs += LOOK_EVERY_MS
    if (waitedMs < pauseMs) continue
    waitedMs = 0
    pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)
    const state = await ask(deps)
    if (state === 'ended') return true
    if (state === 'permanent') await until(ending, closing)
  }
}

/** What the broker says, or undefined. */
async function ask({
  broker,
  token,
  log,
  closing,
}: NeighboursDeps): Promise<NeighbourState | undefined> {
  const bearer = token.read()
  if (bearer === undefined) return undefined
  try {
    const reply = await broker.neighbours(bearer, closing)
    if (reply.ok) return reply.value
    log.debug(
      { status: reply.status },
      'the broker does not say whether the neighbours are through',
    )
  } catch (error) {
    log.debug({ error: messageOf(error), code: codeOf(error) }, 'the broker cannot be asked')
  }
  return undefined
}

async function wait(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal, ref: false }).catch(() => undefined)
}

/** Settles when one of them is aborted. */
function until(...signals: readonly AbortSignal[]): Promise<void> {
  const either = AbortSignal.any([...signals])
  return new Promise((resolve) => {
    if (either.aborted) resolve()
    else
      either.addEventListener(
        'abort',
        () => {
          resolve()
        },
        { once: true },
      )
  })
}
