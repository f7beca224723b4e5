/** From the operator's configuration to what one review needs to know: the same for the webhook and for `nestgate inject`. */
import type { Config } from './config.ts'
import type { InjectionSettings, SidecarMode } from './sidecar-spec.ts'

/**
 * The settings of a review.
 *
 * @param brokerCaPem - what `loadCaCertificates` made of the file that the configuration names
 * @param mode - as configured, or as learnt from the cluster where that is `auto`
 */
export function injectionSettings(
  config: Config,
  brokerCaPem: string,
  mode: SidecarMode,
): InjectionSettings {
  const { image, imagePullPolicy, brokerUrl, cluster, resources } = config.sidecar
  return {
    mode,
    image,
    imagePullPolicy,
    brokerUrl,
    cluster,
    brokerCaPem,
    resources: { requests: { ...resources.requests }, limits: { ...resources.limits } },
    allowedProfiles: config.identity.profiles,
    posture: config.identity.posture,
    dropNetRaw: config.identity.dropNetRaw,
    tokenExpirationSeconds: config.tokens.expirationSeconds,
    apiAudiences: config.tokens.apiAudiences,
    allowedAudiences: config.tokens.allowedAudiences,
    allowedSigners: config.volumes.allowedSigners,
    allowedCsiDrivers: config.volumes.allowedCsiDrivers,
    ledgerKeys: config.sidecar.ledgerKeys,
    revision: config.sidecar.revision,
  }
}
