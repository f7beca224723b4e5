/** The broker's configuration: one frozen object, read and checked before anything starts (shared/config.ts). */
import { z } from 'zod'
import { VERDICTS } from '../shared/agent-tag.ts'
import { integer, port, readConfig } from '../shared/config.ts'
import type { ConfigSource, EnvTable } from '../shared/config.ts'
import { LOG_LEVELS } from '../shared/log.ts'
import { MAX_FILE_WAIT_S } from '../shared/watched-files.ts'
import { clusterSchema } from './clusters/settings.ts'
import { DEFAULT_ROTATE_DAYS } from './credentials/signing-keys.ts'
import { vaultSchema } from './credentials/vault-client.ts'
import { oidcSchema } from './identity/oidc-config.ts'
import { notificationsSchema } from './notifications/settings.ts'
import { mirrorsSchema } from './ledger/mirrors.ts'
import { maskingSchema } from './masking/key.ts'
import { registrationsSchema } from './identity/registrations.ts'
import { ROLES } from './identity/roles.ts'
import { sessionsSchema } from './sessions/recordings/settings.ts'

/** Longest life of a held request that nobody decides on, in seconds: a day. */
const MAX_PENDING_S = 86_400
const DEFAULT_PENDING_S = 900
/** Host, and a path that a router takes for itself; the broker's other addresses stay what they are. */
const ISSUER_URL =
  /^https:\/\/[^/?#@]+\/(?!(?:v1|clusters|return|healthz|readyz)(?:\/|$))[A-Za-z0-9_-]+(?:\/[A-Za-z0-9_-]+)*$/
/** Longest time between two checkpoints, in seconds. */
const MAX_CHECKPOINT_S = 3600
/** Longest time that entries' text may be kept, in days: a hundred years. */
const MAX_RETAIN_DAYS = 36_500
/** A key name of a signed note: no spaces, no plus. */
const LEDGER_ORIGIN = /^[^\s+:]+(?::\d+)?(?:\/[^\s+]*)?$/
/** Longest life of a signing key, in days. */
const MAX_ROTATE_DAYS = 365

const text = z.string().min(1)

const personSchema = z.strictObject({
  name: text,
  roles: z.array(z.enum(ROLES)).min(1),
  /** Groups that quorums of approvals count. */
  groups: z.array(text).default([]),
  /** SHA-256 of the person's token, hex; `nestgate token new` makes both. */
  tokenSha256: z.string().regex(/^[0-9a-f]{64}$/, 'expected 64 hex digits'),
})

const postgresSchema = z.strictObject({
  /** With `sslmode`, without password. */
  url: z
    .url({ protocol: /^postgres(?:ql)?$/, error: 'expected a postgres URL' })
    .refine((url) => !hasPassword(url), 'expected no password: it belongs in passwordFile'),
  /** Private file; read again for each connection. */
  passwordFile: text.optional(),
})

function hasPassword(url: string): boolean {
  const parsed = URL.parse(url)
  return parsed !== null && (parsed.password !== '' || parsed.searchParams.has('password'))
}

/** The broker's settings. */
export const brokerSchema = z.strictObject({
  listen: z.strictObject({ host: text.default('0.0.0.0'), port: port.default(8443) }).prefault({}),
  /** Certificate chain and key of the broker's own address, PEM. Both are read again when they change. */
  tls: z.strictObject({
    certFile: text,
    keyFile: text,
    /** How long to wait at start for these files where they are missing or empty, in seconds. Default 0. */
    waitSeconds: integer(0, MAX_FILE_WAIT_S).optional(),
  }),
  /** Folder of what the broker keeps: must exist, and belong to one broker alone. */
  dataDir: text,
  /** Where the ledger and the held requests are: in `dataDir`, or in a database that several brokers share. */
  store: z.strictObject({ postgres: postgresSchema.optional() }).prefault({}),
  /** A file, or a folder of `*.yaml`; read again when it changes. */
  policyFile: text,
  /** More can be registered by the API; those here cannot be changed by it. */
  clusters: z.array(clusterSchema).default([]),
  /** Folder of the credentials that clusters registered by the API may name. */
  clusterSecretsDir: text.optional(),
  /** The broker as issuer of the credentials of clusters of mode `issuer`. */
  issuer: z
    .strictObject({
      /** As API servers reach it, and as tokens have it in `iss`; the broker serves its path. */
      url: z
        .url({ protocol: /^https$/, error: 'expected an https URL' })
        .refine(
          (value) => ISSUER_URL.test(value),
          'expected a path of plain words that is not one of the broker’s own, and nothing after it',
        ),
      /** Folder of the signing keys; `issuer-keys` in `dataDir` when left out. */
      keysDir: text.optional(),
      /** Or a key service that has them. */
      signer: z.strictObject({ vault: vaultSchema }).optional(),
      /** How long a key signs, in days; those of a key service it rotates itself. */
      rotateAfterDays: integer(1, MAX_ROTATE_DAYS).default(DEFAULT_ROTATE_DAYS),
    })
    .refine(
      ({ keysDir, signer }) => keysDir === undefined || signer === undefined,
      'keysDir or signer, not both',
    )
    .optional(),
  people: z.array(personSchema).default([]),
  /** Issuers of tokens by which people sign in, and pipelines call. */
  oidc: oidcSchema.default([]),
  /** Names of processes, by what is verified of them; the first that matches counts. */
  agents: registrationsSchema.default([]),
  /** Verdicts of caller identification that are let through to policy. */
  acceptVerdicts: z.array(z.enum(VERDICTS)).default(['exclusive']),
  /** Who is told that something waits. */
  notifications: notificationsSchema.default([]),
  ledger: z
    .strictObject({
      /** Its name in checkpoints: a URL without scheme. Made up at the first start when left out, and then never another. */
      origin: z
        .string()
        .regex(LEDGER_ORIGIN, 'expected a URL without scheme and spaces')
        .optional(),
      /** Folder of the keys that sign checkpoints; `ledger-keys` in `dataDir` when left out. */
      keysDir: text.optional(),
      /** How often checkpoints are signed where entries came, in seconds. */
      checkpointSeconds: integer(1, MAX_CHECKPOINT_S).default(1),
      /** How long the text of entries is kept, in days; for ever when left out. Proofs stay good without it. */
      retainDays: integer(1, MAX_RETAIN_DAYS).optional(),
      /** Where copies of checkpoints go. */
      mirrors: mirrorsSchema.prefault({}),
    })
    .prefault({}),
  /** What stands for hidden values. */
  masking: maskingSchema.prefault({}),
  /** Recordings of sessions. */
  sessions: sessionsSchema.prefault({}),
  approvals: z
    .strictObject({ pendingSeconds: integer(1, MAX_PENDING_S).default(DEFAULT_PENDING_S) })
    .prefault({}),
  log: z.strictObject({ level: z.enum(LOG_LEVELS).default('info') }).prefault({}),
})

const checked = brokerSchema.superRefine((config, context) => {
  for (const key of ['clusters', 'people'] as const) {
    const seen = new Set<string>()
    for (const [index, { name }] of config[key].entries()) {
      if (seen.has(name)) {
        context.addIssue({
          code: 'custom',
          path: [key, index, 'name'],
          message: `${name} is there twice`,
        })
      }
      seen.add(name)
    }
  }
})

/** Environment variables of the broker, without prefix. */
export const BROKER_ENV: EnvTable = {
  LISTEN_HOST: 'listen.host',
  LISTEN_PORT: 'listen.port',
  TLS_CERT_FILE: 'tls.certFile',
  TLS_KEY_FILE: 'tls.keyFile',
  TLS_WAIT_SECONDS: 'tls.waitSeconds',
  DATA_DIR: 'dataDir',
  POLICY_FILE: 'policyFile',
  LOG_LEVEL: 'log.level',
}

/** The broker's configuration. */
export type BrokerConfig = Readonly<z.infer<typeof brokerSchema>>
/** One person of it. */
export type PersonConfig = z.infer<typeof personSchema>

/** Reads the broker's configuration. @throws ConfigError naming every problem */
export function readBrokerConfig(source: ConfigSource): BrokerConfig {
  return readConfig<z.infer<typeof brokerSchema>>(checked, BROKER_ENV, source)
}
