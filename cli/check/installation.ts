/** Our own parts: whether they run, with what configuration, and whether the API server asks them. */
import { isFailure } from '../kube/kubectl.ts'
import { isKnown, pathOf } from '../kube/installation.ts'
import type { Installation } from '../kube/installation.ts'
import type { WebhookEntry, Workload } from '../kube/objects.ts'
import { selects } from '../kube/selector.ts'
import { certificateProblems } from '../certificates-problems.ts'
import type { ClusterFacts } from './facts.ts'
import { checkNamed } from './finding.ts'
import type { Finding } from './finding.ts'

/** Fewest replicas that a node may go without. */
const MIN_REPLICAS = 2
/** Days that should be left to a certificate, and to its authority. */
const WARN_DAYS = 30

const parts = checkNamed('parts')
const webhooks = checkNamed('webhook')
const certificates = checkNamed('certificate')
const configuration = checkNamed('configuration')
const audiences = checkNamed('api-audiences')

/** Whether Deployments and StatefulSets are ready, and stay so while a node is drained. */
export function partFindings({ workloads, budgets }: ClusterFacts): readonly Finding[] {
  if (isFailure(workloads)) return [parts.unknown('workloads', workloads.said)]
  if (workloads.length === 0)
    return [
      parts.fail('workloads', 'nothing of Nestgate runs here', 'install it (docs/installation.md)'),
    ]
  return workloads.flatMap((workload) => [
    readiness(workload),
    ...(isWebhook(workload) ? availability(workload, budgets) : []),
  ])
}

function isWebhook({ metadata, kind }: Workload): boolean {
  return kind === 'Deployment' && metadata.name.startsWith('nestgate-webhook')
}

function titleOf({ kind, metadata }: Workload): string {
  return `${kind} ${metadata.namespace}/${metadata.name}`
}

function readiness(workload: Workload): Finding {
  const wanted = workload.spec.replicas ?? 1
  const ready = workload.status?.readyReplicas ?? 0
  const title = titleOf(workload)
  if (ready >= wanted && wanted > 0) return parts.ok(title, `${ready} of ${wanted} ready`)
  const { namespace, name } = workload.metadata
  return parts.fail(
    title,
    `${ready} of ${wanted} ready`,
    `kubectl -n ${namespace} describe ${workload.kind.toLowerCase()} ${name}`,
  )
}

/** Without a webhook no pod starts in a labelled namespace. */
function availability(workload: Workload, budgets: ClusterFacts['budgets']): readonly Finding[] {
  const title = titleOf(workload)
  if ((workload.spec.replicas ?? 1) < MIN_REPLICAS)
    return [
      parts.warn(
        title,
        'has one replica: no pod starts while it is away',
        `run ${MIN_REPLICAS} or more`,
      ),
    ]
  if (isFailure(budgets)) return [parts.unknown(title, budgets.said)]
  const labels = workload.spec.template.metadata?.labels ?? {}
  const kept = budgets.some(
    ({ metadata, spec }) =>
      metadata.namespace === workload.metadata.namespace && selects(spec.selector, labels),
  )
  if (kept) return [parts.ok(title, 'a PodDisruptionBudget keeps it while nodes are drained')]
  return [
    parts.warn(
      title,
      'no PodDisruptionBudget keeps it while nodes are drained',
      'add one with minAvailable: 1',
    ),
  ]
}

/** Whether the API server asks the webhook, and takes no pod where it cannot. */
export function webhookFindings({ mutating, installations }: ClusterFacts): readonly Finding[] {
  if (isFailure(mutating)) return [webhooks.unknown('mutating webhooks', mutating.said)]
  if (installations.length === 0)
    return [
      webhooks.fail(
        'mutating webhooks',
        'no configuration of Nestgate is there: nothing is injected',
        'install it (docs/installation.md)',
      ),
    ]
  return installations.flatMap(({ name, mutating: { webhooks: entries } }) => {
    const problems = entries.flatMap((entry) => entryProblems(name, entry))
    return problems.length > 0
      ? problems
      : [
          webhooks.ok(
            name,
            `${entries.length} webhooks, fail closed, called again when pods change`,
          ),
        ]
  })
}

function entryProblems(name: string, entry: WebhookEntry): readonly Finding[] {
  const { clientConfig, failurePolicy, reinvocationPolicy, rules } = entry
  const about = `${name}: ${entry.name}`
  const observes = pathOf(entry).startsWith('/observe')
  const findings: Finding[] = []
  const problem = (said: string): void => {
    findings.push(webhooks.fail(about, said, 'apply the manifests again'))
  }
  if (failurePolicy !== 'Fail' && !observes)
    problem(`failurePolicy is ${failurePolicy}: pods get through with their token when it is away`)
  if (reinvocationPolicy !== 'IfNeeded')
    problem(
      `reinvocationPolicy is ${reinvocationPolicy || 'Never'}: what other webhooks add is not seen`,
    )
  if (!rules.some((rule) => rule.resources.includes('pods') && rule.operations.includes('CREATE')))
    problem('it is not asked about new pods')
  if (clientConfig.caBundle === '')
    findings.push(
      webhooks.fail(
        about,
        'it has no caBundle: the API server believes its certificate only if its own machine does',
        'see who should put it in: the certificates Deployment, cert-manager, or the values of the chart',
      ),
    )
  return findings
}

/** Whether the API server will believe the webhook’s certificate, and how long. */
export function certificateFindings(facts: ClusterFacts, now: number): readonly Finding[] {
  return facts.installations.map((installation) =>
    certificateFinding(installation, facts.certificates.get(installation.name), now),
  )
}

function certificateFinding(
  { name, mutating }: Installation,
  pem: string | undefined,
  now: number,
): Finding {
  if (pem === undefined)
    return certificates.unknown(
      name,
      'its certificate cannot be read: neither authority nor expiry was checked',
    )
  const renew = 'nestgate certificates renew, or see why its keeper does not'
  const problems = mutating.webhooks.flatMap(({ clientConfig }) => {
    const { service, url, caBundle } = clientConfig
    if (caBundle === '') return []
    const host = service
      ? `${service.name}.${service.namespace}.svc`
      : (URL.parse(url)?.hostname ?? name)
    const trusted = { 'the caBundle': Buffer.from(caBundle, 'base64').toString() }
    const limits = { leafDays: WARN_DAYS, authorityDays: WARN_DAYS }
    return certificateProblems({ name, chain: pem, trusted, hosts: [host] }, now, limits)
  })
  const error = problems.find(({ severity }) => severity === 'error')
  if (error !== undefined) return certificates.fail(name, error.text, renew)
  const [warning] = problems
  if (warning !== undefined) return certificates.warn(name, warning.text, renew)
  return certificates.ok(
    name,
    `its certificate is of the caBundle, and good for ${WARN_DAYS} days and more`,
  )
}

/** Whether the webhook can read its configuration. */
export function configurationFindings({ installations }: ClusterFacts): readonly Finding[] {
  return installations.map(({ name, config }) =>
    isKnown(config)
      ? configuration.ok(name, `sidecars are ${config.sidecar.image}`)
      : configuration.fail(
          name,
          config.problems.join('; '),
          'correct webhook.yaml (docs/configuration.md), and restart the webhook',
        ),
  )
}

/** A token for an audience of the API server that the webhook does not know as such could stay in a pod. */
export function audienceFindings({ installations, issuer }: ClusterFacts): readonly Finding[] {
  return installations
    .map(({ name, config }) => ({ name, tokens: isKnown(config) ? config.tokens : undefined }))
    .flatMap(({ name, tokens }) => {
      if (tokens === undefined) return []
      if (isFailure(issuer))
        return [audiences.unknown(name, `the cluster’s issuer: ${issuer.said}`)]
      if (tokens.apiAudiences.includes(issuer))
        return [audiences.ok(name, `the issuer ${issuer} is among tokens.apiAudiences`)]
      return [
        audiences.fail(
          name,
          `the API server accepts tokens for its issuer ${issuer}, which is not among tokens.apiAudiences`,
          'add it there, with all of --api-audiences',
        ),
      ]
    })
}
