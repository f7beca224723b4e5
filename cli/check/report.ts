/** All checks in their order, and how they are printed. */
import { plain, toJson } from '../output.ts'
import type { OutputFormat } from '../settings.ts'
import { installationFor, isKnown, settingsOf } from '../kube/installation.ts'
import { isFailure } from '../kube/kubectl.ts'
import { modeOf } from '../kube/version.ts'
import { enforcementFindings, nodeFindings, versionFindings } from './cluster.ts'
import { dryRunFinding } from './dry-run.ts'
import type { ClusterFacts, NamespaceFacts } from './facts.ts'
import { finalStateFindings } from './final-state.ts'
import { checkNamed } from './finding.ts'
import type { Finding, Outcome } from './finding.ts'
import { injectorFindings } from './injectors.ts'
import {
  audienceFindings,
  certificateFindings,
  configurationFindings,
  partFindings,
  webhookFindings,
} from './installation.ts'
import { injectOf, labelFindings } from './labels.ts'
import {
  accountFindings,
  bindingFinding,
  podSecurityFinding,
  tokenSecretFinding,
} from './namespace.ts'
import { networkFindings } from './network.ts'
import { resourceFindings } from './resources.ts'

const MARKS: Readonly<Record<Outcome, string>> = {
  ok: 'ok',
  warn: 'warn',
  fail: 'FAIL',
  unknown: '?',
}
const MARK_WIDTH = 5

/** Runs every check. `now` in milliseconds since the epoch. */
export function runChecks(facts: ClusterFacts, now: number): readonly Finding[] {
  return [
    ...versionFindings(facts),
    ...nodeFindings(facts),
    ...partFindings(facts),
    ...webhookFindings(facts),
    ...certificateFindings(facts, now),
    ...configurationFindings(facts),
    ...audienceFindings(facts),
    ...finalStateFindings(facts),
    ...injectorFindings(facts),
    ...enforcementFindings(facts),
    ...(facts.namespaces.length === 0
      ? [
          checkNamed('labels').warn(
            'namespaces',
            'none is labelled: no pod is injected',
            'kubectl label namespace NAME nestgate.dev/inject=observe, then enabled',
          ),
        ]
      : facts.namespaces.flatMap((namespace) => namespaceFindings(namespace, facts))),
  ]
}

function namespaceFindings(namespace: NamespaceFacts, facts: ClusterFacts): readonly Finding[] {
  const { name, labels } = namespace
  const installation = installationFor(facts.installations, labels)
  const config = installation && isKnown(installation.config) ? installation.config : undefined
  const settings = installation && settingsOf(installation, modeOf(facts.version))
  const systems = [...new Set(facts.installations.map((one) => one.namespace))]
  const found = labelFindings(
    name,
    labels,
    isFailure(facts.mutating) ? undefined : facts.installations,
  )
  // pods of other namespaces are none of our business
  if (injectOf(labels) === undefined) return found
  const dryRun = dryRunFinding(name, labels, namespace.dryRun, settings)
  if (injectOf(labels) === 'observe') return [...found, dryRun]
  return [
    ...found,
    podSecurityFinding(namespace, config),
    ...networkFindings(name, namespace.networkPolicies, systems),
    bindingFinding(namespace),
    ...accountFindings(namespace, facts.version),
    tokenSecretFinding(namespace, facts.version),
    ...resourceFindings(namespace, config?.sidecar.resources),
    dryRun,
  ]
}

/** The report as it is printed. */
export function reportText(findings: readonly Finding[], format: OutputFormat): string {
  const count = (outcome: Outcome): number =>
    findings.filter((finding) => finding.outcome === outcome).length
  const counts = {
    ok: count('ok'),
    warn: count('warn'),
    fail: count('fail'),
    unknown: count('unknown'),
  }
  if (format === 'json') return toJson({ findings, counts })
  const width = Math.max(...findings.map(({ check }) => check.length))
  const lines = findings.map(({ outcome, check, about, said, remedy }) => {
    const how = remedy === undefined ? '' : `; ${remedy}`
    return plain(
      `${MARKS[outcome].padEnd(MARK_WIDTH)} ${check.padEnd(width)}  ${about}: ${said}${how}`,
    )
  })
  const sum = `${counts.ok} ok, ${counts.warn} warnings, ${counts.fail} failed, ${counts.unknown} not checked`
  return [...lines, '', sum].join('\n')
}
