/** Runs the examples of a policy: what must be allowed, held, denied, and what comes of it. */
import { readCase } from './case.ts'
import { createDecider } from './decide.ts'
import type { DeciderOptions } from './decide.ts'
import type { Effect, Obligations } from './decision.ts'
import { showsAll } from './mask-profiles.ts'
import { NO_PROFILE } from './masking.ts'
import type { Example, PolicySet } from './policy-set.ts'

/** What came of an example. */
export interface ExampleResult {
  readonly example: Example
  readonly passed: boolean
  /** Undefined where the example is no request. */
  readonly effect?: Effect
  readonly rules: readonly string[]
  /** Names of the masking profiles that hold; `none` where everything is shown. */
  readonly masks: readonly string[]
  /** The decision's sentence, or what is wrong. */
  readonly explanation: string
}

/** Runs all examples. Each is decided by all rules, not only those of its file. */
export function runExamples(policy: PolicySet, options: DeciderOptions): readonly ExampleResult[] {
  const decider = createDecider(policy, options)
  const ids = new Set(policy.rules.map(({ id }) => id))
  return policy.examples.map((example): ExampleResult => {
    const facts = readCase(example.case)
    if ('problem' in facts) {
      return { example, passed: false, rules: [], masks: [], explanation: facts.problem }
    }
    const { effect, rules, explanation, obligations } = decider.decide(facts)
    const { rule, mask } = example.case
    const masks = profilesOf(obligations)
    if (rule !== undefined && !ids.has(rule))
      return {
        example,
        passed: false,
        effect,
        rules,
        masks,
        explanation: `there is no rule ${rule}`,
      }
    const passed =
      effect === example.expected &&
      (rule === undefined || rules.includes(rule)) &&
      (mask === undefined || masks.includes(mask))
    return { example, passed, effect, rules, masks, explanation }
  })
}

/** As an example says them; none of what does not go ahead, or has nothing to hide. */
function profilesOf({ mask }: Obligations): readonly string[] {
  if (mask === undefined) return []
  return showsAll(mask) ? [NO_PROFILE] : mask.profiles
}
