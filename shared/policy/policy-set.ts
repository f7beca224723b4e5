/**
 * A policy: one file or several. Read as a whole or not at all; every problem of every file is told with its line,
 * `FILE:LINE: where: what`. Pure: files.ts reads the disk.
 */
import { createHash } from 'node:crypto'
import { isNode, LineCounter, parseDocument } from 'yaml'
import type { Document } from 'yaml'
import type { ZodType } from 'zod'
import { compileCondition } from './condition.ts'
import type { Condition } from './condition.ts'
import { isRecord } from '../config-source.ts'
import {
  EXPECTATIONS,
  maskProfileSchema,
  MAX_RULES,
  policyFileSchema,
  ruleSchema,
} from './language.ts'
import type { Case, MaskProfileText, PolicyFile, RuleText } from './language.ts'
import { maskCompiler, profileOf, profileProblems, readProfile } from './mask-profiles.ts'
import type { MaskProfile } from './mask-profiles.ts'
import { STANDARD_MASKING } from './masking.ts'
import type { Masking } from './masking.ts'

/** Largest policy file, in bytes. */
export const MAX_POLICY_BYTES = 4 * 1024 * 1024

/** A file as it was read; its name is shown in problems. */
export interface PolicySource {
  readonly file: string
  readonly text: string
}

/** One rule, ready to be compiled. */
export interface Rule extends RuleText {
  /** Name of the policy it belongs to. */
  readonly policy: string
  readonly file: string
  readonly line: number
  readonly condition: Condition | undefined
  /** What its `mask` comes to. */
  readonly masking: Masking
}

/** One example, and what must come of it. */
export interface Example {
  readonly expected: (typeof EXPECTATIONS)[keyof typeof EXPECTATIONS]
  readonly case: Case
  readonly file: string
  readonly line: number
}

/** A policy that was read without a problem. */
export interface PolicySet {
  readonly rules: readonly Rule[]
  /** Masking profiles of the files. */
  readonly profiles: readonly MaskProfile[]
  readonly examples: readonly Example[]
  /** SHA-256 over the names (without folders) and bytes of all files, hex: what a decision names. */
  readonly digest: string
}

/** What was wrong: one line each. */
export interface PolicyProblems {
  readonly problems: readonly string[]
}

/** A rule whose masking profile is still to be found: it may be in another file. */
interface ReadRule {
  readonly rule: Omit<Rule, 'masking'>
  /** Where it says its mask, as problems are told. */
  readonly maskAt: string
}

interface ReadFile {
  readonly rules: readonly ReadRule[]
  readonly profiles: readonly MaskProfile[]
  readonly examples: readonly Example[]
  readonly problems: readonly string[]
}

/** Reads a policy. @param sources - in the order in which their rules count */
export function readPolicySet(sources: readonly PolicySource[]): PolicySet | PolicyProblems {
  const files = sources.map(readFile)
  const profiles = files.flatMap((file) => file.profiles)
  const { rules, problems: unknown } = withMasks(
    files.flatMap((file) => file.rules),
    profiles,
  )
  const problems = [
    ...files.flatMap((file) => file.problems),
    ...profileProblems(profiles),
    ...unknown,
    ...duplicates(rules),
  ]
  if (sources.length === 0) problems.push('there is no policy file')
  if (rules.length > MAX_RULES) problems.push(`more than ${MAX_RULES} rules`)
  if (problems.length > 0) return { problems }
  const examples = files.flatMap((file) => file.examples)
  return { rules, profiles, examples, digest: digestOf(sources) }
}

function withMasks(
  read: readonly ReadRule[],
  profiles: readonly MaskProfile[],
): { readonly rules: readonly Rule[]; readonly problems: readonly string[] } {
  const problems: string[] = []
  const compile = maskCompiler(profiles)
  const rules = read.map(({ rule, maskAt }): Rule => {
    const masking = compile(rule.mask)
    if (masking === undefined && rule.mask !== undefined)
      problems.push(`${maskAt}: there is no masking profile ${profileOf(rule.mask)}`)
    return { ...rule, masking: masking ?? STANDARD_MASKING }
  })
  return { rules, problems }
}

/** Names and lengths are in it, so that no two sets of files have the same bytes. */
function digestOf(sources: readonly PolicySource[]): string {
  const hash = createHash('sha256')
  for (const { file, text } of sources) {
    const name = baseName(file)
    hash.update(`${Buffer.byteLength(name)}:${name}:${Buffer.byteLength(text)}:`).update(text)
  }
  return hash.digest('hex')
}

function baseName(file: string): string {
  return file.slice(file.lastIndexOf('/') + 1)
}

function readFile({ file, text }: PolicySource): ReadFile {
  const bad = (problems: readonly string[]): ReadFile => ({
    rules: [],
    profiles: [],
    examples: [],
    problems,
  })
  if (Buffer.byteLength(text) > MAX_POLICY_BYTES) {
    return bad([`${file}: larger than ${MAX_POLICY_BYTES} bytes`])
  }
  const lines = new LineCounter()
  const document = parseDocument(text, {
    lineCounter: lines,
    uniqueKeys: true,
    prettyErrors: false,
  })
  const at = (line: number, what: string): string => `${file}:${line}: ${what}`
  if (document.errors.length > 0) {
    return bad(document.errors.map(({ pos, message }) => at(lines.linePos(pos[0]).line, message)))
  }
  const plain = plainValue(document)
  if (plain === undefined) return bad([at(1, 'aliases are not read, and a policy is a mapping')])
  const lineOf = (path: readonly PropertyKey[]): number => lineAt(document, lines, path)
  const parsed = policyFileSchema.safeParse(plain)
  if (!parsed.success) {
    const schema = parsed.error.issues.map(({ path, message }) =>
      at(lineOf(path), path.length === 0 ? message : `${path.map(String).join('.')}: ${message}`),
    )
    // The rules and profiles that are well-formed have their own problems told in the same go.
    const masks = compileProfiles(file, soundOnes(plain, 'masks', maskProfileSchema), lineOf)
    const rules = soundOnes(plain, 'rules', ruleSchema)
    const compiled = compileRules({ file, policy: '', rules }, lineOf)
    const problems = [...schema, ...masks.problems, ...compiled.problems]
    return { ...bad(problems), rules: compiled.rules, profiles: masks.profiles }
  }
  const { metadata, rules, masks = [] } = parsed.data
  const policy = metadata?.name ?? baseName(file).replace(/\.ya?ml$/, '')
  const { profiles, problems } = compileProfiles(file, [...masks.entries()], lineOf)
  const compiled = compileRules({ file, policy, rules: [...rules.entries()] }, lineOf)
  return {
    rules: compiled.rules,
    profiles,
    problems: [...problems, ...compiled.problems],
    examples: examplesOf(file, parsed.data, lineOf),
  }
}

type LineOf = (path: readonly PropertyKey[]) => number

/** What of a list is well-formed, with its place. */
function soundOnes<T>(
  plain: unknown,
  key: 'rules' | 'masks',
  schema: ZodType<T>,
): (readonly [number, T])[] {
  const list = isRecord(plain) && Array.isArray(plain[key]) ? plain[key] : []
  return list.flatMap((one: unknown, index) => {
    const parsed = schema.safeParse(one)
    return parsed.success ? [[index, parsed.data] as const] : []
  })
}

function compileProfiles(
  file: string,
  masks: readonly (readonly [number, MaskProfileText])[],
  lineOf: LineOf,
): { readonly profiles: readonly MaskProfile[]; readonly problems: readonly string[] } {
  const problems: string[] = []
  const profiles = masks.map(([index, mask]): MaskProfile => {
    const read = readProfile(mask)
    for (const [within, what] of read.problems) {
      const path = ['masks', index, ...within]
      problems.push(`${file}:${lineOf(path)}: ${path.map(String).join('.')}: ${what}`)
    }
    return { ...read.profile, file, line: lineOf(['masks', index]) }
  })
  return { profiles, problems }
}

interface FileRules {
  readonly file: string
  readonly policy: string
  /** With their places in the file. */
  readonly rules: readonly (readonly [number, RuleText])[]
}

function compileRules(
  { file, policy, rules: texts }: FileRules,
  lineOf: LineOf,
): { readonly rules: readonly ReadRule[]; readonly problems: readonly string[] } {
  const problems: string[] = []
  const rules = texts.map(([index, rule]): ReadRule => {
    const line = lineOf(['rules', index])
    const tell = (key: string, what: string): void => {
      const path = key === '' ? ['rules', index] : ['rules', index, key]
      problems.push(`${file}:${lineOf(path)}: ${path.join('.')}: ${what}`)
    }
    for (const [key, what] of ruleProblems(rule)) tell(key, what)
    const path = ['rules', index, 'mask']
    const maskAt = `${file}:${lineOf(path)}: ${path.join('.')}`
    const condition = rule.when === undefined ? undefined : compileCondition(rule.when)
    if (condition !== undefined && 'problems' in condition) {
      for (const what of condition.problems) tell('when', what)
      return { rule: { ...rule, policy, file, line, condition: undefined }, maskAt }
    }
    return { rule: { ...rule, policy, file, line, condition }, maskAt }
  })
  return { rules, problems }
}

function examplesOf(file: string, { examples = {} }: PolicyFile, lineOf: LineOf): Example[] {
  const lists = [
    ['must_allow', examples.must_allow],
    ['must_hold', examples.must_hold],
    ['must_deny', examples.must_deny],
    ['must_breakGlass', examples.must_breakGlass],
  ] as const
  return lists.flatMap(([key, cases = []]) =>
    cases.map((one, index) => ({
      expected: EXPECTATIONS[key],
      case: one,
      file,
      line: lineOf(['examples', key, index]),
    })),
  )
}

/** What the schema cannot say: key and problem. */
function* ruleProblems(rule: RuleText): Generator<readonly [string, string]> {
  const { effect } = rule
  const { verbs, resources, nonResourceURLs, actions } = rule.match
  if (actions === undefined && verbs === undefined) yield ['match', 'names no verbs']
  if ((resources ?? nonResourceURLs ?? actions) === undefined)
    yield ['match', 'names neither resources nor nonResourceURLs nor actions']
  if (resources !== undefined && nonResourceURLs !== undefined)
    yield ['match', 'names both resources and nonResourceURLs; make two rules of it']
  const unfit = UNFIT[effect].filter((key) => rule[key] !== undefined)
  for (const key of unfit) yield [key, `does not belong to a rule with the effect ${effect}`]
}

const UNFIT = {
  deny: ['approval', 'mask', 'record', 'capture', 'grant'],
  allow: ['approval'],
  hold: [],
  breakGlass: [],
} as const

function duplicates(rules: readonly Rule[]): string[] {
  const seen = new Map<string, Rule>()
  return rules.flatMap((rule) => {
    const first = seen.get(rule.id)
    if (first === undefined) {
      seen.set(rule.id, rule)
      return []
    }
    return [
      `${rule.file}:${rule.line}: the id ${rule.id} is there twice (${first.file}:${first.line})`,
    ]
  })
}

/** The document as plain values; undefined where it has aliases, or is empty. */
function plainValue(document: Document): unknown {
  try {
    return document.toJS({ maxAliasCount: 0 }) ?? undefined
  } catch {
    return undefined
  }
}

/** The line of the innermost node on a path that is there. */
function lineAt(document: Document, lines: LineCounter, path: readonly PropertyKey[]): number {
  for (let length = path.length; length > 0; length -= 1) {
    const node: unknown = document.getIn(path.slice(0, length), true)
    if (isNode(node) && node.range) return lines.linePos(node.range[0]).line
  }
  return 1
}
