/**
 * Configuration of `nestgate certificates keep`: one YAML file, overridden by `NESTGATE_` variables. It names every object
 * that the process may touch; its rights in the cluster are for the same names (docs/certificates.md).
 */
import { isIP } from 'node:net'
import { z } from 'zod'
import { integer, port, readConfig } from '../../shared/config.ts'
import type { ConfigSource, EnvTable } from '../../shared/config.ts'
import { LOG_LEVELS } from '../../shared/log.ts'
import { DNS_NAME, MAX_LEAF_DAYS } from '../certificates.ts'

/** Longest life of an authority, in days: as `nestgate certificates make` gives it. */
const MAX_AUTHORITY_DAYS = 3_650
/** Longest time between two looks, and longest time of settling, in seconds. */
const DAY_S = 86_400
/** Most configurations of webhooks. */
const MAX_CONFIGURATIONS = 16
/** Most names of one certificate. */
const MAX_HOSTS = 64

const file = z.string().min(1)
const objectName = z
  .string()
  .max(253)
  .regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/, 'expected the name of an object')
const days = (max: number): z.ZodType<number> =>
  z.preprocess(
    (value) => (typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value),
    z.number().positive().max(max),
  )
const hosts = z
  .array(
    z
      .string()
      .max(253)
      .refine(
        (host) => isIP(host) !== 0 || DNS_NAME.test(host),
        'expected a DNS name or an address',
      ),
  )
  .min(1)
  .max(MAX_HOSTS)

const secretsSchema = z.strictObject({
  /** The authority with its key. Default `nestgate-ca`. */
  authority: objectName.default('nestgate-ca'),
  /** The webhook's certificate. Default `nestgate-webhook-tls`. */
  webhook: objectName.default('nestgate-webhook-tls'),
  /** The broker's certificate. Default `nestgate-broker-tls`. */
  broker: objectName.default('nestgate-broker-tls'),
})

const webhookConfigurationSchema = z.strictObject({
  kind: z.enum(['MutatingWebhookConfiguration', 'ValidatingWebhookConfiguration']),
  name: objectName,
})

/** Fractions of a day are taken, for tests. */
const validitySchema = z
  .strictObject({
    /** Life of an authority, in days. Default 3650, the most. */
    authorityDays: days(MAX_AUTHORITY_DAYS).default(MAX_AUTHORITY_DAYS),
    /**
     * How long before its end an authority is followed by the next one, in days. Pods that were injected under the old
     * one alone must be replaced within this time. Default 180.
     */
    authorityRenewBeforeDays: days(MAX_AUTHORITY_DAYS).default(180),
    /** Life of the webhook's and the broker's certificate, in days. Default 90. */
    leafDays: days(MAX_LEAF_DAYS).default(90),
    /** How long before its end such a certificate is renewed, in days. Default 30. */
    renewBeforeDays: days(MAX_LEAF_DAYS).default(30),
  })
  .refine(({ leafDays, renewBeforeDays }) => renewBeforeDays < leafDays, {
    path: ['renewBeforeDays'],
    error: 'must be less than leafDays',
  })
  .refine(
    ({ authorityDays, authorityRenewBeforeDays: before }) => before * 2 <= authorityDays,
    // An authority that is due as soon as it is made would be followed without end.
    { path: ['authorityRenewBeforeDays'], error: 'must be half of authorityDays at most' },
  )

/** See the head of the file. */
export const keepSchema = z
  .strictObject({
    /** Namespace of the Secrets. */
    namespace: objectName.default('nestgate-system'),
    /** Names of the Secrets. */
    secrets: secretsSchema.prefault({}),
    /** Whose `caBundle` is kept: every webhook of these configurations. All must exist. */
    webhookConfigurations: z.array(webhookConfigurationSchema).max(MAX_CONFIGURATIONS),
    /** DNS names and addresses of the certificates. */
    dnsNames: z.strictObject({ webhook: hosts, broker: hosts }),
    /** How long certificates are good for. */
    validity: validitySchema.prefault({}),
    /**
     * How long a new authority is only trusted before it signs, and an old one still trusted after the last certificate of it
     * was replaced, in seconds. It must outlast the kubelet's taking a changed Secret to its pods. Default 3600.
     */
    settleSeconds: integer(1, DAY_S).default(3_600),
    /** Time between two looks at the cluster, in seconds. Default 30. */
    checkSeconds: integer(1, DAY_S).default(30),
    /** Where `/healthz`, `/readyz` and `/metrics` are answered, in plain HTTP. */
    listen: z
      .strictObject({
        /** Default: all addresses. */
        host: z.string().min(1).default('0.0.0.0'),
        /** Default 9402. 0 takes any free port. */
        port: port.default(9_402),
      })
      .prefault({}),
    /** The cluster's API server. */
    kubernetes: z
      .strictObject({
        server: z
          .url({ protocol: /^https$/, error: 'expected an https URL' })
          .default('https://kubernetes.default.svc'),
        caFile: file.default('/var/run/secrets/kubernetes.io/serviceaccount/ca.crt'),
        tokenFile: file.default('/var/run/secrets/kubernetes.io/serviceaccount/token'),
      })
      .prefault({}),
    /** Logging. */
    log: z.strictObject({ level: z.enum(LOG_LEVELS).default('info') }).prefault({}),
  })
  .refine(({ secrets }) => new Set(Object.values(secrets)).size === 3, {
    path: ['secrets'],
    error: 'must have three names',
  })

/** See {@link keepSchema}. */
export type KeepConfig = z.infer<typeof keepSchema>

/** Environment variables of the process, without prefix. */
export const KEEP_ENV: EnvTable = {
  NAMESPACE: 'namespace',
  AUTHORITY_SECRET: 'secrets.authority',
  WEBHOOK_SECRET: 'secrets.webhook',
  BROKER_SECRET: 'secrets.broker',
  AUTHORITY_DAYS: 'validity.authorityDays',
  AUTHORITY_RENEW_BEFORE_DAYS: 'validity.authorityRenewBeforeDays',
  LEAF_DAYS: 'validity.leafDays',
  RENEW_BEFORE_DAYS: 'validity.renewBeforeDays',
  SETTLE_SECONDS: 'settleSeconds',
  CHECK_SECONDS: 'checkSeconds',
  LISTEN_HOST: 'listen.host',
  LISTEN_PORT: 'listen.port',
  KUBERNETES_SERVER: 'kubernetes.server',
  KUBERNETES_CA_FILE: 'kubernetes.caFile',
  KUBERNETES_TOKEN_FILE: 'kubernetes.tokenFile',
  LOG_LEVEL: 'log.level',
}

/** Reads the configuration. @throws ConfigError naming every problem */
export function readKeepConfig(source: ConfigSource): Readonly<KeepConfig> {
  return readConfig(keepSchema, KEEP_ENV, source)
}
