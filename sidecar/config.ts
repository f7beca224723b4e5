/** The sidecar's configuration; see shared/config.ts for how it is read. Written by the webhook into each pod. */
import { z } from 'zod'
import { integer, port, readConfig } from '../shared/config.ts'
import type { ConfigSource, EnvTable } from '../shared/config.ts'
import { LOG_LEVELS } from '../shared/log.ts'

/** Longest that a held request may wait for its decision, in seconds: a day. */
const MAX_HOLD_LIMIT_S = 86_400

/** The sidecar's settings. */
export const sidecarSchema = z
  .strictObject({
    /** Origin of the broker: scheme, host and port, nothing else. */
    brokerUrl: z.string().refine(isHttpsOrigin, 'expected https://HOST[:PORT] without a path'),
    /** Name under which the broker knows this cluster. */
    cluster: z.string().regex(/^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/),
    /** Certificates that sign the broker's, as PEM text; no other is trusted. */
    brokerCaPem: z.string().min(1).optional(),
    /** The same from a file. */
    brokerCaFile: z.string().min(1).optional(),
    /** The projected service-account token with the broker's audience. */
    tokenFile: z.string().min(1),
    /** Identity profile the webhook chose; informative. */
    profile: z.enum(['R', 'P']).default('R'),
    listen: z
      .strictObject({
        port: port.default(8001),
        /** Both loopback addresses: `localhost` means either, and a free one could be taken by another process. */
        hosts: z
          .array(z.enum(['127.0.0.1', '::1']))
          .min(1)
          .default(['127.0.0.1', '::1']),
      })
      .prefault({}),
    caller: z
      .strictObject({
        /** What processes that may not be searched mean for a verdict; `ignore` is for a developer's own machine only. */
        unreadable: z.enum(['refuse', 'ignore']).default('refuse'),
      })
      .prefault({}),
    /** How long a held request waits for its decision, in seconds. */
    holdLimitSeconds: integer(1, MAX_HOLD_LIMIT_S).default(1800),
    log: z.strictObject({ level: z.enum(LOG_LEVELS).default('info') }).prefault({}),
  })
  .refine((config) => (config.brokerCaPem === undefined) !== (config.brokerCaFile === undefined), {
    message: 'set exactly one of brokerCaPem and brokerCaFile',
    path: ['brokerCaFile'],
  })

/** See the schema in this file. */
export type SidecarConfig = Readonly<z.infer<typeof sidecarSchema>>

/** Environment variables of the sidecar, without prefix. */
export const SIDECAR_ENV: EnvTable = {
  BROKER_URL: 'brokerUrl',
  CLUSTER: 'cluster',
  BROKER_CA_PEM: 'brokerCaPem',
  BROKER_CA_FILE: 'brokerCaFile',
  TOKEN_FILE: 'tokenFile',
  PROFILE: 'profile',
  LISTEN_PORT: 'listen.port',
  CALLER_UNREADABLE: 'caller.unreadable',
  HOLD_LIMIT_SECONDS: 'holdLimitSeconds',
  LOG_LEVEL: 'log.level',
}

/**
 * The sidecar's configuration from `--config FILE` and the environment.
 *
 * @throws ConfigError naming every problem
 */
export function readSidecarConfig(source: ConfigSource): SidecarConfig {
  return readConfig(sidecarSchema, SIDECAR_ENV, source)
}

function isHttpsOrigin(text: string): boolean {
  if (!URL.canParse(text)) return false
  const url = new URL(text)
  const bare = url.pathname === '/' && url.search === '' && url.hash === ''
  return url.protocol === 'https:' && url.username === '' && url.password === '' && bare
}
