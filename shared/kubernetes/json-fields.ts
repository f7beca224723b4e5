/** Looks into values that were read from JSON, without believing anything about their form. */

/** The field of an object; undefined for whatever is no object, or has it not. */
export function fieldOf(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined
  return Object.hasOwn(value, key) ? Reflect.get(value, key) : undefined
}

/** The text in a field, or an empty one. */
export function textOf(value: unknown, key: string): string {
  const found = fieldOf(value, key)
  return typeof found === 'string' ? found : ''
}

/** The whole number in a field. */
export function numberOf(value: unknown, key: string): number | undefined {
  const found = fieldOf(value, key)
  return typeof found === 'number' && Number.isInteger(found) ? found : undefined
}

/** The list in a field, or an empty one. */
export function listOf(value: unknown, key: string): readonly unknown[] {
  const found: unknown = fieldOf(value, key)
  return Array.isArray(found) ? found : []
}

/** The value at the end of a path of keys. */
export function valueAt(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((at, key) => fieldOf(at, key), value)
}

/** Whether a path of keys leads to something, `null` included. */
export function hasAt(value: unknown, path: readonly string[]): boolean {
  const last = path.at(-1)
  const parent = valueAt(value, path.slice(0, -1))
  return (
    last !== undefined &&
    typeof parent === 'object' &&
    parent !== null &&
    !Array.isArray(parent) &&
    Object.hasOwn(parent, last)
  )
}
