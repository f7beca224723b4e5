/** What a check comes to: one line of the report. */

/** `unknown`: could not be looked at; that is no failure, and is said. */
export type Outcome = 'ok' | 'warn' | 'fail' | 'unknown'

/** See the head of the file. */
export interface Finding {
  /** Which check; a stable name. */
  readonly check: string
  /** What of the cluster it is about. */
  readonly about: string
  readonly outcome: Outcome
  readonly said: string
  /** What to do; only where there is something to do. */
  readonly remedy?: string
}

/** Makes the findings of one check. */
export interface Check {
  ok(about: string, said: string): Finding
  warn(about: string, said: string, remedy: string): Finding
  fail(about: string, said: string, remedy: string): Finding
  unknown(about: string, said: string): Finding
}

/** A check by its name. */
export function checkNamed(check: string): Check {
  return {
    ok: (about, said) => ({ check, about, outcome: 'ok', said }),
    warn: (about, said, remedy) => ({ check, about, outcome: 'warn', said, remedy }),
    fail: (about, said, remedy) => ({ check, about, outcome: 'fail', said, remedy }),
    unknown: (about, said) => ({ check, about, outcome: 'unknown', said }),
  }
}
