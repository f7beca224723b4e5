/**
 * What sidecar, broker and `nestgate` say to each other over HTTP, beside the Kubernetes API itself.
 * Each side decodes what it receives with these schemas.
 */
import { z } from 'zod'
import { APPROVAL_STATES, NEIGHBOUR_STATES } from './wire-constants.ts'

export * from './wire-constants.ts'

/** Body of `POST /v1/sidecars`: a JWS over `{aud, iat}` that carries its own public key in the `jwk` header. */
export const registrationSchema = z.strictObject({ proof: z.string().max(4096) })

/** Answer to a registration. */
export const registeredSchema = z.object({ podUid: z.string(), keyId: z.string() })

/** Answer to `GET /v1/sidecar/pod`. */
export const podStateSchema = z.object({ neighbours: z.enum(NEIGHBOUR_STATES) })

/** Body of the answer to a held request, and of `GET /v1/requests/{id}`. */
export const heldRequestSchema = z.object({
  id: z.string(),
  state: z.enum(APPROVAL_STATES),
  /** RFC 3339. */
  expiresAt: z.string(),
  /** A reviewer's reason, where one decided. */
  reason: z.string().optional(),
  /** Who decided. */
  reviewer: z.string().optional(),
  /** How long the client is kept waiting from now on, in seconds; then it is told to come back. Only when held. */
  holdSeconds: z.number().optional(),
})

/** See {@link heldRequestSchema}. */
export type HeldRequest = z.infer<typeof heldRequestSchema>

/** So many different people of one group. */
const quorumSchema = z.object({ group: z.string(), count: z.int().min(1) })

/** See `ApprovalTerms` in shared/policy/decision.ts. */
export const termsSchema = z.object({
  quorums: z.array(quorumSchema).readonly(),
  pendingSeconds: z.number(),
  approvedSeconds: z.number(),
  holdSeconds: z.number(),
  reuseSeconds: z.number(),
  onLeave: z.enum(['cancel', 'keep']),
  mode: z.enum(['hold', 'return']),
})

/** The object that a held request acts on, as it was when the request was asked: released only if it still is. */
export const targetSchema = z.union([
  z.object({ uid: z.string(), resourceVersion: z.string(), contentSha256: z.string() }),
  z.object({ absent: z.literal(true) }),
  /** Why the object could not be read. */
  z.object({ unreadable: z.string() }),
])

/** What the request would change, with secrets masked. */
export const previewSchema = z.object({
  kind: z.enum(['diff', 'object', 'session', 'list', 'sent', 'none']),
  text: z.string(),
  note: z.string().optional(),
})

/** What one person said of a held request. */
export const givenReviewSchema = z.object({
  reviewer: z.string(),
  groups: z.array(z.string()),
  approve: z.boolean(),
  reason: z.string(),
  /** RFC 3339. */
  at: z.string(),
})

/** What a person said of a break-glass request afterwards. */
export const REVIEW_VERDICTS = ['justified', 'unjustified'] as const

/** See {@link REVIEW_VERDICTS}. */
export type ReviewVerdict = (typeof REVIEW_VERDICTS)[number]

const byPerson = z.object({ reviewer: z.string(), reason: z.string(), at: z.string() })

/** A held request as reviewers see it. */
export const approvalSchema = heldRequestSchema.extend({
  digest: z.string(),
  createdAt: z.string(),
  cluster: z.string(),
  method: z.string(),
  path: z.string(),
  query: z.string(),
  verb: z.string(),
  resource: z.string(),
  namespace: z.string(),
  name: z.string(),
  /** Who asks: the Kubernetes user that would act. */
  subject: z.string(),
  /** Names of all who ask; none of them may decide. */
  requesters: z.array(z.string()),
  /** Who answers for the agent, people or `group:NAME`; they may not decide either. */
  owners: z.array(z.string()),
  /** The process that asks, in short. */
  agent: z.string(),
  /** Names of the processes above it, from the parent outwards. */
  ancestors: z.array(z.string()),
  /** The tag of that process, as verified at the time of asking; absent for a direct client. */
  tag: z.unknown().optional(),
  /** Rules that held the request. */
  rules: z.array(z.string()),
  /** What policy says of it, one sentence. */
  explanation: z.string(),
  terms: termsSchema,
  /** The quorums that are not met yet; empty where nothing is missing, or where any one reviewer will do. */
  missing: z.array(quorumSchema),
  reviews: z.array(givenReviewSchema),
  target: targetSchema.optional(),
  preview: previewSchema.optional(),
  /** Whether it runs for long and can be cut while it does. */
  streaming: z.boolean(),
  /** Whether the client that asked is still there. */
  clientWaits: z.boolean(),
  /** Whether it went ahead without approval, to be reviewed afterwards. */
  breakGlass: z.boolean(),
  /** Of a break-glass request: whether its review is still to be made. */
  review: z.enum(['open', 'closed']).optional(),
  closing: byPerson.extend({ verdict: z.enum(REVIEW_VERDICTS) }).optional(),
  revocation: byPerson.optional(),
  /** The approval that this one repeats. */
  reusedFrom: z.string().optional(),
  /** Whether a reviewer ended the reuse of this approval. */
  reuseEnded: z.boolean().optional(),
  bodySha256: z.string(),
  bodyBytes: z.number(),
  decidedAt: z.string().optional(),
})

/** See {@link approvalSchema}. */
export type Approval = z.infer<typeof approvalSchema>

export const approvalListSchema = z.object({ items: z.array(approvalSchema) })

const reason = z.string().trim().min(1).max(500)

/** Body of approve, deny and revoke: the reviewer's reason. */
export const reviewSchema = z.strictObject({ reason })

/** Body of the review of a break-glass request. */
export const closingSchema = z.strictObject({ reason, verdict: z.enum(REVIEW_VERDICTS) })

/** Answer of `GET /v1/approvals/{id}/context`: what else the same process asked for, newest first. */
export const contextSchema = z.object({
  items: z.array(
    z.object({
      time: z.string(),
      requestId: z.string(),
      effect: z.string(),
      verb: z.string(),
      resource: z.string(),
      namespace: z.string(),
      name: z.string(),
    }),
  ),
})

/** See {@link contextSchema}. */
export type Context = z.infer<typeof contextSchema>

/** Events of `GET /v1/approvals/watch`: first all that is pending, then each change. */
export const snapshotEventSchema = approvalListSchema
/** See {@link snapshotEventSchema}; `from` is the state before, `RECEIVED` for a new one. */
export const changeEventSchema = z.object({ from: z.string(), approval: approvalSchema })

/** Answer of `GET /v1/me`. */
export const meSchema = z.object({
  name: z.string(),
  roles: z.array(z.string()),
  groups: z.array(z.string()),
  /** RFC 3339; when the token ends, where that is known. */
  expiresAt: z.string().optional(),
})

/** One ledger entry as the audit API shows it; `entry` is the decoded leaf. */
export const auditEventSchema = z.object({
  seq: z.number(),
  time: z.string(),
  kind: z.string(),
  requestId: z.string().optional(),
  entry: z.record(z.string(), z.unknown()),
})

/** See {@link auditEventSchema}. */
export type AuditEvent = z.infer<typeof auditEventSchema>

/**
 * Answer of `GET /v1/audit/events/{seq}`: the entry also byte by byte, as it is proved (base64; names of people are pseudonyms there), and the address of
 * its `.tlog-proof`.
 */
export const auditEntrySchema = auditEventSchema.extend({ leaf: z.string(), proof: z.string() })

/** See {@link auditEntrySchema}. */
export type AuditEntry = z.infer<typeof auditEntrySchema>

/** First event of `GET /v1/audit/watch`; each other one is an {@link auditEventSchema}. */
export const watchStartSchema = z.object({ after: z.number() })

/** Answer of `GET /v1/audit/events`, newest first; `next` continues where it ended. */
export const auditPageSchema = z.object({
  items: z.array(auditEventSchema),
  next: z.string().optional(),
})

/** A registered cluster, without anything of its credentials but their kind. */
export const clusterStatusSchema = z.object({
  name: z.string(),
  server: z.string(),
  /** Who told of it: the broker's configuration, or the API. */
  source: z.enum(['file', 'api']),
  credential: z.enum(['token', 'certificate', 'issuer']),
  policies: z.array(z.string()).optional(),
  state: z.enum(['open', 'broken']),
  problem: z.string().optional(),
})

export const clusterListSchema = z.object({ items: z.array(clusterStatusSchema) })

/** The policy that a broker decides by. */
export const policyStatusSchema = z.object({
  digest: z.string(),
  rules: z.number(),
  loadedAt: z.string(),
  warnings: z.array(z.string()),
  /** What is wrong with the files as they are now; empty when they are what is in force. */
  problems: z.array(z.string()),
})

/** Answer to a removal. */
export const removedSchema = z.object({ name: z.string(), removed: z.literal(true) })

/** Ways to sign in: the browser of the same machine, or a code typed into any other. */
export const LOGIN_FLOWS = ['browser', 'device'] as const

/** Answer of `GET /v1/login`: the issuers that people may sign in with. */
export const loginIssuersSchema = z.object({
  issuers: z
    .array(
      z.object({
        name: z.string(),
        issuer: z.url({ protocol: /^https$/ }),
        clientId: z.string(),
        scopes: z.array(z.string()).readonly(),
        flows: z.array(z.enum(LOGIN_FLOWS)).readonly(),
      }),
    )
    .readonly(),
})

/** See {@link loginIssuersSchema}. */
export type LoginIssuers = z.infer<typeof loginIssuersSchema>

const probeResultSchema = z.object({
  /** What was tried. */
  name: z.string(),
  /** `unclear`: it came to nothing that shows anything. */
  outcome: z.enum(['ok', 'failed', 'unclear']),
  /** HTTP status; 0 where there was none. */
  status: z.number(),
  said: z.string(),
})
/** What came of one attempt of the doctor. */
export type ProbeResult = z.infer<typeof probeResultSchema>

/** What `POST /v1/clusters/NAME/check` answers. */
export const doctorReportSchema = z.object({
  cluster: z.string(),
  version: z.string(),
  /** Of Kubernetes 1. */
  minor: z.number(),
  mode: z.enum(['issuer', 'impersonation']),
  possible: z
    .array(
      z.object({
        mode: z.enum(['issuer', 'impersonation']),
        possible: z.boolean(),
        how: z.string(),
      }),
    )
    .readonly(),
  probes: z.array(probeResultSchema).readonly(),
  /** No attempt failed. */
  ok: z.boolean(),
})
/** See {@link doctorReportSchema}. */
export type DoctorReport = z.infer<typeof doctorReportSchema>

/** Answer of `GET /v1/issuer`: the broker's signing keys, the newest first. */
export const issuerKeysSchema = z.object({
  /** As in `iss`. */
  url: z.string(),
  keys: z
    .array(
      z.object({
        kid: z.string(),
        /** RFC 3339. */
        created: z.string(),
        /** `publishes` does not sign yet, `retires` does not any more. */
        state: z.enum(['publishes', 'signs', 'retires']),
        /** RFC 3339; since when at the latest. */
        since: z.string(),
      }),
    )
    .readonly(),
})
/** See {@link issuerKeysSchema}. */
export type IssuerKeys = z.infer<typeof issuerKeysSchema>

/** Answer of `POST /v1/issuer/replace`. */
export const keyReplacedSchema = z.object({
  /** The new key. */
  kid: z.string(),
  clusters: z
    .array(
      z.object({
        name: z.string(),
        /** Whether it took a token of the new key; `unreachable` is every other answer, too. */
        outcome: z.enum(['taken', 'refused', 'unreachable']),
        problem: z.string().optional(),
      }),
    )
    .readonly(),
  /** What is left to do. */
  notice: z.string(),
})
/** See {@link keyReplacedSchema}. */
export type KeyReplaced = z.infer<typeof keyReplacedSchema>

/** Longest name of a person that may be asked to be erased, in UTF-16 code units. */
const MAX_ERASED_NAME = 4096

/** Body of `POST /v1/ledger/erase`. */
export const erasureSchema = z.strictObject({
  /** Of the person, exactly as the ledger shows it. */
  name: z.string().min(1).max(MAX_ERASED_NAME),
  reason,
})

/** Answer of `POST /v1/ledger/erase`. */
export const erasedSchema = z.object({
  /** How many lead nowhere now; 0 where the ledger has none of that name. */
  pseudonyms: z.int().nonnegative(),
})
/** See {@link erasedSchema}. */
export type Erased = z.infer<typeof erasedSchema>

/** Answer of `GET /v1/audit/payloads/{sha256}`. */
export const capturedPayloadSchema = z.object({
  /** Of `content` in UTF-8; hex. */
  sha256: z.string(),
  /** The body as JSON, masked; cut where the intent says so. */
  content: z.string(),
})
/** See {@link capturedPayloadSchema}. */
export type CapturedPayload = z.infer<typeof capturedPayloadSchema>
