/** Fields that profiles hide by kind and path, as a tree that is followed while an object is read. */
import type { FieldMask } from '../../../shared/policy/masking.ts'

/** A place on the way of one or more paths. */
export interface FieldNode {
  /** A path ends here: what stands here and below is hidden. */
  isEnd: boolean
  readonly members: Map<string, FieldNode>
  /** Any member or item. */
  any: FieldNode | undefined
}

/** Tokens that the API server makes or is asked about; hidden by every profile. */
const ALWAYS: readonly FieldMask[] = [
  {
    group: 'authentication.k8s.io',
    kind: 'TokenRequest',
    path: [{ name: 'status' }, { name: 'token' }],
  },
  {
    group: 'authentication.k8s.io',
    kind: 'TokenReview',
    path: [{ name: 'spec' }, { name: 'token' }],
  },
]

/** Those of each profile in force: there are few, and each answer and each copy in one asks for them. */
const known = new WeakMap<readonly FieldMask[], Fields>()

/** The hidden fields of a profile, and those of every one. */
export function fieldsOf(masks: readonly FieldMask[]): Fields {
  const found = known.get(masks) ?? new Fields(masks)
  known.set(masks, found)
  return found
}

/** All hidden fields, by kind. */
class Fields {
  readonly #byKind = new Map<string, Map<string, FieldNode>>()
  /** First members of all paths. */
  readonly #first = new Set<string>()
  #isAnyFirst = false
  /** Some path begins with a member that comes before `kind` where keys are in order. */
  #isEarly = false

  constructor(masks: readonly FieldMask[]) {
    for (const { group, kind, path } of [...ALWAYS, ...masks]) {
      const groups = this.#byKind.get(kind) ?? new Map<string, FieldNode>()
      this.#byKind.set(kind, groups)
      const root = groups.get(group) ?? nodeOf()
      groups.set(group, root)
      let node = root
      for (const step of path) {
        if (step === 'any') node = node.any ??= nodeOf()
        else {
          const next = node.members.get(step.name) ?? nodeOf()
          node.members.set(step.name, next)
          node = next
        }
      }
      node.isEnd = true
      const [first] = path
      if (first === 'any') this.#isAnyFirst = this.#isEarly = true
      else if (first !== undefined) {
        this.#first.add(first.name)
        this.#isEarly ||= first.name < 'kind'
      }
    }
  }

  /** Roots of the paths of a kind. @param group - undefined where it is not known: then those of every group */
  of(kind: string, group: string | undefined): readonly FieldNode[] | undefined {
    const groups = this.#byKind.get(kind)
    if (groups === undefined) return undefined
    if (group === undefined) return [...groups.values()]
    const root = groups.get(group)
    return root === undefined ? undefined : [root]
  }

  get mayBeginEarly(): boolean {
    return this.#isEarly
  }

  /** Whether an object could be of a kind with a hidden field that begins with this member. */
  mayBegin(member: string): boolean {
    return this.#isAnyFirst || this.#first.has(member)
  }
}

function nodeOf(): FieldNode {
  return { isEnd: false, members: new Map(), any: undefined }
}

/** Where a step leads to: `hidden` where a path ends, undefined where none goes on. */
export function follow(
  nodes: readonly FieldNode[],
  step: string,
): readonly FieldNode[] | 'hidden' | undefined {
  let next: FieldNode[] | undefined
  for (const { members, any } of nodes) {
    for (const node of [members.get(step), any]) {
      if (node === undefined) continue
      if (node.isEnd) return 'hidden'
      next ??= []
      next.push(node)
    }
  }
  return next
}

/** See {@link fieldsOf}. */
export type { Fields }

/** Whether a whole path is hidden. */
export function isHidden(roots: readonly FieldNode[], path: readonly string[]): boolean {
  let nodes = roots
  for (const step of path) {
    const next = follow(nodes, step)
    if (next === 'hidden') return true
    if (next === undefined) return false
    nodes = next
  }
  return false
}
