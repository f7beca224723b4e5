/** The webhook's configuration file for a golden case, so that a real webhook and `nestgate inject` can run it. */
import type { InjectionSettings } from '../../shared/injection/sidecar-spec.ts'
import type { Json } from './pod-admission.ts'
import { SETTINGS } from './reviews.ts'

/** Where each setting of a review stands in the configuration file. */
const PLACES: Readonly<Record<string, string>> = {
  mode: 'sidecar.mode',
  image: 'sidecar.image',
  imagePullPolicy: 'sidecar.imagePullPolicy',
  brokerUrl: 'sidecar.brokerUrl',
  cluster: 'sidecar.cluster',
  brokerCaPem: '',
  resources: 'sidecar.resources',
  tokenExpirationSeconds: 'tokens.expirationSeconds',
  allowedProfiles: 'identity.profiles',
  posture: 'identity.posture',
  dropNetRaw: 'identity.dropNetRaw',
  apiAudiences: 'tokens.apiAudiences',
  allowedAudiences: 'tokens.allowedAudiences',
  allowedSigners: 'volumes.allowedSigners',
  allowedCsiDrivers: 'volumes.allowedCsiDrivers',
  ledgerKeys: 'sidecar.ledgerKeys',
  revision: 'sidecar.revision',
}

/** Files that a configuration names. */
export interface ConfigFiles {
  readonly certFile: string
  readonly keyFile: string
  readonly brokerCaFile: string
}

/** The configuration with these settings, which may lack some; the CA is that of the files. */
export function configOf(settings: Partial<InjectionSettings>, files: ConfigFiles): Json {
  const { certFile, keyFile, brokerCaFile } = files
  const config: Record<string, Json> = {
    listen: { host: '127.0.0.1', port: 0 },
    tls: { certFile, keyFile },
    sidecar: { brokerCaFile },
  }
  for (const [name, value] of Object.entries({ ...SETTINGS, ...settings })) {
    const place = PLACES[name]
    if (place === undefined) throw new Error(`say in golden-config.ts where ${name} stands`)
    if (place === '') continue
    const [section = '', key = ''] = place.split('.')
    ;(config[section] ??= {})[key] = value
  }
  return config
}
