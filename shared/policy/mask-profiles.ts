/** Masking profiles of a policy, and what each rule's `mask` comes to. Compiled when the policy is read, not per decision. */
import { readMaskPath } from './mask-paths.ts'
import { NO_PROFILE, STANDARD_MASKING, STANDARD_PROFILE, STRICT_PROFILE } from './masking.ts'
import type { FieldMask, Masking } from './masking.ts'
import type { MaskProfileText, MaskText } from './language.ts'

/** A profile of a policy file. It contains the standard profile. */
export interface MaskProfile {
  readonly name: string
  readonly fields: readonly FieldMask[]
  readonly everywhere: boolean
  readonly file: string
  readonly line: number
}

/** Most profiles of a policy, all files together. */
export const MAX_PROFILES = 100
/** Most paths of one profile: each is looked for in every object of its kind. */
export const MAX_PROFILE_PATHS = 500

/** Where in a profile something is wrong, and what. */
export type ProfileProblem = readonly [path: readonly PropertyKey[], what: string]

const BUILT_IN: ReadonlyMap<string, Pick<Masking, 'fields' | 'everywhere'>> = new Map([
  [STANDARD_PROFILE, { fields: [], everywhere: false }],
  [STRICT_PROFILE, { fields: [], everywhere: true }],
])

/** Reads a profile. @returns it without what is wrong with it, and all of that */
export function readProfile({ name, everywhere = false, fields: texts = [] }: MaskProfileText): {
  readonly profile: Pick<MaskProfile, 'name' | 'fields' | 'everywhere'>
  readonly problems: readonly ProfileProblem[]
} {
  const problems: ProfileProblem[] = []
  const fields: FieldMask[] = []
  if (BUILT_IN.has(name) || name === NO_PROFILE)
    problems.push([['name'], `${name} is a profile of Nestgate's own`])
  for (const [at, { group, kind, paths }] of texts.entries()) {
    for (const [index, text] of paths.entries()) {
      const path = readMaskPath(text)
      if ('problem' in path)
        problems.push([['fields', at, 'paths', index], `${JSON.stringify(text)} ${path.problem}`])
      else fields.push({ group, kind, path })
    }
  }
  if (texts.reduce((sum, { paths }) => sum + paths.length, 0) > MAX_PROFILE_PATHS)
    problems.push([['fields'], `more than ${MAX_PROFILE_PATHS} paths`])
  return { profile: { name, fields: withoutDoubles(fields), everywhere }, problems }
}

/** What is wrong with the profiles of all files together, one line each. */
export function profileProblems(profiles: readonly MaskProfile[]): readonly string[] {
  const first = new Map<string, MaskProfile>()
  const problems: string[] = []
  for (const profile of profiles) {
    const { name, file, line } = profile
    const other = first.get(name)
    if (other === undefined) first.set(name, profile)
    else
      problems.push(
        `${file}:${line}: the masking profile ${name} is there twice (${other.file}:${other.line})`,
      )
  }
  if (profiles.length > MAX_PROFILES) problems.push(`more than ${MAX_PROFILES} masking profiles`)
  return problems
}

/**
 * Makes rules' masks ready. Masks that say the same are the same object, so that rules can be compared by it.
 * @returns undefined where the policy has no profile of the name
 */
export function maskCompiler(
  profiles: readonly MaskProfile[],
): (mask: MaskText | undefined) => Masking | undefined {
  const own = new Map(profiles.map((profile) => [profile.name, profile] as const))
  const made = new Map<string, Masking>()
  return (mask) => {
    if (mask === undefined) return STANDARD_MASKING
    const name = profileOf(mask)
    const restore = typeof mask === 'object' && mask.restore === true
    if (name === STANDARD_PROFILE && !restore) return STANDARD_MASKING
    const hides =
      name === NO_PROFILE
        ? { fields: [], everywhere: false }
        : (BUILT_IN.get(name) ?? own.get(name))
    if (hides === undefined) return undefined
    const key = JSON.stringify([name, restore])
    const masking = made.get(key) ?? {
      profiles: name === NO_PROFILE ? [] : [name],
      fields: hides.fields,
      everywhere: hides.everywhere,
      restore,
    }
    made.set(key, masking)
    return masking
  }
}

/** Name of the profile that a rule's mask says. */
export function profileOf(mask: MaskText): string {
  return typeof mask === 'string' ? mask : (mask.profile ?? STANDARD_PROFILE)
}

/** Whether nothing is hidden. */
export function showsAll({ profiles }: Masking): boolean {
  return profiles.length === 0
}

/** What rules hide together: all that any of them hides. Placeholders are restored where all that hide say so. */
export function togetherMasked(rules: readonly { readonly masking: Masking }[]): Masking {
  const first = rules[0]?.masking ?? STANDARD_MASKING
  if (rules.every(({ masking }) => masking === first)) return first
  const hiding = rules.flatMap(({ masking }) => (showsAll(masking) ? [] : [masking]))
  return {
    profiles: [...new Set(hiding.flatMap(({ profiles }) => profiles))].sort(),
    fields: withoutDoubles(hiding.flatMap(({ fields }) => fields)),
    everywhere: hiding.some(({ everywhere }) => everywhere),
    restore: hiding.every(({ restore }) => restore),
  }
}

function withoutDoubles(fields: readonly FieldMask[]): readonly FieldMask[] {
  const known = new Map(
    fields.map((field) => [JSON.stringify([field.group, field.kind, field.path]), field] as const),
  )
  return [...known.values()]
}
