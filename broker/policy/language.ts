/**
 * The policy file: YAML in RBAC's words. Read as a whole or not at all; every problem is told with its line.
 * docs/policy.md describes it for those who write one.
 */
import { createHash } from 'node:crypto'
import { isNode, LineCounter, parseDocument } from 'yaml'
import type { Document } from 'yaml'
import { z } from 'zod'

/** Largest policy file, in bytes. */
export const MAX_POLICY_BYTES = 4 * 1024 * 1024
/** Ids of rules that Nestgate brings itself begin so; files may not use them. */
export const BUILTIN_PREFIX = 'builtin:'
const MAX_RULES = 10_000

const words = z.array(z.string().min(1).max(253)).min(1)

const matchSchema = z
  .strictObject({
    clusters: words,
    /** `namespace/name` of the service account that asks; either part may be `*`. */
    serviceAccounts: z.array(z.string().regex(/^[^/]+\/[^/]+$/, 'expected NAMESPACE/NAME')).min(1),
    /** Patterns of the asking process's executable: `*` within a path segment, `**` across segments. */
    executables: words,
    /** Names of the asking process; `*` is any text. */
    agents: words,
    /** Names of processes above it: any link of the chain suffices. */
    ancestors: words,
    verbs: words,
    apiGroups: z.array(z.string().max(253)).min(1),
    /** As in RBAC: a resource, `RESOURCE/SUBRESOURCE`, either part a star, or one star for all. A resource without a slash does not cover its subresources. */
    resources: words,
    resourceNames: words,
    /** Namespaces of the object asked for; `""` stands for cluster-scoped. */
    namespaces: z.array(z.string().max(253)).min(1),
    /** Paths outside the resource API; a `*` at the end covers what follows. */
    nonResourceURLs: words,
  })
  .partial()

const ruleSchema = z.strictObject({
  id: z
    .string()
    .min(1)
    .max(100)
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, 'expected letters, digits, dots, dashes'),
  match: matchSchema,
  effect: z.enum(['allow', 'hold', 'deny']),
  /** Shown to whoever is held or denied, and to the reviewer. */
  reason: z.string().max(300).optional(),
})

const fileSchema = z.strictObject({
  apiVersion: z.literal('nestgate.dev/v1alpha1'),
  kind: z.literal('Policy'),
  rules: z.array(ruleSchema).max(MAX_RULES),
})

/** Conditions of a rule; each that is given must hold, any of its words suffices. */
export type Match = z.infer<typeof matchSchema>
/** One rule. */
export type Rule = z.infer<typeof ruleSchema>

/** A policy that was read without a problem. */
export interface PolicyDocument {
  readonly rules: readonly Rule[]
  /** SHA-256 of the file's bytes, hex: what a decision names. */
  readonly digest: string
}

/** Reads a policy. @returns the policy, or one line for every problem, `LINE: where: what` */
export function readPolicy(
  text: string,
): PolicyDocument | { readonly problems: readonly string[] } {
  if (Buffer.byteLength(text) > MAX_POLICY_BYTES) {
    return { problems: [`larger than ${MAX_POLICY_BYTES} bytes`] }
  }
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true })
  if (document.errors.length > 0) {
    return { problems: document.errors.map((error) => error.message.split('\n')[0] ?? error.code) }
  }
  const parsed = fileSchema.safeParse(plainValue(document))
  if (!parsed.success) {
    return {
      problems: parsed.error.issues.map(
        ({ path, message }) =>
          `${lineOf(document, lines, path)}: ${path.map(String).join('.')}: ${message}`,
      ),
    }
  }
  const problems = parsed.data.rules.flatMap((rule, index) =>
    ruleProblems(rule, parsed.data.rules.slice(0, index)).map(
      (what) => `${lineOf(document, lines, ['rules', index])}: rules.${index}: ${what}`,
    ),
  )
  if (problems.length > 0) return { problems }
  return { rules: parsed.data.rules, digest: createHash('sha256').update(text).digest('hex') }
}

/** The document as plain values; undefined, which no schema accepts, where it has aliases. */
function plainValue(document: Document): unknown {
  try {
    return document.toJS({ maxAliasCount: 0 })
  } catch {
    return undefined
  }
}

/** What the schema cannot say. */
function ruleProblems(rule: Rule, earlier: readonly Rule[]): string[] {
  const problems: string[] = []
  const { match } = rule
  if (earlier.some(({ id }) => id === rule.id)) problems.push(`the id ${rule.id} is there twice`)
  if (match.resources === undefined && match.nonResourceURLs === undefined) {
    problems.push('names neither resources nor nonResourceURLs')
  }
  if (match.resources !== undefined && match.nonResourceURLs !== undefined) {
    problems.push('names both resources and nonResourceURLs; make two rules of it')
  }
  if (match.verbs === undefined) problems.push('names no verbs')
  return problems
}

/** The line of the innermost node on a path that is there. */
function lineOf(document: Document, lines: LineCounter, path: readonly PropertyKey[]): number {
  for (let length = path.length; length > 0; length -= 1) {
    const node: unknown = document.getIn(path.slice(0, length), true)
    if (isNode(node) && node.range) return lines.linePos(node.range[0]).line
  }
  return 1
}
