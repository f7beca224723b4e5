/**
 * JSON as it was written: numbers keep their digits, so that nothing that is compared or shown to a person was
 * rounded on the way (`JSON.parse` alone rounds what is above 2^53).
 */
import { parse, stringify } from 'yaml'
import type { ScalarTag } from 'yaml'

/** Deeper values are not read; Kubernetes' own objects end above 30. */
const MAX_DEPTH = 200

/** A number, as the digits that stand for it. */
export class NumberText {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

/** A JSON value. */
export type Json = null | boolean | string | NumberText | readonly Json[] | JsonObject

/** A JSON object. */
export interface JsonObject {
  readonly [key: string]: Json
}

/** Whether a value is an object, and no array. */
export function isObject(value: Json | undefined): value is JsonObject {
  return (
    typeof value === 'object' && value !== null && !isArray(value) && !(value instanceof NumberText)
  )
}

/** Whether a value is an array. */
export function isArray(value: Json | undefined): value is readonly Json[] {
  return Array.isArray(value)
}

/** The string of that name in an object; empty where there is none. */
export function textAt(value: Json | undefined, key: string): string {
  const found = isObject(value) ? value[key] : undefined
  return typeof found === 'string' ? found : ''
}

/** The object of that name in an object; empty where there is none. */
export function objectAt(value: Json | undefined, key: string): JsonObject {
  const found = isObject(value) ? value[key] : undefined
  return isObject(found) ? found : {}
}

/** The array of that name in an object; empty where there is none. */
export function arrayAt(value: Json | undefined, key: string): readonly Json[] {
  const found = isObject(value) ? value[key] : undefined
  return isArray(found) ? found : []
}

/** Reads JSON; undefined for anything else, and for what is nested too deeply. Of equal keys the last counts. */
export function readJson(text: string): Json | undefined {
  return attempt(() => {
    const value: unknown = JSON.parse(text, keepDigits)
    return toJson(value, 0)
  })
}

/** Reads one YAML document without aliases and with each key once; undefined for anything else. */
export function readYaml(text: string): Json | undefined {
  return attempt(() => {
    const value: unknown = parse(text, { maxAliasCount: 0, intAsBigInt: true, logLevel: 'silent' })
    return toJson(value, 0)
  })
}

/** One text for one value: keys in order, no white space, numbers as they were written. */
export function canonicalText(value: Json): string {
  if (value instanceof NumberText) return value.text
  if (isArray(value)) return `[${value.map(canonicalText).join(',')}]`
  if (!isObject(value)) return JSON.stringify(value)
  const members = Object.keys(value)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonicalText(value[key] ?? null)}`)
  return `{${members.join(',')}}`
}

const numberTag: ScalarTag = {
  tag: 'tag:yaml.org,2002:int',
  default: true,
  identify: (value) => value instanceof NumberText,
  resolve: (text) => text,
  stringify: ({ value }) => (value instanceof NumberText ? value.text : ''),
}

/** The value as YAML, keys in order, for people: strings are not folded, numbers stand as they were written. */
export function yamlText(value: Json): string {
  return stringify(value, {
    aliasDuplicateObjects: false,
    customTags: (tags) => [numberTag, ...tags],
    lineWidth: 0,
    sortMapEntries: true,
  })
}

/** A reviver with the source text as its third argument (ECMAScript's JSON.parse source text access). */
function keepDigits(...given: unknown[]): unknown {
  const [, value, context] = given
  if (typeof value !== 'number') return value
  const source =
    typeof context === 'object' && context !== null && 'source' in context
      ? context.source
      : undefined
  return new NumberText(typeof source === 'string' ? source : String(value))
}

function toJson(value: unknown, depth: number): Json {
  if (depth > MAX_DEPTH) throw new RangeError('nested too deeply')
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return value
  if (value instanceof NumberText) return value
  if (typeof value === 'number' || typeof value === 'bigint') return new NumberText(String(value))
  if (Array.isArray(value)) return value.map((item: unknown) => toJson(item, depth + 1))
  if (typeof value !== 'object') throw new TypeError('no JSON value')
  return Object.fromEntries(
    Object.entries(value).map(([key, member]: [string, unknown]) => [
      key,
      toJson(member, depth + 1),
    ]),
  )
}

function attempt(read: () => Json): Json | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
