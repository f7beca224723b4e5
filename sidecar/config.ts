/**
 * The sidecar's configuration: environment variables beginning with `NESTGATE_`, which is all that the webhook writes,
 * over a YAML file (`--config FILE`), whose parser is loaded only then. Everything is checked before anything starts.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { isIP } from 'node:net'
import { ConfigError, applyEnvironment, deepFreeze, isRecord } from '../shared/config-source.ts'
import type { ConfigSource, EnvTable } from '../shared/config-source.ts'
import { messageOf } from '../shared/errors.ts'
import { parseVkey } from '../shared/transparency/vkey.ts'
import { LOG_LEVELS } from '../shared/json-log.ts'
import type { LogLevel } from '../shared/json-log.ts'
import { POSTURES } from './posture.ts'
import type { Posture } from './posture.ts'
import { createSettingsReader, flag, integer, listOf, oneOf, text } from './settings.ts'
import type { SettingsReader } from './settings.ts'

/** Longest that a held request may wait for its decision, in seconds: a day. */
const MAX_HOLD_LIMIT_S = 86_400
/** Longest that a request waits for a broker that restarts, in seconds. */
const MAX_BROKER_WAIT_S = 300
const CLUSTER_NAME = /^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/
const LOOPBACK_HOSTS = ['127.0.0.1', '::1'] as const
const port = integer(0, 65_535)

/** The sidecar's settings. */
export interface SidecarConfig {
  /** Origin of the broker: scheme, host and port, nothing else. */
  readonly brokerUrl: string
  /** Name under which the broker knows this cluster. */
  readonly cluster: string
  /** Certificates that sign the broker's, as PEM text; no other is trusted. Exactly one of the two is set. */
  readonly brokerCaPem?: string
  /** The same from a file. */
  readonly brokerCaFile?: string
  /** The projected service-account token with the broker's audience. */
  readonly tokenFile: string
  /** Identity profile the webhook chose: `C` tells containers apart, the others processes. */
  readonly profile: 'R' | 'P' | 'C'
  readonly listen: {
    readonly port: number
    /** Port of the HTTPS listener on 127.0.0.1 for in-cluster clients; there is one only with `serviceAccount.dir`. */
    readonly tlsPort: number
    /** Both loopback addresses: `localhost` means either, and a free one could be taken by another process. */
    readonly hosts: readonly (typeof LOOPBACK_HOSTS)[number][]
  }
  /** What in-cluster clients read: where it is written, and the pod's namespace. Absent: they are not served. */
  readonly serviceAccount?: { readonly dir: string; readonly namespace: string }
  /** Where `/healthz`, `/readyz` and `/metrics` are answered: the pod's own address. Absent: nowhere. */
  readonly health?: { readonly host: string; readonly port: number }
  /** What neighbours mean that could speak on another's connection: see posture.ts. */
  readonly posture: Posture
  readonly caller: {
    /** What processes that may not be searched mean for a verdict; `ignore` is for a developer's own machine only. */
    readonly unreadable: 'refuse' | 'ignore'
  }
  /** How long a held request waits for its decision, in seconds. */
  readonly holdLimitSeconds: number
  /** How long requests that can safely be sent again wait for a broker that cannot be reached, in seconds: see outage.ts. */
  readonly brokerWaitSeconds: number
  /**
   * Whether the pod's other containers are told to stop at the same time as this one, as where the sidecar is an
   * ordinary container: it then serves on until they are gone.
   */
  readonly outliveNeighbours: boolean
  /** Verifier keys of the broker's ledger, separated by spaces; empty where those that the broker names first are believed. */
  readonly ledgerKeys: string
  readonly log: { readonly level: LogLevel }
}

/** Environment variables of the sidecar, without prefix. */
export const SIDECAR_ENV: EnvTable = {
  BROKER_URL: 'brokerUrl',
  CLUSTER: 'cluster',
  BROKER_CA_PEM: 'brokerCaPem',
  BROKER_CA_FILE: 'brokerCaFile',
  TOKEN_FILE: 'tokenFile',
  PROFILE: 'profile',
  LISTEN_PORT: 'listen.port',
  LISTEN_TLS_PORT: 'listen.tlsPort',
  SERVICE_ACCOUNT_DIR: 'serviceAccount.dir',
  NAMESPACE: 'serviceAccount.namespace',
  HEALTH_HOST: 'health.host',
  HEALTH_PORT: 'health.port',
  POSTURE: 'posture',
  CALLER_UNREADABLE: 'caller.unreadable',
  HOLD_LIMIT_SECONDS: 'holdLimitSeconds',
  BROKER_WAIT_SECONDS: 'brokerWaitSeconds',
  OUTLIVE_NEIGHBOURS: 'outliveNeighbours',
  LEDGER_KEYS: 'ledgerKeys',
  LOG_LEVEL: 'log.level',
}

/** The source of this process's own start: its arguments and its environment. */
export function commandLine(): ConfigSource {
  return { argv: process.argv.slice(2), env: process.env }
}

/**
 * The sidecar's configuration from `--config FILE` and the environment.
 *
 * @throws ConfigError naming every problem
 */
export function readSidecarConfig({ argv, env }: ConfigSource): SidecarConfig {
  const problems: string[] = []
  const raw = readFile(argv, problems)
  applyEnvironment(raw, SIDECAR_ENV, env, problems)
  const reader = createSettingsReader(raw, problems)
  const config = decode(reader)
  reader.finish()
  if ((config.brokerCaPem === undefined) === (config.brokerCaFile === undefined))
    problems.push('brokerCaFile: set exactly one of brokerCaPem and brokerCaFile')
  if (config.serviceAccount?.namespace === '')
    problems.push('serviceAccount.namespace: must be set where serviceAccount.dir is')
  if (problems.length > 0) throw new ConfigError(problems)
  return deepFreeze(config)
}

/** Dotted keys of all settings. */
export function sidecarKeys(): readonly string[] {
  const reader = createSettingsReader({}, [])
  decode(reader)
  return reader.keys
}

function decode(reader: SettingsReader): SidecarConfig {
  const brokerCaPem = reader.optional('brokerCaPem', text())
  const brokerCaFile = reader.optional('brokerCaFile', text())
  const cluster = text('a cluster name', (name) => CLUSTER_NAME.test(name))
  const dir = reader.optional('serviceAccount.dir', text())
  const namespace = reader.read('serviceAccount.namespace', text(), '')
  const healthHost = reader.optional(
    'health.host',
    text('an IP address', (host) => isIP(host) > 0),
  )
  const healthPort = reader.read('health.port', port, 8002)
  return {
    brokerUrl: reader.required(
      'brokerUrl',
      text('https://HOST[:PORT] without a path', isHttpsOrigin),
    ),
    cluster: reader.required('cluster', cluster),
    ...(brokerCaPem === undefined ? {} : { brokerCaPem }),
    ...(brokerCaFile === undefined ? {} : { brokerCaFile }),
    tokenFile: reader.required('tokenFile', text()),
    profile: reader.read('profile', oneOf(['R', 'P', 'C']), 'R'),
    listen: {
      port: reader.read('listen.port', port, 8001),
      tlsPort: reader.read('listen.tlsPort', port, 8443),
      hosts: [...reader.read('listen.hosts', listOf(LOOPBACK_HOSTS), LOOPBACK_HOSTS)],
    },
    ...(dir === undefined ? {} : { serviceAccount: { dir, namespace } }),
    ...(healthHost === undefined ? {} : { health: { host: healthHost, port: healthPort } }),
    posture: reader.read('posture', oneOf(POSTURES), 'degrade'),
    caller: { unreadable: reader.read('caller.unreadable', oneOf(['refuse', 'ignore']), 'refuse') },
    holdLimitSeconds: reader.read('holdLimitSeconds', integer(1, MAX_HOLD_LIMIT_S), 1800),
    brokerWaitSeconds: reader.read('brokerWaitSeconds', integer(0, MAX_BROKER_WAIT_S), 10),
    outliveNeighbours: reader.read('outliveNeighbours', flag(), false),
    ledgerKeys: reader.read('ledgerKeys', text('verifier keys', areVkeys), ''),
    log: { level: reader.read('log.level', oneOf(LOG_LEVELS), 'info') },
  }
}

function areVkeys(value: string): boolean {
  return value.split(' ').every((vkey) => parseVkey(vkey).problem === undefined)
}

function readFile(argv: readonly string[], problems: string[]): Record<string, unknown> {
  const [option, file, ...others] = argv
  if (option === undefined) return {}
  if (option !== '--config' || file === undefined || others.length > 0) {
    problems.push('usage: [--config FILE]')
    return {}
  }
  try {
    const value = parseYaml(readFileSync(file, 'utf8'))
    if (value === null || value === undefined) return {}
    if (isRecord(value)) return value
    problems.push(`${file}: expected a mapping of settings`)
  } catch (error) {
    problems.push(`${file}: ${messageOf(error)}`)
  }
  return {}
}

/** Loaded here and not above: in a pod there is no file, and the parser costs 4 MiB. */
function parseYaml(content: string): unknown {
  const yaml: unknown = createRequire(import.meta.url)('yaml')
  if (!isRecord(yaml) || typeof yaml['parse'] !== 'function') throw new Error('no YAML parser')
  return Reflect.apply(yaml['parse'], undefined, [content, { maxAliasCount: 0 }])
}

function isHttpsOrigin(value: string): boolean {
  if (!URL.canParse(value)) return false
  const url = new URL(value)
  const bare = url.pathname === '/' && url.search === '' && url.hash === ''
  return url.protocol === 'https:' && url.username === '' && url.password === '' && bare
}
