/**
 * Whether this sidecar can tell callers apart, tested on itself and on the pod: at start, and from time to time. What
 * fails closes the way of all requests, or lowers what is said of their callers, by the operator's setting.
 */
import { get } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { isRecord } from '../shared/config-source.ts'
import { messageOf } from '../shared/errors.ts'
import type { Log } from '../shared/json-log.ts'
import { refuse } from '../shared/reasons.ts'
import type { Refusal } from '../shared/reasons.ts'
import { reasonInStatus } from '../shared/status.ts'
import type { Callers } from './caller/caller.ts'
import { SearchLimitError } from './caller/holders.ts'
import type { IdentityLevel } from './caller/verdict.ts'
import { WHOAMI_PATH } from './own-paths.ts'
import { describeRisk } from './posture.ts'
import type { Posture, RiskyNeighbour } from './posture.ts'

/** How often the whole is tested, in milliseconds. */
const TEST_EVERY_MS = 60_000
/** How often only the neighbours' capabilities are looked at, and the whole is tested while it fails, in milliseconds. */
const POSTURE_EVERY_MS = 5000
/**
 * Time between two looks at a neighbour before it counts, in milliseconds: a container runtime starts each process in a
 * container with all capabilities, for moments.
 */
const SECOND_LOOK_MS = 500
/** How long a risk is remembered after it was last seen, in milliseconds: processes come and go. */
const RISK_REMEMBERED_MS = 60_000
/** How long the sidecar's own request may take, in milliseconds. */
const PROBE_LIMIT_MS = 5000
const MAX_PROBE_BYTES = 16_384

/** What the sidecar's process knows of itself. */
export interface OwnProcess {
  readonly pid: number
  /** Whether others of its user can trace it, and so read all that it has, as far as it could tell. */
  readonly isTraceable: boolean
}

/** What the guard needs. */
export interface GuardDeps {
  readonly own: OwnProcess
  readonly profile: 'R' | 'P' | 'C'
  readonly posture: Posture
  readonly survey: Callers['survey']
  readonly neighbours: () => readonly RiskyNeighbour[]
  /** Whether a socket is open in the pod that hears and says what is others'. */
  readonly rawSockets: () => boolean
  readonly log: Log
  /** Milliseconds, monotonic. */
  readonly now: () => number
  /** Waits; ends early, without an error, when the signal is aborted. */
  readonly pause?: (ms: number, signal?: AbortSignal) => Promise<void>
}

/** See the head of the file. */
export interface Guard {
  /** How far callers may be told apart now. */
  level(): IdentityLevel
  /** Why no request may be served now, or undefined. */
  gate(): Refusal | undefined
  /** Tests everything once, by a request of this process to its own listener. Never rejects. */
  test(port: number): Promise<void>
  /** Goes on testing until `signal` ends it. Never rejects. */
  watch(port: number, signal: AbortSignal): Promise<void>
  /** Figures for the metrics. */
  gauges(): Readonly<Record<string, number>>
}

/** A guard that lets nothing pass before its first test. */
export function createGuard(deps: GuardDeps): Guard {
  return new PodGuard(deps)
}

class PodGuard implements Guard {
  readonly #deps: GuardDeps
  readonly #pause: (ms: number, signal?: AbortSignal) => Promise<void>
  #problem: string | undefined = 'the self-test has not run yet'
  #risk: { readonly text: string; readonly seenAt: number } | undefined
  #seen = 0
  #unread = 0

  constructor(deps: GuardDeps) {
    this.#deps = deps
    this.#pause = deps.pause ?? pause
  }

  level(): IdentityLevel {
    if (this.#deps.profile === 'C')
      return { kind: 'container', why: 'this pod’s processes are not visible to the sidecar' }
    const risk = this.#currentRisk()
    if (risk !== undefined && this.#deps.posture === 'degrade')
      return { kind: 'container', why: risk }
    return { kind: 'process' }
  }

  gate(): Refusal | undefined {
    if (this.#problem !== undefined) return refuse('attribution_unavailable', this.#problem)
    const risk = this.#currentRisk()
    if (risk !== undefined && this.#deps.posture === 'refuse') return refuse('identity_level', risk)
    return undefined
  }

  async test(port: number): Promise<void> {
    await this.#lookAtNeighbours()
    const before = this.#problem
    try {
      this.#problem = await this.#findProblem(port)
    } catch (error) {
      // Too much to search is a passing state that each request meets for itself.
      if (!(error instanceof SearchLimitError)) this.#problem = messageOf(error)
    }
    if (this.#problem !== undefined && this.#problem !== before)
      this.#deps.log.error({ problem: this.#problem }, 'the self-test failed')
    if (this.#problem === undefined && before !== undefined)
      this.#deps.log.info({ processes: this.#seen, unreadable: this.#unread }, 'self-test passed')
  }

  async watch(port: number, signal: AbortSignal): Promise<void> {
    let testedAt = this.#deps.now()
    const ended = (): boolean => signal.aborted
    while (!ended()) {
      await this.#pause(POSTURE_EVERY_MS, signal)
      if (ended()) return
      const every = this.#problem === undefined ? TEST_EVERY_MS : POSTURE_EVERY_MS
      if (this.#deps.now() - testedAt < every) {
        await this.#lookAtNeighbours()
        continue
      }
      await this.test(port)
      testedAt = this.#deps.now()
    }
  }

  gauges(): Readonly<Record<string, number>> {
    return {
      self_test_passed: this.#problem === undefined ? 1 : 0,
      processes_seen: this.#seen,
      processes_unreadable: this.#unread,
      risky_neighbours: this.#currentRisk() === undefined ? 0 : 1,
      process_level: this.level().kind === 'process' ? 1 : 0,
    }
  }

  #currentRisk(): string | undefined {
    if (this.#risk === undefined) return undefined
    return this.#deps.now() - this.#risk.seenAt < RISK_REMEMBERED_MS ? this.#risk.text : undefined
  }

  async #lookAtNeighbours(): Promise<void> {
    if (this.#deps.profile === 'C') return
    const text = await this.#findRisk()
    if (text === undefined) return
    if (this.#currentRisk() === undefined)
      this.#deps.log.warn({ risk: text, posture: this.#deps.posture }, 'risky neighbours')
    this.#risk = { text, seenAt: this.#deps.now() }
  }

  /** What cannot be looked at is a risk as well. */
  async #findRisk(): Promise<string | undefined> {
    try {
      if (this.#deps.rawSockets())
        return 'a raw or packet socket is open in this pod, by which a process could speak for others'
      const first = new Set(this.#deps.neighbours().map(({ key }) => key))
      if (first.size === 0) return undefined
      await this.#pause(SECOND_LOOK_MS)
      const risky = this.#deps.neighbours().filter(({ key }) => first.has(key))
      return risky.length === 0 ? undefined : describeRisk(risky)
    } catch (error) {
      return `the processes of this pod could not be looked at: ${messageOf(error)}`
    }
  }

  async #findProblem(port: number): Promise<string | undefined> {
    const { own, profile, survey } = this.#deps
    if (own.isTraceable)
      return 'this process can be traced by others of its user, who could take all that it has'
    if (profile !== 'C') {
      const { seen, unread, sawFirst } = await survey()
      this.#seen = seen
      this.#unread = unread
      // In a pod with one process namespace the first process is the sandbox's.
      if (own.pid === 1 || !sawFirst)
        return 'the pod’s processes are not visible: shareProcessNamespace is missing'
    }
    const tag = await whoAmI(port)
    const verified = isRecord(tag['verified']) ? tag['verified'] : {}
    const socket = isRecord(tag['socket']) ? tag['socket'] : {}
    const isOwn = verified['pid'] === own.pid || socket['uid'] === process.geteuid?.()
    return isOwn
      ? undefined
      : `the sidecar’s own connection was found to be ${String(tag['verdict'])}`
  }
}

async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { ref: false, signal }).catch(() => undefined)
}

/** Asks the listener who this process is. */
function whoAmI(port: number): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, path: WHOAMI_PATH, agent: false }
    const request = get({ ...options, timeout: PROBE_LIMIT_MS }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        if (text.length < MAX_PROBE_BYTES) text += chunk
      })
      response.on('end', () => {
        if (reasonInStatus(text) === 'attribution_busy') {
          reject(new SearchLimitError('too many callers are looked up'))
          return
        }
        try {
          const answer: unknown = JSON.parse(text)
          resolve(isRecord(answer) ? answer : {})
        } catch {
          reject(new Error('the sidecar’s own request got no answer'))
        }
      })
    })
    request.on('timeout', () =>
      request.destroy(new Error('the sidecar’s own request took too long')),
    )
    request.on('error', reject)
  })
}
