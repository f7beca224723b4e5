/**
 * Prometheus' text format (version 0.0.4). Label values must come from closed sets, so that nothing a client sends can grow
 * what is kept, and none of them may be a secret: nothing is escaped here.
 */

/** Content type of the text. */
export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

/** A counter by one label: a sample for each of its values that was seen. */
export function counterLines(
  name: string,
  help: string,
  label: string,
  counts: ReadonlyMap<string, number>,
): readonly string[] {
  const samples = [...counts].map(([value, count]) => `${name}{${label}="${value}"} ${count}`)
  return [...headerLines(name, 'counter', help), ...samples]
}

/** A gauge without labels. */
export function gaugeLines(name: string, help: string, value: number): readonly string[] {
  return [...headerLines(name, 'gauge', help), `${name} ${value}`]
}

/** What every metric begins with. */
function headerLines(
  name: string,
  type: 'counter' | 'gauge' | 'histogram',
  help: string,
): readonly string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`]
}

/** Adds one to the count of a label's value. */
export function countOne(counts: Map<string, number>, value: string): void {
  counts.set(value, (counts.get(value) ?? 0) + 1)
}

/** A histogram of times. */
export class Histogram {
  readonly #bounds: readonly number[]
  readonly #buckets: number[]
  #count = 0
  #sum = 0

  /** @param bounds - upper bounds in seconds, ascending; the last one, infinity, is added */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds
    this.#buckets = bounds.map(() => 0)
  }

  /** @param seconds - one time */
  observe(seconds: number): void {
    this.#count += 1
    this.#sum += seconds
    for (const [at, bound] of this.#bounds.entries())
      if (seconds <= bound) this.#buckets[at] = (this.#buckets[at] ?? 0) + 1
  }

  /** Its text. */
  lines(name: string, help: string): readonly string[] {
    return [
      ...headerLines(name, 'histogram', help),
      ...this.#bounds.map((bound, at) => `${name}_bucket{le="${bound}"} ${this.#buckets[at] ?? 0}`),
      `${name}_bucket{le="+Inf"} ${this.#count}`,
      `${name}_sum ${this.#sum}`,
      `${name}_count ${this.#count}`,
    ]
  }
}
