/**
 * Where a process's configuration comes from, and the rules of its environment variables. Apart from config.ts so that
 * a process that checks its settings by hand (the sidecar) loads neither a schema library nor a YAML parser.
 */
import { Fault } from './errors.ts'

const ENV_PREFIX = 'NESTGATE_'
/** What the kubelet gives a variable that may have the name of a port of ours, from a Service `nestgate-listen`. */
const LINKED = /^(?:tcp|udp|sctp):\/\//

/** Where a process's configuration comes from. */
export interface ConfigSource {
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
}

/** Environment variable (without prefix) to the dotted key that it sets. */
export type EnvTable = Readonly<Record<string, string>>

/** A configuration could not be read; `problems` has one line each. */
export class ConfigError extends Fault {
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(
      'config_invalid',
      `invalid configuration:\n${problems.map((line) => `  ${line}`).join('\n')}`,
    )
    this.name = 'ConfigError'
    this.problems = problems
  }
}

/** Whether a value is a mapping; the values in it are still unknown. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Sets in `raw` what the environment says; names that mean nothing become problems. */
export function applyEnvironment(
  raw: Record<string, unknown>,
  table: EnvTable,
  env: ConfigSource['env'],
  problems: string[],
): void {
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith(ENV_PREFIX) || value === undefined) continue
    const short = name.slice(ENV_PREFIX.length)
    const key = Object.hasOwn(table, short) ? table[short] : undefined
    if (isServiceLink(name) && (key === undefined || LINKED.test(value))) continue
    if (key === undefined) problems.push(`${name}: not a setting of this process`)
    else setAt(raw, key.split('.'), value)
  }
}

/** Freezes a value and everything in it. */
export function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const inner of Object.values(value)) deepFreeze(inner)
    Object.freeze(value)
  }
  return value
}

/**
 * Whether the kubelet made this variable from a Service of the pod's namespace, which may be called `nestgate-…` too
 * (Kubernetes documentation, "Accessing the Service": environment variables).
 */
function isServiceLink(name: string): boolean {
  return /_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)$/.test(
    name,
  )
}

function setAt(target: Record<string, unknown>, path: readonly string[], value: string): void {
  const [head, ...rest] = path
  if (head === undefined) return
  if (rest.length === 0) {
    target[head] = value
    return
  }
  const inner = target[head]
  const next = isRecord(inner) ? inner : {}
  target[head] = next
  setAt(next, rest, value)
}
