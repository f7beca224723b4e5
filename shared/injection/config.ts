/**
 * The webhook's configuration: one YAML file, overridden by `NESTGATE_` variables. All of it is the
 * operator's; a pod's author can change none of it.
 */
import { z } from 'zod'
import { BROKER_AUDIENCE } from '../agent-tag.ts'
import { integer, port, readConfig } from '../config.ts'
import type { ConfigSource, EnvTable } from '../config.ts'
import { LOG_LEVELS } from '../log.ts'
import { MAX_FILE_WAIT_S } from '../watched-files.ts'
import { QUANTITY } from './quantity.ts'
import { PROFILES } from './sidecar-spec.ts'

/** Shortest life of a projected token that the API server accepts, in seconds. */
const MIN_TOKEN_LIFE_S = 600
/** Longest life of a projected token that the API server accepts, in seconds. */
const MAX_TOKEN_LIFE_S = 2 ** 32

/** Most ledger keys of one sidecar: the present one, and those of a change of keys. */
const MAX_LEDGER_KEYS = 8

const file = z.string().min(1)
/** A verifier key of a signed note: NAME+HASH+KEY, without spaces. */
const vkey = z
  .string()
  .regex(/^[^+\s]+\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+$/, 'expected a verifier key, NAME+HASH+KEY')
const httpsUrl = z.url({ protocol: /^https$/, error: 'expected an https URL' })
const amount = z.string().regex(QUANTITY, 'expected a quantity, such as 100m or 64Mi')
const requestsSchema = z.strictObject({
  cpu: amount.default('10m'),
  memory: amount.default('64Mi'),
})
const limitsSchema = z.strictObject({
  cpu: amount.default('500m'),
  memory: amount.default('192Mi'),
})

const listenSchema = z.strictObject({
  /** Address to listen on. Default: all. */
  host: z.string().min(1).default('0.0.0.0'),
  /** Default 9443. 0 takes any free port. */
  port: port.default(9443),
})

/** Both files are read again when they change. */
const tlsSchema = z.strictObject({
  /** PEM file of the serving certificate and its chain. */
  certFile: file,
  /** PEM file of the certificate's private key. */
  keyFile: file,
  /** How long to wait at start for these files and `sidecar.brokerCaFile` where they are missing or empty, in seconds. Default 0. */
  waitSeconds: integer(0, MAX_FILE_WAIT_S).optional(),
})

const sidecarSchema = z.strictObject({
  /** Image of the sidecar, best by digest. */
  image: z.string().min(1),
  /** Pull policy of that image. Default `IfNotPresent`. */
  imagePullPolicy: z.enum(['IfNotPresent', 'Always', 'Never']).default('IfNotPresent'),
  /**
   * `native`: an init container that keeps running, for clusters whose nodes are all 1.29 or later;
   * `container`: the first ordinary container, for older ones. Default
   * `auto`: native where the API server is 1.32 or later, so that no supported node is too old for it.
   */
  mode: z.enum(['native', 'container', 'auto']).default('auto'),
  /** Base URL of the broker, as pods reach it. */
  brokerUrl: httpsUrl,
  /** Name under which the broker knows this cluster. */
  cluster: z.string().regex(/^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$/, 'expected a lower-case name'),
  /** PEM file of the CA certificates that sidecars trust for the broker, and nothing but certificates. Read again when it changes. */
  brokerCaFile: file,
  /**
   * Keys of the broker's ledger, as `nestgate ledger keys` prints them: a sidecar that has them believes no other from
   * the start. Default: none, and each sidecar believes the keys that it is told first.
   */
  ledgerKeys: z.array(vkey).max(MAX_LEDGER_KEYS).default([]),
  /** Name of this installation where several stand side by side; in the status annotation. */
  revision: z
    .string()
    .regex(/^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$/, 'expected a DNS label')
    .default(''),
  /** The sidecar's resources; always set, because quotas refuse pods without. */
  resources: z
    .strictObject({ requests: requestsSchema.prefault({}), limits: limitsSchema.prefault({}) })
    .prefault({}),
})

/** How callers are told apart; see docs/configuration.md, "Identity profiles". */
const identitySchema = z.strictObject({
  /**
   * Profiles that pods may get. R: process level for pods that run as one user; P: process level for all others, by a
   * sidecar with two capabilities; C: container level. Default: all.
   */
  profiles: z
    .array(z.enum(PROFILES))
    .min(1)
    .default([...PROFILES]),
  /** What neighbours of a sidecar mean that could speak for others. Default `degrade`. */
  posture: z.enum(['refuse', 'degrade', 'report']).default('degrade'),
  /**
   * Whether `NET_RAW`, which container runtimes give to root by default, is taken from containers that do not add it:
   * with it, a container could read and forge what others say on the loopback. Default true.
   */
  dropNetRaw: z.stringbool().or(z.boolean()).default(true),
})

const tokensSchema = z.strictObject({
  /**
   * Audiences that this cluster's API server accepts (its `--api-audiences`, else its issuer). Volumes with a
   * token for one of them are removed from pods; managed clusters have issuers of their own: add yours.
   */
  apiAudiences: z
    .array(z.string().min(1))
    .min(1)
    .default([
      'https://kubernetes.default.svc',
      'https://kubernetes.default.svc.cluster.local',
      'https://kubernetes.default',
      'kubernetes.default.svc',
      'kubernetes.default.svc.cluster.local',
      'kubernetes.default',
    ])
    .refine((list) => !list.includes(BROKER_AUDIENCE), `must not hold ${BROKER_AUDIENCE}`),
  /**
   * Other audiences for which pods may project tokens of their own, such as `sts.amazonaws.com` or `istio-ca`. Default:
   * none. A cloud's identity can be good for the cluster's API as well: pods that use one are warned.
   */
  allowedAudiences: z
    .array(z.string().min(1))
    .default([])
    .refine((list) => !list.includes(BROKER_AUDIENCE), `must not hold ${BROKER_AUDIENCE}`),
  /** Life of the sidecar's token, in seconds; the kubelet renews it in time. Default 3600. */
  expirationSeconds: integer(MIN_TOKEN_LIFE_S, MAX_TOKEN_LIFE_S).default(3600),
})

/** Volumes that pods may have though they can bring credentials. */
const volumesSchema = z.strictObject({
  /** Signers of `podCertificate` projections. Default: none; `kubernetes.io/` signers never. */
  allowedSigners: z
    .array(
      z
        .string()
        .regex(/^(?!kubernetes\.io\/)[^/]+\/.+$/, 'expected DOMAIN/NAME, not of kubernetes.io'),
    )
    .default([]),
  /** Drivers of inline `csi` volumes. Default: none. */
  allowedCsiDrivers: z.array(z.string().min(1)).default([]),
})

/** Who is exempt from what the validating webhook refuses; with admission policies RBAC says it (docs/final-state.md). */
const exemptSchema = z.strictObject({
  users: z.array(z.string().min(1)).default([]),
  /** Default `system:masters`. */
  groups: z.array(z.string().min(1)).default(['system:masters']),
})

/** Events on the owners of pods: that they are injected, or would be refused where it is only observed. */
const eventsSchema = z.strictObject({
  /** Whether they are written; the webhook's service account needs the right to create them. Default false. */
  enabled: z.stringbool().or(z.boolean()).default(false),
})

/** How to reach the API server: for its version, with mode `auto`, and for events. */
const kubernetesSchema = z.strictObject({
  /** Base URL of the API server. */
  server: httpsUrl.default('https://kubernetes.default.svc'),
  /** PEM file of its CA. */
  caFile: file.default('/var/run/secrets/kubernetes.io/serviceaccount/ca.crt'),
  /** File with a token for it; needs no rights beyond discovery. */
  tokenFile: file.default('/var/run/secrets/kubernetes.io/serviceaccount/token'),
})

const logSchema = z.strictObject({
  /** Default `info`: one line for each review. */
  level: z.enum(LOG_LEVELS).default('info'),
})

/** The configuration file of the webhook. */
export const configSchema = z.strictObject({
  /** Where to listen. */
  listen: listenSchema.prefault({}),
  /** The serving certificate. */
  tls: tlsSchema,
  /** What is injected. */
  sidecar: sidecarSchema,
  /** How callers are told apart. */
  identity: identitySchema.prefault({}),
  /** Which tokens go, and how long ours lives. */
  tokens: tokensSchema.prefault({}),
  /** Volumes that can bring credentials. */
  volumes: volumesSchema.prefault({}),
  /** Who may do what the validating webhook refuses. */
  exempt: exemptSchema.prefault({}),
  /** Events on owners. */
  events: eventsSchema.prefault({}),
  /** The cluster's API server. */
  kubernetes: kubernetesSchema.prefault({}),
  /** Logging. */
  log: logSchema.prefault({}),
})

/** See {@link configSchema}. */
export type Config = z.infer<typeof configSchema>

/** Environment variables of the webhook, without prefix. */
export const WEBHOOK_ENV: EnvTable = {
  LISTEN_HOST: 'listen.host',
  LISTEN_PORT: 'listen.port',
  TLS_CERT_FILE: 'tls.certFile',
  TLS_KEY_FILE: 'tls.keyFile',
  TLS_WAIT_SECONDS: 'tls.waitSeconds',
  SIDECAR_IMAGE: 'sidecar.image',
  SIDECAR_IMAGE_PULL_POLICY: 'sidecar.imagePullPolicy',
  SIDECAR_MODE: 'sidecar.mode',
  BROKER_URL: 'sidecar.brokerUrl',
  CLUSTER: 'sidecar.cluster',
  BROKER_CA_FILE: 'sidecar.brokerCaFile',
  POSTURE: 'identity.posture',
  DROP_NET_RAW: 'identity.dropNetRaw',
  REVISION: 'sidecar.revision',
  EVENTS: 'events.enabled',
  TOKEN_EXPIRATION_SECONDS: 'tokens.expirationSeconds',
  KUBERNETES_SERVER: 'kubernetes.server',
  KUBERNETES_CA_FILE: 'kubernetes.caFile',
  KUBERNETES_TOKEN_FILE: 'kubernetes.tokenFile',
  LOG_LEVEL: 'log.level',
}

/**
 * Reads the webhook's configuration.
 *
 * @throws ConfigError naming every problem
 */
export function readWebhookConfig(source: ConfigSource): Readonly<Config> {
  return readConfig(configSchema, WEBHOOK_ENV, source)
}
