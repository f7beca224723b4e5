/**
 * A second reader of JSON, for tests of the first: reads a whole document into a tree that knows where in the bytes each value stands.
 * RFC 8259 strictly, UTF-8 strictly, each key once per object (escapes undone). Written for plainness, not for speed.
 */

/** A value, and where it stands: bytes `from` to `to`. */
export type Node = ObjectNode | ArrayNode | StringNode | WordNode

interface Placed {
  readonly from: number
  readonly to: number
}

/** An object; keys are as they read, not as they were spelled. */
export interface ObjectNode extends Placed {
  readonly type: 'object'
  readonly members: ReadonlyMap<string, Node>
}

/** An array. */
export interface ArrayNode extends Placed {
  readonly type: 'array'
  readonly items: readonly Node[]
}

/** A string, as it reads. */
export interface StringNode extends Placed {
  readonly type: 'string'
  readonly text: string
}

/** A number, `true`, `false` or `null`, as it was written. */
export interface WordNode extends Placed {
  readonly type: 'word'
  readonly text: string
}

/** The text is no document that this reader takes. */
export class NotJson extends Error {}

/** Containers in each other. */
export const MAX_JSON_DEPTH = 128

const WORD = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null/y
const SPACE = /[ \t\n\r]*/y

/** Reads one document. @throws NotJson */
export function readSpans(bytes: Buffer): Node {
  const documents = readSequence(bytes)
  const [first] = documents
  if (first === undefined || documents.length !== 1) throw new NotJson('not one document')
  return first
}

/** Reads documents one behind the other, as in a watch; none is fine. @throws NotJson */
export function readSequence(bytes: Buffer): readonly Node[] {
  checkUtf8(bytes)
  const reader = new Reader(bytes.toString('latin1'))
  const documents: Node[] = []
  while (!reader.atEnd()) documents.push(reader.value(0))
  return documents
}

/**
 * The documents up to where the text is none any more, with what is open there closed: what could be known of it by then.
 */
export function readBeginning(bytes: Buffer): Buffer {
  const reader = new Reader(bytes.toString('latin1'))
  try {
    while (!reader.atEnd()) reader.value(0)
  } catch (error) {
    if (!(error instanceof NotJson)) throw error
  }
  return Buffer.concat([bytes.subarray(0, reader.sound), Buffer.from(reader.closers)])
}

function checkUtf8(bytes: Buffer): void {
  try {
    new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new NotJson('no UTF-8')
  }
}

/** Over Latin-1, so that positions are those of the bytes. */
class Reader {
  /** Behind the last key or value that is whole, or the last bracket that opens. */
  sound = 0
  /** What closes the text there. */
  closers = ''
  readonly #text: string
  #at = 0
  #open = ''

  constructor(text: string) {
    this.#text = text
  }

  atEnd(): boolean {
    this.#space()
    return this.#at === this.#text.length
  }

  value(depth: number): Node {
    this.#space()
    const from = this.#at
    const first = this.#text[from]
    if (first === '"') {
      const node = this.#string()
      this.#isSound()
      return node
    }
    if (first === '{' || first === '[') {
      if (depth >= MAX_JSON_DEPTH) throw new NotJson('too deep')
      this.#at += 1
      this.#open = (first === '{' ? '}' : ']') + this.#open
      this.#isSound()
      const node = first === '{' ? this.#object(from, depth + 1) : this.#array(from, depth + 1)
      this.#open = this.#open.slice(1)
      this.#isSound()
      return node
    }
    WORD.lastIndex = from
    const [word] = WORD.exec(this.#text) ?? []
    if (word === undefined) throw new NotJson(`no value at ${from}`)
    this.#at += word.length
    this.#isSound()
    return { type: 'word', text: word, from, to: this.#at }
  }

  #isSound(rest = ''): void {
    this.sound = this.#at
    this.closers = rest + this.#open
  }

  #object(from: number, depth: number): ObjectNode {
    const members = new Map<string, Node>()
    this.#each('}', () => {
      const key = this.#string().text
      if (members.has(key)) throw new NotJson('a key twice')
      // Readers differ on what half a character is, and so on which keys are equal.
      if (!key.isWellFormed()) throw new NotJson('half a character in a key')
      this.#isSound(':null')
      this.#space()
      this.#take(':')
      members.set(key, this.value(depth))
    })
    return { type: 'object', members, from, to: this.#at }
  }

  #array(from: number, depth: number): ArrayNode {
    const items: Node[] = []
    this.#each(']', () => items.push(this.value(depth)))
    return { type: 'array', items, from, to: this.#at }
  }

  /** Reads one after the other up to and with the bracket. */
  #each(end: string, one: () => void): void {
    this.#space()
    if (this.#text[this.#at] === end) {
      this.#at += 1
      return
    }
    for (;;) {
      this.#space()
      one()
      this.#space()
      if (this.#text[this.#at] === end) {
        this.#at += 1
        return
      }
      this.#take(',')
    }
  }

  #string(): StringNode {
    const from = this.#at
    this.#take('"')
    for (;;) {
      const next = this.#text[this.#at]
      if (next === undefined || next < ' ') throw new NotJson(`a string breaks off at ${this.#at}`)
      this.#at += next === '\\' ? 2 : 1
      if (next === '"') break
    }
    const raw = Buffer.from(this.#text.slice(from, this.#at), 'latin1').toString('utf8')
    try {
      return { type: 'string', text: JSON.parse(raw) as string, from, to: this.#at }
    } catch {
      throw new NotJson(`no string at ${from}`)
    }
  }

  #take(text: string): void {
    if (this.#text[this.#at] !== text) throw new NotJson(`no ${text} at ${this.#at}`)
    this.#at += 1
  }

  #space(): void {
    SPACE.lastIndex = this.#at
    this.#at += SPACE.exec(this.#text)?.[0].length ?? 0
  }
}
