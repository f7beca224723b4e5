/** Limits of a namespace that would refuse the sidecar, and so every pod. */
import type { Resources } from '../../shared/injection/sidecar-spec.ts'
import { quantityAmount } from '../../shared/injection/quantity.ts'
import { isFailure } from '../kube/kubectl.ts'
import type { LimitRange, Quota } from '../kube/objects.ts'
import type { NamespaceFacts } from './facts.ts'
import { checkNamed } from './finding.ts'
import type { Finding } from './finding.ts'

const check = checkNamed('resources')
const REMEDY = 'change it, or sidecar.resources of the webhook'

type Limit = LimitRange['spec']['limits'][number]

/** What of LimitRanges and ResourceQuotas the sidecar does not fit into. */
export function resourceFindings(
  { name, limitRanges, quotas }: NamespaceFacts,
  resources: Resources | undefined,
): readonly Finding[] {
  if (resources === undefined) return [check.unknown(name, 'the sidecar’s resources are not known')]
  const findings: Finding[] = []
  if (isFailure(limitRanges)) findings.push(check.unknown(name, limitRanges.said))
  if (isFailure(quotas)) findings.push(check.unknown(name, quotas.said))
  const ranges = isFailure(limitRanges) ? [] : limitRanges
  for (const { metadata, spec } of ranges) {
    for (const limit of spec.limits) {
      for (const problem of limitProblems(limit, resources))
        findings.push(check.fail(name, `LimitRange ${metadata.name}: ${problem}`, REMEDY))
    }
  }
  const defaults = ranges
    .flatMap(({ spec }) => spec.limits)
    .filter(({ type }) => type === 'Container')
  for (const quota of isFailure(quotas) ? [] : quotas)
    findings.push(...quotaFindings(name, quota, resources, defaults))
  if (findings.length > 0) return findings
  return [check.ok(name, 'no LimitRange or ResourceQuota refuses the sidecar')]
}

/** A Pod's limits hold for the sum: where the sidecar alone is too much, every pod is. */
function limitProblems(limit: Limit, { requests, limits }: Resources): readonly string[] {
  const { type, min, max, maxLimitRequestRatio } = limit
  const tooMuch = Object.entries(limits)
    .filter(([name, amount]) => isMore(amount, max[name]))
    .map(
      ([name, amount]) =>
        `the sidecar’s limit of ${amount} ${name} is above the most, ${max[name] ?? ''}`,
    )
  if (type === 'Pod') return tooMuch
  if (type !== 'Container') return []
  const tooLittle = Object.entries(requests)
    .filter(([name, amount]) => isMore(min[name], amount))
    .map(
      ([name, amount]) =>
        `the sidecar asks for ${amount} ${name}, and the least is ${min[name] ?? ''}`,
    )
  const tooFar = Object.entries(limits)
    .map(([name, amount]) => ({ name, ratio: ratioOf(amount, requests[name]) }))
    .filter(({ name, ratio }) => isMore(String(ratio), maxLimitRequestRatio[name]))
    .map(
      ({ name, ratio }) =>
        `the sidecar’s limit of ${name} is ${Math.round(ratio)} times what it asks for; allowed is ${maxLimitRequestRatio[name] ?? ''}`,
    )
  return [...tooMuch, ...tooLittle, ...tooFar]
}

function ratioOf(limit: string, request: string | undefined): number {
  return (quantityAmount(limit) ?? 0) / (quantityAmount(request) ?? Infinity)
}

function isMore(amount: string | undefined, limit: string | undefined): boolean {
  const first = quantityAmount(amount)
  const second = quantityAmount(limit)
  return first !== undefined && second !== undefined && first > second
}

function quotaFindings(
  namespace: string,
  quota: Quota,
  resources: Resources,
  defaults: readonly Limit[],
): readonly Finding[] {
  const { spec } = quota
  // a quota with scopes counts some pods only
  if (spec.scopes.length > 0 || (spec.scopeSelector ?? undefined) !== undefined) return []
  return Object.keys(spec.hard).flatMap((resource) => {
    const [kind, name] = placeOf(resource)
    if (kind === undefined) return []
    const amount = amountOf(resources[kind], name)
    if (amount !== undefined) return roomFindings(namespace, quota, resource, amount)
    if (defaults.some((limit) => hasDefault(limit, kind, name))) return []
    return [
      check.fail(
        namespace,
        `ResourceQuota ${quota.metadata.name}: every container must say ${resource}, and the sidecar does not`,
        'add a LimitRange with a default for it',
      ),
    ]
  })
}

function amountOf(amounts: Readonly<Record<string, string>>, name: string): string | undefined {
  return Object.hasOwn(amounts, name) ? amounts[name] : undefined
}

/** LimitRanger takes a default limit for a request that is not given. */
function hasDefault(limit: Limit, kind: 'requests' | 'limits', name: string): boolean {
  if (Object.hasOwn(limit.default, name)) return true
  return kind === 'requests' && Object.hasOwn(limit.defaultRequest, name)
}

function roomFindings(
  namespace: string,
  { metadata, spec, status }: Quota,
  resource: string,
  amount: string,
): readonly Finding[] {
  const hard = spec.hard[resource]
  const used = quantityAmount(status?.used[resource] ?? '0') ?? 0
  const wanted = used + (quantityAmount(amount) ?? 0)
  if (wanted <= (quantityAmount(hard) ?? Infinity)) return []
  return [
    check.warn(
      namespace,
      `ResourceQuota ${metadata.name}: of ${resource} ${hard ?? ''} there is no room for one more sidecar (${amount})`,
      'raise it, or remove pods',
    ),
  ]
}

/** `requests.cpu` and `cpu` are the same in a quota. */
function placeOf(
  resource: string,
): readonly ['requests' | 'limits', string] | readonly [undefined, undefined] {
  const [, kind, name] = /^(requests|limits)\.([a-z-]+)$/.exec(resource) ?? []
  if ((kind === 'requests' || kind === 'limits') && name !== undefined && name !== 'storage')
    return [kind, name]
  if (resource === 'cpu' || resource === 'memory' || resource === 'ephemeral-storage')
    return ['requests', resource]
  return [undefined, undefined]
}
