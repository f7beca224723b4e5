/** Figures of a keeper in Prometheus' text format (version 0.0.4). Label values come from closed sets. */
import type { KeepReason } from './errors.ts'
import type { LeafRole } from './plan.ts'

/** Content type of the text. */
export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

/** Counts what happens; all times in milliseconds since the epoch. */
export interface KeepMetrics {
  /** A look at the cluster begins. */
  looked(at: number): void
  /** A look ended with everything as it should be. */
  succeeded(at: number): void
  /** Something stood in the way. */
  failed(reason: KeepReason): void
  /** A certificate with a new key was written. */
  made(certificate: 'authority' | LeafRole): void
  /** When the certificates end that there are. */
  ends(ends: ReadonlyMap<string, number>): void
  /** When the last look began; undefined before the first. */
  readonly lastLook: () => number | undefined
  /** Whether the last look ended with everything as it should be. */
  readonly good: () => boolean
  readonly text: () => string
}

/** All counters at 0. */
export function createKeepMetrics(): KeepMetrics {
  const rotations = new Map<string, number>([
    ['authority', 0],
    ['webhook', 0],
    ['broker', 0],
  ])
  const failures = new Map<string, number>()
  let ends: ReadonlyMap<string, number> = new Map()
  let lastLook: number | undefined
  let lastSuccess: number | undefined
  let good = false
  return {
    looked(at) {
      lastLook = at
    },
    succeeded(at) {
      lastSuccess = at
      good = true
    },
    failed(reason) {
      add(failures, reason)
      good = false
    },
    made(certificate) {
      add(rotations, certificate)
    },
    ends(found) {
      ends = found
    },
    lastLook: () => lastLook,
    good: () => good,
    text() {
      const seconds = [...ends].map(([name, at]) => [name, Math.floor(at / 1000)] as const)
      const lines = [
        ...figure(
          'nestgate_certificate_expiry_timestamp_seconds',
          ['gauge', 'End of each certificate, in seconds since the epoch.'],
          'certificate',
          seconds,
        ),
        ...figure(
          'nestgate_certificate_rotations_total',
          ['counter', 'Certificates that this process made, the first ones too.'],
          'certificate',
          rotations,
        ),
        ...figure(
          'nestgate_certificates_failures_total',
          ['counter', 'What stood in the way of keeping certificates, by reason.'],
          'reason',
          failures,
        ),
        ...header(LAST, 'gauge', 'When all was last seen to be as it should be.'),
        ...(lastSuccess === undefined ? [] : [`${LAST} ${Math.floor(lastSuccess / 1000)}`]),
      ]
      return `${lines.join('\n')}\n`
    },
  }
}

const LAST = 'nestgate_certificates_last_success_timestamp_seconds'

function add(counts: Map<string, number>, label: string): void {
  counts.set(label, (counts.get(label) ?? 0) + 1)
}

function figure(
  name: string,
  [type, help]: readonly [string, string],
  label: string,
  values: Iterable<readonly [string, number]>,
): readonly string[] {
  const samples = [...values].map(([value, number]) => `${name}{${label}="${value}"} ${number}`)
  return [...header(name, type, help), ...samples]
}

function header(name: string, type: string, help: string): readonly string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`]
}
