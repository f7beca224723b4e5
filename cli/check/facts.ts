/** Asks a cluster everything that the checks look at. Reads, and dry-runs one pod in each namespace; changes nothing. */
import { z } from 'zod'
import { CallError } from '../client.ts'
import type { ClusterVersion } from '../kube/version.ts'
import { clusterVersion } from '../kube/version.ts'
import { isFailure } from '../kube/kubectl.ts'
import type { Answer, Failure, Kubectl } from '../kube/kubectl.ts'
import {
  budgetSchema,
  configMapSchema,
  limitRangeSchema,
  namespaceSchema,
  networkPolicySchema,
  nodeSchema,
  policyBindingSchema,
  policySchema,
  quotaSchema,
  roleBindingSchema,
  serviceAccountSchema,
  webhookConfigurationSchema,
  workloadSchema,
} from '../kube/objects.ts'
import type {
  LimitRange,
  NetworkPolicy,
  Quota,
  WebhookConfiguration,
  Workload,
} from '../kube/objects.ts'
import {
  DEFAULT_NAMESPACE,
  PART_OF,
  isKnown,
  readInstallations,
  secretAt,
} from '../kube/installation.ts'
import type { Installation } from '../kube/installation.ts'
import { readList, readOne, readPublicEntry, tokenSecrets } from '../kube/read.ts'
import type { Read } from '../kube/read.ts'
import type { Labels } from '../kube/selector.ts'
import { plainPod } from './dry-run.ts'
import { injectOf } from './labels.ts'

/** How many namespaces are asked about at once. */
const PARALLEL_NAMESPACES = 4
const OURS = ['-l', PART_OF.join('=')] as const
/** Labels by which namespaces take part begin so. */
const LABEL_PREFIX = 'nestgate.dev/'

/** A namespace that takes part, or that was asked about. */
export interface NamespaceFacts {
  readonly name: string
  readonly labels: Labels
  readonly networkPolicies: Read<readonly NetworkPolicy[]>
  readonly roleBindings: Read<readonly z.output<typeof roleBindingSchema>[]>
  readonly serviceAccounts: Read<readonly z.output<typeof serviceAccountSchema>[]>
  readonly tokenSecrets: Read<readonly string[]>
  readonly limitRanges: Read<readonly LimitRange[]>
  readonly quotas: Read<readonly Quota[]>
  readonly dryRun: Answer | Failure
}

/** A cluster. */
export interface ClusterFacts {
  readonly version: ClusterVersion
  readonly nodes: Read<readonly z.output<typeof nodeSchema>[]>
  readonly mutating: Read<readonly WebhookConfiguration[]>
  readonly validating: Read<readonly WebhookConfiguration[]>
  readonly policies: Read<readonly z.output<typeof policySchema>[]>
  readonly bindings: Read<readonly z.output<typeof policyBindingSchema>[]>
  /** ConfigMaps of ours, of which policies take parameters. */
  readonly configMaps: Read<readonly z.output<typeof configMapSchema>[]>
  readonly installations: readonly Installation[]
  /** Deployments and StatefulSets of ours. */
  readonly workloads: Read<readonly Workload[]>
  readonly budgets: Read<readonly z.output<typeof budgetSchema>[]>
  readonly daemonSets: Read<readonly Workload[]>
  readonly issuer: Read<string>
  /** The serving certificate of each installation, PEM, where it can be read. */
  readonly certificates: ReadonlyMap<string, string | undefined>
  readonly namespaces: readonly NamespaceFacts[]
}

/** What is in both lists, or why one is not known. */
function together<T>(first: Read<readonly T[]>, second: Read<readonly T[]>): Read<readonly T[]> {
  if (isFailure(first)) return first
  return isFailure(second) ? second : [...first, ...second]
}

/**
 * Asks. @throws CallError where the cluster cannot be reached at all
 *
 * @param wanted - namespaces to look at; empty: all with a label of ours
 */
export async function readFacts(
  kubectl: Kubectl,
  wanted: readonly string[],
): Promise<ClusterFacts> {
  const version = await clusterVersion(kubectl)
  const mutating = await readList(
    kubectl,
    webhookConfigurationSchema,
    'mutatingwebhookconfigurations',
  )
  const installations = isFailure(mutating) ? [] : await readInstallations(kubectl, mutating)
  const [deployments, statefulSets] = await Promise.all(
    ['deployments', 'statefulsets'].map((kind) =>
      readList(kubectl, workloadSchema, kind, '-A', ...OURS),
    ),
  )
  return {
    version,
    mutating,
    installations,
    ...(await readAdmission(kubectl)),
    nodes: await readList(kubectl, nodeSchema, 'nodes'),
    workloads: together(deployments ?? [], statefulSets ?? []),
    budgets: await readList(kubectl, budgetSchema, 'poddisruptionbudgets', '-A', ...OURS),
    daemonSets: await readList(kubectl, workloadSchema, 'daemonsets', '-A'),
    issuer: await readIssuer(kubectl),
    certificates: await readCertificates(kubectl, installations),
    namespaces: await readNamespaces(kubectl, wanted, installations),
  }
}

async function readAdmission(
  kubectl: Kubectl,
): Promise<Pick<ClusterFacts, 'validating' | 'policies' | 'bindings' | 'configMaps'>> {
  const policyKind = 'validatingadmissionpolicies.admissionregistration.k8s.io'
  const bindingKind = 'validatingadmissionpolicybindings.admissionregistration.k8s.io'
  const [validating, policies, bindings, configMaps] = await Promise.all([
    readList(kubectl, webhookConfigurationSchema, 'validatingwebhookconfigurations'),
    readList(kubectl, policySchema, policyKind, ...OURS),
    readList(kubectl, policyBindingSchema, bindingKind, ...OURS),
    readList(kubectl, configMapSchema, 'configmaps', '-A', ...OURS),
  ])
  return { validating, policies, bindings, configMaps }
}

async function readIssuer(kubectl: Kubectl): Promise<Read<string>> {
  const text = await kubectl.run(['get', '--raw', '/.well-known/openid-configuration'])
  if (isFailure(text)) return text
  try {
    return z.object({ issuer: z.string() }).parse(JSON.parse(text)).issuer
  } catch {
    return { failure: 'failed', said: 'no issuer came back' }
  }
}

async function readCertificates(
  kubectl: Kubectl,
  installations: readonly Installation[],
): Promise<ReadonlyMap<string, string | undefined>> {
  const certificates = new Map<string, string | undefined>()
  for (const { name, namespace, deployment, config } of installations) {
    if (deployment === undefined || !isKnown(config)) continue
    const { certFile } = config.tls
    const secret = secretAt(deployment, certFile.slice(0, certFile.lastIndexOf('/')))
    if (secret !== undefined)
      certificates.set(name, await readPublicEntry(kubectl, namespace, secret, 'tls.crt'))
  }
  return certificates
}

async function readNamespaces(
  kubectl: Kubectl,
  wanted: readonly string[],
  installations: readonly Installation[],
): Promise<readonly NamespaceFacts[]> {
  const queue = [...(await labelledNamespaces(kubectl, wanted))]
  const facts: NamespaceFacts[] = []
  const own = new Set([DEFAULT_NAMESPACE, ...installations.map(({ namespace }) => namespace)])
  const work = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      if (wanted.length > 0 || !own.has(next.name))
        facts.push(await readNamespace(kubectl, next, installations))
    }
  }
  await Promise.all(Array.from({ length: PARALLEL_NAMESPACES }, work))
  return facts.sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** Namespaces with a label of ours, or those that are wanted. @throws CallError where they cannot be read */
export async function labelledNamespaces(
  kubectl: Kubectl,
  wanted: readonly string[],
): Promise<readonly { readonly name: string; readonly labels: Labels }[]> {
  const found =
    wanted.length === 0
      ? await readList(kubectl, namespaceSchema, 'namespaces')
      : await readWanted(kubectl, wanted)
  if (isFailure(found)) throw new CallError(`namespaces cannot be read: ${found.said}`)
  return found
    .map(({ metadata: { name, labels } }) => ({ name, labels }))
    .filter(
      ({ labels }) =>
        wanted.length > 0 || Object.keys(labels).some((label) => label.startsWith(LABEL_PREFIX)),
    )
}

async function readWanted(
  kubectl: Kubectl,
  wanted: readonly string[],
): Promise<Read<readonly z.output<typeof namespaceSchema>[]>> {
  const found: z.output<typeof namespaceSchema>[] = []
  for (const name of wanted) {
    const one = await readOne(kubectl, namespaceSchema, 'namespace', name)
    if (isFailure(one)) return one
    found.push(one)
  }
  return found
}

async function readNamespace(
  kubectl: Kubectl,
  { name, labels }: { readonly name: string; readonly labels: Labels },
  installations: readonly Installation[],
): Promise<NamespaceFacts> {
  const here = ['-n', name] as const
  return {
    name,
    labels,
    networkPolicies: await readList(kubectl, networkPolicySchema, 'networkpolicies', ...here),
    roleBindings: await readList(kubectl, roleBindingSchema, 'rolebindings', ...here),
    serviceAccounts: await readList(kubectl, serviceAccountSchema, 'serviceaccounts', ...here),
    tokenSecrets: await tokenSecrets(kubectl, name),
    limitRanges: await readList(kubectl, limitRangeSchema, 'limitranges', ...here),
    quotas: await readList(kubectl, quotaSchema, 'resourcequotas', ...here),
    dryRun: await kubectl.json(['create', '--dry-run=server', ...here, '-f', '-'], {
      input: JSON.stringify(plainPod(injectOf(labels), imageOf(installations))),
    }),
  }
}

/** The image that nodes have anyway, and that policies on registries allow. */
function imageOf(installations: readonly Installation[]): string | undefined {
  const known = installations.map(({ config }) => config).find(isKnown)
  return known?.sidecar.image
}
