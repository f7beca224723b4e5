/**
 * Structured logs without a package: one JSON line each on standard output, in the form of log.ts. For the sidecar,
 * whose memory is paid once per pod. Nothing that could hold a secret is passed here; the redaction is the second lock.
 */

export const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'silent'] as const

/** See {@link LOG_LEVELS}. */
export type LogLevel = (typeof LOG_LEVELS)[number]

/** Writes one line: facts, then what happened; or only that. */
export interface LogLine {
  (facts: object, message: string): void
  (message: string): void
}

/** What the sidecar and shared/ ask of a log; the one of log.ts fits too. */
export interface Log {
  readonly error: LogLine
  readonly warn: LogLine
  readonly info: LogLine
  readonly debug: LogLine
}

/** The numbers by which log collectors know the levels of such lines. */
const NUMBERS = { debug: 20, info: 30, warn: 40, error: 50, fatal: 60, silent: Infinity } as const

const REDACTED: ReadonlySet<string> = new Set([
  'authorization',
  'token',
  'password',
  'secret',
  'headers',
  'body',
])

/** A log named after its process. */
export function createJsonLog(
  name: string,
  level: LogLevel,
  write: (line: string) => void = (line) => process.stdout.write(line),
): Log {
  const lineOf = (at: Exclude<LogLevel, 'silent'>): LogLine => {
    const number = NUMBERS[at]
    if (number < NUMBERS[level]) return () => undefined
    return (first: object | string, message?: string): void => {
      const facts = typeof first === 'string' ? {} : first
      const msg = typeof first === 'string' ? first : message
      const line = { level: number, time: Date.now(), name, ...facts, msg }
      write(`${JSON.stringify(line, redact)}\n`)
    }
  }
  return {
    error: lineOf('error'),
    warn: lineOf('warn'),
    info: lineOf('info'),
    debug: lineOf('debug'),
  }
}

function redact(key: string, value: unknown): unknown {
  return REDACTED.has(key.toLowerCase()) ? '[redacted]' : value
}
