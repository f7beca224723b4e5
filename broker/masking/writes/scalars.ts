/** Scalars of a JSON text, each with its place in the object and in the text. */
import { pointerText } from './paths.ts'

/** A string, number or literal. */
export interface Scalar {
  /** JSON pointer: equal pointers are equal places. */
  readonly pointer: string
  readonly path: readonly (string | number)[]
  /** In UTF-16 code units, with the quotes. */
  readonly from: number
  readonly to: number
}

const SPACE = /[ \t\n\r]*/y
const OTHER = /[^\s,\]}]+/y

/**
 * Calls `each` for every scalar that is no key, in order.
 *
 * @param text - JSON that a strict reader has taken
 */
export function eachScalar(text: string, each: (scalar: Scalar) => void): void {
  new Walk(text, each).value()
}

/** The scalars by place. @param text - as for {@link eachScalar} */
export function scalarsOf(text: string): ReadonlyMap<string, Scalar> {
  const found = new Map<string, Scalar>()
  eachScalar(text, (scalar) => found.set(scalar.pointer, scalar))
  return found
}

class Walk {
  readonly #text: string
  readonly #each: (scalar: Scalar) => void
  readonly #path: (string | number)[] = []
  #at = 0

  constructor(text: string, each: (scalar: Scalar) => void) {
    this.#text = text
    this.#each = each
  }

  value(): void {
    this.#skip(SPACE)
    const mark = this.#text[this.#at]
    if (mark === '{') this.#members()
    else if (mark === '[') this.#items()
    else this.#scalar()
  }

  #scalar(): void {
    const from = this.#at
    if (this.#text[from] === '"') this.#string()
    else this.#skip(OTHER)
    const path = [...this.#path]
    this.#each({ pointer: pointerText(path), path, from, to: this.#at })
  }

  #members(): void {
    this.#at += 1
    while (!this.#ends('}')) {
      const from = this.#at
      this.#string()
      const key: unknown = JSON.parse(this.#text.slice(from, this.#at))
      this.#ends(':')
      this.#within(String(key))
    }
  }

  #items(): void {
    this.#at += 1
    for (let index = 0; !this.#ends(']'); index++) this.#within(index)
  }

  #within(step: string | number): void {
    this.#path.push(step)
    this.value()
    this.#path.pop()
    this.#ends(',')
  }

  /** Passes over a string: its end is the first quote before which no backslash stands that is not escaped itself. */
  #string(): void {
    let end = this.#at
    let slashes
    do {
      end = this.#text.indexOf('"', end + 1)
      if (end === -1) throw new RangeError('a string does not end')
      slashes = 0
      while (this.#text[end - 1 - slashes] === '\\') slashes += 1
    } while (slashes % 2 === 1)
    this.#at = end + 1
  }

  /** Takes a mark, and the white space around it. */
  #ends(mark: string): boolean {
    this.#skip(SPACE)
    if (this.#text[this.#at] !== mark) return false
    this.#at += 1
    this.#skip(SPACE)
    return true
  }

  #skip(pattern: RegExp): void {
    pattern.lastIndex = this.#at
    this.#at += pattern.exec(this.#text)?.[0].length ?? 0
  }
}
