/** What is known of each object and array that is open while an answer is read. */
import type { FieldNode } from './fields.ts'
import { keyText } from './keys.ts'
import type { Span } from './output.ts'
import type { Place } from './replacements.ts'
import type { TextToken } from './texts.ts'

/** What the members of a container are to the masker. */
export const PLAIN = 0
/** `metadata` of an object or a template. */
export const OF_METADATA = 1
/** `annotations`. */
export const OF_ANNOTATIONS = 2
/** Every scalar below is hidden. */
export const HIDDEN = 3
/** Texts by detectors. */
export const OF_CONFIG = 4
/** Base64 by detectors. */
export const OF_BINARY_CONFIG = 5
/** `env` and its like, and one item of it. */
export const PAIRS = 6
export const PAIR = 7
/** `args`, `command`. */
export const WORDS = 8
/** Items of a list; rows of a table, and one of them. */
export const LISTED = 9
export const TABLE_ROWS = 10
export const TABLE_ROW = 11
/** Left out as a whole. */
export const DROPPED = 12
export type Role = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12

/** A scalar below a member on which the object's kind, not yet known, decides. */
export interface Deferred {
  readonly span: Span
  readonly token: TextToken | undefined
  /** From the object: its member first. */
  readonly path: readonly string[]
  readonly place: Place
}

/** One open container. Used again for others of its depth. */
export class Frame {
  isArray = false
  role: Role = PLAIN
  /** In {@link HIDDEN}: what is base64 stays base64. */
  isBase64 = false
  /** A place where a Kubernetes object stands: one without a kind is treated as the worst. */
  isObjectPlace = false
  kind: string | undefined
  /** As the list has it that it is in; it may say another. */
  isDefaultKind = false
  group: string | undefined
  uid: string | undefined
  placeholder: ((path: string) => string) | undefined
  /** A member was treated by the kind. */
  isDecided = false
  /** Paths of hidden fields that lead through here. */
  fields: readonly FieldNode[] | undefined
  /** … those of its own kind. */
  ownFields: readonly FieldNode[] | undefined
  deferred: Deferred[] | undefined
  /** Its present member is one of those. */
  isDeferring = false
  /** Of a pair: its name. Of words: the last one. */
  before: string | undefined
  /** A Status that said already that it is about no Secret. */
  isAboutOthers = false
  /** Of something left out. */
  span: Span | undefined
  /** Values so far. */
  count = 0
  key = 0
  #keyBytes: Buffer | undefined
  #keyStart = 0
  #keyEnd = 0
  #keyIsEscaped = false

  /** Begins a container. */
  reset(isArray: boolean, role: Role): void {
    this.isArray = isArray
    this.role = role
    this.isBase64 = false
    this.isObjectPlace = false
    this.kind = undefined
    this.isDefaultKind = false
    this.group = undefined
    this.uid = undefined
    this.placeholder = undefined
    this.isDecided = false
    this.fields = undefined
    this.ownFields = undefined
    this.deferred = undefined
    this.isDeferring = false
    this.before = undefined
    this.isAboutOthers = false
    this.span = undefined
    this.count = 0
    this.key = 0
    this.#keyBytes = undefined
  }

  /** A member begins. The bytes are kept until the next one, never changed. */
  member(key: number, bytes: Buffer, start: number, end: number, isEscaped: boolean): void {
    this.key = key
    this.#keyBytes = bytes
    this.#keyStart = start
    this.#keyEnd = end
    this.#keyIsEscaped = isEscaped
  }

  /** What the present member's key says. */
  get keyName(): string {
    const bytes = this.#keyBytes
    if (bytes === undefined) return ''
    return keyText(bytes, this.#keyStart, this.#keyEnd, this.#keyIsEscaped)
  }

  /** The present member or item, as a step of a path. */
  get step(): string {
    return this.isArray ? `[${this.count - 1}]` : this.keyName
  }
}

/** A path and one more step, as it is shown: `data.password`, `spec.containers[0].env[1].value`. */
export function pathWith(path: string, step: string): string {
  return step.startsWith('[') ? path + step : `${path}.${step}`
}
