/** `nestgate audit-pods`: which running pods of labelled namespaces are older than the label, or than the webhook. Reads only. */
import { z } from 'zod'
import type { Command } from 'commander'
import { auditPods, secretFindings } from './audit-pods/audit.ts'
import type { AuditedNamespace, AuditFinding } from './audit-pods/audit.ts'
import { auditText, FORMS } from './audit-pods/report.ts'
import type { Audited, Form } from './audit-pods/report.ts'
import { labelledNamespaces } from './check/facts.ts'
import { injectOf } from './check/labels.ts'
import { CallError } from './client.ts'
import { installationFor, readInstallations, settingsOf } from './kube/installation.ts'
import { addClusterOptions, createKubectl, isFailure } from './kube/kubectl.ts'
import type { ClusterOptions, Kubectl } from './kube/kubectl.ts'
import { webhookConfigurationSchema } from './kube/objects.ts'
import { readList, tokenSecrets } from './kube/read.ts'
import { withoutControllers } from './kube/token-secrets.ts'
import { clusterVersion, modeOf } from './kube/version.ts'
import type { ClusterVersion } from './kube/version.ts'
import type { Runner } from './program.ts'
import { UsageError } from './settings.ts'
import type { Environment } from './settings.ts'

interface Options extends ClusterOptions {
  readonly namespace?: readonly string[]
  readonly allNamespaces?: boolean
}

/** Adds the command. It ends with 1 where something was found, or could not be looked at. */
export function addAuditPods(
  program: Command,
  runner: Runner,
  deps: { readonly env: Environment },
): void {
  const command = program
    .command('audit-pods')
    .description('list running pods of labelled namespaces that were not made as they would be now')
    .option('-n, --namespace <name...>', 'namespaces to look at')
    .option('-A, --all-namespaces', 'all labelled namespaces (the default)')
  addClusterOptions(command).action(async (options: Options) => {
    const form = formOf(runner.output())
    if (options.allNamespaces === true && options.namespace !== undefined)
      throw new UsageError('--all-namespaces and --namespace exclude each other')
    const audited = await audit(createKubectl(options, deps.env), options.namespace ?? [])
    if (audited.findings.length > 0 || audited.unread.length > 0) runner.fail()
    runner.print(auditText(audited, form))
  })
}

function formOf(output: string | undefined): Form {
  const form = FORMS.find((name) => name === (output ?? 'table'))
  if (form === undefined) throw new UsageError(`--output: expected one of ${FORMS.join(', ')}`)
  return form
}

async function audit(kubectl: Kubectl, wanted: readonly string[]): Promise<Audited> {
  const version = await clusterVersion(kubectl)
  const namespaces = await audited(kubectl, wanted, version)
  const findings: AuditFinding[] = []
  const unread: string[] = []
  let count = 0
  for (const namespace of namespaces) {
    const { name } = namespace
    const pods = await readList(kubectl, z.unknown(), 'pods', '-n', name)
    const secrets = await tokenSecrets(kubectl, name)
    if (isFailure(pods)) unread.push(`pods of ${name}: ${pods.said}`)
    else findings.push(...auditPods(namespace, pods))
    if (isFailure(secrets)) unread.push(`Secrets of ${name}: ${secrets.said}`)
    else findings.push(...secretFindings(name, withoutControllers(secrets, version)))
    if (namespace.settings === undefined)
      unread.push(
        `pods of ${name}: no configuration of a webhook that takes them is known (nestgate check)`,
      )
    count += isFailure(pods) ? 0 : pods.length
  }
  return { findings, unread, namespaces: namespaces.length, pods: count }
}

/** The namespaces, each with how its pods are injected now. */
async function audited(
  kubectl: Kubectl,
  wanted: readonly string[],
  version: ClusterVersion,
): Promise<readonly AuditedNamespace[]> {
  const configurations = await readList(
    kubectl,
    webhookConfigurationSchema,
    'mutatingwebhookconfigurations',
  )
  if (isFailure(configurations))
    throw new CallError(`webhook configurations cannot be read: ${configurations.said}`)
  const installations = await readInstallations(kubectl, configurations)
  const namespaces = await labelledNamespaces(kubectl, wanted)
  return namespaces
    .filter(({ labels }) => injectOf(labels) !== undefined)
    .map(({ name, labels }) => {
      const installation = installationFor(installations, labels)
      return { name, labels, settings: installation && settingsOf(installation, modeOf(version)) }
    })
}
