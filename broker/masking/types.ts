/** What the rooms of masking say to each other (docs/decisions/0010). */
import type { Masking } from '../../shared/policy/masking.ts'

/** Most fields that are named for one answer; the rest is counted. */
export const MAX_NAMED_FIELDS = 50

/** What was hidden so far. */
export interface MaskedFields {
  readonly count: number
  /** `KIND path` with `[]` for items, each once, in order of the first place. */
  readonly fields: readonly string[]
  /** There are more than {@link MAX_NAMED_FIELDS}. */
  readonly more: boolean
}

/** What an answer is about, as far as masking needs it. */
export interface MaskedAnswer {
  readonly masking: Masking
  readonly placeholders: Placeholders
  /** `watch`: one event after the other; `object`: one document. */
  readonly shape: 'object' | 'watch'
  /** The request is for Secrets: what is said of its failure is not believed to name that. */
  readonly aboutSecrets?: boolean
  /** The request writes: of a Secret in its answer `managedFields` would tell whether a value was guessed. */
  readonly write: boolean
}

/** Masks the JSON of one answer as it comes; what is not masked goes on byte for byte. */
export interface JsonMasker {
  /**
   * Takes a piece.
   *
   * @returns what can go on now, in order
   * @throws Fault `answer_unmaskable` for whatever is not well-formed, ambiguous or too long; nothing may go on after that
   */
  push(chunk: Buffer): readonly Buffer[]
  /** The end. @throws Fault `answer_unmaskable` where the document is not complete */
  end(): readonly Buffer[]
  readonly masked: MaskedFields
}

/** Makes the texts that stand for hidden values. */
export interface Placeholders {
  /**
   * Begins an object.
   *
   * @param uid - of the object; undefined where it is not known
   * @returns makes the placeholder of a field; its text has no character that JSON or YAML would escape
   */
  of(uid: string | undefined): (path: string) => string
}
