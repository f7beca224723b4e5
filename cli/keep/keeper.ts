/** Looks at the cluster again and again, and writes what plan.ts says. Any number of keepers may do so at once. */
import { setTimeout as sleep } from 'node:timers/promises'
import { messageOf } from '../../shared/errors.ts'
import { isApiError } from '../../shared/in-cluster-api.ts'
import type { Logger } from '../../shared/log.ts'
import type { KeepConfig } from './config.ts'
import { KeepError, reasonOf } from './errors.ts'
import type { KeepMetrics } from './metrics.ts'
import type { ClusterObjects, ConfigurationSeen, SecretSeen } from './objects.ts'
import { endsOf, LEAVES, nextStep } from './plan.ts'
import type { LeafRole, Seen, Step } from './plan.ts'

/** Most writes and lost races of one look; the longest way (a first start beside old certificates) has some 30. */
const MAX_STEPS = 100
/** Longest wait after a lost race, in milliseconds; at random, so that two keepers do not stay in step. */
const RACE_PAUSE_MS = 100
/** Time until the next look after one that failed, in milliseconds, where looks are not more frequent anyway. */
const RETRY_MS = 5_000

/** What a keeper works with. */
export interface KeeperDeps {
  readonly config: KeepConfig
  readonly objects: ClusterObjects
  readonly metrics: KeepMetrics
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly signal: AbortSignal
}

/** Looks until the signal comes. Never rejects. */
export async function keep(deps: KeeperDeps): Promise<void> {
  const { config, signal, metrics, now } = deps
  const pauseMs = config.checkSeconds * 1000
  while (!signal.aborted) {
    metrics.looked(now())
    const good = await look(deps)
    if (good) metrics.succeeded(now())
    const waitMs = good ? pauseMs : Math.min(pauseMs, RETRY_MS)
    await sleep(waitMs, undefined, { signal }).catch(() => undefined)
  }
}

/** One look, and all that it leads to. @returns whether everything is as it should be now */
async function look(deps: KeeperDeps): Promise<boolean> {
  const { log, metrics, signal } = deps
  try {
    const problems = await settle(deps)
    for (const problem of problems) {
      metrics.failed(reasonOf(problem))
      log.error({ reason: reasonOf(problem), error: messageOf(problem) }, 'cannot keep')
    }
    return problems.length === 0
  } catch (error) {
    if (signal.aborted) return false
    metrics.failed(reasonOf(error))
    log.error({ reason: reasonOf(error), error: messageOf(error) }, 'cannot keep certificates')
    return false
  }
}

/**
 * Writes until nothing is left to do. An object that cannot be written is left out; the others are kept all the same.
 *
 * @returns what stands in the way
 * @throws KeepError or ApiError where the authority's Secret cannot be read, used or written
 */
export async function settle(deps: KeeperDeps): Promise<readonly Error[]> {
  const { config, objects, metrics, log, now } = deps
  const blocked = new Map<string, Error>()
  for (let steps = 0; steps < MAX_STEPS; steps += 1) {
    deps.signal.throwIfAborted()
    const seen = await observe(objects, blocked)
    metrics.ends(endsOf(seen))
    const step = nextStep(seen, now(), config)
    if (step === undefined) return seen.problems
    const target = nameOf(step)
    try {
      await write(objects, step)
    } catch (error) {
      if (isApiError(error, 'conflict', 'exists')) {
        await sleep(Math.random() * RACE_PAUSE_MS)
        continue
      }
      if (target === 'authority' || !(error instanceof Error)) throw error
      blocked.set(target, error)
      continue
    }
    if (step.write === 'secret' && step.made !== undefined) metrics.made(step.made)
    log.info({ object: step.seen.name, why: step.why }, 'wrote')
  }
  throw new KeepError('unsettled', `not settled after ${MAX_STEPS} writes: who else writes there?`)
}

function write(objects: ClusterObjects, step: Step): Promise<void> {
  return step.write === 'bundle'
    ? objects.writeBundle(step.seen, step.bundle)
    : objects.writeSecret(step.seen, step.changes)
}

/** What a step writes to, for the list of what cannot be written. */
function nameOf({ write: kind, seen }: Step): string {
  return kind === 'bundle' ? seen.path : seen.role
}

/**
 * Reads everything, the authority's Secret last. A keeper that was held up between reading and writing cannot do harm then: what it
 * knows of the authority is at least as new as the object that it writes, and that object has not changed since.
 */
async function observe(
  objects: ClusterObjects,
  blocked: ReadonlyMap<string, Error>,
): Promise<Seen> {
  const problems = [...blocked.values()]
  const orProblem = async <T>(work: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof Error)) throw error
      problems.push(error)
      return undefined
    }
  }
  const leaves: Partial<Record<LeafRole, SecretSeen>> = {}
  for (const role of LEAVES) {
    const secret = blocked.has(role) ? undefined : await orProblem(() => objects.secret(role))
    if (secret !== undefined) leaves[role] = secret
  }
  const configurations: ConfigurationSeen[] = []
  for (const read of objects.configurations()) {
    const one = await orProblem(read)
    if (one !== undefined && !blocked.has(one.path)) configurations.push(one)
  }
  return { leaves, configurations, problems, authority: await objects.secret('authority') }
}
