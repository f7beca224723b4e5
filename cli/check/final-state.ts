/** Whether the pod is checked as it ends up, after all webhooks, and what is done to it later. */
import { isFailure } from '../kube/kubectl.ts'
import { isKnown, isOurs, pathOf } from '../kube/installation.ts'
import type { ClusterFacts } from './facts.ts'
import { checkNamed } from './finding.ts'
import type { Finding } from './finding.ts'

/** First minor of Kubernetes 1 with admission policies. */
const POLICIES_MINOR = 30

/** The policy of new pods; the others of the chart come with it. */
const PODS_POLICY = 'nestgate-pods'

/** What the policies of an installation are called, but for its revision: each closes a way of its own. */
const POLICIES = [
  'nestgate-pods',
  'nestgate-running-pods',
  'nestgate-ephemeral-containers',
  'nestgate-sessions',
  'nestgate-token-secrets',
  'nestgate-token-requests',
  'nestgate-namespaces',
] as const

const check = checkNamed('final-state')

/** By policies from 1.30 on, by the validating webhook on older clusters; one of both is enough. */
export function finalStateFindings(facts: ClusterFacts): readonly Finding[] {
  const { validating, policies, version } = facts
  const byWebhook =
    !isFailure(validating) &&
    validating.some(
      (one) => isOurs(one) && one.webhooks.some((entry) => pathOf(entry) === '/validate'),
    )
  if (!isFailure(policies) && policies.some(({ metadata }) => isOfPods(metadata.name)))
    return policyFindings(facts)
  if (byWebhook) return [check.ok('validating webhook', 'checks pods as they end up')]
  if (isFailure(validating)) return [check.unknown('validating webhook', validating.said)]
  if (isFailure(policies) && policies.failure === 'forbidden')
    return [check.unknown('admission policies', policies.said)]
  return [
    check.fail(
      'final state',
      'nothing checks pods as they end up: another webhook, or who may change running pods, can undo what was done',
      version.minor >= POLICIES_MINOR
        ? 'install the admission policies (policies.enabled of the chart)'
        : 'install the validating webhook (finalState.webhook of the chart)',
    ),
  ]
}

/** With a revision the name has a suffix. `nestgate connect` has policies too, which look at the broker's own calls. */
function isOfPods(name: string): boolean {
  return name === PODS_POLICY || name.startsWith(`${PODS_POLICY}-`)
}

function policyFindings({
  policies,
  bindings,
  configMaps,
  installations,
}: ClusterFacts): readonly Finding[] {
  const known = isFailure(policies) ? [] : policies
  if (isFailure(bindings)) return [check.unknown('bindings', bindings.said)]
  const findings = known.flatMap(({ metadata: { name }, spec }) => {
    const bound = bindings.some(
      ({ spec: binding }) =>
        binding.policyName === name && binding.validationActions.includes('Deny'),
    )
    if (!bound)
      return [
        check.fail(name, 'no binding lets this policy deny anything', 'apply the manifests again'),
      ]
    if (spec.failurePolicy !== '' && spec.failurePolicy !== 'Fail')
      return [
        check.fail(name, `failurePolicy is ${spec.failurePolicy}`, 'apply the manifests again'),
      ]
    return []
  })
  findings.push(...missing(known.map(({ metadata }) => metadata.name)))
  const texts = JSON.stringify([known, isFailure(configMaps) ? [] : withoutSettings(configMaps)])
  for (const { name, config } of installations) {
    if (!isKnown(config) || mentions(texts, config.sidecar.image)) continue
    findings.push(
      check.fail(
        name,
        `the policies do not know the image that pods get, ${config.sidecar.image}`,
        'apply policies and webhook of one release: they refuse what they do not know',
      ),
    )
  }
  return findings.length > 0
    ? findings
    : [check.ok(`${known.length} policies`, 'are bound, deny, and know the image that pods get')]
}

function missing(names: readonly string[]): readonly Finding[] {
  return POLICIES.filter(
    (policy) => !names.some((name) => name === policy || name.startsWith(`${policy}-`)),
  ).map((policy) =>
    check.fail(
      policy,
      'this policy is not there, and nothing else checks what it does',
      'apply the manifests of this release again, all of them',
    ),
  )
}

function mentions(json: string, image: string): boolean {
  return json.includes(JSON.stringify(image).slice(1, -1))
}

/** Parameters only: the settings of the webhook name the image in any case. */
function withoutSettings(
  configMaps: readonly { readonly data: Readonly<Record<string, string>> }[],
): readonly object[] {
  return configMaps.filter(({ data }) => !('webhook.yaml' in data))
}
