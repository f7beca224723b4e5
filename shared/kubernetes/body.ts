/**
 * The body of a request, as kube-apiserver would decode it, or not looked into. Media types are those that its handlers
 * know (apiserver, pkg/endpoints/handlers; patch types of apimachinery, pkg/types/patch.go); without one it assumes JSON.
 */
import { isAlias, isNode, isScalar, parseAllDocuments, visit } from 'yaml'
import type { CollectionTag, Document, Scalar, ScalarTag, Tags } from 'yaml'
import { isDeepStrictEqual } from 'node:util'
import { refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'
import type { BodyView } from './attributes.ts'
import { MAX_JSON_DEPTH, readStrictJson, readStrictJsonText } from './strict-json.ts'
import type { JsonResult, JsonValue } from './strict-json.ts'

/** Largest YAML body, in bytes: reading it costs far more than JSON. */
export const MAX_YAML_BYTES = 1024 * 1024

/** Most operations of a JSON patch: those that the API server itself takes (apiserver, endpoints/handlers/patch.go). */
export const MAX_PATCH_OPERATIONS = 10_000
const JSON_PATCH = 'application/json-patch+json'

const JSON_TYPES: ReadonlySet<string> = new Set([
  '',
  'application/json',
  JSON_PATCH,
  'application/merge-patch+json',
  'application/strategic-merge-patch+json',
])
const YAML_TYPES: ReadonlySet<string> = new Set([
  'application/yaml',
  'application/apply-patch+yaml',
])

/** The media type of a `Content-Type` value, in lower case and without parameters. */
export function mediaType(contentType: string): string {
  const end = contentType.indexOf(';')
  return (end === -1 ? contentType : contentType.slice(0, end)).trim().toLowerCase()
}

/** Reads a body. @returns `body_ambiguous` where decoders could read it differently, `body_too_large` for a patch of too many operations */
export function readBody(bytes: Buffer, contentType: string): BodyView | Refusal {
  if (bytes.length === 0) return { state: 'none' }
  const type = mediaType(contentType)
  if (JSON_TYPES.has(type)) return bounded(type, viewOf(readStrictJson(bytes)))
  if (YAML_TYPES.has(type)) return viewOf(readStrictYaml(bytes))
  return { state: 'opaque', contentType: type }
}

function bounded(type: string, view: BodyView | Refusal): BodyView | Refusal {
  const value = 'value' in view ? view.value : undefined
  return type === JSON_PATCH && Array.isArray(value) && value.length > MAX_PATCH_OPERATIONS
    ? refuse('body_too_large', `a JSON patch of more than ${MAX_PATCH_OPERATIONS} operations`)
    : view
}

function viewOf(result: JsonResult): BodyView | Refusal {
  return 'problem' in result
    ? refuse('body_ambiguous', result.problem)
    : { state: 'read', value: result.value }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Reads one YAML document that means the same in YAML 1.1, as kube-apiserver reads it, and in YAML 1.2: no aliases, no
 * tags, no merge keys, and no scalar that one takes for a number or a boolean and the other for text.
 */
export function readStrictYaml(bytes: Uint8Array): JsonResult {
  if (bytes.length > MAX_YAML_BYTES) return { problem: `YAML over ${MAX_YAML_BYTES} bytes` }
  let text: string
  try {
    text = utf8.decode(bytes)
  } catch {
    return { problem: 'it is not UTF-8' }
  }
  // kubectl sends JSON as apply-patch+yaml
  if (/^\s*[{[]/.test(text)) {
    const json = readStrictJsonText(text)
    if ('value' in json) return json
  }
  const old = parse(text, '1.1')
  const current = parse(text, '1.2')
  if (typeof old === 'string') return { problem: old }
  if (typeof current === 'string') return { problem: current }
  const value = plainValue(current)
  if (value === undefined) return { problem: 'it says what JSON cannot, or is nested too deep' }
  return isDeepStrictEqual(plainValue(old), value)
    ? { value }
    : { problem: 'a value means one thing in YAML 1.1 and another in YAML 1.2; quote it' }
}

/** The parsed document, or why it is refused. */
function parse(text: string, version: '1.1' | '1.2'): Document | string {
  const documents = parseAllDocuments(text, {
    version,
    schema: version === '1.1' ? 'yaml-1.1' : 'core',
    uniqueKeys: true,
    // a plain `y` is true as a key of YAML 1.1, too
    stringKeys: version === '1.2',
    intAsBigInt: true,
    customTags: withoutTimestamps,
  })
  if (!Array.isArray(documents) || documents.length !== 1)
    return 'there is not exactly one document'
  const [document] = documents
  if (document === undefined) return 'there is not exactly one document'
  if (document.errors.length > 0 || document.warnings.length > 0) return 'it is not plain YAML'
  return oddity(document) ?? document
}

/** Timestamps stay text, as in kube-apiserver's decoder. */
function withoutTimestamps(tags: Tags): Tags {
  return tags.filter((tag) => typeof tag === 'string' || !isTimestamp(tag))
}

function isTimestamp({ tag }: ScalarTag | CollectionTag): boolean {
  return tag.endsWith(':timestamp')
}

function oddity(document: Document): string | undefined {
  let found: string | undefined
  visit(document, (_key, node) => {
    if (isAlias(node)) found = 'it has an alias'
    else if (isNode(node) && 'tag' in node && explicitTag(node)) found = 'it has a tag'
    else if (isScalar(node) && isNumberInGo(node)) found = 'a text looks like a number; quote it'
    return found === undefined ? undefined : visit.BREAK
  })
  return found
}

/**
 * What yaml.v2 takes for a number, by Go's own reading of integers: with prefixes in either case, and underscores anywhere
 * (resolve.go). Neither version of YAML has it, so both parsers here take some of it for text.
 */
const GO_NUMBER =
  /^[-+]?(?:0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?)$/

function isNumberInGo({ type, value }: Scalar): boolean {
  return (
    type === 'PLAIN' &&
    typeof value === 'string' &&
    !value.startsWith('_') &&
    GO_NUMBER.test(value.replaceAll('_', ''))
  )
}

function explicitTag(node: { readonly tag?: string | undefined }): boolean {
  return node.tag !== undefined
}

/** A document as JSON would have it; undefined where JSON has no word for it. */
function plainValue(document: Document): JsonValue | undefined {
  try {
    return toJson(document.toJS({ maxAliasCount: 0 }), 0)
  } catch {
    return undefined
  }
}

/** @throws RangeError for what JSON cannot say: `.inf`, `.nan`, anything that is no plain value, nesting without end */
function toJson(value: unknown, depth: number): JsonValue {
  if (depth > MAX_JSON_DEPTH) throw new RangeError('too deep')
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value
  if (typeof value === 'bigint') {
    const number = Number(value)
    return Number.isSafeInteger(number) ? number : value
  }
  if (typeof value === 'number' && Number.isFinite(value)) return value
  if (Array.isArray(value)) return value.map((item) => toJson(item, depth + 1))
  if (typeof value !== 'object') throw new RangeError('not plain')
  const object: Record<string, JsonValue> = {}
  Object.setPrototypeOf(object, null)
  for (const [key, inner] of Object.entries(value)) object[key] = toJson(inner, depth + 1)
  return object
}
