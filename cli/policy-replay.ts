/**
 * Requests of the ledger as facts. Entries have what a decision was made on but the body; those of older brokers lack
 * the attributes too, which are then read from the request line again.
 */
import { z } from 'zod'
import { VERDICTS } from '../shared/tag-constants.ts'
import { ACTIONS } from '../shared/kubernetes/attributes.ts'
import type { RequestAttributes } from '../shared/kubernetes/attributes.ts'
import { isConnect } from '../shared/kubernetes/request-info.ts'
import type { RequestInfo } from '../shared/kubernetes/request-info.ts'
import type { PastRequest } from '../shared/policy/analysis.ts'
import { readSentRequest } from '../shared/policy/case.ts'
import type { Facts, ProcessFacts } from '../shared/policy/facts.ts'
import type { AuditEvent } from '../shared/wire.ts'

const equivalentSchema = z.object({
  verb: z.string(),
  apiGroup: z.string(),
  resource: z.string(),
  namespace: z.string(),
  name: z.string(),
})

const parametersSchema = z.object({
  dryRun: z.boolean(),
  force: z.boolean().exactOptional(),
  fieldManager: z.string().exactOptional(),
  propagationPolicy: z.string().exactOptional(),
  gracePeriodSeconds: z.number().exactOptional(),
  patchType: z.enum(['json', 'merge', 'strategic', 'apply']).exactOptional(),
  generateName: z.string().exactOptional(),
  labelSelector: z.string().exactOptional(),
  fieldSelector: z.string().exactOptional(),
  command: z.array(z.string()).exactOptional(),
  container: z.string().exactOptional(),
  tty: z.boolean().exactOptional(),
  stdin: z.boolean().exactOptional(),
  ports: z.array(z.number()).exactOptional(),
  proxyPath: z.string().exactOptional(),
  replicas: z.number().exactOptional(),
})

const attributesSchema = z.object({
  policyVerb: z.string(),
  /** A newer broker's own actions are left out. */
  actions: z.array(z.string()),
  equivalents: z.array(equivalentSchema),
  parameters: parametersSchema,
  objectName: z.string(),
  labels: z.record(z.string(), z.string()).optional(),
})

const requestSchema = z.object({
  isResourceRequest: z.boolean(),
  verb: z.string(),
  apiGroup: z.string(),
  apiVersion: z.string(),
  namespace: z.string(),
  resource: z.string(),
  subresource: z.string(),
  name: z.string(),
  method: z.string(),
  path: z.string(),
  query: z.string(),
  bodyBytes: z.number(),
  attributes: attributesSchema.optional(),
})

const intentSchema = z.object({
  cluster: z.string(),
  subject: z.object({ type: z.string(), name: z.string(), namespace: z.string().optional() }),
  agent: z.string().optional(),
  chain: z.array(z.string()).optional(),
  container: z.object({ name: z.string(), image: z.string() }).optional(),
  tag: z
    .object({
      verdict: z.enum(VERDICTS),
      verified: z
        .object({ exe: z.string().optional(), exeSha256: z.string().optional(), uid: z.number() })
        .optional(),
    })
    .optional(),
  oidc: z
    .object({
      name: z.string(),
      groups: z.array(z.string()),
      ci: z.object({ repository: z.string(), ref: z.string(), run: z.string() }).optional(),
    })
    .optional(),
  request: requestSchema,
})

type Intent = z.infer<typeof intentSchema>

/** What a change is told with. */
export interface PastAbout {
  readonly requestId: string
  readonly time: string
}

/** The facts of an intent entry; undefined where it is not one. */
export function readPastRequest(event: AuditEvent): PastRequest<PastAbout> | undefined {
  const parsed = intentSchema.safeParse(event.entry)
  if (!parsed.success) return undefined
  const { cluster, oidc, request } = parsed.data
  const facts: Facts = {
    cluster,
    process: processOf(parsed.data),
    subject: oidc,
    request: attributesOf(request),
  }
  const about = { requestId: event.requestId ?? '', time: event.time }
  return { facts, hadBody: request.bodyBytes > 0, about }
}

function processOf(intent: Intent): Facts['process'] {
  const { subject, agent, chain, container, tag } = intent
  if (tag === undefined || subject.type !== 'serviceAccount') return undefined
  const [, , namespace = '', serviceAccount = ''] = subject.name.split(':')
  return {
    ...{ verdict: tag.verdict, namespace, serviceAccount },
    agent: agent ?? '',
    ancestors: chain ?? [],
    ...verifiedOf(tag),
    container: container?.name,
    image: container?.image,
  }
}

function verifiedOf({
  verified,
}: NonNullable<Intent['tag']>): Pick<ProcessFacts, 'exe' | 'sha256' | 'uid'> {
  return { exe: verified?.exe, sha256: verified?.exeSha256, uid: verified?.uid }
}

function attributesOf(request: Intent['request']): RequestAttributes {
  const { attributes, method, path, query } = request
  const info = infoOf(request)
  const body = { state: 'none' } as const
  if (attributes !== undefined) {
    const { policyVerb, equivalents, parameters, objectName, labels } = attributes
    const actions = ACTIONS.filter((action) => attributes.actions.includes(action))
    return {
      ...{ info, path, policyVerb, actions, equivalents, objectName, body },
      parameters,
      ...(labels === undefined ? {} : { labels }),
    }
  }
  const target = query === '' ? path : `${path}?${query}`
  const read = readSentRequest({ method, target, contentType: '', body: Buffer.alloc(0) })
  if (!('problem' in read)) return read
  const policyVerb = isConnect(info) ? 'connect' : info.verb
  const known = { policyVerb, actions: [], equivalents: [], objectName: info.name }
  return { info, path, ...known, parameters: { dryRun: false }, body }
}

function infoOf(request: Intent['request']): RequestInfo {
  const { isResourceRequest, verb, apiGroup, apiVersion } = request
  const { namespace, resource, subresource, name } = request
  return {
    ...{ isResourceRequest, verb, apiGroup, apiVersion },
    ...{ namespace, resource, subresource, name },
  }
}
