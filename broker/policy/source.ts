/**
 * The policy that is in force: read at start, and again when its files change. A policy with a problem never replaces
 * one without; what went wrong is logged and shown until the files are mended.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { ConfigError } from '../../shared/config-source.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Log } from '../../shared/json-log.ts'
import { createDecider } from '../../shared/policy/decide.ts'
import type { DeciderOptions } from '../../shared/policy/decide.ts'
import type { Decider } from '../../shared/policy/decision.ts'
import { policyFilesState, readPolicyFiles } from '../../shared/policy/files.ts'
import { readPolicySet } from '../../shared/policy/policy-set.ts'
import type { PolicyProblems, PolicySet } from '../../shared/policy/policy-set.ts'
import { policyWarnings } from '../../shared/policy/warnings.ts'

/** How often the files are looked at, in milliseconds. */
const POLL_MS = 2_000

/** What a policy is, in short. */
export interface PolicySummary {
  readonly digest: string
  readonly rules: number
}

/** What is in force, and what keeps a newer one from it. */
export interface PolicyStatus extends PolicySummary {
  /** When it was read, in milliseconds since the epoch. */
  readonly loadedAt: number
  readonly warnings: readonly string[]
  /** What is wrong with the files as they are now; empty when they are what is in force. */
  readonly problems: readonly string[]
}

/** See the head of the file. */
export interface LivePolicy {
  /** Always decides by the policy in force, with one policy for the whole of a decision. */
  readonly decider: Decider
  status(): PolicyStatus
  /** The rules that are in force. */
  policy(): PolicySet
  /** Looks at the files now. Never rejects. */
  look(): Promise<void>
  close(): Promise<void>
}

/** What it needs. */
export interface PolicySourceDeps {
  /** Files or folders. */
  readonly paths: readonly string[]
  readonly options: DeciderOptions
  readonly log: Log
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /** Called after another policy has come into force. */
  readonly onChange?: (old: PolicySummary, fresh: PolicySummary) => void
  /** Called when changed files have problems: `kept` stays in force. */
  readonly onRejected?: (kept: PolicySummary, problems: readonly string[]) => void
  readonly pollMs?: number
}

interface InForce {
  readonly policy: PolicySet
  readonly decider: Decider
  readonly loadedAt: number
  readonly warnings: readonly string[]
}

/** Reads the policy and watches its files. @throws ConfigError naming every problem */
export async function openPolicy(deps: PolicySourceDeps): Promise<LivePolicy> {
  const { paths, log, onChange, onRejected, pollMs = POLL_MS } = deps
  // The state is taken before the files are read: a change in between is seen at the next look.
  let state = await stateOf(paths)
  const first = await load(deps)
  if ('problems' in first) throw new ConfigError([...first.problems])
  let current: InForce = first
  let problems: readonly string[] = []

  async function look(): Promise<void> {
    const found = await stateOf(paths)
    if (found === state) return
    const fresh = await load(deps)
    // Files that are being written are looked at again when they rest.
    if ((await stateOf(paths)) !== found) return
    state = found
    if ('problems' in fresh) {
      const known = new Set(problems)
      problems = fresh.problems
      const facts = { problems, policyDigest: current.policy.digest }
      if (problems.some((problem) => !known.has(problem))) {
        log.error(facts, 'policy files have problems; the last good policy stays in force')
        onRejected?.(summaryOf(current), problems)
      }
      return
    }
    problems = []
    if (fresh.policy.digest === current.policy.digest) return
    const [old, now] = [summaryOf(current), summaryOf(fresh)]
    current = fresh
    log.info({ old: old.digest, policyDigest: now.digest, rules: now.rules }, 'policy changed')
    for (const warning of fresh.warnings) log.warn({ warning }, 'policy warning')
    onChange?.(old, now)
  }

  let looking = Promise.resolve()
  const lookSafely = (): Promise<void> => {
    // One after the other: an older state must not come into force after a newer one.
    looking = looking.then(look).catch((error: unknown) => {
      log.error({ error: messageOf(error) }, 'policy files could not be looked at')
    })
    return looking
  }
  const stop = new AbortController()
  const watching = watch(lookSafely, pollMs, stop.signal)
  return {
    decider: {
      get policyDigest() {
        return current.policy.digest
      },
      decide: (facts) => current.decider.decide(facts),
    },
    policy: () => current.policy,
    status: () => statusOf(current, problems),
    look: lookSafely,
    async close() {
      stop.abort()
      await watching
    },
  }
}

function statusOf(inForce: InForce, problems: readonly string[]): PolicyStatus {
  const { loadedAt, warnings } = inForce
  return { ...summaryOf(inForce), loadedAt, warnings, problems }
}

function summaryOf({ policy }: InForce): PolicySummary {
  return { digest: policy.digest, rules: policy.rules.length }
}

async function watch(
  look: () => Promise<void>,
  pollMs: number,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    try {
      await sleep(pollMs, undefined, { signal, ref: false })
    } catch {
      return
    }
    await look()
  }
}

/** A state that cannot be read is a state too: the files are read then, and the problem is told. */
async function stateOf(paths: readonly string[]): Promise<string> {
  try {
    return await policyFilesState(paths)
  } catch (error) {
    return `unreadable: ${messageOf(error)}`
  }
}

async function load({ paths, options, now }: PolicySourceDeps): Promise<InForce | PolicyProblems> {
  let policy: PolicySet | PolicyProblems
  try {
    policy = readPolicySet(await readPolicyFiles(paths))
  } catch (error) {
    return { problems: [messageOf(error)] }
  }
  if ('problems' in policy) return policy
  return {
    policy,
    decider: createDecider(policy, options),
    loadedAt: now(),
    warnings: policyWarnings(policy),
  }
}
