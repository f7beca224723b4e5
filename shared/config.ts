/**
 * Reads a process's configuration once: a YAML file (`--config FILE`), then environment variables beginning
 * with `NESTGATE_`, which win. Everything is checked before anything starts and all problems are told at
 * once; unknown keys and unknown `NESTGATE_` names are problems. The result is frozen.
 */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { parse } from 'yaml'
import { z } from 'zod'
import { ConfigError, applyEnvironment, deepFreeze, isRecord } from './config-source.ts'
import type { ConfigSource, EnvTable } from './config-source.ts'
import { messageOf } from './errors.ts'

export { ConfigError, isRecord } from './config-source.ts'
export type { ConfigSource, EnvTable } from './config-source.ts'

/** The source of a process's own start: its arguments and its environment. */
export function commandLine(): ConfigSource {
  return { argv: process.argv.slice(2), env: process.env }
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
  applyEnvironment(raw, table, source.env, problems)
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

function issueText(issue: z.core.$ZodIssue): string {
  const where = issue.path.map(String).join('.')
  const what = issue.message.charAt(0).toLowerCase() + issue.message.slice(1)
  return where === '' ? what : `${where}: ${what}`
}
