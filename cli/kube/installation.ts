/** What of Nestgate is on a cluster: its webhooks, their Deployments, and the configuration that pods get now. */
import { parse } from 'yaml'
import { applyEnvironment, isRecord } from '../../shared/config-source.ts'
import { messageOf } from '../../shared/errors.ts'
import { loadCaCertificates } from '../../shared/injection/broker-authority.ts'
import { WEBHOOK_ENV, configSchema } from '../../shared/injection/config.ts'
import type { Config } from '../../shared/injection/config.ts'
import { injectionSettings } from '../../shared/injection/settings.ts'
import type { InjectionSettings, SidecarMode } from '../../shared/injection/sidecar-spec.ts'
import { isFailure } from './kubectl.ts'
import type { Kubectl } from './kubectl.ts'
import { configMapSchema, workloadSchema } from './objects.ts'
import type { WebhookConfiguration, WebhookEntry, Workload } from './objects.ts'
import { readList, readOne, readPublicEntry } from './read.ts'
import { selects } from './selector.ts'
import type { Labels } from './selector.ts'

/** Label of everything that Nestgate installs. */
export const PART_OF = ['app.kubernetes.io/part-of', 'nestgate'] as const
/** Where it is installed unless somebody chose otherwise. */
export const DEFAULT_NAMESPACE = 'nestgate-system'
/** Key of the ConfigMap with the webhook's configuration. */
const CONFIG_KEY = 'webhook.yaml'
/** What the webhook's container runs. */
const WEBHOOK_PROGRAM = '/app/webhook/main.js'

/** One webhook, with what it works by. */
export interface Installation {
  /** Name of its mutating configuration. */
  readonly name: string
  readonly namespace: string
  readonly mutating: WebhookConfiguration
  readonly deployment: Workload | undefined
  /** The configuration in force, or why it is not known. */
  readonly config: Config | { readonly problems: readonly string[] }
  /** Authority that sidecars get for the broker, PEM, where it can be read. */
  readonly brokerCa: string | undefined
}

/** Whether a webhook configuration is one of ours. */
export function isOurs({ metadata, webhooks }: WebhookConfiguration): boolean {
  return (
    metadata.labels[PART_OF[0]] === PART_OF[1] &&
    webhooks.some(({ name }) => name.endsWith('.nestgate.dev'))
  )
}

/** The path at which the API server asks a webhook: of a Service, or of a URL. */
export function pathOf({ clientConfig: { service, url } }: WebhookEntry): string {
  return service ? service.path : (URL.parse(url)?.pathname ?? '')
}

/** Whether the configuration in force is known. */
export function isKnown(config: Installation['config']): config is Config {
  return !('problems' in config)
}

/** The installations of a cluster, from all its mutating configurations. */
export async function readInstallations(
  kubectl: Kubectl,
  configurations: readonly WebhookConfiguration[],
): Promise<readonly Installation[]> {
  return Promise.all(
    configurations
      // the broker's own webhook (`nestgate connect`) changes no pods
      .filter((one) => isOurs(one) && one.webhooks.some(({ name }) => name.includes('pods.')))
      .map((mutating) => readInstallation(kubectl, mutating)),
  )
}

async function readInstallation(
  kubectl: Kubectl,
  mutating: WebhookConfiguration,
): Promise<Installation> {
  const service = mutating.webhooks[0]?.clientConfig.service
  const namespace = service?.namespace ?? DEFAULT_NAMESPACE
  const { name } = mutating.metadata
  const deployments = await readList(kubectl, workloadSchema, 'deployments', '-n', namespace)
  const deployment = isFailure(deployments)
    ? undefined
    : deployments.find(
        (one) => one.metadata.name === (service?.name ?? name) && webhookContainer(one),
      )
  if (deployment === undefined) {
    const problems = [`no Deployment ${service?.name ?? name} can be read in ${namespace}`]
    return { name, namespace, mutating, deployment, config: { problems }, brokerCa: undefined }
  }
  const config = await readConfiguration(kubectl, namespace, deployment)
  const brokerCa = isKnown(config)
    ? await readBrokerCa(kubectl, namespace, deployment, config)
    : undefined
  return { name, namespace, mutating, deployment, config, brokerCa }
}

function webhookContainer({
  spec,
}: Workload): Workload['spec']['template']['spec']['containers'][number] | undefined {
  return spec.template.spec.containers.find(({ command, args }) =>
    [...command, ...args].includes(WEBHOOK_PROGRAM),
  )
}

async function readConfiguration(
  kubectl: Kubectl,
  namespace: string,
  deployment: Workload,
): Promise<Installation['config']> {
  const container = webhookContainer(deployment)
  const { volumes } = deployment.spec.template.spec
  const names = volumes.flatMap(({ configMap }) =>
    configMap?.name === undefined ? [] : [configMap.name],
  )
  for (const name of names) {
    const map = await readOne(kubectl, configMapSchema, 'configmap', name, '-n', namespace)
    if (isFailure(map)) return { problems: [`ConfigMap ${name} cannot be read: ${map.said}`] }
    const text = map.data[CONFIG_KEY]
    if (text !== undefined) return parseConfiguration(text, variablesOf(container?.env ?? []))
  }
  return { problems: [`no ConfigMap of ${deployment.metadata.name} has ${CONFIG_KEY}`] }
}

function variablesOf(
  env: readonly { readonly name: string; readonly value?: string | null | undefined }[],
): Readonly<Record<string, string>> {
  return Object.fromEntries(
    env.flatMap(({ name, value }) => (typeof value === 'string' ? [[name, value]] : [])),
  )
}

/** The configuration that a webhook makes of its file and its variables. */
export function parseConfiguration(
  text: string,
  env: Readonly<Record<string, string>>,
): Installation['config'] {
  const problems: string[] = []
  let raw: Record<string, unknown> = {}
  try {
    const value: unknown = parse(text, { maxAliasCount: 0 })
    if (isRecord(value)) raw = value
    else problems.push(`${CONFIG_KEY}: expected a mapping of settings`)
  } catch (error) {
    problems.push(`${CONFIG_KEY}: ${messageOf(error)}`)
  }
  applyEnvironment(raw, WEBHOOK_ENV, env, problems)
  const result = configSchema.safeParse(raw)
  if (!result.success)
    problems.push(
      ...result.error.issues.map(
        ({ path, message }) => `${path.map(String).join('.')}: ${message}`,
      ),
    )
  return problems.length > 0 || result.data === undefined ? { problems } : result.data
}

/** The file of the authority is mounted from a Secret: its public entry. */
async function readBrokerCa(
  kubectl: Kubectl,
  namespace: string,
  deployment: Workload,
  config: Config,
): Promise<string | undefined> {
  const { brokerCaFile } = config.sidecar
  const secret = secretAt(deployment, brokerCaFile.slice(0, brokerCaFile.lastIndexOf('/')))
  if (secret === undefined || !brokerCaFile.endsWith('/ca.crt')) return undefined
  const text = await readPublicEntry(kubectl, namespace, secret, 'ca.crt')
  try {
    return text === undefined ? undefined : loadCaCertificates(text)
  } catch {
    return undefined
  }
}

/** Name of the Secret that the webhook has at a path. */
export function secretAt(deployment: Workload, folder: string): string | undefined {
  const mount = webhookContainer(deployment)?.volumeMounts.find(
    ({ mountPath }) => mountPath === folder,
  )
  const volume = deployment.spec.template.spec.volumes.find(({ name }) => name === mount?.name)
  return volume?.secret?.secretName
}

/**
 * The settings by which pods are injected now.
 *
 * @param mode - what `auto` means on this cluster
 * @param brokerCa - where the installation's own cannot be read
 */
export function settingsOf(
  { config, brokerCa: own }: Installation,
  mode: SidecarMode,
  brokerCa = '',
): InjectionSettings | undefined {
  if (!isKnown(config)) return undefined
  const form = config.sidecar.mode === 'auto' ? mode : config.sidecar.mode
  return injectionSettings(config, own ?? brokerCa, form)
}

/** The installation that takes a namespace with these labels, or undefined. */
export function installationFor(
  installations: readonly Installation[],
  labels: Labels,
): Installation | undefined {
  return installations.find(({ mutating }) =>
    mutating.webhooks.some(({ namespaceSelector }) => selects(namespaceSelector, labels)),
  )
}
