/**
 * Objects as a reviewer may see them: without the server's own bookkeeping, and without what is secret, by the tables of
 * docs/decisions/0010. Secrets are told by kind, whatever path they came by and however deep they stand, also in texts that
 * are JSON; of other objects values of variables, words of commands and what detectors find are hidden, and fields that an
 * operator names. A hidden value says whether it changed, and nothing else: not even how long it is.
 */
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import type { FieldMask, Masking } from '../../shared/policy/masking.ts'
import { maskArguments } from '../masking/detectors/masker.ts'
import {
  NAMED_PAIRS,
  SECRET_FIELDS,
  WORD_LISTS,
  isLastApplied,
  secretName,
} from '../masking/objects/names.ts'
import { below, fieldsOf, groupOf, isHere } from './conceal-fields.ts'
import type { FieldPaths } from './conceal-fields.ts'
import {
  HIDDEN,
  embeddedJson,
  isSecretBase64,
  isSecretText,
  withoutSecrets,
} from './conceal-text.ts'
import { canonicalText, isArray, isObject, textAt } from './json-tree.ts'
import type { Json, JsonObject } from './json-tree.ts'

export { HIDDEN } from './conceal-text.ts'

/** What the API server keeps for itself, and makes up anew for each dry run. */
const BOOKKEEPING: ReadonlySet<string> = new Set([
  'creationTimestamp',
  'generation',
  'managedFields',
  'resourceVersion',
  'selfLink',
  'uid',
])
/** Kinds in which whatever is called `token` is one (authentication.k8s.io). */
const TOKEN_KINDS: ReadonlySet<string> = new Set(['TokenRequest', 'TokenReview'])
/** Fields of a ConfigMap that hold what it is for. */
const CONFIG_FIELDS: ReadonlySet<string> = new Set(['data', 'binaryData'])
/** Types of Secrets, by which the template of one is told that says no kind. */
const SECRET_TYPE = /^(?:Opaque$|kubernetes\.io\/|bootstrap\.kubernetes\.io\/|helm\.sh\/)/
/** Texts that are JSON are looked into so deep; what is JSON still is hidden. */
const MAX_EMBEDDED = 6

const CHANGED = `${HIDDEN} (changed)`
const ADDED = `${HIDDEN} (new)`

/** Canonical texts of hidden values by the place they stand in. Secret: for comparing alone. */
export type Places = ReadonlyMap<string, string>

/** What is known of an object beside itself. */
export interface Concealment {
  /** The root is a Secret, whatever it says of its kind: patches say nothing. */
  readonly secret: boolean
  /** What else the root is where it says no kind. */
  readonly kind?: string
  /** API group of the root. */
  readonly group?: string
  /** Fields that an operator wants hidden. */
  readonly fields?: readonly FieldMask[]
  readonly withStatus: boolean
  /** The server's own bookkeeping is left in; copies that appliers keep never are. */
  readonly whole?: boolean
  /** Hidden values of the object before; hidden values that differ are marked. */
  readonly before?: Places
}

/** Kinds of requests that patch, or whose bodies need not say what they are. */
const KINDS: ReadonlyMap<string, string> = new Map([
  ['/secrets', 'Secret'],
  ['/configmaps', 'ConfigMap'],
  ['/serviceaccounts/token', 'TokenRequest'],
  ['authentication.k8s.io/tokenreviews', 'TokenReview'],
])

/** How a request's objects are shown. @param masking - as policy has it; of its profiles only the fields count */
export function concealmentOf(
  { info }: Pick<RequestAttributes, 'info'>,
  masking?: Masking,
): Concealment {
  const { apiGroup, resource, subresource } = info
  const resourcePath = subresource === '' ? resource : `${resource}/${subresource}`
  const kind = KINDS.get(`${apiGroup}/${resourcePath}`)
  return {
    secret: resource === 'secrets',
    ...(kind === undefined ? {} : { kind }),
    group: apiGroup,
    fields: masking?.fields ?? [],
    withStatus: subresource === 'status',
  }
}

/** An object to show, and the values that are not in it. */
export interface Concealed {
  readonly shown: Json
  readonly places: Places
}

/** Hides what is secret in an object, a patch or a list of patch operations. */
export function conceal(value: Json, how: Concealment): Concealed {
  const concealer = new Concealer(how)
  const shown = concealer.root(value)
  return { shown, places: concealer.places }
}

/** What the walk knows of where it is. */
interface Within {
  /** Kind of the nearest object that has one. */
  readonly kind: string
  readonly fields: FieldPaths
  /** What the items of a list are that say no kind. */
  readonly itemKind: string
  readonly group: string
}

/** What it knows of the object that it is in. */
interface Own extends Within {
  readonly secret: boolean
}

const NOWHERE: Within = { kind: '', fields: [], itemKind: '', group: '' }

class Concealer {
  readonly places = new Map<string, string>()
  readonly #how: Concealment
  #embedded = 0

  constructor(how: Concealment) {
    this.#how = how
  }

  root(value: Json): Json {
    const { secret, kind = secret ? 'Secret' : '', group = '', fields = [] } = this.#how
    if (!isArray(value)) return this.#walk(value, '', { ...NOWHERE, itemKind: kind, group })
    const within = { ...NOWHERE, kind, group, fields: fieldsOf(fields, group, kind) }
    return this.#operations(value, within)
  }

  #walk(node: Json, place: string, within: Within): Json {
    if (typeof node === 'string') return this.#text(node, place)
    if (isArray(node)) return this.#items(node, place, within)
    if (!isObject(node)) return node
    const own = this.#enter(node, place, within)
    const members = Object.entries(node).flatMap(([key, member]): [string, Json][] =>
      isNoise(place, key, member, this.#how)
        ? []
        : [[key, this.#member(node, key, member, `${place}/${JSON.stringify(key)}`, own)]],
    )
    return Object.fromEntries(members)
  }

  /** What is known within an object: of its own kind, or of that of the list that it is an item of. */
  #enter(node: JsonObject, place: string, within: Within): Own {
    const said = textAt(node, 'kind')
    const kind = said === '' ? within.itemKind : said
    const version = textAt(node, 'apiVersion')
    const group = version === '' ? within.group : groupOf(version)
    if (kind === '' && place !== '')
      return { ...within, group, itemKind: '', secret: isTemplate(node) }
    return {
      ...{ kind, group, secret: kind === 'Secret' || (place === '' && this.#how.secret) },
      fields: [...within.fields, ...fieldsOf(this.#how.fields ?? [], group, kind)],
      itemKind: kind.endsWith('List') ? kind.slice(0, -'List'.length) : '',
    }
  }

  #member(node: JsonObject, key: string, member: Json, at: string, own: Own): Json {
    const fields = below(own.fields, key)
    if (own.secret && SECRET_FIELDS.has(key) && !isHere(fields)) return this.#hideEach(member, at)
    if (isHere(fields) || this.#isHidden(node, key, own.kind))
      return member === null ? null : this.#hide(member, at)
    if (isConfig(own, key) && isObject(member)) return this.#configData(member, at, key)
    if (WORD_LISTS.has(key) && isTexts(member)) return this.#words(member, at)
    const { kind, group } = own
    const itemKind = key === 'items' ? own.itemKind : ''
    return this.#walk(member, at, { kind, group, fields, itemKind })
  }

  #isHidden(node: JsonObject, key: string, kind: string): boolean {
    if (key === 'token' && TOKEN_KINDS.has(kind)) return true
    return key === 'value' && promisesSecret(node)
  }

  #items(node: readonly Json[], place: string, within: Within): Json {
    const labels = labelsOf(node)
    return node.map((item, index) => {
      const at = `${place}/[${labels[index] ?? ''}]`
      const fields = below(within.fields, String(index))
      if (isHere(fields)) return item === null ? null : this.#hide(item, at)
      return this.#walk(item, at, { ...within, fields })
    })
  }

  /** The operations of a JSON patch (RFC 6902). Of one on a Secret the path is shown, its value is not. */
  #operations(list: readonly Json[], within: Within): Json {
    const words = wordsOf(list)
    return list.map((operation, index) => {
      if (!isObject(operation) || !('value' in operation))
        return this.#walk(operation, '/[]', NOWHERE)
      if (this.#how.secret) return { ...operation, value: HIDDEN }
      const at = `/[${index}]`
      const word = words.get(index)
      const value =
        word === undefined
          ? this.#operand(operation, at, within)
          : this.#words([word.text], at, [word.shown])[0]
      return { ...operation, value: value ?? null }
    })
  }

  #operand(operation: JsonObject, at: string, within: Within): Json {
    const { value = null } = operation
    const segments = pointerOf(textAt(operation, 'path'))
    const key = segments.at(-1) ?? ''
    // what is put in is taken for what stands there
    if (segments.length === 0) return this.#walk(value, at, { ...within, itemKind: within.kind })
    let { fields } = within
    for (const segment of segments.slice(0, -1)) {
      fields = below(fields, segment)
      if (isHere(fields)) return this.#hide(value, at)
    }
    const named = isConfig(within, segments[0] ?? '') && segments.length === 2 && secretName(key)
    if (named || promisesSecret(operation) || isLastApplied(key)) return this.#hide(value, at)
    return this.#member({}, key, value, at, { ...within, fields, secret: false })
  }

  /** Of a ConfigMap: a key whose name promises a secret, and whatever detectors find, in `binaryData` behind base64. */
  #configData(member: JsonObject, at: string, field: string): Json {
    const entries = Object.entries(member).map(([key, value]): [string, Json] => {
      const place = `${at}/${JSON.stringify(key)}`
      if (typeof value !== 'string') return [key, this.#walk(value, place, NOWHERE)]
      const hidden = secretName(key) || (field === 'binaryData' && isSecretBase64(value))
      return [key, hidden ? this.#hide(value, place) : this.#text(value, place)]
    })
    return Object.fromEntries(entries)
  }

  /** Words of a command, those hidden that detectors or the option before them tell. */
  #words(words: readonly string[], at: string, masked = maskArguments(words)): readonly Json[] {
    return words.map((word, index) => {
      const shown = masked[index] ?? HIDDEN
      const place = `${at}/[${index}]`
      if (shown === word) return this.#text(word, place)
      return this.#span(word, shown.replaceAll(/\*{2,}/g, HIDDEN), place)
    })
  }

  #text(text: string, place: string): string {
    if (isSecretText(text)) return this.#hide(text, place)
    const shown = this.#withinJson(text, place)
    if (shown === undefined) return this.#hide(text, place)
    const clean = withoutSecrets(shown)
    return clean === shown ? shown : this.#span(text, clean, place)
  }

  /** A text that is JSON, with what is secret in it hidden; undefined where that goes too deep to be looked at. */
  #withinJson(text: string, place: string): string | undefined {
    const value = embeddedJson(text)
    if (value === undefined) return text
    if (this.#embedded >= MAX_EMBEDDED) return undefined
    this.#embedded += 1
    try {
      const shown = canonicalText(this.#walk(value, `${place}/json`, NOWHERE))
      return shown === canonicalText(value) ? text : shown
    } finally {
      this.#embedded -= 1
    }
  }

  /** A text of which a part is hidden. */
  #span(text: string, shown: string, place: string): string {
    const canonical = canonicalText(text)
    this.places.set(place, canonical)
    const old = this.#how.before?.get(place)
    return old === undefined || old === canonical ? shown : `${shown} (changed)`
  }

  #hide(secret: Json, place: string): string {
    const text = canonicalText(secret)
    this.places.set(place, text)
    const { before } = this.#how
    if (before === undefined) return HIDDEN
    const old = before.get(place)
    if (old === undefined) return ADDED
    return old === text ? HIDDEN : CHANGED
  }

  #hideEach(member: Json, place: string): Json {
    if (!isObject(member)) return member === null ? null : this.#hide(member, place)
    const entries = Object.entries(member).map(([key, value]): [string, Json] => [
      key,
      // null takes a key away: that is no value
      value === null ? null : this.#hide(value, `${place}/${JSON.stringify(key)}`),
    ])
    return Object.fromEntries(entries)
  }
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

function isConfig({ kind }: Within, key: string): boolean {
  return kind === 'ConfigMap' && CONFIG_FIELDS.has(key)
}

/** A Secret's template, as operators have it in objects of their own. */
function isTemplate(node: JsonObject): boolean {
  return (
    SECRET_TYPE.test(textAt(node, 'type')) &&
    Object.keys(node).some((key) => SECRET_FIELDS.has(key))
  )
}

/** A variable or header as containers have them, or an operation of a JSON patch that writes one. */
function promisesSecret(node: JsonObject): boolean {
  if (secretName(textAt(node, 'name'))) return true
  // by whatever spelling of the item's place: `0`, `+0`, `-1`
  const [list = '', , last] = pointerOf(textAt(node, 'path')).slice(-3)
  return last === 'value' && NAMED_PAIRS.has(list)
}

/** The names of a JSON pointer (RFC 6901). */
function pointerOf(path: string): readonly string[] {
  return path
    .split('/')
    .slice(1)
    .map((segment) => segment.replaceAll('~1', '/').replaceAll('~0', '~'))
}

/** Words that a patch puts into lists one by one: an option and its secret may come apart. */
function wordsOf(list: readonly Json[]): ReadonlyMap<number, { text: string; shown: string }> {
  const found = list.flatMap((operation, index): { index: number; text: string }[] => {
    const [parent = ''] = pointerOf(textAt(operation, 'path')).slice(-2, -1)
    const value = isObject(operation) ? operation['value'] : undefined
    return WORD_LISTS.has(parent) && typeof value === 'string' ? [{ index, text: value }] : []
  })
  const shown = maskArguments(found.map(({ text }) => text))
  return new Map(found.map(({ index, text }, at) => [index, { text, shown: shown[at] ?? HIDDEN }]))
}

function isTexts(member: Json): member is readonly string[] {
  return isArray(member) && member.every((item) => typeof item === 'string')
}

function isNoise(place: string, key: string, member: Json, how: Concealment): boolean {
  if (isLastApplied(key)) return true
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
