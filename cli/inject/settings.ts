/** By what settings pods are injected: those of a file, or those that a cluster's webhook has now. */
import { readFileSync } from 'node:fs'
import { ConfigError } from '../../shared/config.ts'
import { messageOf } from '../../shared/errors.ts'
import { loadCaCertificates } from '../../shared/injection/broker-authority.ts'
import { readWebhookConfig } from '../../shared/injection/config.ts'
import type { Config } from '../../shared/injection/config.ts'
import { injectionSettings } from '../../shared/injection/settings.ts'
import type { InjectionSettings, SidecarMode } from '../../shared/injection/sidecar-spec.ts'
import { CallError } from '../client.ts'
import { isKnown, readInstallations, settingsOf } from '../kube/installation.ts'
import type { Installation } from '../kube/installation.ts'
import { createKubectl, isFailure } from '../kube/kubectl.ts'
import type { ClusterOptions, Kubectl } from '../kube/kubectl.ts'
import { webhookConfigurationSchema } from '../kube/objects.ts'
import { readList } from '../kube/read.ts'
import { clusterVersion, modeOf } from '../kube/version.ts'
import { UsageError } from '../settings.ts'
import type { Environment } from '../settings.ts'

/** What the caller says of the settings, as commander reads it. */
export interface SettingsOptions extends ClusterOptions {
  readonly config?: string
  readonly image?: string
  readonly brokerCa?: string
  readonly revision?: string
  readonly mode?: SidecarMode
}

/**
 * The settings.
 *
 * @throws UsageError where a file is not usable or something is not said, CallError where the cluster does not tell
 */
export function readSettings(
  options: SettingsOptions,
  env: Environment,
): Promise<InjectionSettings> {
  return options.config === undefined
    ? settingsFromCluster(options, createKubectl(options, env))
    : settingsFromFile(options, options.config, env)
}

async function settingsFromFile(
  options: SettingsOptions,
  file: string,
  env: Environment,
): Promise<InjectionSettings> {
  const config = readConfigFile(options, file)
  const mode = options.mode ?? (await modeFrom(config, options, env))
  return injectionSettings(config, readAuthority(options, config.sidecar.brokerCaFile), mode)
}

function readAuthority({ brokerCa }: SettingsOptions, configured: string): string {
  const file = brokerCa ?? configured
  try {
    return loadCaCertificates(readFileSync(file, 'utf8'))
  } catch (error) {
    const hint = brokerCa === undefined ? ' (give --broker-ca)' : ''
    throw new UsageError(`${file}: ${messageOf(error)}${hint}`)
  }
}

/** The variables of this process are not those of the webhook: the same names mean the user's own broker. */
function readConfigFile({ image, brokerCa }: SettingsOptions, file: string): Config {
  try {
    return readWebhookConfig({
      argv: ['--config', file],
      env: {
        ...(image === undefined ? {} : { NESTGATE_SIDECAR_IMAGE: image }),
        ...(brokerCa === undefined ? {} : { NESTGATE_BROKER_CA_FILE: brokerCa }),
      },
    })
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    const needsImage = image === undefined && error.message.includes('sidecar.image')
    throw new UsageError(`--config: ${error.message}${needsImage ? ' (give --image)' : ''}`)
  }
}

/** With `auto` only the cluster knows, and beside a file it is asked only where the caller names one. */
async function modeFrom(
  config: Config,
  options: SettingsOptions,
  env: Environment,
): Promise<SidecarMode> {
  const { mode } = config.sidecar
  if (mode !== 'auto') return mode
  if (options.kubeconfig === undefined && options.context === undefined)
    throw new UsageError(
      'the configuration has sidecar.mode auto: give --mode native (API server 1.32 or later) or container, or a cluster to ask by --kubeconfig or --context',
    )
  return modeOf(await clusterVersion(createKubectl(options, env)))
}

async function settingsFromCluster(
  options: SettingsOptions,
  kubectl: Kubectl,
): Promise<InjectionSettings> {
  const mode = modeOf(await clusterVersion(kubectl))
  const configurations = await readList(
    kubectl,
    webhookConfigurationSchema,
    'mutatingwebhookconfigurations',
  )
  if (isFailure(configurations))
    throw new CallError(`webhook configurations cannot be read: ${configurations.said}`)
  const installation = choose(await readInstallations(kubectl, configurations), options.revision)
  const authority =
    options.brokerCa === undefined ? installation.brokerCa : readAuthority(options, '')
  if (authority === undefined)
    throw new CallError('the broker’s authority cannot be read from the cluster: give --broker-ca')
  const settings = settingsOf({ ...installation, brokerCa: authority }, mode)
  if (settings === undefined)
    throw new CallError('the webhook’s configuration cannot be read: give --config')
  const { image = settings.image, mode: wanted = settings.mode } = options
  return { ...settings, image, mode: wanted }
}

function choose(installations: readonly Installation[], revision = ''): Installation {
  const known = installations.filter(({ config }) => isKnown(config))
  const found = known.find(({ config }) => isKnown(config) && config.sidecar.revision === revision)
  if (found !== undefined) return found
  const problems = installations.flatMap(({ config }) => (isKnown(config) ? [] : config.problems))
  const why = problems.length === 0 ? '' : `: ${problems.join('; ')}`
  throw new CallError(
    `no webhook of revision "${revision}" can be read from the cluster (give --config, or --revision)${why}`,
  )
}
