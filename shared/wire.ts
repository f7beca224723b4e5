/**
 * What sidecar, broker and `nestgate` say to each other over HTTP, beside the Kubernetes API itself.
 * Each side decodes what it receives with these schemas.
 */
import { z } from 'zod'
import { APPROVAL_STATES } from './wire-constants.ts'

export * from './wire-constants.ts'

/** Body of `POST /v1/sidecars`: a JWS over `{aud, iat}` that carries its own public key in the `jwk` header. */
export const registrationSchema = z.strictObject({ proof: z.string().max(4096) })

/** Answer to a registration. */
export const registeredSchema = z.object({ podUid: z.string(), keyId: z.string() })

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
  /** The process that asks, in short. */
  agent: z.string(),
  /** The tag of that process, as verified at the time of asking. */
  tag: z.unknown(),
  /** Rules that held the request. */
  rules: z.array(z.string()),
  bodySha256: z.string(),
  bodyBytes: z.number(),
  decidedAt: z.string().optional(),
})

/** See {@link approvalSchema}. */
export type Approval = z.infer<typeof approvalSchema>

export const approvalListSchema = z.object({ items: z.array(approvalSchema) })

/** Body of approve and deny: the reviewer's reason. */
export const reviewSchema = z.strictObject({ reason: z.string().trim().min(1).max(500) })

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

/** Answer of `GET /v1/audit/events`, newest first; `next` continues where it ended. */
export const auditPageSchema = z.object({
  items: z.array(auditEventSchema),
  next: z.string().optional(),
})
