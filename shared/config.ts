/**
 * Reads a process's configuration once: a YAML file (`--config FILE`), then environment variables beginning
 * with `NESTGATE_`, which win. Everything is checked before anything starts and all problems are told at
 * once; unknown keys and unknown `NESTGATE_` names are problems. The result is frozen.
 */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { parse } from 'yaml'
import { z } from 'zod'
import { Fault, messageOf } from './errors.ts'

const ENV_PREFIX = 'NESTGATE_'

/** Where a process's configuration comes from. */
export interface ConfigSource {
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
}

/** The source of a process's own start: its arguments and its environment. */
export function commandLine(): ConfigSource {
  return { argv: process.argv.slice(2), env: process.env }
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

/**
 * Reads and checks a configuration.
 *
 * @param schema - strict schema of the file; defaults live in it
 * @param table - environment variables that may override the file
 * @throws {@link ConfigError} naming every problem
 */
export function readConfig<T extends object>(
  schema: z.ZodType<T>,
  table: EnvTable,
  source: ConfigSource,
): Readonly<T> {
  const problems: string[] = []
  const raw = readFile(source.argv, problems)
  for (const [name, value] of Object.entries(source.env)) {
    if (!name.startsWith(ENV_PREFIX) || value === undefined) continue
    const key = table[name.slice(ENV_PREFIX.length)]
    if (key === undefined && isServiceLink(name)) continue
    if (key === undefined) problems.push(`${name}: not a setting of this process`)
    else setAt(raw, key.split('.'), value)
  }
  const result = schema.safeParse(raw)
  if (!result.success) problems.push(...result.error.issues.map(issueText))
  if (problems.length > 0 || result.data === undefined) throw new ConfigError(problems)
  return deepFreeze(result.data)
}

/** Accepts a number, or its decimal text as an environment variable brings it. */
export function integer(min: number, max: number): z.ZodType<number> {
  return z.preprocess(
    (value) => (typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value),
    z.int().min(min).max(max),
  )
}

/** A TCP port. */
export const port = integer(0, 65_535)

/**
 * Whether the kubelet made this variable from a Service of the pod's namespace, which may be called `nestgate-…` too
 * (Kubernetes documentation, "Accessing the Service": environment variables).
 */
function isServiceLink(name: string): boolean {
  return /_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)$/.test(
    name,
  )
}

function readFile(argv: readonly string[], problems: string[]): Record<string, unknown> {
  let file: string | undefined
  try {
    file = parseArgs({ args: [...argv], options: { config: { type: 'string' } } }).values.config
  } catch (error) {
    problems.push(messageOf(error))
  }
  if (file === undefined) return {}
  try {
    const value: unknown = parse(readFileSync(file, 'utf8'), { maxAliasCount: 0 })
    if (value === null || value === undefined) return {}
    if (isRecord(value)) return value
    problems.push(`${file}: expected a mapping of settings`)
  } catch (error) {
    problems.push(`${file}: ${messageOf(error)}`)
  }
  return {}
}

/** Whether a value is a mapping; the values in it are still unknown. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
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

function issueText(issue: z.core.$ZodIssue): string {
  const where = issue.path.map(String).join('.')
  const what = issue.message.charAt(0).toLowerCase() + issue.message.slice(1)
  return where === '' ? what : `${where}: ${what}`
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const inner of Object.values(value)) deepFreeze(inner)
    Object.freeze(value)
  }
  return value
}
