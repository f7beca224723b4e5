/** Structured logs on standard output. Nothing that could hold a secret is passed here; the redaction below is the second lock. */
import { pino } from 'pino'
import type { Logger } from 'pino'
import type { LogLevel } from './json-log.ts'

export type { Logger } from 'pino'

export { LOG_LEVELS } from './json-log.ts'

const REDACTED_PATHS = [
  'authorization',
  'token',
  'password',
  'secret',
  'headers',
  'body',
  '*.authorization',
  '*.token',
  '*.password',
  '*.secret',
  '*.headers',
  '*.body',
]

/** A logger named after its process. */
export function createLog(name: string, level: LogLevel): Logger {
  return pino({
    name,
    level,
    base: { name },
    redact: { paths: REDACTED_PATHS, censor: '[redacted]' },
  })
}
