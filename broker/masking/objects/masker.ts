/**
 * Masks Kubernetes objects in a stream of JSON (docs/decisions/0010). It follows which object it is in by what the
 * objects say of themselves, replaces what is secret, and lets every other byte go on as it came.
 */
import { JsonReader, unmaskable } from '../json/reader.ts'
import { Utf8Check } from '../json/utf8.ts'
import type { TokenHandler } from '../json/reader.ts'
import type { JsonMasker, MaskedAnswer, MaskedFields, Placeholders } from '../types.ts'
import { EmbeddedMasker, PLAIN_FROM_BYTES } from './embedded.ts'
import { fieldsOf, follow, isHidden } from './fields.ts'
import type { Fields } from './fields.ts'
import * as frames from './frames.ts'
import { Frame, pathWith } from './frames.ts'
import type { Deferred, Role } from './frames.ts'
import * as keys from './keys.ts'
import { SECRET_FIELDS } from './names.ts'
import { Output } from './output.ts'
import type { Instead } from './output.ts'
import { isPlainKind } from './plain-kinds.ts'
import { Replacements, SECRET_WORD } from './replacements.ts'
import type { Place } from './replacements.ts'
import {
  CONFIG_MAP,
  isBase64In,
  isBookkeeping,
  itemKind,
  mayHaveKind,
  roleBelow,
  scalarRole,
  SECRET,
} from './roles.ts'
import { textOf } from './texts.ts'
import type { TextToken } from './texts.ts'

/** What an object is called that has not said its kind. */
const NO_KIND = 'object'
const LETTER_N = 0x6e
const NO_BYTES = Buffer.alloc(0)
const EMPTY_LIST = '[]'
/** How deep copies of objects within annotations are looked into; what is deeper is hidden. */
const MAX_COPIES = 4

/** Begins to mask an answer. */
export function createJsonMasker(answer: MaskedAnswer): JsonMasker {
  return new ObjectMasker(answer, MAX_COPIES)
}

/** Masks a whole document. @throws Fault `answer_unmaskable` */
export function maskDocument(
  bytes: Buffer,
  answer: MaskedAnswer,
): { readonly bytes: Buffer; readonly masked: MaskedFields } {
  const masker = createJsonMasker(answer)
  const pieces = [...masker.push(bytes), ...masker.end()]
  return { bytes: Buffer.concat(pieces), masked: masker.masked }
}

class ObjectMasker implements JsonMasker, TokenHandler {
  readonly #answer: MaskedAnswer
  readonly #fields: Fields
  readonly #reader: JsonReader
  readonly #utf8 = new Utf8Check()
  readonly #output = new Output()
  readonly #replacements: Replacements
  readonly #frames: Frame[] = []
  /** Open containers. */
  #depth = 0
  /** Members that wait for a kind, of all open objects. */
  #deferring = 0
  /** What the reader's positions count from, itself counted from the begin of the answer. */
  #base = 0
  /** Behind the last token that was read, counted from the begin of the answer. */
  #read = 0
  /** From here on only copies of objects are looked for. */
  #embedded: EmbeddedMasker | undefined

  constructor(answer: MaskedAnswer, copies: number) {
    this.#answer = answer
    this.#fields = fieldsOf(answer.masking.fields)
    this.#reader = new JsonReader(this, answer.shape === 'watch')
    this.#replacements = new Replacements(answer, (text, where) => {
      if (copies === 0) throw unmaskable('copies of objects are nested too deeply')
      const of = prefixed(where())
      const inner = new ObjectMasker(
        { ...answer, placeholders: { of }, shape: 'object' },
        copies - 1,
      )
      const pieces = [...inner.push(text), ...inner.end()]
      const { masked } = inner
      return masked.count === 0 ? undefined : { bytes: Buffer.concat(pieces), masked }
    })
  }

  get masked(): MaskedFields {
    return this.#replacements.masked
  }

  push(chunk: Buffer): readonly Buffer[] {
    this.#utf8.push(chunk)
    if (this.#embedded !== undefined) return this.#embedded.push(chunk)
    const bytes = this.#advance(chunk, false)
    const out = this.#output.take(this.#read)
    if (!this.#isPlainFromHere()) return out
    this.#embedded = new EmbeddedMasker((token) =>
      this.#replacements.embedded(token, this.#whereEmbedded),
    )
    return [...out, ...this.#embedded.push(bytes.subarray(this.#read - this.#base))]
  }

  end(): readonly Buffer[] {
    this.#utf8.end()
    if (this.#embedded !== undefined) return this.#embedded.end()
    const bytes = this.#advance(NO_BYTES, true)
    if (!this.#reader.isWhole) throw unmaskable('it ends too early')
    return this.#output.take(this.#base + bytes.length)
  }

  #advance(chunk: Buffer, isEnd: boolean): Buffer {
    const bytes = this.#output.add(chunk)
    this.#base = this.#output.begin
    this.#read = this.#base + this.#reader.read(bytes, this.#read - this.#base, isEnd)
    return bytes
  }

  #isPlainFromHere(): boolean {
    const [root, items] = this.#frames
    if (this.#read < PLAIN_FROM_BYTES || root === undefined || this.#depth < 2) return false
    if (items?.role !== frames.LISTED || this.#answer.masking.everywhere) return false
    if (this.#output.begin !== this.#read || this.#deferring > 0) return false
    return this.#areAllPlain(itemKind(root.kind ?? ''), root.group)
  }

  #areAllPlain(kind: string | undefined, group: string | undefined): boolean {
    if (kind === undefined || group === undefined || !isPlainKind(group, kind)) return false
    return this.#fields.of(kind, group) === undefined
  }

  // what the reader tells

  key(bytes: Buffer, start: number, end: number, isEscaped: boolean, hash: number): void {
    const frame = this.#frames[this.#depth - 1]
    if (frame === undefined) return
    const key = keys.keyId(bytes, start, end, isEscaped, hash)
    this.#endMember(frame)
    frame.member(key, bytes, start, end, isEscaped)
    if (!mayHaveKind(frame) || key === keys.KIND || key === keys.API_VERSION) return
    if (frame.kind === undefined) this.#beginUndecided(frame, key)
    else if (key !== keys.METADATA) frame.isDecided = true
  }

  text(bytes: Buffer, start: number, end: number, isEscaped: boolean): void {
    const frame = this.#frames[this.#depth - 1]
    if (this.#depth === 0 || frame === undefined) throw unmaskable('it is no object')
    if (frame.isArray) frame.count++
    if (frame.role === frames.DROPPED || this.#isOfNoInterest(frame)) return
    const token = { bytes, start, end, isEscaped }
    const isField = frame.fields !== undefined && follow(frame.fields, frame.step) === 'hidden'
    const instead = isField
      ? this.#replacements.whole(this.#where, false)
      : this.#textIn(frame, token)
    this.#put(token, start, end, instead)
  }

  plain(bytes: Buffer, start: number, end: number): void {
    const frame = this.#frames[this.#depth - 1]
    if (this.#depth === 0 || frame === undefined) throw unmaskable('it is no object')
    if (frame.isArray) frame.count++
    if (frame.role === frames.DROPPED || bytes[start] === LETTER_N) return
    const isField = frame.fields !== undefined && follow(frame.fields, frame.step) === 'hidden'
    const isHiddenHere = isField || scalarRole(frame) === frames.HIDDEN
    const instead = isHiddenHere
      ? this.#replacements.whole(this.#where, !isField && isBase64In(frame))
      : undefined
    this.#put(undefined, start, end, instead)
  }

  open(at: number, isArray: boolean): void {
    const parent = this.#frames[this.#depth - 1]
    if (parent?.isArray === true) parent.count++
    const frame = (this.#frames[this.#depth] ??= new Frame())
    this.#depth++
    if (parent === undefined) {
      if (isArray && this.#answer.shape === 'watch') throw unmaskable('an event is no object')
      frame.reset(isArray, frames.PLAIN)
      frame.isObjectPlace = !isArray
      return
    }
    const nodes = parent.fields === undefined ? undefined : follow(parent.fields, parent.step)
    if (nodes === 'hidden') {
      frame.reset(isArray, frames.HIDDEN)
      return
    }
    this.#enter(parent, frame, isArray)
    frame.fields = nodes
    if (frame.kind !== undefined) this.#settle(frame)
    if (frame.role === frames.DROPPED && parent.role !== frames.DROPPED)
      frame.span = this.#output.defer(this.#base + at, this.#base + at, EMPTY_LIST, 1)
  }

  close(end: number): void {
    const frame = this.#frames[this.#depth - 1]
    if (frame === undefined) return
    this.#endMember(frame)
    if (frame.deferred !== undefined) this.#decide(frame)
    if (frame.span !== undefined) {
      frame.span.end = this.#base + end
      frame.span.waits--
    }
    this.#depth--
  }

  // what containers are

  #enter(parent: Frame, frame: Frame, isArray: boolean): void {
    const role = this.#roleOf(parent, isArray)
    frame.reset(isArray, role)
    if (role === frames.HIDDEN) frame.isBase64 = isBase64In(parent)
    if (isArray || role !== frames.PLAIN) return
    if (parent.role === frames.LISTED) {
      frame.isObjectPlace = true
      const list = this.#frames[this.#depth - 3]
      frame.kind = list?.kind === undefined ? undefined : itemKind(list.kind)
      frame.isDefaultKind = frame.kind !== undefined
      if (frame.isDefaultKind) frame.group = list?.group
    } else frame.isObjectPlace = parent.key === keys.OBJECT && this.#holdsObjects(parent)
  }

  /** Rows of a table, and events of a watch, have an object each. */
  #holdsObjects(parent: Frame): boolean {
    if (parent.role === frames.TABLE_ROW) return true
    return this.#depth === 2 && this.#answer.shape === 'watch'
  }

  #roleOf(parent: Frame, isArray: boolean): Role {
    if (!isBookkeeping(parent, isArray)) return roleBelow(parent, isArray)
    if (!this.#answer.write) return frames.PLAIN
    const object = this.#frames[this.#depth - 3]
    const isSecret =
      object?.kind === SECRET || (object?.kind === undefined && object?.isObjectPlace)
    return isSecret === true ? frames.DROPPED : frames.PLAIN
  }

  // what texts are

  #isOfNoInterest(frame: Frame): boolean {
    if (this.#deferring > 0 || this.#answer.masking.everywhere || frame.fields !== undefined)
      return false
    return frame.role === frames.PLAIN && (frame.isArray || frame.key === keys.OTHER)
  }

  #textIn(frame: Frame, token: TextToken): Instead | undefined {
    const where = this.#where
    switch (scalarRole(frame)) {
      case frames.HIDDEN:
        return this.#replacements.whole(where, isBase64In(frame))
      case frames.OF_CONFIG:
        return this.#replacements.config(token, frame.keyName, where)
      case frames.OF_BINARY_CONFIG:
        return this.#replacements.binary(token, frame.keyName, where)
      case frames.OF_ANNOTATIONS:
        return this.#replacements.annotation(token, frame.keyName, where)
      case frames.WORDS: {
        const { before } = frame
        frame.before = textOf(token)
        return this.#replacements.word(token, before, where)
      }
      default:
        return this.#member(frame, token)
    }
  }

  #member(frame: Frame, token: TextToken): Instead | undefined {
    if (frame.role === frames.PAIR) {
      if (frame.key === keys.NAME) frame.before = textOf(token)
      if (frame.key === keys.VALUE) return this.#replacements.spans(token, this.#where)
    } else if (frame.role === frames.OF_METADATA) {
      const object = this.#frames[this.#depth - 2]
      if (frame.key === keys.UID && object !== undefined) {
        object.uid = textOf(token)
        object.placeholder = undefined
      }
    }
    if (mayHaveKind(frame)) {
      if (frame.key === keys.KIND) this.#kind(frame, textOf(token))
      else if (frame.key === keys.API_VERSION) this.#apiVersion(frame, textOf(token))
      else if (this.#isMessage(frame)) return this.#message(token)
    }
    return this.#replacements.anywhere(token, this.#where)
  }

  /** What programs say of what went wrong: of failures, conditions, events. */
  #isMessage({ key }: Frame): boolean {
    if (key === keys.MESSAGE) return true
    const { kind } = this.#object()
    return key === keys.NOTE && (kind === undefined || kind === 'Event')
  }

  /** Of a failure, what stands in quotes, too. Its causes say less than its message of what it is about; where that comes later, they are taken for the worst. */
  #message(token: TextToken): Instead | undefined {
    const object = this.#object()
    if (object.kind !== undefined && !this.#isWithin('Status'))
      return this.#replacements.spans(token, this.#where)
    const isFirst = object === this.#frames[this.#depth - 1]
    const ofSecret = this.#answer.aboutSecrets === true || (!isFirst && !object.isAboutOthers)
    if (isFirst) object.isAboutOthers = !SECRET_WORD.test(textOf(token))
    return this.#replacements.message(token, ofSecret, this.#where)
  }

  #kind(frame: Frame, kind: string): void {
    if (frame.isDefaultKind && frame.kind !== kind && frame.isDecided)
      throw unmaskable('an item says too late that it is of another kind than its list')
    frame.isDefaultKind = false
    frame.kind = kind
    this.#settle(frame)
    if (frame.deferred !== undefined) this.#decide(frame)
  }

  #apiVersion(frame: Frame, apiVersion: string): void {
    const slash = apiVersion.indexOf('/')
    frame.group = slash === -1 ? '' : apiVersion.slice(0, slash)
    if (frame.kind !== undefined) this.#settle(frame)
  }

  /** Which fields are hidden of the kind, beside those on whose way it stands itself. */
  #settle(frame: Frame): void {
    const own = frame.kind === undefined ? undefined : this.#fields.of(frame.kind, frame.group)
    if (own === undefined && frame.ownFields === undefined) return
    const others = frame.fields?.filter((node) => frame.ownFields?.includes(node) !== true) ?? []
    frame.ownFields = own
    frame.fields = [...others, ...(own ?? [])]
  }

  // what is decided on later

  #beginUndecided(frame: Frame, key: number): void {
    const isData = key === keys.DATA || key === keys.STRING_DATA || key === keys.BINARY_DATA
    if (!isData && !this.#mayBeField(frame)) return
    frame.isDeferring = true
    frame.deferred ??= []
    this.#deferring++
  }

  /** Within other objects only what comes before the kind in order of keys: looking at every member of what is no object at all would cost too much. */
  #mayBeField(frame: Frame): boolean {
    if (frame.isObjectPlace) return this.#fields.mayBegin(frame.keyName)
    if (!this.#fields.mayBeginEarly) return false
    const { keyName } = frame
    return keyName < 'kind' && this.#fields.mayBegin(keyName)
  }

  #endMember(frame: Frame): void {
    if (!frame.isDeferring) return
    frame.isDeferring = false
    this.#deferring--
  }

  #put(
    token: TextToken | undefined,
    start: number,
    end: number,
    instead: Instead | undefined,
  ): void {
    const from = this.#base + start
    if (this.#deferring === 0) {
      if (instead !== undefined) this.#output.replace(from, this.#base + end, instead)
      return
    }
    const span = this.#output.defer(from, this.#base + end, instead, this.#deferring)
    for (let at = 0; at < this.#depth; at++) {
      const frame = this.#frames[at]
      if (frame?.isDeferring !== true) continue
      frame.deferred?.push({ span, token, path: this.#steps(at), place: this.#where() })
    }
  }

  #decide(frame: Frame): void {
    const { deferred = [], kind = frame.isObjectPlace ? SECRET : '' } = frame
    frame.deferred = undefined
    const roots = this.#fields.of(kind, frame.group)
    for (const each of deferred) {
      const { span, path } = each
      span.instead =
        this.#decided(each, kind, roots !== undefined && isHidden(roots, path)) ?? span.instead
      span.waits--
    }
  }

  #decided({ token, path, place }: Deferred, kind: string, isField: boolean): Instead | undefined {
    const [member = ''] = path
    const where = (): Place => (place.kind === NO_KIND ? { ...place, kind } : place)
    if (isField) return this.#replacements.whole(where, false)
    if (kind === SECRET && SECRET_FIELDS.has(member))
      return this.#replacements.whole(where, member === 'data')
    if (kind !== CONFIG_MAP || token === undefined) return undefined
    const name = path.at(-1) ?? ''
    if (member === 'data') return this.#replacements.config(token, name, where)
    return member === 'binaryData' ? this.#replacements.binary(token, name, where) : undefined
  }

  // where it is

  #isWithin(kind: string): boolean {
    for (let at = 0; at < this.#depth; at++) if (this.#frames[at]?.kind === kind) return true
    return false
  }

  /** The object that the present token belongs to. */
  #object(): Frame {
    return this.#frames[this.#objectAt()] ?? new Frame()
  }

  #objectAt(): number {
    for (let at = this.#depth - 1; at > 0; at--)
      if (this.#frames[at]?.isObjectPlace === true) return at
    return 0
  }

  /** Steps from an open container to the present token. */
  #steps(from: number): string[] {
    return this.#frames.slice(from, this.#depth).map(({ step }) => step)
  }

  readonly #where = (): Place => {
    const at = this.#objectAt()
    const object = this.#frames[at] ?? new Frame()
    let path = object.step
    for (let below = at + 1; below < this.#depth; below++)
      path = pathWith(path, this.#frames[below]?.step ?? '')
    object.placeholder ??= this.#answer.placeholders.of(object.uid)
    return { kind: object.kind ?? NO_KIND, path, placeholderOf: object.placeholder }
  }

  readonly #whereEmbedded = (): Place => {
    const kind = itemKind(this.#frames[0]?.kind ?? '') ?? ''
    const placeholderOf = this.#answer.placeholders.of(undefined)
    return { kind, path: 'metadata.annotations', placeholderOf }
  }
}

/** Placeholders of a copy: of the object that it stands in, with where it stands before each path. */
function prefixed({ path, placeholderOf }: Place): Placeholders['of'] {
  return () => (inner) => placeholderOf(`${path}.${inner}`)
}
