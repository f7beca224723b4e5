/**
 * Keeps this sidecar's key registered with the broker: at start until it succeeds, and again whenever the broker says
 * that it does not know the key (it restarted). However many requests notice that at once, one registration runs.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { codeOf, messageOf } from '../shared/errors.ts'
import type { Log } from '../shared/json-log.ts'
import type { BrokerClient } from './broker-client.ts'
import type { Signer } from './signer.ts'
import type { TokenSource } from './token.ts'

/** First and longest pause between two tries at start, in milliseconds. */
const FIRST_PAUSE_MS = 250
const LONGEST_PAUSE_MS = 15_000

/** See the head of the file. */
export interface Registration {
  /** Registers until it succeeds or `signal` ends it; never throws. */
  start(signal: AbortSignal): Promise<void>
  /** Whether the broker has accepted the key, as far as is known. */
  isReady(): boolean
  /** Counts the registrations that succeeded. */
  generation(): number
  /**
   * Registers again, once, unless that has happened since `seen`.
   *
   * @param seen - {@link Registration.generation} at the time the refused request was sent
   * @returns whether the broker knows the key now
   */
  renew(seen: number): Promise<boolean>
}

/** What a registration needs. */
export interface RegistrationDeps {
  readonly broker: BrokerClient
  readonly token: TokenSource
  readonly signer: Signer
  readonly log: Log
}

/** The registration of one sidecar. */
export function createRegistration({ broker, token, signer, log }: RegistrationDeps): Registration {
  let generation = 0
  let running: Promise<boolean> | undefined

  async function registerOnce(): Promise<boolean> {
    const bearer = token.read()
    if (bearer === undefined) {
      log.warn('no token to register with')
      return false
    }
    try {
      const reply = await broker.register(bearer, await signer.proof())
      if (reply.ok) generation += 1
      else log.warn({ status: reply.status }, 'the broker refused the registration')
      return reply.ok
    } catch (error) {
      log.warn({ error: messageOf(error), code: codeOf(error) }, 'registration failed')
      return false
    }
  }

  function register(): Promise<boolean> {
    running ??= registerOnce().finally(() => {
      running = undefined
    })
    return running
  }

  return {
    async start(signal): Promise<void> {
      let pauseMs = FIRST_PAUSE_MS
      while (!signal.aborted && generation === 0 && !(await register())) {
        await sleep(pauseMs, undefined, { signal }).catch(() => undefined)
        pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)
      }
      if (generation > 0) log.info('registered with the broker')
    },
    isReady: () => generation > 0,
    generation: () => generation,
    renew: (seen) => (generation > seen ? Promise.resolve(true) : register()),
  }
}
