/**
 * The files that people write, as kubectl reads them: YAML 1.1 or JSON, several documents. A document that is not
 * changed keeps its bytes; one that is changed keeps its comments, its order and the form of what was not touched.
 */
import { Document, LineCounter, isMap, isSeq, parseDocument, visit } from 'yaml'
import type { Tags, ToStringOptions } from 'yaml'
import { Fault } from '../../shared/errors.ts'
import type { Operation, Path } from '../../shared/injection/patch.ts'
import { UsageError } from '../settings.ts'

/** Such a line begins a document wherever it stands: YAML allows it in no text (c-forbidden, YAML 1.2.2, 9.1.2). */
const DOCUMENT_START = /^---(?=\s|$)/m
/** Most aliases that one anchor may be used for; more could blow a small file up. */
const MAX_ALIASES = 100
/** Deepest step of an author's indentation that is taken over, in spaces. */
const MAX_INDENT = 8

/** A document of a file. */
export interface InputDocument {
  /** As it was written, with the line that begins it. */
  readonly text: string
  readonly parsed: Document.Parsed
}

/** The documents of a text, with those that hold nothing. @throws UsageError saying line and problem */
export function readDocuments(text: string): readonly InputDocument[] {
  let line = 1
  return split(text).map((part) => {
    const document = readDocument(part, line)
    line += part.split('\n').length - 1
    return document
  })
}

function split(text: string): readonly string[] {
  const parts = text.split(new RegExp(`(?=${DOCUMENT_START.source})`, 'm'))
  return parts.filter((part) => part !== '')
}

function readDocument(text: string, firstLine: number): InputDocument {
  const lineCounter = new LineCounter()
  const parsed = parseDocument(text, {
    version: '1.1',
    customTags: asKubectl,
    lineCounter,
    prettyErrors: false,
  })
  const [problem] = parsed.errors
  if (problem !== undefined) {
    const { line } = lineCounter.linePos(problem.pos[0])
    throw new UsageError(`line ${firstLine + line - 1}: ${problem.message}`)
  }
  return { text, parsed }
}

/** kubectl's parser knows neither times nor numbers to the base of 60: both stay texts. */
function asKubectl(tags: Tags): Tags {
  return tags.filter(
    (tag) =>
      typeof tag === 'string' ||
      !(tag.tag === 'tag:yaml.org,2002:timestamp' || tag.format === 'TIME'),
  )
}

/** A document's value. @throws UsageError where aliases would make it huge */
export function valueOf(document: Document): unknown {
  try {
    return document.toJS({ maxAliasCount: MAX_ALIASES })
  } catch {
    throw new UsageError('a document cannot be read: its aliases are too many')
  }
}

/** A document that is to be changed. */
export class EditedDocument {
  readonly #document: Document
  readonly #style: ToStringOptions

  /** One with aliases is written out without them, and without its comments: a change to a shared part would change all its uses. */
  constructor({ text, parsed }: InputDocument) {
    const shared = hasAliases(parsed) || isJson(text)
    this.#document = shared
      ? new Document(valueOf(parsed), {
          version: '1.1',
          customTags: asKubectl,
          aliasDuplicateObjects: false,
        })
      : parsed.clone()
    if (shared && text.startsWith('---') && this.#document.directives)
      this.#document.directives.docStart = true
    this.#style = shared ? { lineWidth: 0 } : styleOf(text)
  }

  /** The value as it is now. */
  get value(): unknown {
    return valueOf(this.#document)
  }

  /** The text as it is now. */
  get text(): string {
    return this.#document.toString(this.#style)
  }

  /** Applies a patch to what stands at `root`. @throws Fault `patch_invalid` where it does not fit */
  apply(root: Path, operations: readonly Operation[]): void {
    for (const operation of operations) {
      const path = [...root, ...pathOf(operation.path)]
      if (operation.op === 'remove') this.#remove(path)
      else this.#put(path, operation.value, operation.op === 'add')
    }
  }

  #remove(path: Path): void {
    const parent = this.#document.getIn(path.slice(0, -1))
    const key = keyFor(parent, path)
    if ((!isMap(parent) && !isSeq(parent)) || !parent.delete(key))
      throw new Fault('patch_invalid', 'a patch removes what is not there')
  }

  #put(path: Path, value: unknown, isNew: boolean): void {
    const parent =
      path.length === 1 ? this.#document.contents : this.#document.getIn(path.slice(0, -1))
    const key = keyFor(parent, path)
    const node = this.#document.createNode(value)
    if (isSeq(parent) && typeof key === 'number' && isNew) {
      parent.items.splice(key, 0, node)
    } else if (isSeq(parent) || isMap(parent)) {
      parent.set(key, node)
    } else {
      throw new Fault('patch_invalid', 'a patch adds to what is neither list nor map')
    }
    // `[]` and `{}` are filled with more than one line can hold
    if ((isSeq(parent) || isMap(parent)) && parent.items.length === 1) parent.flow = false
  }
}

/** Keys of a JSON pointer (RFC 6901). */
function pathOf(pointer: string): readonly string[] {
  return pointer
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
}

function keyFor(parent: unknown, path: Path): string | number {
  const key = path.at(-1) ?? ''
  return isSeq(parent) ? Number(key) : key
}

function hasAliases(document: Document): boolean {
  let found = false
  visit(document, {
    Alias: () => {
      found = true
      return visit.BREAK
    },
  })
  return found
}

function isJson(text: string): boolean {
  return /^(---)?\s*\{/.test(text)
}

/** How the author indents, so that what was not touched looks as before. */
function styleOf(text: string): ToStringOptions {
  const indents = [...text.matchAll(/^( +)[^\s#]/gm)].map(([, spaces = '']) => spaces.length)
  const list = /^( *)[^\s#-][^#\n]*:[ \t]*\n\1- /m
  return {
    lineWidth: 0,
    indent: indents.length === 0 ? 2 : Math.min(...indents, MAX_INDENT),
    indentSeq: !list.test(text),
    flowCollectionPadding: !/[[{][^\s\]}]/.test(text),
  }
}
