/**
 * A policy: one file or several. Read as a whole or not at all; every problem of every file is told with its line,
 * `FILE:LINE: where: what`. Pure: files.ts reads the disk.
 */
import { createHash } from 'node:crypto'
import { isNode, LineCounter, parseDocument } from 'yaml'
import type { Document } from 'yaml'
import { compileCondition } from './condition.ts'
import type { Condition } from './condition.ts'
import { isRecord } from '../config-source.ts'
import { EXPECTATIONS, MAX_RULES, policyFileSchema, ruleSchema } from './language.ts'
import type { Case, PolicyFile, RuleText } from './language.ts'

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
  readonly examples: readonly Example[]
  /** SHA-256 over the names (without folders) and bytes of all files, hex: what a decision names. */
  readonly digest: string
}

/** What was wrong: one line each. */
export interface PolicyProblems {
  readonly problems: readonly string[]
}

interface ReadFile {
  readonly rules: readonly Rule[]
  readonly examples: readonly Example[]
  readonly problems: readonly string[]
}

/** Reads a policy. @param sources - in the order in which their rules count */
export function readPolicySet(sources: readonly PolicySource[]): PolicySet | PolicyProblems {
  const files = sources.map(readFile)
  const rules = files.flatMap((file) => file.rules)
  const problems = [...files.flatMap((file) => file.problems), ...duplicates(rules)]
  if (sources.length === 0) problems.push('there is no policy file')
  if (rules.length > MAX_RULES) problems.push(`more than ${MAX_RULES} rules`)
  if (problems.length > 0) return { problems }
  return { rules, examples: files.flatMap((file) => file.examples), digest: digestOf(sources) }
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
  const bad = (problems: readonly string[]): ReadFile => ({ rules: [], examples: [], problems })
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
    // The rules that are well-formed have their own problems told in the same go.
    const { rules, problems } = compileRules({ file, policy: '', rules: soundRules(plain) }, lineOf)
    return { rules, examples: [], problems: [...schema, ...problems] }
  }
  const { metadata, rules } = parsed.data
  const policy = metadata?.name ?? baseName(file).replace(/\.ya?ml$/, '')
  return {
    ...compileRules({ file, policy, rules: rules.map((rule, index) => [index, rule]) }, lineOf),
    examples: examplesOf(file, parsed.data, lineOf),
  }
}

function soundRules(plain: unknown): (readonly [number, RuleText])[] {
  const rules = isRecord(plain) && Array.isArray(plain['rules']) ? plain['rules'] : []
  return rules.flatMap((rule: unknown, index) => {
    const parsed = ruleSchema.safeParse(rule)
    return parsed.success ? [[index, parsed.data] as const] : []
  })
}

interface FileRules {
  readonly file: string
  readonly policy: string
  /** With their places in the file. */
  readonly rules: readonly (readonly [number, RuleText])[]
}

function compileRules(
  { file, policy, rules: texts }: FileRules,
  lineOf: (path: readonly PropertyKey[]) => number,
): { readonly rules: readonly Rule[]; readonly problems: readonly string[] } {
  const problems: string[] = []
  const rules = texts.map(([index, rule]): Rule => {
    const line = lineOf(['rules', index])
    const tell = (key: string, what: string): void => {
      const path = key === '' ? ['rules', index] : ['rules', index, key]
      problems.push(`${file}:${lineOf(path)}: ${path.join('.')}: ${what}`)
    }
    for (const [key, what] of ruleProblems(rule)) tell(key, what)
    const condition = rule.when === undefined ? undefined : compileCondition(rule.when)
    if (condition !== undefined && 'problems' in condition) {
      for (const what of condition.problems) tell('when', what)
      return { ...rule, policy, file, line, condition: undefined }
    }
    return { ...rule, policy, file, line, condition }
  })
  return { rules, problems }
}

function examplesOf(
  file: string,
  { examples = {} }: PolicyFile,
  lineOf: (path: readonly PropertyKey[]) => number,
): Example[] {
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
