/**
 * The JSON patch (RFC 6902) of one review. A draft records small operations on the paths that the webhook
 * owns and makes the same changes to its own copy of the pod; {@link finishPatch} then lets fast-json-patch
 * apply the operations to the untouched pod and compares. So an answered patch applies, and gives the
 * intended pod: the API server answers 500 to one that does not, whatever the failure policy says.
 */
import { isDeepStrictEqual } from 'node:util'
// The ESM entry of fast-json-patch 3.1.1 names exports that its CommonJS build lacks: only the default import works.
import jsonPatch from 'fast-json-patch'
import { isRecord } from '../config.ts'
import { Fault, messageOf } from '../errors.ts'

/** A JSON object whose values are not known. */
export type JsonObject = Record<string, unknown>

/** Keys and indices from the root of the pod on. */
export type Path = readonly (string | number)[]

/** An operation of RFC 6902; nothing else is ever sent (`test` would turn a race into a 500). */
export type Operation =
  | { readonly op: 'add' | 'replace'; readonly path: string; readonly value: unknown }
  | { readonly op: 'remove'; readonly path: string }

/** A path as a JSON pointer (RFC 6901). */
export function pointer(path: Path): string {
  let text = ''
  for (const part of path) text += `/${typeof part === 'number' ? part : escaped(part)}`
  return text
}

function escaped(part: string): string {
  const isPlain = !part.includes('~') && !part.includes('/')
  return isPlain ? part : part.replaceAll('~', '~0').replaceAll('/', '~1')
}

/** The path of what holds the place that a JSON pointer names. */
function parentOf(pointed: string): readonly string[] {
  const parts = pointed.split('/').slice(1, -1)
  if (!pointed.includes('~')) return parts
  return parts.map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
}

/** The value at a path, or undefined; reads own properties only. */
export function valueAt(root: unknown, path: Path): unknown {
  let value: unknown = root
  for (const part of path) {
    if (Array.isArray(value)) value = value[Number(part)]
    else if (isRecord(value) && Object.hasOwn(value, part)) value = value[part]
    else return undefined
  }
  return value
}

/**
 * A pod of which parts are changed while the rest stays the received one's own: what is changed is copied first, with
 * what leads to it. So a review costs what it changes, not what the pod weighs. Values that were put in are not its own
 * either, and are copied before they are changed.
 */
class PartialCopy {
  readonly root: JsonObject
  readonly #own = new Set<unknown>()

  constructor(original: JsonObject) {
    this.root = { ...original }
    this.#own.add(this.root)
  }

  /** Copies what is at a path and all that leads to it, as far as it is there. Call before each change of what is at `path`. */
  own(path: Path): void {
    let parent: unknown = this.root
    for (const part of path) {
      const value = valueAt(parent, [part])
      if (typeof value !== 'object' || value === null) return
      if (this.#own.has(value)) {
        parent = value
        continue
      }
      const copy: unknown = Array.isArray(value) ? value.slice() : { ...value }
      this.#own.add(copy)
      if (Array.isArray(parent)) parent[Number(part)] = copy
      else if (isRecord(parent)) define(parent, String(part), copy)
      parent = copy
    }
  }
}

/** Sets an own member, whatever its name: an assignment to `__proto__` would set something else. */
function define(object: JsonObject, name: string, value: unknown): void {
  if (name !== '__proto__') {
    object[name] = value
    return
  }
  Object.defineProperty(object, name, {
    value,
    writable: true,
    enumerable: true,
    configurable: true,
  })
}

/** A pod being rewritten; see the head of the file. Operations come out in the order of the calls. */
export class Draft {
  readonly #copy: PartialCopy
  readonly #operations: Operation[] = []

  /** @param pod - the pod as received; it is not changed */
  constructor(pod: JsonObject) {
    this.#copy = new PartialCopy(pod)
  }

  /** The pod as it stands after the operations so far. */
  get pod(): JsonObject {
    return this.#copy.root
  }

  /** The operations so far. */
  get operations(): readonly Operation[] {
    return this.#operations
  }

  /** The value at a path, or undefined. */
  valueAt(path: Path): unknown {
    return valueAt(this.#copy.root, path)
  }

  /** Sets a member of an object, making the objects above it where they are missing or null; nothing happens where it is equal already. */
  set(path: Path, value: unknown): void {
    const key = path.at(-1)
    if (key === undefined) throw new Fault('patch_invalid', 'a patch never replaces the whole pod')
    const before = this.valueAt(path)
    if (before !== undefined && isDeepStrictEqual(before, value)) return
    const parent = this.#objectAt(path.slice(0, -1))
    this.#operations.push({
      op: before === undefined ? 'add' : 'replace',
      path: pointer(path),
      value,
    })
    define(parent, String(key), value)
  }

  /** Inserts into a list before `index` (its length: at the end), making the list where it is missing or null. */
  insert(path: Path, index: number, value: unknown): void {
    this.#copy.own(path)
    const list = this.valueAt(path)
    if (list === undefined || list === null) {
      this.set(path, [value])
      return
    }
    if (!Array.isArray(list) || index > list.length)
      throw new Fault('patch_invalid', `${pointer(path)} has no place ${index}`)
    this.#operations.push({ op: 'add', path: pointer([...path, index]), value })
    list.splice(index, 0, value)
  }

  /** Appends to a list, making it where it is missing or null. */
  append(path: Path, value: unknown): void {
    const list = this.valueAt(path)
    this.insert(path, Array.isArray(list) ? list.length : 0, value)
  }

  /**
   * Removes the entries of a list that `matches` accepts, the last first, so that the indices it is given and
   * those of the operations are true.
   */
  removeWhere(path: Path, matches: (entry: unknown, index: number) => boolean): void {
    this.#copy.own(path)
    const list = this.valueAt(path)
    if (!Array.isArray(list)) return
    const gone = new Set<number>()
    for (let index = list.length - 1; index >= 0; index -= 1) {
      if (!matches(list[index], index)) continue
      this.#operations.push({ op: 'remove', path: pointer([...path, index]) })
      gone.add(index)
    }
    // All at once: one by one, each would move all entries behind it.
    let kept = 0
    for (const [index, entry] of Array.from<unknown>(list).entries()) {
      if (gone.has(index)) continue
      list[kept] = entry
      kept += 1
    }
    list.length = kept
  }

  #objectAt(path: Path): JsonObject {
    this.#copy.own(path)
    const value = this.valueAt(path)
    if (isRecord(value)) return value
    if (value !== undefined && value !== null)
      throw new Fault('patch_invalid', `${pointer(path)} is not an object`)
    this.set(path, {})
    return this.#objectAt(path)
  }
}

/**
 * The finished patch: empty where nothing changed.
 *
 * @throws Fault `patch_invalid` where the operations do not apply to `original`, or give another pod than the draft
 */
export function finishPatch(original: JsonObject, draft: Draft): readonly Operation[] {
  if (draft.operations.length === 0) return []
  const copy = new PartialCopy(original)
  let applied: unknown = copy.root
  try {
    for (const operation of draft.operations) {
      copy.own(parentOf(operation.path))
      applied = jsonPatch.applyOperation(applied, operation, true, true).newDocument
    }
  } catch (error) {
    throw new Fault('patch_invalid', 'the patch does not apply', { cause: messageOf(error) })
  }
  if (!isDeepStrictEqual(applied, draft.pod))
    throw new Fault('patch_invalid', 'the patch does not give the intended pod')
  return draft.operations
}
