/**
 * Ledger entries as a report reads them. They may be of older or newer brokers, and cut to fit: what is missing is taken
 * for unknown, and only what names neither kind nor caller is unreadable.
 */
import { z } from 'zod'
import { isRecord } from '../../shared/config.ts'
import { VERDICTS } from '../../shared/tag-constants.ts'
import { MAX_TEXT } from './bounds.ts'

/** A text that has to be there. */
const name = z.string().transform(shortened)
/** A text that is missing or of another type is empty. */
const text = name.catch('')
/** Of lists that were cut the last element is the mark. */
const texts = z.array(z.unknown()).catch([]).transform(onlyTexts)

const ofRequest = { requestId: name, cluster: name }
const subjectSchema = z.object({ type: text, name })

const tagSchema = z.object({
  verdict: z.enum(VERDICTS),
  verified: z
    .object({
      exe: name.optional(),
      exeSha256: name.optional(),
      uid: z.number().optional(),
    })
    .optional()
    .catch(undefined),
})

const oidcSchema = z.object({
  name,
  groups: texts,
  ci: z.object({ repository: text, ref: text, run: text }).optional().catch(undefined),
})

const equivalentSchema = z.object({ verb: name, resource: name })
const equivalentsSchema = z
  .array(z.unknown())
  .catch([])
  .transform((values) =>
    values.flatMap((value) => {
      const parsed = equivalentSchema.safeParse(value)
      return parsed.success ? [parsed.data] : []
    }),
  )

const requestSchema = z.object({
  isResourceRequest: z.boolean().catch(true),
  verb: text,
  apiGroup: text,
  namespace: text,
  resource: text,
  subresource: text,
  name: text,
  path: text,
  attributes: z
    .object({ policyVerb: text, actions: texts, equivalents: equivalentsSchema })
    .optional()
    .catch(undefined),
})

const intentSchema = z.object({
  kind: z.literal('intent'),
  ...ofRequest,
  subject: subjectSchema,
  agent: name.optional().catch(undefined),
  chain: texts,
  container: z.object({ name: text, image: text }).optional().catch(undefined),
  tag: tagSchema.optional().catch(undefined),
  oidc: oidcSchema.optional().catch(undefined),
  request: requestSchema,
  decision: z.object({ effect: name, rules: texts, policyDigest: text }),
  approval: z
    .object({ approvers: texts, reviewer: text, breakGlass: z.boolean().optional() })
    .optional()
    .catch(undefined),
  /** What stands in it does not matter: it is there when something was forwarded. */
  credential: z.unknown().optional(),
})

const refusalSchema = z.object({
  kind: z.literal('refusal'),
  ...ofRequest,
  subject: subjectSchema,
})

const approvalSchema = z.object({
  kind: z.literal('approval'),
  ...ofRequest,
  from: text,
  to: text,
  actor: text,
  reason: text,
  review: z.object({ verdict: name }).optional().catch(undefined),
})

const otherSchema = z.object({ kind: z.enum(['outcome', 'session', 'system']) })

const entrySchema = z.discriminatedUnion('kind', [
  intentSchema,
  refusalSchema,
  approvalSchema,
  otherSchema,
])

/** An entry that could be read. */
export type ReadEntry = z.infer<typeof entrySchema>
/** An intent that could be read. */
export type ReadIntent = z.infer<typeof intentSchema>
/** A refusal that could be read. */
export type ReadRefusal = z.infer<typeof refusalSchema>
/** A change of a held request that could be read. */
export type ReadApproval = z.infer<typeof approvalSchema>

/** How a text that was cut ends (broker/ledger/serialize.ts). */
const CUT_TEXT = /…\[cut: (\d{1,9}) (?:characters|items)\]$/u

/** Decodes an entry. @returns undefined for one of no known form */
export function readEntry(value: unknown): ReadEntry | undefined {
  const parsed = entrySchema.safeParse(value)
  return parsed.success ? parsed.data : undefined
}

/** Whether anything in an entry has the mark of having been cut. A caller can write that mark, too. */
export function isShortened(value: unknown): boolean {
  if (typeof value === 'string') return CUT_TEXT.test(value)
  if (Array.isArray(value)) return value.some(isShortened)
  return isRecord(value) && ('…' in value || Object.values(value).some(isShortened))
}

/** The one of `known` that a cut text was, where exactly one can be; else the text as it is. */
export function uncut(text: string, known: Iterable<string>): string {
  const match = CUT_TEXT.exec(text)
  if (match === null) return text
  const head = text.slice(0, match.index)
  const length = head.length + Number(match[1])
  const could = [...known].filter((one) => one.length === length && one.startsWith(head))
  return could.length === 1 ? (could[0] ?? text) : text
}

function onlyTexts(values: readonly unknown[]): readonly string[] {
  return values
    .filter((value) => typeof value === 'string')
    .filter((one) => !isCutMark(one))
    .map(shortened)
}

/** What is kept of a text: memory must not grow with what callers send. */
function shortened(value: string): string {
  if (value.length <= MAX_TEXT) return value
  return `${value.slice(0, MAX_TEXT).toWellFormed()}…[${value.length - MAX_TEXT} more characters]`
}

/** The mark that stands for the rest of a list. */
function isCutMark(one: string): boolean {
  return /^…\[cut: \d+ items\]$/u.test(one)
}
