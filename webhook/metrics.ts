/** Figures of one webhook, as Prometheus reads them. */
import { Histogram, countOne, counterLines, gaugeLines } from '../shared/prometheus.ts'
import type { Reason } from '../shared/reasons.ts'
import type { Reviewed } from '../shared/injection/review.ts'

/** Upper bounds of the histogram of reviews, in seconds. */
const REVIEW_BOUNDS_S = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5] as const
const PREFIX = 'nestgate_webhook_'

/** What is measured. */
export interface WebhookMetrics {
  /** A review was answered. @param seconds - from the end of its body to the answer */
  reviewed(result: Pick<Reviewed, 'outcome' | 'reason'>, seconds: number): void
  /** A request was answered with an error, which the API server takes for a no. */
  failed(reason: Reason): void
  /** @param expires - when the serving certificate ends, in seconds of Unix time @param ready - whether reviews are answered */
  text(now: { readonly expires: number; readonly ready: boolean }): string
}

/** All counters at 0. */
export function createWebhookMetrics(): WebhookMetrics {
  const outcomes = new Map<string, number>()
  const refused = new Map<string, number>()
  const observed = new Map<string, number>()
  const errors = new Map<string, number>()
  const times = new Histogram(REVIEW_BOUNDS_S)
  return {
    reviewed({ outcome, reason }, seconds): void {
      countOne(outcomes, outcome)
      times.observe(seconds)
      if (reason !== undefined) countOne(outcome === 'observed' ? observed : refused, reason)
    },
    failed(reason): void {
      countOne(errors, reason)
    },
    text({ expires, ready }): string {
      const counter = (
        name: string,
        help: string,
        label: string,
        counts: ReadonlyMap<string, number>,
      ): readonly string[] => counterLines(`${PREFIX}${name}`, help, label, counts)
      const lines = [
        ...counter('reviews_total', 'Reviews by what came of them.', 'outcome', outcomes),
        ...counter('refused_total', 'Refused reviews by reason.', 'reason', refused),
        ...counter(
          'observed_refusals_total',
          'Reviews that were only observed and would have been refused, by reason.',
          'reason',
          observed,
        ),
        ...counter('errors_total', 'Requests answered with an error, by reason.', 'reason', errors),
        ...times.lines(`${PREFIX}review_seconds`, 'Time to answer a review.'),
        ...gaugeLines(
          `${PREFIX}certificate_expiry_timestamp_seconds`,
          'When the serving certificate ends.',
          expires,
        ),
        ...gaugeLines(`${PREFIX}ready`, 'Whether reviews are answered.', ready ? 1 : 0),
      ]
      return `${lines.join('\n')}\n`
    },
  }
}
