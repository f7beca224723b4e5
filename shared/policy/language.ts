/**
 * The policy language: YAML in RBAC's words. These schemas are what docs/schemas/policy.schema.json is made of, so the
 * descriptions in them are for those who write policies; docs/policy.md tells the rest.
 */
import { z } from 'zod'
import { VERDICTS } from '../tag-constants.ts'
import { ACTIONS } from '../kubernetes/attributes.ts'
import { EFFECTS, RECORD_MODES } from './decision.ts'
import { NO_PROFILE } from './masking.ts'

/** Most rules of a policy, all files together. */
export const MAX_RULES = 10_000
/** Most examples of one file. */
const MAX_EXAMPLES = 2_000
/** Ids of rules that Nestgate brings itself begin so; files may not use them. */
export const BUILTIN_PREFIX = 'builtin:'
/** Longest reuse of an approval, in seconds. */
export const MAX_REUSE_S = 15 * 60
/** Longest wait for people, in seconds. */
export const MAX_PENDING_S = 24 * 3600
/** Longest wait of an approval to be used, in seconds. */
export const MAX_APPROVED_S = 24 * 3600
/** Longest that a client is kept waiting, in seconds. */
export const MAX_HOLD_S = 3600
/** Most of a body that a rule may have captured, in bytes. */
export const MAX_CAPTURE_BYTES = 256 * 1024
/** How much of it where the rule does not say. */
export const DEFAULT_CAPTURE_BYTES = 16 * 1024
/** Most of a forwarded connection that a rule may have kept, each way, in bytes. */
const MAX_TUNNEL_BYTES = 256 * 1024 * 1024
/** Bounds of one recording, in bytes. */
const MIN_RECORDING_BYTES = 64 * 1024
const MAX_RECORDING_BYTES = 64 * 1024 ** 3
/** … and where the rule does not say. */
export const DEFAULT_RECORDING_BYTES = 1024 ** 3
/** Longest that a recording is kept by rule, in days: a hundred years. */
const MAX_RETAIN_DAYS = 36_500
/** Most people that a quorum may ask for. */
const MAX_QUORUM = 20
/** Words of one condition. */
const MAX_WORDS = 1000
/** Longest word: paths of programs and images are the longest things to match. */
const MAX_WORD_LENGTH = 512
/** Highest user id; the one above says "none" (user_namespaces(7)). */
const MAX_UID = 4_294_967_294

const word = z.string().min(1).max(MAX_WORD_LENGTH)
const listOf = <T extends z.ZodType>(item: T): z.ZodArray<T> => z.array(item).min(1).max(MAX_WORDS)
const words = listOf(word)
/** A word that is itself or a star. */
const plainWord = z
  .string()
  .max(MAX_WORD_LENGTH)
  .regex(/^(\*|[^*]*)$/, 'a * stands alone here')
const pairOfNames = z.string().regex(/^[^/]+\/[^/]+$/, 'expected NAMESPACE/NAME')
const resource = z
  .string()
  .regex(
    /^(\*|[^/*\s]+(\/([^/*\s]+|\*))?|\*\/[^/*\s]+)$/,
    'expected RESOURCE, RESOURCE/SUBRESOURCE, RESOURCE/*, */SUBRESOURCE or *',
  )

export const matchSchema = z
  .strictObject({
    clusters: words.describe('Names of clusters; * is any text.'),
    agents: words.describe('Names of the calling process; * is any text.'),
    ancestors: words.describe('Names of processes above it; any link of the chain suffices.'),
    executables: words.describe(
      'Executable of the calling process: * within a path segment, ** across segments.',
    ),
    sha256: listOf(
      z.string().regex(/^[0-9a-f]{64}$/, 'expected 64 lower-case hex digits'),
    ).describe('SHA-256 of the executable, hex.'),
    containers: words.describe('Name of the container of the calling process; * is any text.'),
    images: words.describe('Image of that container: * within a path segment, ** across segments.'),
    uids: listOf(z.int().min(0).max(MAX_UID)).describe('Effective user id of the process.'),
    verdicts: listOf(z.enum(VERDICTS)).describe(
      'How sure the identification is; only narrows what acceptVerdicts lets through.',
    ),
    serviceAccounts: listOf(pairOfNames).describe(
      'NAMESPACE/NAME of the pod’s service account; either part may be *.',
    ),
    subjects: words.describe('Name that the OIDC issuer vouches for; * is any text.'),
    groups: words.describe('Groups that the OIDC issuer vouches for; * is any text.'),
    repositories: words.describe(
      'Repository of the pipeline that calls, as its CI system vouches for it; * is any text.',
    ),
    refs: words.describe(
      'Full ref that the pipeline runs for, such as refs/heads/main; * is any text.',
    ),
    verbs: listOf(plainWord.min(1)).describe(
      'Kubernetes verbs; connect for exec, attach, port-forward and proxy.',
    ),
    actions: listOf(z.enum(ACTIONS)).describe('What the request amounts to, whatever its verb.'),
    apiGroups: listOf(plainWord).describe('API groups; "" is the core group.'),
    resources: listOf(resource).describe(
      'As in RBAC. A resource without a slash does not cover its subresources.',
    ),
    resourceNames: words.describe('Name of the object; * is any text.'),
    namespaces: listOf(z.string().max(MAX_WORD_LENGTH)).describe(
      'Namespace of the object; "" is cluster scope, * is any text.',
    ),
    labels: z
      .record(word, words)
      .refine((labels) => Object.keys(labels).length > 0, 'names no label')
      .describe('Labels of the object in the body: key to values, * any value.'),
    nonResourceURLs: listOf(
      z.string().regex(/^(\*|\/[^*]*\*?)$/, 'expected a path; a * only at its end'),
    ).describe('Paths outside the resource API; a * at the end covers what follows.'),
  })
  .partial()

const durationSchema = (most: number): z.ZodType<string> =>
  z
    .string()
    .regex(/^[1-9]\d{0,5}(s|m|h)$/, 'expected a duration such as 90s, 15m or 1h')
    .refine((text) => !(seconds(text) > most), `longer than ${most} seconds`)

/** Seconds of a duration that the schema let through. */
export function seconds(text: string): number {
  const unit = { s: 1, m: 60, h: 3600 }[text.slice(-1)] ?? Number.NaN
  return Number(text.slice(0, -1)) * unit
}

export const approvalSchema = z
  .strictObject({
    quorums: z
      .array(z.strictObject({ group: word, count: z.int().min(1).max(MAX_QUORUM) }))
      .min(1)
      .max(MAX_QUORUM)
      .describe('All of them must be met, by different people; without any, one reviewer.'),
    expires: durationSchema(MAX_PENDING_S).describe('How long the request waits for people (15m).'),
    approvedFor: durationSchema(MAX_APPROVED_S).describe(
      'How long an approval waits to be used (15m).',
    ),
    hold: durationSchema(MAX_HOLD_S).describe('How long the client is kept waiting (5m).'),
    reuse: z
      .union([z.literal('once'), durationSchema(MAX_REUSE_S)])
      .describe('once, or how long the very same request passes again (at most 15m).'),
    onLeave: z.enum(['cancel', 'keep']).describe('What becomes of it when its client leaves.'),
    mode: z.enum(['hold', 'return']).describe('return: the client is told at once to come back.'),
  })
  .partial()

const recordMode = z.enum(RECORD_MODES)

const recordSchema = z
  .union([
    recordMode,
    z.boolean().describe('true is required, false is off.'),
    z.strictObject({
      mode: recordMode.describe('required: what cannot be recorded does not run.'),
      stdin: z.boolean().optional().describe('Keeps what the client sends (false).'),
      mask: z.boolean().optional().describe('Hides what looks like a secret (true).'),
      files: z.boolean().optional().describe('Keeps the content of copied files (false).'),
      tunnelBytes: z
        .int()
        .min(0)
        .max(MAX_TUNNEL_BYTES)
        .optional()
        .describe('How much of each forwarded connection is kept, each way, in bytes (0).'),
      maxBytes: z
        .int()
        .min(MIN_RECORDING_BYTES)
        .max(MAX_RECORDING_BYTES)
        .optional()
        .describe('Bound of one recording, in bytes (1 GiB).'),
      retainDays: z
        .int()
        .min(1)
        .max(MAX_RETAIN_DAYS)
        .optional()
        .describe('How long the recording is kept, in days.'),
    }),
  ])
  .describe('How sessions and log streams are recorded; of several rules the strictest.')

/** A DNS label. */
const profileName = z
  .string()
  .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'expected the name of a masking profile')

const maskSchema = z
  .union([
    profileName.describe(
      'Name of a masking profile: standard, strict, one of masks; none shows values.',
    ),
    z
      .strictObject({
        profile: profileName.optional().describe('Name of a masking profile (standard).'),
        restore: z
          .literal(true)
          .optional()
          .describe('Updates that say placeholders keep the values that are hidden.'),
      })
      .refine(
        ({ profile, restore }) => profile !== NO_PROFILE || restore === undefined,
        'none hides nothing that could be restored',
      ),
  ])
  .describe('What of the answer is hidden; of several rules, all that any of them hides.')

/** Most groups of paths of a masking profile. */
const MAX_PROFILE_FIELDS = 200
/** Longest kind. */
const MAX_KIND_LENGTH = 63
/** Longest API group: a DNS name. */
const MAX_GROUP_LENGTH = 253

export const maskProfileSchema = z
  .strictObject({
    name: profileName.describe('Unique in all files; rules name it in mask.'),
    everywhere: z
      .boolean()
      .optional()
      .describe('Detectors look at every text of every object (false).'),
    fields: z
      .array(
        z.strictObject({
          group: z
            .string()
            .max(MAX_GROUP_LENGTH)
            .regex(
              /^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$/,
              'expected an API group; "" is the core group',
            )
            .describe('API group; "" is the core group.'),
          kind: z
            .string()
            .max(MAX_KIND_LENGTH)
            .regex(/^[A-Za-z][A-Za-z0-9]*$/, 'expected a kind such as Secret')
            .describe('Kind of the objects, as they say it themselves.'),
          paths: words.describe('Fields, with all below them: spec.auth.*.token, data["tls.key"].'),
        }),
      )
      .min(1)
      .max(MAX_PROFILE_FIELDS)
      .optional()
      .describe('What is hidden beside what the standard profile hides.'),
  })
  .refine(
    ({ everywhere, fields }) => everywhere === true || fields !== undefined,
    'hides nothing beside the standard profile: give fields, or everywhere: true',
  )

const grantedGroup = word.refine(
  (group) => !group.startsWith('system:'),
  'groups that begin with system: cannot be granted',
)

export const ruleSchema = z.strictObject({
  id: z
    .string()
    .min(1)
    .max(100)
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, 'expected letters, digits, dots, dashes')
    .describe('Unique in all files; shown in refusals and in the ledger.'),
  match: matchSchema.describe('Every condition that is given must hold; any word of it suffices.'),
  when: z.string().min(1).optional().describe('A CEL expression that must be true as well.'),
  effect: z.enum(EFFECTS),
  approval: approvalSchema.optional().describe('Only with hold and breakGlass.'),
  mask: maskSchema.optional(),
  record: recordSchema.optional(),
  capture: z
    .strictObject({
      maxBytes: z
        .int()
        .min(1)
        .max(MAX_CAPTURE_BYTES)
        .optional()
        .describe('How much of the body is kept, in bytes (16384; at most 262144).'),
    })
    .optional()
    .describe('The body is kept beside the ledger, with secrets masked.'),
  grant: z
    .strictObject({ groups: listOf(grantedGroup) })
    .optional()
    .describe('Kubernetes groups that the request gets beside its own.'),
  reason: z
    .string()
    .min(1)
    .max(300)
    .optional()
    .describe('Shown to whoever is held or denied, and to the reviewer.'),
})

export const caseSchema = z.strictObject({
  name: z.string().min(1).max(200).optional(),
  rule: z.string().optional().describe('Id of a rule that must be among those that decided.'),
  mask: profileName
    .optional()
    .describe('Masking profile that must be among those that hold; none: nothing is hidden.'),
  cluster: word.optional(),
  agent: word.optional(),
  ancestors: z.array(word).optional(),
  serviceAccount: pairOfNames.optional(),
  executable: word.optional(),
  sha256: z.string().optional(),
  uid: z.int().min(0).optional(),
  container: word.optional(),
  image: word.optional(),
  verdict: z.enum(VERDICTS).optional(),
  subject: word.optional(),
  groups: z.array(word).optional(),
  repository: word.optional(),
  ref: word.optional().describe('Full: refs/heads/main.'),
  run: word.optional(),
  request: z
    .string()
    .regex(/^[A-Z]+ \/\S*$/, 'expected a request line such as GET /api/v1/pods')
    .optional()
    .describe('METHOD and path as the client sends them, instead of verb and resource.'),
  verb: word.optional(),
  apiGroup: z.string().optional(),
  resource: word.optional().describe('With subresource: pods/exec.'),
  namespace: z.string().optional(),
  objectName: word.optional(),
  command: z.array(z.string()).optional().describe('Of exec.'),
  contentType: word.optional(),
  body: z.unknown().optional(),
})

/** Lists of examples, and the effect that each expects. */
export const EXPECTATIONS = {
  must_allow: 'allow',
  must_hold: 'hold',
  must_deny: 'deny',
  must_breakGlass: 'breakGlass',
} as const

const cases = z.array(caseSchema).max(MAX_EXAMPLES)

export const policyFileSchema = z.strictObject({
  apiVersion: z.literal('nestgate.dev/v1alpha1'),
  kind: z.literal('Policy'),
  metadata: z
    .strictObject({
      name: z
        .string()
        .regex(/^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/, 'expected a DNS name')
        .describe('Name of the policy; without it, that of the file.'),
    })
    .optional(),
  rules: z.array(ruleSchema).max(MAX_RULES),
  masks: z.array(maskProfileSchema).optional().describe('Masking profiles for rules of all files.'),
  examples: z
    .strictObject({
      must_allow: cases,
      must_hold: cases,
      must_deny: cases,
      must_breakGlass: cases,
    } satisfies Record<keyof typeof EXPECTATIONS, typeof cases>)
    .partial()
    .optional()
    .describe('Requests and what must come of them; nestgate policy test runs them.'),
})

/** Conditions of a rule. */
export type Match = z.infer<typeof matchSchema>
/** One rule as it is written. */
export type RuleText = z.infer<typeof ruleSchema>
/** What a rule says of masking. */
export type MaskText = z.infer<typeof maskSchema>
/** A masking profile as it is written. */
export type MaskProfileText = z.infer<typeof maskProfileSchema>
/** Terms of approval as they are written. */
export type ApprovalText = z.infer<typeof approvalSchema>
/** One example. */
export type Case = z.infer<typeof caseSchema>
/** A policy file. */
export type PolicyFile = z.infer<typeof policyFileSchema>

/** The JSON Schema of a policy file, for editors. */
export function policyJsonSchema(): object {
  return {
    $id: 'https://nestgate.dev/schemas/policy.schema.json',
    title: 'Nestgate policy',
    ...z.toJSONSchema(policyFileSchema, { io: 'input' }),
  }
}
