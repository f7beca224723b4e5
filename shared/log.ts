/** Structured logs on standard output. Nothing that could hold a secret is passed here; the redaction below is the second lock. */
import { pino } from 'pino'
import type { Logger } from 'pino'

export type { Logger } from 'pino'

export const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'silent'] as const

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
export function createLog(name: string, level: (typeof LOG_LEVELS)[number]): Logger {
  return pino({
    name,
    level,
    base: { name },
    redact: { paths: REDACTED_PATHS, censor: '[redacted]' },
  })
}
