/** Masking, as policy asks for it (docs/decisions/0010): which profiles hold, and what they hide beside the standard one. */

/** The profile of rules that name none. */
export const STANDARD_PROFILE = 'standard'
/** The standard profile, and detectors over every text of every object. */
export const STRICT_PROFILE = 'strict'
/** Lets values through. */
export const NO_PROFILE = 'none'

/** One step of a path into an object: a member of this name, or any member or item. */
export type FieldStep = { readonly name: string } | 'any'

/** A field that an operator wants hidden, with all that is below it. */
export interface FieldMask {
  /** API group; empty is the core group. */
  readonly group: string
  readonly kind: string
  /** From the object's root; never empty. */
  readonly path: readonly FieldStep[]
}

/** What of an answer is hidden: of several rules, all that any of them hides. */
export interface Masking {
  /** Names of the profiles, sorted; empty where nothing is hidden. */
  readonly profiles: readonly string[]
  /** Beside what the standard profile hides. */
  readonly fields: readonly FieldMask[]
  /** Detectors look at every text, not only where secrets are to be expected. */
  readonly everywhere: boolean
  /** Placeholders in updates are replaced by the values that they stand for, instead of being refused. */
  readonly restore: boolean
}

/** Where policy says nothing. */
export const STANDARD_MASKING: Masking = {
  profiles: [STANDARD_PROFILE],
  fields: [],
  everywhere: false,
  restore: false,
}
