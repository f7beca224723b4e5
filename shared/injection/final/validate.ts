/**
 * The final state, for clusters without ValidatingAdmissionPolicies: what was stored, or is done to it later, leaves no way round
 * the injector. Pure, as `../review.ts`: bytes and settings in, an answer out. The policies of the chart say the same in CEL; the
 * cases of test/support/final-cases.ts go through both.
 */
import { isRefusal, refuse } from '../../reasons.ts'
import type { Refusal } from '../../reasons.ts'
import type { Reviewed } from '../review.ts'
import type { InjectionSettings, WantedLevel } from '../sidecar-spec.ts'
import { isForwarded, judgeEntered, judgePortForward } from './connected.ts'
import { judgeCreated } from './created.ts'
import { judgeEphemeral } from './ephemeral.ts'
import { judgeNamespace, judgeSecretCreated, judgeSecretUpdated } from './objects.ts'
import { allow, decodeRequest, deny } from './request.ts'
import type { FinalRequest } from './request.ts'
import { judgeTokenRequest } from './token-requests.ts'
import { judgeUpdated } from './updated.ts'

/** Who may do what the final state refuses, but for the pods themselves; the operator's `exempt`. */
export interface Exempt {
  readonly users: readonly string[]
  readonly groups: readonly string[]
}

type Rule = (request: FinalRequest, settings: InjectionSettings) => Refusal | undefined

/** Nobody is exempt from these: a pod with a way round the injector is one for everybody who reaches it. */
const BINDING: Readonly<Record<string, Rule>> = {
  'UPDATE pods': judgeUpdated,
  'UPDATE pods/ephemeralcontainers': judgeEphemeral,
}

/** From these, `exempt` exempts; from entering the sidecar not where the broker forwards: see `isExempt`. */
const BYPASSABLE: Readonly<Record<string, Rule>> = {
  'CONNECT pods/exec': judgeEntered,
  'CONNECT pods/attach': judgeEntered,
  'CONNECT pods/portforward': judgePortForward,
  'CREATE secrets': judgeSecretCreated,
  'UPDATE secrets': judgeSecretUpdated,
  'CREATE serviceaccounts/token': judgeTokenRequest,
  'UPDATE namespaces': judgeNamespace,
  // The strategies of both keep what was written of the labels (kubernetes, pkg/registry/core/namespace).
  'UPDATE namespaces/status': judgeNamespace,
  'UPDATE namespaces/finalize': judgeNamespace,
}

/**
 * Judges one request.
 *
 * @param body - an AdmissionReview as UTF-8 JSON
 * @param level - what the namespace wants, where the path of the review says so; see `judgeCreated`
 * @returns the answer, or a refusal where `body` is no review that the final state is asked about
 * @throws Fault `patch_invalid` as `reviewPod` does
 */
export function validate(
  body: Uint8Array,
  settings: InjectionSettings,
  exempt: Exempt,
  level?: WantedLevel,
): Reviewed | Refusal {
  const request = decodeRequest(body)
  if (isRefusal(request)) return request
  const judged =
    request.what === 'CREATE pods'
      ? judgeCreated(request, body, settings, level)
      : judge(request, settings, exempt)
  if (judged === undefined) return allow(request)
  if (!isRefusal(judged)) return judged
  return judged.refused === 'review_invalid' ? judged : deny(request, judged)
}

function judge(
  request: FinalRequest,
  settings: InjectionSettings,
  exempt: Exempt,
): Refusal | undefined {
  const binding = ruleOf(BINDING, request)
  if (binding !== undefined) return binding(request, settings)
  const rule = ruleOf(BYPASSABLE, request)
  if (rule === undefined) return refuse('review_invalid', 'nothing is judged of such a request')
  const refusal = rule(request, settings)
  return refusal !== undefined && isExempt(request, exempt) ? invalidOnly(refusal) : refusal
}

function ruleOf(rules: Readonly<Record<string, Rule>>, { what }: FinalRequest): Rule | undefined {
  return Object.hasOwn(rules, what) ? rules[what] : undefined
}

function invalidOnly(refusal: Refusal): Refusal | undefined {
  return refusal.refused === 'review_invalid' ? refusal : undefined
}

/** The broker lets nobody enter a sidecar, whoever it speaks for. */
function isExempt({ what, caller }: FinalRequest, { users, groups }: Exempt): boolean {
  if (BYPASSABLE[what] === judgeEntered && isForwarded(caller)) return false
  return users.includes(caller.username) || caller.groups.some((group) => groups.includes(group))
}
