/**
 * Plain values (parsed JSON) as the CEL library takes them. It would take plain objects too, but reads some of them as
 * something else (`$typeName`, `constructor`): bodies are others' work, so only maps that we make reach it. A map
 * or list is made when it is first looked into: what a condition does not ask about costs nothing.
 */
import type { CelInput } from '@bufbuild/cel'
import { isRecord } from '../config-source.ts'

type Made = Map<string, CelInput> | CelInput[]

const made = new WeakMap<object, Made>()

/** Whole numbers become `int`, others `double`; fields whose value is undefined are not there. */
export function toCelInput(value: unknown): CelInput {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value
    case 'number':
      return Number.isSafeInteger(value) ? BigInt(value) : value
    default:
      return Array.isArray(value) || isRecord(value) ? structure(value) : null
  }
}

function structure(value: readonly unknown[] | Readonly<Record<string, unknown>>): Made {
  const known = made.get(value)
  if (known !== undefined) return known
  const fresh = isList(value) ? value.map(toCelInput) : new LazyMap(value)
  made.set(value, fresh)
  return fresh
}

function isList(value: object): value is readonly unknown[] {
  return Array.isArray(value)
}

/** A record as a map whose values are made when they are asked for. */
class LazyMap extends Map<string, CelInput> {
  readonly #fields: Readonly<Record<string, unknown>>
  readonly #keys: readonly string[]

  constructor(fields: Readonly<Record<string, unknown>>) {
    super()
    this.#fields = fields
    this.#keys = Object.keys(fields).filter((key) => fields[key] !== undefined)
  }

  override get size(): number {
    return this.#keys.length
  }

  override get(key: string): CelInput | undefined {
    if (typeof key !== 'string' || !Object.hasOwn(this.#fields, key)) return undefined
    const value = this.#fields[key]
    return value === undefined ? undefined : toCelInput(value)
  }

  override has(key: string): boolean {
    return this.get(key) !== undefined
  }

  override keys(): MapIterator<string> {
    return this.#keys.values()
  }

  override *entries(): MapIterator<[string, CelInput]> {
    for (const key of this.#keys) yield [key, toCelInput(this.#fields[key])]
  }

  override *values(): MapIterator<CelInput> {
    for (const key of this.#keys) yield toCelInput(this.#fields[key])
  }

  override [Symbol.iterator](): MapIterator<[string, CelInput]> {
    return this.entries()
  }

  override forEach(work: (value: CelInput, key: string, map: Map<string, CelInput>) => void): void {
    for (const [key, value] of this.entries()) work(value, key, this)
  }
}
