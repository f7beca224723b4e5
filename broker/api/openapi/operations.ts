/**
 * Every operation under `/v1`, with the schemas that its route reads and its clients check. The OpenAPI document is made of this table; tests
 * compare it with the routes of the running broker and with its answers.
 */
import { z } from 'zod'
import { REASONS } from '../../../shared/reasons.ts'
import * as review from '../../../shared/access-review-wire.ts'
import * as session from '../../../shared/recording/session-wire.ts'
import * as wire from '../../../shared/wire.ts'
import { eventsQuerySchema, exportQuerySchema, watchQuerySchema } from '../../audit/query.ts'
import { registeredSchema } from '../../clusters/settings.ts'
import { ROLES } from '../../identity/roles.ts'
import { listSchema } from '../people-routes.ts'
import { waitSchema } from '../sidecar-routes.ts'
import { ACCESS_REVIEW_OPERATIONS } from './access-review-operations.ts'
import { LEDGER_OPERATIONS } from './ledger-operations.ts'
import type { Operation } from './operation.ts'
import { SESSION_OPERATIONS } from './session-operations.ts'

/** A refusal (RFC 9457). */
export const problemSchema = z.object({
  type: z.url(),
  title: z.string(),
  status: z.int(),
  code: z.enum(Object.keys(REASONS)),
  detail: z.string().optional(),
  requestId: z.string().optional(),
})

/** The document itself; nothing is said of what is in it. */
const documentSchema = z.looseObject({ openapi: z.string() })
/** Questions of API servers are read no further than the broker needs (broker/credentials/). */
const accessReviewSchema = z.looseObject({
  apiVersion: z.literal('authorization.k8s.io/v1'),
  kind: z.literal('SubjectAccessReview'),
  spec: z.looseObject({}),
})
const accessReviewedSchema = z.object({
  apiVersion: z.literal('authorization.k8s.io/v1'),
  kind: z.literal('SubjectAccessReview'),
  status: z.looseObject({ allowed: z.boolean() }),
})
const admissionSchema = z.looseObject({
  apiVersion: z.literal('admission.k8s.io/v1'),
  kind: z.literal('AdmissionReview'),
  request: z.looseObject({ uid: z.string() }),
})
const admittedSchema = z.object({
  apiVersion: z.literal('admission.k8s.io/v1'),
  kind: z.literal('AdmissionReview'),
  response: z.looseObject({ uid: z.string(), allowed: z.boolean() }),
})

/** Schemas that the document names; all others stand where they are used. */
export const NAMED = {
  AccessReport: review.reportSchema,
  Approval: wire.approvalSchema,
  ApprovalChange: wire.changeEventSchema,
  ApprovalList: wire.approvalListSchema,
  AuditEntry: wire.auditEntrySchema,
  AuditEvent: wire.auditEventSchema,
  AuditPage: wire.auditPageSchema,
  Campaign: review.campaignSchema,
  CampaignItem: review.campaignItemSchema,
  ClusterList: wire.clusterListSchema,
  ClusterStatus: wire.clusterStatusSchema,
  Context: wire.contextSchema,
  DoctorReport: wire.doctorReportSchema,
  HeldRequest: wire.heldRequestSchema,
  IssuerKeys: wire.issuerKeysSchema,
  KeyReplaced: wire.keyReplacedSchema,
  LoginIssuers: wire.loginIssuersSchema,
  Me: wire.meSchema,
  PolicyStatus: wire.policyStatusSchema,
  Problem: problemSchema,
  Session: session.sessionSchema,
  SessionDetail: session.sessionDetailSchema,
  SessionDetails: session.sessionDetailsSchema,
  SessionPage: session.sessionPageSchema,
  SessionView: session.sessionViewSchema,
} as const satisfies Readonly<Record<string, z.ZodType>>

const READERS = ['reviewer', 'auditor'] as const

const approvals: readonly Operation[] = [
  {
    ...{ method: 'get', path: '/approvals', id: 'listApprovals', tag: 'approvals' },
    ...{ summary: 'Held requests, newest first', caller: READERS, query: listSchema },
    answer: { json: wire.approvalListSchema },
  },
  {
    ...{ method: 'get', path: '/approvals/watch', id: 'watchApprovals', tag: 'approvals' },
    ...{ summary: 'Held requests as they change', caller: READERS },
    answer: { events: { snapshot: wire.approvalListSchema, change: wire.changeEventSchema } },
  },
  {
    ...{ method: 'get', path: '/approvals/{id}', id: 'showApproval', tag: 'approvals' },
    ...{ summary: 'One held request', caller: READERS },
    answer: { json: wire.approvalSchema },
  },
  {
    ...{ method: 'get', path: '/approvals/{id}/context', id: 'showContext', tag: 'approvals' },
    ...{ summary: 'What else the same process asked for', caller: READERS },
    answer: { json: wire.contextSchema },
  },
  ...(
    [
      ['approve', 'Approve a held request', wire.reviewSchema],
      ['deny', 'Deny a held request', wire.reviewSchema],
      ['revoke', 'Take an approval back', wire.reviewSchema],
      ['review', 'Close the review of a break-glass request', wire.closingSchema],
    ] as const
  ).map(([verb, summary, body]): Operation => ({
    ...{ method: 'post', path: `/approvals/{id}/${verb}`, id: `${verb}Approval`, summary, body },
    ...{ tag: 'approvals', caller: ['reviewer'], answer: { json: wire.approvalSchema } },
  })),
]

const audit: readonly Operation[] = [
  {
    ...{ method: 'get', path: '/audit/events', id: 'listEvents', tag: 'audit' },
    ...{ summary: 'Entries of the ledger, newest first', caller: ['auditor'] },
    ...{ query: eventsQuerySchema, answer: { json: wire.auditPageSchema } },
  },
  {
    ...{ method: 'get', path: '/audit/events/{seq}', id: 'showEvent', tag: 'audit' },
    ...{ summary: 'One entry of the ledger, and where its proof is', caller: ['auditor'] },
    answer: { json: wire.auditEntrySchema },
  },
  {
    ...{ method: 'get', path: '/audit/watch', id: 'watchEvents', tag: 'audit' },
    ...{ summary: 'Entries as they are committed, oldest first', caller: ['auditor'] },
    query: watchQuerySchema,
    headers: { 'Last-Event-ID': 'as `after`, and before it' },
    answer: { events: { start: wire.watchStartSchema, entry: wire.auditEventSchema } },
  },
  {
    ...{ method: 'get', path: '/audit/export', id: 'exportEvents', tag: 'audit' },
    ...{ summary: 'Entries as a file, oldest first', caller: ['auditor'] },
    query: exportQuerySchema,
    answer: { texts: ['application/jsonl', 'text/csv'] },
  },
]

const clusters: readonly Operation[] = [
  {
    ...{ method: 'get', path: '/clusters', id: 'listClusters', tag: 'clusters' },
    ...{ summary: 'Clusters and how they are', caller: ROLES },
    answer: { json: wire.clusterListSchema },
  },
  {
    ...{ method: 'post', path: '/clusters', id: 'registerCluster', tag: 'clusters' },
    ...{ summary: 'Register a cluster', caller: ['admin'], body: registeredSchema },
    answer: { json: wire.clusterStatusSchema },
  },
  {
    ...{ method: 'put', path: '/clusters/{name}', id: 'changeCluster', tag: 'clusters' },
    ...{ summary: 'Change a registered cluster', caller: ['admin'], body: registeredSchema },
    answer: { json: wire.clusterStatusSchema },
  },
  {
    ...{ method: 'delete', path: '/clusters/{name}', id: 'removeCluster', tag: 'clusters' },
    ...{ summary: 'Forget a registered cluster', caller: ['admin'] },
    answer: { json: wire.removedSchema },
  },
  {
    ...{ method: 'post', path: '/clusters/{name}/check', id: 'checkCluster', tag: 'clusters' },
    ...{ summary: 'Have the doctor try every trap of a cluster', caller: ['admin'] },
    answer: { json: wire.doctorReportSchema },
  },
  {
    ...{ method: 'post', path: '/clusters/{name}/authorize', id: 'authorize', tag: 'clusters' },
    ...{ summary: 'Whether one of our names may do something', caller: 'apiServer' },
    ...{ body: accessReviewSchema, answer: { json: accessReviewedSchema } },
  },
  {
    ...{ method: 'post', path: '/clusters/{name}/admit', id: 'admit', tag: 'clusters' },
    ...{ summary: 'Whether an operation belongs to a request of ours', caller: 'anybody' },
    ...{ body: admissionSchema, answer: { json: admittedSchema } },
  },
]

const others: readonly Operation[] = [
  {
    ...{ method: 'get', path: '/openapi.json', id: 'showOpenApi', tag: 'broker' },
    ...{ summary: 'This document', caller: 'anybody', answer: { json: documentSchema } },
  },
  {
    ...{ method: 'get', path: '/login', id: 'showLogin', tag: 'people' },
    ...{ summary: 'Whom people may sign in with', caller: 'anybody' },
    answer: { json: wire.loginIssuersSchema },
  },
  {
    ...{ method: 'get', path: '/me', id: 'showMe', tag: 'people' },
    ...{ summary: 'Who one is', caller: ROLES, answer: { json: wire.meSchema } },
  },
  {
    ...{ method: 'get', path: '/policy', id: 'showPolicy', tag: 'broker' },
    ...{ summary: 'Which policy is in force', caller: ROLES },
    answer: { json: wire.policyStatusSchema },
  },
  {
    ...{ method: 'get', path: '/issuer', id: 'showIssuer', tag: 'broker' },
    ...{ summary: 'The issuer’s keys', caller: ROLES, answer: { json: wire.issuerKeysSchema } },
  },
  {
    ...{ method: 'post', path: '/issuer/replace', id: 'replaceIssuerKey', tag: 'broker' },
    ...{ summary: 'Replace the issuer’s keys', caller: ['admin'] },
    answer: { json: wire.keyReplacedSchema },
  },
  {
    ...{ method: 'post', path: '/sidecars', id: 'registerSidecar', tag: 'sidecars' },
    ...{ summary: 'Register a sidecar’s key', caller: 'sidecar', body: wire.registrationSchema },
    answer: { json: wire.registeredSchema },
  },
  {
    ...{ method: 'get', path: '/sidecar/pod', id: 'showPodState', tag: 'sidecars' },
    ...{ summary: 'What the containers beside a sidecar do', caller: 'sidecar' },
    answer: { json: wire.podStateSchema },
  },
  {
    ...{ method: 'get', path: '/requests/{id}', id: 'waitForRequest', tag: 'sidecars' },
    ...{ summary: 'Wait for a held request', caller: 'sidecar', query: waitSchema },
    answer: { json: wire.heldRequestSchema },
  },
  ...(['cancel', 'park'] as const).map((verb): Operation => ({
    ...{ method: 'post', path: `/requests/{id}/${verb}`, id: `${verb}Request`, tag: 'sidecars' },
    summary: verb === 'cancel' ? 'The client left' : 'The client was told to come back',
    ...{ caller: 'sidecar', answer: { json: wire.heldRequestSchema } },
  })),
]

/** All of them. */
export const OPERATIONS: readonly Operation[] = [
  ...others,
  ...approvals,
  ...audit,
  ...LEDGER_OPERATIONS,
  ...ACCESS_REVIEW_OPERATIONS,
  ...SESSION_OPERATIONS,
  ...clusters,
]
