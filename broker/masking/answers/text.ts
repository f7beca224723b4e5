/** Masks text as it comes: what the detectors find in it (docs/detectors.md). Best effort: they know forms and names, not meaning. */
import { createTextMasker } from '../detectors/masker.ts'
import type { Masked } from '../detectors/masker.ts'
import { MAX_NAMED_FIELDS } from '../types.ts'
import type { MaskedFields } from '../types.ts'

/** Masks one text in pieces. */
export interface TextAnswer {
  push(chunk: Buffer): readonly Buffer[]
  end(): readonly Buffer[]
  /** Gives out what is kept back, for a reader who must not wait longer; the text may go on. */
  flush(): readonly Buffer[]
  /** Bytes that are kept back, because a secret may begin with them. */
  readonly held: number
  readonly masked: MaskedFields
}

/** Begins to mask a text. @param what - it is, in front of the detector's name in {@link MaskedFields} */
export function createTextAnswer(what: string): TextAnswer {
  const masker = createTextMasker()
  const found = new Found(what)
  const take = (masked: Masked): readonly Buffer[] => {
    found.add(masked)
    return masked.bytes.length === 0 ? [] : [masked.bytes]
  }
  return {
    push: (chunk) => take(masker.push(chunk)),
    end: () => take(masker.flush()),
    flush: () => take(masker.flush()),
    get held() {
      return masker.held
    },
    get masked() {
      return found.fields()
    },
  }
}

class Found {
  readonly #what: string
  readonly #names = new Set<string>()
  #count = 0
  #more = false
  /** The detector whose region reached to the end of the last piece: it may go on in the next. */
  #open: string | undefined

  constructor(what: string) {
    this.#what = what
  }

  add({ bytes, regions }: Masked): void {
    if (bytes.length === 0) return
    let open: string | undefined
    for (const { offset, length, detector } of regions) {
      if (offset === 0 && detector === this.#open) this.#count -= 1
      this.#count += 1
      this.#name(`${this.#what} ${detector}`)
      if (offset + length === bytes.length) open = detector
    }
    this.#open = open
  }

  fields(): MaskedFields {
    return { count: this.#count, fields: [...this.#names], more: this.#more }
  }

  #name(name: string): void {
    if (this.#names.has(name)) return
    if (this.#names.size < MAX_NAMED_FIELDS) this.#names.add(name)
    else this.#more = true
  }
}
