/**
 * Objects as a reviewer may see them: without the server's own bookkeeping, and without what is secret. Secrets
 * are told by kind, whatever path they came by; of other objects the values of variables whose names promise a
 * secret are hidden. A hidden value says whether it changed, and nothing else: not even how long it is.
 */
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import { canonicalText, isArray, isObject, textAt } from './json-tree.ts'
import type { Json, JsonObject } from './json-tree.ts'

/** Variable names that promise a secret value. */
const SECRET_NAME =
  /TOKEN|SECRET|PASSW|PASSPHRASE|PASS(?:$|_)|PWD|KEY|CREDENTIAL|PRIVATE|AUTH|COOKIE|SIGNATURE|DSN|CONNECTION_?STRING|DATABASE_URL/i
/** Paths of JSON patches that lead to a variable's value, by whatever spelling of its place (`0`, `+0`, `-1`), or to kubectl's copy. */
const SECRET_PATH = /\/env\/[^/]+\/value$|last-applied-configuration$/
/** kubectl's copy of the whole object, secrets and all. */
const LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration'
/** What the API server keeps for itself, and makes up anew for each dry run. */
const BOOKKEEPING: ReadonlySet<string> = new Set([
  'creationTimestamp',
  'generation',
  'managedFields',
  'resourceVersion',
  'selfLink',
  'uid',
])
const SECRET_FIELDS: ReadonlySet<string> = new Set(['data', 'stringData'])

/** What stands for a hidden value. */
export const HIDDEN = '***'
const CHANGED = '*** (changed)'
const ADDED = '*** (new)'

/** Canonical texts of hidden values by the place they stand in. Secret: for comparing alone. */
export type Places = ReadonlyMap<string, string>

/** What is known of an object beside itself. */
export interface Concealment {
  /** The root is a Secret, whatever it says of its kind: patches say nothing. */
  readonly secret: boolean
  readonly withStatus: boolean
  /** The server's own bookkeeping is left in; kubectl's copy never is. */
  readonly whole?: boolean
  /** Hidden values of the object before; hidden values that differ are marked. */
  readonly before?: Places
}

/** How a request's objects are shown. */
export function concealmentOf({ info }: Pick<RequestAttributes, 'info'>): Concealment {
  return {
    secret: info.apiGroup === '' && info.resource === 'secrets',
    withStatus: info.subresource === 'status',
  }
}

/** An object to show, and the values that are not in it. */
export interface Concealed {
  readonly shown: Json
  readonly places: Places
}

/** Hides what is secret in an object, a patch or a list of patch operations. */
export function conceal(value: Json, how: Concealment): Concealed {
  const places = new Map<string, string>()
  const hide = (secret: Json, place: string): string => {
    const text = canonicalText(secret)
    places.set(place, text)
    if (how.before === undefined) return HIDDEN
    const old = how.before.get(place)
    if (old === undefined) return ADDED
    return old === text ? HIDDEN : CHANGED
  }
  const walk = (node: Json, place: string): Json => {
    if (isArray(node)) {
      const labels = labelsOf(node)
      return node.map((item, index) => walk(item, `${place}/[${labels[index] ?? ''}]`))
    }
    if (!isObject(node)) return node
    const secret = textAt(node, 'kind') === 'Secret' || (place === '' && how.secret)
    const members = Object.entries(node).flatMap(([key, member]): [string, Json][] => {
      if (isNoise(place, key, member, how)) return []
      const at = `${place}/${JSON.stringify(key)}`
      if (secret && SECRET_FIELDS.has(key)) return [[key, hideEach(member, at, hide)]]
      if (key === 'value' && promisesSecret(node)) return [[key, hide(member, at)]]
      return [[key, walk(member, at)]]
    })
    return Object.fromEntries(members)
  }
  const shown =
    how.secret && isArray(value)
      ? value.map((operation) => hideOperation(operation))
      : walk(value, '')
  return { shown, places }
}

/** Replaces in a text every hidden value that would be recognised in it. */
export function withoutHidden(text: string, places: Iterable<Places>): string {
  let clean = text
  for (const each of places) {
    for (const hidden of each.values()) {
      const bare = hidden.startsWith('"') ? hidden.slice(1, -1) : hidden
      if (bare.length >= MIN_RECOGNISED) clean = clean.replaceAll(bare, HIDDEN)
    }
  }
  return clean
}

/** Shorter values stand in any text by chance. */
const MIN_RECOGNISED = 3

function hideEach(member: Json, place: string, hide: (value: Json, place: string) => string): Json {
  if (!isObject(member)) return member === null ? null : hide(member, place)
  const entries = Object.entries(member).map(([key, value]): [string, Json] => [
    key,
    // null takes a key away: that is no value
    value === null ? null : hide(value, `${place}/${JSON.stringify(key)}`),
  ])
  return Object.fromEntries(entries)
}

/** One operation of a JSON patch on a Secret: its path is shown, its value is not. */
function hideOperation(operation: Json): Json {
  if (!isObject(operation) || !('value' in operation)) return operation
  return { ...operation, value: HIDDEN }
}

/** A variable as containers have them, or an operation of a JSON patch that writes one. */
function promisesSecret(node: JsonObject): boolean {
  return SECRET_NAME.test(textAt(node, 'name')) || SECRET_PATH.test(textAt(node, 'path'))
}

function isNoise(place: string, key: string, member: Json, how: Concealment): boolean {
  if (key === LAST_APPLIED) return true
  if (how.whole === true) return false
  if (place === '') return key === 'status' && !how.withStatus && isObject(member)
  return place === '/"metadata"' && BOOKKEEPING.has(key)
}

/** Names of an array's items, which stay theirs when others come before them; of equal names each has its number. */
function labelsOf(items: readonly Json[]): readonly string[] {
  const seen = new Map<string, number>()
  return items.map((item) => {
    const name = JSON.stringify(textAt(item, 'name'))
    const count = seen.get(name) ?? 0
    seen.set(name, count + 1)
    return `${name}#${count}`
  })
}
