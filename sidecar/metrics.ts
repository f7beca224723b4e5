/**
 * Figures of one sidecar in Prometheus' text format (version 0.0.4). Label values come from closed sets only, so that
 * nothing a client sends can grow them, and none of them is a secret.
 */
import { REASONS } from '../shared/reasons.ts'
import type { Reason } from '../shared/reasons.ts'
import { VERDICTS } from '../shared/tag-constants.ts'
import type { Verdict } from '../shared/tag-constants.ts'

/** Upper bounds of the histogram of lookups, in seconds. */
const LOOKUP_BOUNDS_S = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5] as const

/** Content type of the text. */
export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

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
  const buckets: number[] = LOOKUP_BOUNDS_S.map(() => 0)
  let count = 0
  let sum = 0
  return {
    lookup(result, tookMs): void {
      add(lookups, result)
      const seconds = tookMs / 1000
      count += 1
      sum += seconds
      for (const [at, bound] of LOOKUP_BOUNDS_S.entries())
        if (seconds <= bound) buckets[at] = (buckets[at] ?? 0) + 1
    },
    request(ended): void {
      add(requests, ended)
    },
    text(gauges): string {
      const lines = [
        ...counter('lookups_total', 'Lookups of callers by verdict or refusal.', lookups),
        ...counter('requests_total', 'Requests by how they ended.', requests),
        ...header('lookup_seconds', 'histogram', 'Time to look a caller up.'),
        ...LOOKUP_BOUNDS_S.map(
          (bound, at) => `${PREFIX}lookup_seconds_bucket{le="${bound}"} ${buckets[at] ?? 0}`,
        ),
        `${PREFIX}lookup_seconds_bucket{le="+Inf"} ${count}`,
        `${PREFIX}lookup_seconds_sum ${sum}`,
        `${PREFIX}lookup_seconds_count ${count}`,
      ]
      for (const [name, value] of Object.entries(gauges))
        lines.push(
          ...header(name, 'gauge', 'See docs/configuration.md.'),
          `${PREFIX}${name} ${value}`,
        )
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

function add(counts: Map<string, number>, label: string): void {
  const key = KNOWN.has(label) ? label : 'other'
  counts.set(key, (counts.get(key) ?? 0) + 1)
}

function counter(
  name: string,
  help: string,
  counts: ReadonlyMap<string, number>,
): readonly string[] {
  const samples = [...counts].map(
    ([label, value]) => `${PREFIX}${name}{result="${label}"} ${value}`,
  )
  return [...header(name, 'counter', help), ...samples]
}

function header(name: string, type: string, help: string): readonly string[] {
  return [`# HELP ${PREFIX}${name} ${help}`, `# TYPE ${PREFIX}${name} ${type}`]
}
