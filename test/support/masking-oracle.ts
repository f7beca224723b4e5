/**
 * A second opinion on what an answer hides, written from docs/decisions/0010 alone: reads the whole document into a tree, walks it, and says
 * which bytes are to be replaced, and by what. Shares with the broker the detectors and the tables of names, and no other code.
 *
 * Where the decision leaves a choice, an edit says `optional`, or has several forms.
 */
import { gunzipSync } from 'node:zlib'
import { findSecrets } from '../../broker/masking/detectors/masker.ts'
import {
  isLastApplied,
  isSecretOption,
  secretMember,
  secretName,
} from '../../broker/masking/objects/names.ts'
import type { Masking } from '../../shared/policy/masking.ts'
import { NotJson, readSequence, readSpans } from './json-spans.ts'
import type { Node, ObjectNode, StringNode } from './json-spans.ts'

/** What may stand in place of the bytes. */
export type Form = 'placeholder' | 'base64' | 'registries' | 'spans' | 'gone' | 'embedded' | 'empty'

/** Bytes that are replaced. */
export interface Edit {
  readonly from: number
  readonly to: number
  /** From the root, for messages. */
  readonly path: string
  /** It may also stay as it is. */
  readonly optional: boolean
  readonly forms: ReadonlySet<Form>
  /** Of `spans`: the text, and what of it (in bytes of UTF-8) has to go or may go. */
  readonly text: string
  readonly spans: readonly Span[]
  /** Of `embedded`: what is replaced in the text. */
  readonly inner: readonly Edit[]
}

/** Part of a text. */
export interface Span {
  readonly from: number
  readonly to: number
  readonly optional: boolean
}

/** What becomes of an answer. */
export type Expected =
  | {
      readonly outcome: 'masked'
      readonly edits: readonly Edit[]
      /** It may be refused as well. */
      readonly ambiguous: boolean
    }
  | { readonly outcome: 'refused'; readonly why: string }

/** What it depends on. */
export interface Asked {
  readonly masking: Masking
  readonly shape: 'object' | 'watch'
  readonly write: boolean
  /** The request was for Secrets. */
  readonly aboutSecrets?: boolean
  /** Texts of annotations around it. */
  readonly level?: number
}

/** Says what is to become of an answer. */
export function expectMasking(bytes: Buffer, asked: Asked): Expected {
  try {
    const roots = asked.shape === 'watch' ? readSequence(bytes) : [readSpans(bytes)]
    if (roots.some((root) => !isAnswer(root, asked.shape))) throw new NotJson('no object')
    const walks = roots.map(() => new Walk(asked))
    const edits = roots.flatMap(
      (root, at) => walks[at]?.document(root, asked.shape === 'watch') ?? [],
    )
    return {
      outcome: 'masked',
      edits: edits.sort((a, b) => a.from - b.from),
      ambiguous: walks.some(({ isAmbiguous }) => isAmbiguous),
    }
  } catch (error) {
    if (!(error instanceof NotJson)) throw error
    return { outcome: 'refused', why: error.message }
  }
}

/** Lists without a kind of their own are none of Kubernetes', and yet may come from servers of extensions. */
function isAnswer({ type }: Node, shape: Asked['shape']): boolean {
  return type === 'object' || (type === 'array' && shape === 'object')
}

/** An object that encloses a place, and the way to it from there; `[]` is any item. */
interface Frame {
  readonly kind: string
  readonly group: string
  /** It says of what group it is. */
  readonly versioned: boolean
  /** Members that stand before the kind, of an object where none is due: only data of Secrets and ConfigMaps waits there. */
  readonly late: ReadonlySet<string>
  readonly path: readonly string[]
}

/** Where the walk is. */
interface Place {
  readonly frames: readonly Frame[]
  /** From the root. */
  readonly path: readonly string[]
  /** Here an object is due: `''` where nothing says of which kind. */
  readonly due: string | undefined
}

const SECRET_DATA = new Set(['data', 'stringData'])
/** Of items in lists of which it is not clear that they are any. */
const UNKNOWN = '?'
const KINDS_WITH_DATA = new Set(['ConfigMap', 'ControllerRevision'])
const REGISTRIES = new Set(['.dockerconfigjson', '.dockercfg'])
/** Copies in copies in copies: deeper ones may be hidden whole. */
const MAX_SURE_LEVELS = 2
const MESSAGES = new Set(['message', 'note'])
const WORD_ARRAYS = new Set(['args', 'command'])
const NAMED_ARRAYS = new Set(['env', 'httpHeaders'])
const ANYTHING: readonly Form[] = ['placeholder', 'base64', 'registries']

const textOf = (node: Node | undefined): string | undefined =>
  node?.type === 'string' ? node.text : undefined

class Walk {
  readonly #asked: Asked
  readonly #edits = new Map<number, Edit>()
  /** An item is of another kind than its list: that may be refused. */
  isAmbiguous = false

  constructor(asked: Asked) {
    this.#asked = asked
  }

  document(root: Node, event: boolean): readonly Edit[] {
    this.#visit(root, { frames: [], path: [], due: event ? undefined : '' }, event)
    return [...this.#edits.values()]
  }

  #visit(node: Node, place: Place, event = false): void {
    if (node.type === 'object') this.#object(node, place, event)
    else if (node.type === 'array')
      node.items.forEach((item) => {
        this.#visit(item, step(place, '[]', this.#dueItem(place)))
      })
    else this.#scalar(node, place)
    if (node.type === 'array') this.#words(node.items, place)
  }

  /** Items of an XList are X. */
  #dueItem({ frames, path }: Place): string | undefined {
    const last = path.at(-1)
    if (last !== 'items') return undefined
    if (path.length === 1 && frames.length === 0) return ''
    const list = frames.findLast(({ kind, path: { length } }) => kind !== UNKNOWN && length === 1)
    return list?.kind.endsWith('List') === true ? list.kind.slice(0, -'List'.length) : undefined
  }

  #object(node: ObjectNode, place: Place, event: boolean): void {
    const own = textOf(node.members.get('kind'))
    const frames = [...place.frames]
    const apiVersion = textOf(node.members.get('apiVersion'))
    const of = {
      ...{ group: groupOf(apiVersion ?? ''), versioned: apiVersion !== undefined, path: [] },
      late: place.due === undefined ? keysBefore(node, ['kind', 'apiVersion']) : new Set<string>(),
    }
    const kind = own ?? dueKind(node, place.due)
    if (kind !== undefined) frames.push({ kind, ...of })
    else if (isItem(place) || node.members.has('kind')) frames.push({ kind: UNKNOWN, ...of })
    if (own !== undefined && place.due && own !== place.due) this.isAmbiguous = true
    // What stands in lists may be hidden for what the list says, too.
    if (own !== undefined && isItem(place) && !KINDS_WITH_DATA.has(own))
      frames.push({ kind: UNKNOWN, ...of })
    const here = { ...place, frames }
    for (const [key, value] of node.members) {
      const due = dueMember(here, key, event)
      const below = step(here, key, due)
      this.#member(node, key, value, below)
      this.#visit(value, below)
    }
  }

  /** What depends on other members of the same object. */
  #member(parent: ObjectNode, key: string, value: Node, place: Place): void {
    if (this.#asked.write && place.path.at(-2) === 'metadata' && key === 'managedFields') {
      const secret = place.frames.some(
        ({ kind, path, late }) => kind === 'Secret' && path.length === 2 && !late.has('metadata'),
      )
      const filled = value.type === 'array' && value.items.length > 0
      // Of kinds in which a profile may hide something, they may go too.
      // A copy in an annotation is as old as its annotation, and tells nothing.
      const isCopy = this.#asked.level !== undefined
      this.#replace(value, place, ['empty'], !secret || !filled || isCopy)
    }
    if (key !== 'value' || !NAMED_ARRAYS.has(place.path.at(-3) ?? '')) return
    if (place.path.at(-2) !== '[]') return
    const name = textOf(parent.members.get('name'))
    const keys = [...parent.members.keys()]
    // What stands before its name may be hidden to be sure.
    if (keys.indexOf('value') < keys.indexOf('name') || name === undefined)
      this.#hideScalars(value, place, ['placeholder'], true)
    if (name !== undefined && secretName(name)) this.#hideScalars(value, place, ['placeholder'])
    // Whether the span alone or the whole value goes is left open.
    else this.#detect(value, place, { whole: true })
  }

  #hideScalars(node: Node, place: Place, forms: readonly Form[], optional = false): void {
    if (node.type === 'object')
      for (const [key, value] of node.members)
        this.#hideScalars(value, step(place, key), forms, optional)
    else if (node.type === 'array')
      node.items.forEach((item) => {
        this.#hideScalars(item, step(place, '[]'), forms, optional)
      })
    // Whether a null that is there is a value is left open.
    else this.#replace(node, place, forms, optional || isNull(node))
  }

  #words(items: readonly Node[], place: Place): void {
    if (!WORD_ARRAYS.has(place.path.at(-1) ?? '')) return
    items.forEach((item, index) => {
      const below = step(place, '[]')
      const before = textOf(items[index - 1])
      if (item.type !== 'string') return
      if (before !== undefined && isSecretOption(before))
        this.#replace(item, below, ['placeholder'], false)
      else this.#detect(item, below, { words: true })
    })
  }

  #scalar(node: Node, place: Place): void {
    const { masking } = this.#asked
    for (const frame of place.frames) {
      this.#ofKind(node, place, frame)
      if (masking.fields.some((field) => covers(field, frame)))
        this.#replace(
          node,
          place,
          ['placeholder', 'base64'],
          node.type === 'word' || !frame.versioned || frame.late.has(frame.path[0] ?? ''),
        )
    }
    const annotations = place.path.at(-2) === 'annotations' && place.path.at(-3) === 'metadata'
    if (annotations && node.type === 'string') this.#annotation(node, place)
    const isEmbedded = annotations && this.#embedded(textOf(node) ?? '') !== undefined
    // Of objects that have not said their kind yet, messages are looked at to be sure.
    if (MESSAGES.has(place.path.at(-1) ?? '')) this.#message(node, place)
    // Lists in lists of words are none.
    if (WORD_ARRAYS.has(place.path.findLast((name) => name !== '[]') ?? ''))
      this.#detect(node, place, { words: true, optional: true })
    // Nor are lists in annotations texts.
    if (place.path.at(-1) === '[]' && place.path.includes('annotations'))
      this.#replace(node, place, ANYTHING, true)
    if (masking.everywhere && !isEmbedded) this.#detect(node, place)
  }

  #ofKind(node: Node, place: Place, { kind, group, versioned, path, late }: Frame): void {
    const isLate = late.has(path[0] ?? '')
    const [first, second, third, fourth] = path
    if (kind === 'Secret' && first !== undefined && SECRET_DATA.has(first))
      this.#replace(node, place, secretForms(path, place), isNull(node))
    if (kind === UNKNOWN && first !== undefined && SECRET_DATA.has(first))
      this.#replace(node, place, ANYTHING, true)
    if (kind === 'ConfigMap') this.#configMap(node, place, path)
    // A kind of that name in another group is no credential of the cluster's.
    const foreign = versioned && group !== 'authentication.k8s.io'
    if (kind === 'TokenRequest' && first === 'status' && second === 'token')
      this.#replace(node, place, ['placeholder'], foreign || isLate || node.type === 'word')
    if (kind === 'TokenReview' && first === 'spec' && second === 'token')
      this.#replace(node, place, ['placeholder'], foreign || isLate || node.type === 'word')
    if (kind === 'Event' && path.length === 1 && (first === 'message' || first === 'note'))
      this.#detect(node, place)
    if (kind !== 'Status') return
    const cause = first === 'details' && second === 'causes' && third === '[]'
    if (
      (first === 'message' && path.length === 1) ||
      (cause && fourth === 'message' && path.length === 4)
    )
      this.#status(node, place, isLate)
  }

  #configMap(node: Node, place: Place, [first, ...rest]: readonly string[]): void {
    if (node.type !== 'string' || rest.length === 0) return
    if ((first === 'data' || first === 'binaryData') && secretMember(rest.at(-1) ?? '')) {
      this.#replace(node, place, ANYTHING, false)
      return
    }
    if (first === 'data') {
      if (isCompressed(node.text) !== false)
        this.#replace(node, place, ANYTHING, isCompressed(node.text) === 'maybe')
      this.#detect(node, place)
    }
    if (first !== 'binaryData') return
    const bytes = Buffer.from(node.text, 'base64')
    const found = findSecrets(bytes).length > 0 || isCompressed(node.text) === true
    this.#replace(node, place, ['base64', 'registries'], !found)
  }

  #annotation(node: StringNode, place: Place): void {
    const applied = isLastApplied(place.path.at(-1) ?? '')
    const inner = this.#embedded(node.text)
    if (inner === undefined && applied) this.#replace(node, place, ['placeholder'], false)
    else if (inner === undefined) this.#detect(node, place)
    else {
      const forms: Form[] = ['embedded']
      if ((this.#asked.level ?? 0) >= MAX_SURE_LEVELS) forms.push('placeholder')
      // Detectors may be asked about the text as a whole, too.
      if (detected(node.text).length > 0) forms.push('gone')
      const optional = inner.every((edit) => edit.optional)
      if (inner.length > 0 || forms.length > 1) this.#add(node, place, { forms, inner, optional })
    }
  }

  /** What is hidden in a text that is JSON; undefined for other texts. */
  #embedded(text: string): readonly Edit[] | undefined {
    const level = (this.#asked.level ?? 0) + 1
    const asked: Asked = { ...this.#asked, shape: 'object', level }
    if (!/^\s*[{[]/.test(text)) return undefined
    const found = expectMasking(Buffer.from(text), asked)
    return found.outcome === 'masked' ? found.edits : undefined
  }

  #status(node: Node, place: Place, isLate: boolean): void {
    // An embedded Status says too late what it is; at places of answers it is waited for.
    if (node.type !== 'string' || isLate) return
    const spans = quotes(node.text, this.#asked.aboutSecrets === true)
    // How much of a sentence goes with what it quotes is left open.
    const forms: Form[] = spans.length === 0 ? ['spans'] : ['spans', 'gone']
    this.#add(node, place, { forms, spans: [...spans, ...detected(node.text)] })
  }

  #message(node: Node, place: Place): void {
    if (node.type !== 'string') return
    const spans = [{ from: 0, to: Buffer.byteLength(node.text), optional: true }]
    this.#add(node, place, { forms: ['spans', 'gone'], spans })
  }

  #detect(
    node: Node,
    place: Place,
    also: { words?: true; whole?: true; optional?: true } = {},
  ): void {
    if (node.type !== 'string') return
    const spans = detected(node.text).map((span) => ({ ...span, optional: also.optional === true }))
    // In view of the words before it, more may be found.
    if (also.words) spans.push({ from: 0, to: Buffer.byteLength(node.text), optional: true })
    this.#add(node, place, { forms: also.whole ? ['spans', 'placeholder'] : ['spans'], spans })
  }

  #replace(node: Node, place: Place, forms: readonly Form[], optional: boolean): void {
    this.#add(node, place, { forms, optional })
  }

  #add(
    node: Node,
    { path }: Place,
    more: {
      readonly forms: readonly Form[]
      readonly optional?: boolean
      readonly spans?: readonly Span[]
      readonly inner?: readonly Edit[]
    },
  ): void {
    const text = textOf(node) ?? ''
    const spans = more.spans ?? []
    const inner = more.inner ?? []
    const nothing =
      (more.forms[0] === 'spans' && spans.length === 0) ||
      (more.forms[0] === 'embedded' && more.forms.length === 1 && inner.length === 0)
    if (nothing) return
    const edit: Edit = {
      ...{ from: node.from, to: node.to, path: path.join('.'), text, spans, inner },
      forms: new Set(more.forms),
      optional: more.optional ?? spans.every((span) => span.optional),
    }
    const old = this.#edits.get(node.from)
    this.#edits.set(node.from, old === undefined ? edit : joined(old, edit))
  }
}

/** Of two reasons to hide, the one that hides more decides what may stand there. */
function joined(old: Edit, edit: Edit): Edit {
  const whole = [old, edit].filter(({ forms }) => !forms.has('spans') && !forms.has('embedded'))
  const must = whole.filter(({ optional }) => !optional)
  if (must.length > 0)
    return { ...old, optional: false, forms: new Set(must.flatMap(({ forms }) => [...forms])) }
  return {
    ...old,
    forms: new Set([...old.forms, ...edit.forms]),
    optional: old.optional && edit.optional,
    spans: [...old.spans, ...edit.spans],
    inner: old.inner.length > 0 ? old.inner : edit.inner,
  }
}

function step(place: Place, name: string, due?: string): Place {
  return {
    frames: place.frames.map((frame) => ({ ...frame, path: [...frame.path, name] })),
    path: [...place.path, name],
    due,
  }
}

function dueMember({ frames, path }: Place, key: string, event: boolean): string | undefined {
  if (event && key === 'object') return ''
  const table = frames.findLast((frame) => frame.kind === 'Table')
  const row = table?.path.join('.') === 'rows.[]' && path.at(-1) === '[]'
  return row && key === 'object' ? '' : undefined
}

/** Keys that stand before the last of these. */
function keysBefore({ members }: ObjectNode, names: readonly string[]): ReadonlySet<string> {
  const keys = [...members.keys()]
  return new Set(keys.slice(0, Math.max(0, ...names.map((name) => keys.indexOf(name)))))
}

function isNull(node: Node): boolean {
  return node.type === 'word' && node.text === 'null'
}

function isItem({ path }: Place): boolean {
  return path.length === 0 || path.includes('items') || path.includes('object')
}

/** The kind of an object that does not say it; of one of which nothing says it, Secret where it has what Secrets have. */
function dueKind(node: ObjectNode, due: string | undefined): string | undefined {
  if (due !== '') return due
  return [...SECRET_DATA].some((key) => node.members.has(key)) ? 'Secret' : undefined
}

function groupOf(apiVersion: string): string {
  return apiVersion.includes('/') ? apiVersion.slice(0, apiVersion.indexOf('/')) : ''
}

function secretForms(path: readonly string[], place: Place): readonly Form[] {
  // Annotations are texts, and an object there is none.
  if (place.path.includes('annotations')) return ANYTHING
  const [first, second = ''] = path
  if (path.length === 2 && REGISTRIES.has(second)) return ['registries']
  if (path.length > 2) return ANYTHING
  return first === 'data' ? ['base64'] : ['placeholder']
}

function covers(field: Masking['fields'][number], frame: Frame): boolean {
  // Of an object that does not say its group, it may be any.
  if (field.kind !== frame.kind) return false
  if (frame.versioned && field.group !== frame.group) return false
  return field.path.every((name, index) => {
    const at = frame.path[index]
    return at !== undefined && (name === 'any' || name.name === at)
  })
}

function detected(text: string): Span[] {
  return findSecrets(Buffer.from(text)).map(({ offset, length }) => ({
    from: offset,
    to: offset + length,
    optional: false,
  }))
}

/** What messages quote of an object. */
function quotes(text: string, secret: boolean): Span[] {
  const spans: Span[] = []
  const add = (pattern: RegExp, optional: boolean): void => {
    for (const match of text.matchAll(pattern)) {
      const [from = 0, to = 0] = match.indices?.[1] ?? []
      const start = Buffer.byteLength(text.slice(0, from))
      const end = start + Buffer.byteLength(text.slice(from, to))
      if (end > start) spans.push({ from: start, to: end, optional })
    }
  }
  if (/error found in #\d+ byte of/.test(text)) add(/\.\.\.\|(.*?)\|\.\.\./dgs, false)
  add(/\.\.\.\|(.*)/dgs, true)
  // Of another request a value may be secret by the name of its field.
  add(/\bInvalid value: "((?:[^"\\]|\\.)*)"/dgs, !secret)
  return spans
}

function isCompressed(text: string): boolean | 'maybe' {
  const bytes = Buffer.from(text, 'base64')
  const magic = bytes[0] === 0x1f && bytes[1] === 0x8b && bytes[2] === 0x08
  if (!magic) return /^\s*(?:H4sI|KLUv|QlpoO|\/Td6)/.test(text) ? 'maybe' : false
  try {
    gunzipSync(bytes, { maxOutputLength: 1 << 20 })
    return /^[A-Za-z0-9+/]+={0,2}$/.test(text) ? true : 'maybe'
  } catch {
    return 'maybe'
  }
}
