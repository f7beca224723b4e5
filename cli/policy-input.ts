/** What commands on policies have in common. */
import { messageOf } from '../shared/errors.ts'
import { readPolicyFiles } from '../shared/policy/files.ts'
import { readPolicySet } from '../shared/policy/policy-set.ts'
import type { PolicyProblems, PolicySet } from '../shared/policy/policy-set.ts'
import { VERDICTS } from '../shared/tag-constants.ts'
import type { Verdict } from '../shared/tag-constants.ts'
import { CallError } from './client.ts'
import { UsageError } from './settings.ts'

/** Verdicts that the broker accepts, as its configuration has them. */
export const ACCEPT_OPTION = [
  '--accept-verdicts <list>',
  'verdicts that the broker accepts, with commas',
  'exclusive',
] as const

/** The value of {@link ACCEPT_OPTION}. @throws UsageError */
export function readVerdicts(options: Readonly<Record<string, unknown>>): readonly Verdict[] {
  const words = String(options['acceptVerdicts']).split(',')
  const verdicts = VERDICTS.filter((verdict) => words.includes(verdict))
  if (verdicts.length !== words.length)
    throw new UsageError(`--accept-verdicts: expected some of ${VERDICTS.join(', ')}`)
  return verdicts
}

/** Reads policy files and folders. */
export async function loadPolicy(paths: readonly string[]): Promise<PolicySet | PolicyProblems> {
  try {
    return readPolicySet(await readPolicyFiles(paths))
  } catch (error) {
    return { problems: [messageOf(error)] }
  }
}

/** Reads policy files that must be without a problem. @throws CallError naming all of them */
export async function loadSoundPolicy(paths: readonly string[]): Promise<PolicySet> {
  const policy = await loadPolicy(paths)
  if ('problems' in policy) {
    throw new CallError(
      `the policy has problems (nestgate policy check): ${policy.problems.join('; ')}`,
    )
  }
  return policy
}
