/**
 * Checks of settings by hand: a schema library would cost this process, which runs once per pod, a quarter of its
 * memory. All problems are collected; a setting with a problem reads as its default until they are thrown.
 */
import { isRecord } from '../shared/config-source.ts'

/** What a setting's value must be. */
export interface Check<T> {
  /** The value to use, or undefined when it is not acceptable. */
  readonly accept: (raw: unknown) => T | undefined
  readonly expected: string
}

/** Reads settings by dotted key and remembers which it was asked for. */
export interface SettingsReader {
  /** A setting with a default. */
  read<T>(key: string, check: Check<T>, fallback: T): T
  /** A text that must be there. */
  required(key: string, check: Check<string>): string
  /** A setting that may be absent. */
  optional<T>(key: string, check: Check<T>): T | undefined
  /** Names every setting that was never asked for. */
  finish(): void
  readonly keys: readonly string[]
}

/** A reader over decoded YAML; problems are added to `problems`. */
export function createSettingsReader(
  raw: Readonly<Record<string, unknown>>,
  problems: string[],
): SettingsReader {
  const keys: string[] = []
  function take<T>(key: string, check: Check<T>): T | undefined {
    keys.push(key)
    const value = valueAt(raw, key.split('.'))
    if (value === undefined) return undefined
    const accepted = check.accept(value)
    if (accepted === undefined) problems.push(`${key}: expected ${check.expected}`)
    return accepted
  }
  return {
    keys,
    read: (key, check, fallback) => take(key, check) ?? fallback,
    required(key, check): string {
      const before = problems.length
      const value = take(key, check)
      if (value === undefined && problems.length === before)
        problems.push(`${key}: expected ${check.expected}`)
      return value ?? ''
    },
    optional: take,
    finish(): void {
      for (const key of leavesOf(raw))
        if (!keys.includes(key)) problems.push(`${key}: not a setting of this process`)
    },
  }
}

/** A text that `test` accepts; any that is not empty by default. */
export function text(
  expected = 'a text that is not empty',
  test: (value: string) => boolean = (value) => value !== '',
): Check<string> {
  return { expected, accept: (raw) => (typeof raw === 'string' && test(raw) ? raw : undefined) }
}

/** One of a closed set of texts. */
export function oneOf<T extends string>(values: readonly T[]): Check<T> {
  return {
    expected: `one of ${values.join(', ')}`,
    accept: (raw) => values.find((candidate) => candidate === raw),
  }
}

/** A list of such texts, not empty. */
export function listOf<T extends string>(values: readonly T[]): Check<readonly T[]> {
  return {
    expected: `a list out of ${values.join(', ')}`,
    accept(raw): readonly T[] | undefined {
      const list: readonly unknown[] = Array.isArray(raw) ? raw : []
      const known = values.filter((value) => list.includes(value))
      return known.length > 0 && known.length === new Set(list).size ? known : undefined
    },
  }
}

/** A whole number, or its decimal text as an environment variable brings it. */
export function integer(min: number, max: number): Check<number> {
  return {
    expected: `a whole number from ${min} to ${max}`,
    accept(raw): number | undefined {
      const value = typeof raw === 'string' && /^\d+$/.test(raw) ? Number(raw) : raw
      const fits = typeof value === 'number' && Number.isInteger(value)
      return fits && value >= min && value <= max ? value : undefined
    },
  }
}

/** A truth value, or its text as an environment variable brings it. */
export function flag(): Check<boolean> {
  return {
    expected: 'true or false',
    accept(raw): boolean | undefined {
      if (raw === true || raw === 'true') return true
      return raw === false || raw === 'false' ? false : undefined
    },
  }
}

function valueAt(raw: unknown, path: readonly string[]): unknown {
  let value = raw
  for (const name of path) {
    if (!isRecord(value) || !Object.hasOwn(value, name)) return undefined
    value = value[name]
  }
  return value
}

function leavesOf(raw: Readonly<Record<string, unknown>>, prefix = ''): readonly string[] {
  return Object.entries(raw).flatMap(([name, value]) =>
    isRecord(value) ? leavesOf(value, `${prefix}${name}.`) : [`${prefix}${name}`],
  )
}
