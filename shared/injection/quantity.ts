/** Resource quantities (`100m`, `64Mi`), as far as the webhook must know when two texts mean the same amount. */

/** Form of a non-negative quantity; Kubernetes' `resource.Quantity` accepts these and signed ones. */
export const QUANTITY = /^(\d+(?:\.\d*)?|\.\d+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,2}))?$/

const SUFFIXES: Readonly<Record<string, number>> = {
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
}

/** Relative error that is taken for rounding: the API server rewrites quantities to their shortest exact form. */
const TOLERANCE = 1e-12

/** The amount of a quantity in its base unit (cores, bytes), or undefined for anything else. */
export function quantityAmount(text: unknown): number | undefined {
  const match = typeof text === 'string' ? QUANTITY.exec(text) : null
  if (match === null) return undefined
  const [, number = '', suffix, exponent] = match
  const scale = suffix === undefined ? 10 ** Number(exponent ?? '0') : (SUFFIXES[suffix] ?? 1)
  return Number(number) * scale
}

/** Whether two quantities are the same amount, as the API server's rewriting of `1000m` to `1` leaves it. */
export function sameQuantity(a: unknown, b: unknown): boolean {
  const first = quantityAmount(a)
  const second = quantityAmount(b)
  if (first === undefined || second === undefined) return false
  return Math.abs(first - second) <= TOLERANCE * Math.max(first, second)
}
