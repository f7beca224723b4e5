/** Places in objects: as people read them, and as JSON patches spell them. */

/** Keys and indexes from the root. */
export type Path = readonly (string | number)[]

/** Longest text of one place, in UTF-16 code units: it goes into messages and the ledger. */
const MAX_TEXT = 200
/** A key that stands behind a dot as it is. */
const PLAIN_KEY = /^[A-Za-z_$()][\w$()-]*$/

/** `spec.containers[0].env[2].value`, `data["tls.key"]`, as Kubernetes names fields in its own errors. */
export function fieldText(path: Path): string {
  const text = path
    .map((step, index) => {
      if (typeof step === 'number') return `[${step}]`
      if (!PLAIN_KEY.test(step)) return `[${JSON.stringify(step)}]`
      return index === 0 ? step : `.${step}`
    })
    .join('')
  return text === '' ? '(root)' : printable(text)
}

/** The JSON pointer of a path (RFC 6901); empty for the root. */
export function pointerText(path: Path): string {
  return path.map((step) => `/${String(step).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')
}

/**
 * The steps of a JSON pointer as the API server takes them (evanphx/json-patch v4, findObject): what stands before the first
 * slash is passed over, whatever it is, and escapes are read in one pass (`~01` is `~1`).
 */
export function pointerSteps(pointer: string): readonly string[] {
  return pointer
    .split('/')
    .slice(1)
    .map((step) => step.replaceAll(/~[01]/g, (escape) => (escape === '~1' ? '/' : '~')))
}

/** On one line, without control characters, and not too long. */
export function printable(text: string): string {
  return text.replaceAll(/\p{C}+/gu, ' ').slice(0, MAX_TEXT)
}
