/**
 * Figures of one sidecar in Prometheus' text format (version 0.0.4). Label values come from closed sets only, so that
 * nothing a client sends can grow them, and none of them is a secret.
 */
import { Histogram, countOne, counterLines, gaugeLines } from '../shared/prometheus.ts'
import { REASONS } from '../shared/reasons.ts'
import type { Reason } from '../shared/reasons.ts'
import { VERDICTS } from '../shared/tag-constants.ts'
import type { Verdict } from '../shared/tag-constants.ts'

/** Upper bounds of the histogram of lookups, in seconds. */
const LOOKUP_BOUNDS_S = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5] as const

/** How a request ended. */
export type Ended = 'answered' | 'left' | Reason

/** Counts what happens. */
export interface Metrics {
  /** A caller was looked up, which took so many milliseconds. */
  lookup(result: Verdict | Reason, tookMs: number): void
  /** A request ended: answered by the broker, refused here, or left by its client. */
  request(ended: Ended): void
  /** @param gauges - values of this moment by name, without the prefix */
  text(gauges: Readonly<Record<string, number>>): string
}

/** All counters at 0. */
export function createMetrics(): Metrics {
  const lookups = new Map<string, number>()
  const requests = new Map<string, number>()
  const times = new Histogram(LOOKUP_BOUNDS_S)
  return {
    lookup(result, tookMs): void {
      countOne(lookups, known(result))
      times.observe(tookMs / 1000)
    },
    request(ended): void {
      countOne(requests, known(ended))
    },
    text(gauges): string {
      const lines = [
        ...counterLines(
          `${PREFIX}lookups_total`,
          'Lookups of callers by verdict or refusal.',
          'result',
          lookups,
        ),
        ...counterLines(
          `${PREFIX}requests_total`,
          'Requests by how they ended.',
          'result',
          requests,
        ),
        ...times.lines(`${PREFIX}lookup_seconds`, 'Time to look a caller up.'),
      ]
      for (const [name, value] of Object.entries(gauges))
        lines.push(...gaugeLines(`${PREFIX}${name}`, 'See docs/configuration.md.', value))
      return `${lines.join('\n')}\n`
    },
  }
}

const PREFIX = 'nestgate_sidecar_'
const KNOWN: ReadonlySet<string> = new Set([
  ...VERDICTS,
  ...Object.keys(REASONS),
  'answered',
  'left',
])

/** Values of a label are a closed set, whatever comes. */
function known(label: string): string {
  return KNOWN.has(label) ? label : 'other'
}
