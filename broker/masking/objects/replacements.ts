/** What stands in place of a scalar, and the account of what was hidden. */
import { findSecrets } from '../detectors/masker.ts'
import { MAX_NAMED_FIELDS } from '../types.ts'
import type { MaskedAnswer, MaskedFields } from '../types.ts'
import { isLastApplied, isSecretOption, secretMember } from './names.ts'
import type { Instead } from './output.ts'
import { maskStatusText } from './status-text.ts'
import {
  bytesOf,
  isCompressed,
  isCompressedBase64,
  quoted,
  textOf,
  withoutSecrets,
} from './texts.ts'
import type { TextToken } from './texts.ts'

/** Where a scalar stands. */
export interface Place {
  readonly kind: string
  /** From its object, with the numbers of items. */
  readonly path: string
  /** Makes the object's placeholders. */
  readonly placeholderOf: (path: string) => string
}

/** Asked only where something is hidden. */
export type Where = () => Place

/** Masks a copy of an object that stands in a text. @returns undefined where nothing in it is hidden @throws Fault `answer_unmaskable` */
export type MaskCopy = (
  text: Buffer,
  where: Where,
) => { readonly bytes: Buffer; readonly masked: MaskedFields } | undefined

/** Longest part of the word before another that says what that one is, in UTF-16 code units. */
const MAX_WORD_BEFORE = 256
/** Files of registries' credentials: who reads them needs JSON. */
const REGISTRY_FILE = /(?:^|\.)\.dockerc(?:onfigjson|fg)$/

function isRegistryFile(path: string): boolean {
  return path.includes('.dockerc') && REGISTRY_FILE.test(path)
}

/** A text that is no copy of an object. */
const NO_COPY = Symbol('no copy')
/** A text that may be about Secrets. */
export const SECRET_WORD = /secret/i

/** See the head of the file. */
export class Replacements {
  readonly #maskCopy: MaskCopy
  readonly #everywhere: boolean
  /** By kind, the paths that are named. */
  readonly #paths = new Map<string, Set<string>>()
  readonly #names: string[] = []
  #count = 0
  #more = false

  constructor({ masking }: Pick<MaskedAnswer, 'masking'>, maskCopy: MaskCopy) {
    this.#maskCopy = maskCopy
    this.#everywhere = masking.everywhere
  }

  get masked(): MaskedFields {
    return { count: this.#count, fields: [...this.#names], more: this.#more }
  }

  /** A scalar that is secret whatever it says. */
  whole(where: Where, isBase64: boolean): Instead {
    const place = where()
    this.#tell(place.kind, place.path)
    const placeholder = place.placeholderOf(place.path)
    if (isRegistryFile(place.path)) {
      const file = JSON.stringify({ auths: {}, [placeholder]: {} })
      return isBase64 ? `"${btoa(file)}"` : quoted(file)
    }
    return isBase64 ? `"${btoa(placeholder)}"` : `"${placeholder}"`
  }

  /** Spans that detectors find. */
  spans(token: TextToken, where: Where): Instead | undefined {
    return this.#spansOf(bytesOf(token), where)
  }

  /** … where the profile wants all texts looked at. */
  anywhere(token: TextToken, where: Where): Instead | undefined {
    return this.#everywhere ? this.spans(token, where) : undefined
  }

  /** A value of a ConfigMap. @param name - its key */
  config(token: TextToken, name: string, where: Where): Instead | undefined {
    const bytes = bytesOf(token)
    return secretMember(name) || isCompressedBase64(bytes)
      ? this.whole(where, false)
      : this.#spansOf(bytes, where)
  }

  /** A value of a ConfigMap's `binaryData`. */
  binary(token: TextToken, name: string, where: Where): Instead | undefined {
    if (secretMember(name)) return this.whole(where, true)
    const bytes = Buffer.from(textOf(token), 'base64')
    const isSecret = isCompressed(bytes) || findSecrets(bytes).length > 0
    return isSecret ? this.whole(where, true) : undefined
  }

  /** The value of an annotation: a copy of an object by what that is, what should be one and is none whole, the rest by detectors. */
  annotation(token: TextToken, name: string, where: Where): Instead | undefined {
    const bytes = bytesOf(token)
    const copy = this.#copy(bytes, where)
    if (copy === NO_COPY) {
      return isLastApplied(name) ? this.whole(where, false) : this.#spansOf(bytes, where)
    }
    return copy ?? (isLastApplied(name) ? undefined : this.#spansOf(bytes, where))
  }

  /** A text of which nothing is known but that it has escapes. What does not say its kind is no copy of an object. */
  embedded(token: TextToken, where: Where): Instead | undefined {
    const bytes = bytesOf(token)
    const copy =
      bytes.includes('kind') || bytes.includes('\\u') ? this.#copy(bytes, where) : NO_COPY
    return copy === NO_COPY ? this.#spansOf(bytes, where) : copy
  }

  #copy(bytes: Buffer, where: Where): Instead | typeof NO_COPY | undefined {
    if (!looksLikeJson(bytes)) return NO_COPY
    let copy: ReturnType<MaskCopy>
    try {
      copy = this.#maskCopy(bytes, where)
    } catch {
      // whatever it is, it is no object that somebody could read as one
      return NO_COPY
    }
    if (copy === undefined) return undefined
    const { kind, path } = where()
    for (const field of copy.masked.fields) this.#name(kind, `${shown(path)}: ${field}`)
    this.#count += copy.masked.count
    this.#more ||= copy.masked.more
    return quoted(copy.bytes.toString())
  }

  /** One word of a command. @param before - the word before it */
  word(token: TextToken, before: string | undefined, where: Where): Instead | undefined {
    if (before === undefined) return this.spans(token, where)
    if (isSecretOption(before)) return this.whole(where, false)
    const context = `${before.slice(-MAX_WORD_BEFORE)} `
    const bytes = Buffer.from(context + textOf(token))
    return this.#spansOf(bytes, where, Buffer.byteLength(context))
  }

  /** What an API server says of a failure. @param ofSecret - it says itself that it is about one */
  message(token: TextToken, ofSecret: boolean, where: Where): Instead | undefined {
    const text = textOf(token)
    const masked = maskStatusText(text, ofSecret || SECRET_WORD.test(text))
    if (masked === text) return undefined
    const { kind, path } = where()
    this.#tell(kind, path)
    return quoted(masked)
  }

  #spansOf(bytes: Buffer, where: Where, before = 0): Instead | undefined {
    let place: Place | undefined
    const placeholder = (): string => {
      place ??= where()
      return place.placeholderOf(place.path)
    }
    const text = withoutSecrets(bytes, placeholder, before)
    if (text === undefined || place === undefined) return undefined
    this.#tell(place.kind, place.path)
    return quoted(text)
  }

  #tell(kind: string, path: string): void {
    this.#count++
    this.#name(kind, shown(path))
  }

  #name(kind: string, path: string): void {
    let paths = this.#paths.get(kind)
    if (paths?.has(path) === true) return
    if (this.#names.length === MAX_NAMED_FIELDS) {
      this.#more = true
      return
    }
    this.#names.push(`${kind} ${path}`)
    if (paths === undefined) this.#paths.set(kind, (paths = new Set()))
    paths.add(path)
  }
}

const NUMBERED = /\[\d+\]/g

function shown(path: string): string {
  return path.includes('[') ? path.replaceAll(NUMBERED, '[]') : path
}

const OPEN_OBJECT = 0x7b
const OPEN_ARRAY = 0x5b

function looksLikeJson(bytes: Buffer): boolean {
  for (const byte of bytes) {
    if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) return true
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return false
  }
  return false
}
