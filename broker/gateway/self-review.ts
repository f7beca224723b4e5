/** Self-reviews on the way: what the API server says of the caller's rights, joined with what policy says (reviews/). */
import { z } from 'zod'
import { actionsOf } from '../../shared/kubernetes/actions.ts'
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import { equivalentsOf } from '../../shared/kubernetes/equivalents.ts'
import type { RequestInfo } from '../../shared/kubernetes/request-info.ts'
import type { Decider } from '../../shared/policy/decision.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { reviewAccess } from '../credentials/access.ts'
import { identityOf } from '../credentials/actor.ts'
import type { CallAttributes } from '../credentials/api-call.ts'
import type { Kinds } from '../discovery/kinds.ts'
import {
  answerSelfReview,
  readSelfReview,
  REVIEW_HEADERS,
  selfReviewKind,
} from '../reviews/self-review.ts'
import type { ReviewAnswer, SelfReview } from '../reviews/self-review.ts'
import type { Exchange } from './exchange.ts'
import type { ForwardOutcome, Outgoing } from './forward.ts'
import { passedOn } from './headers.ts'
import { actorOf, factsOf } from './requester.ts'

/** What answering needs. */
export interface ReviewDeps {
  /** The decider of the policy that is in force. */
  readonly decider: Decider
  readonly kinds: Pick<Kinds, 'served'>
}

/** Longest answer of the API server that is read, in bytes. */
const MAX_ANSWER_BYTES = 1024 * 1024
const NO_PARAMETERS = { dryRun: false } as const
const NO_BODY = { state: 'none' } as const

/**
 * Answers a self-review. No byte goes to the client before `evidence` is durable.
 *
 * @returns how it ended; undefined for every other request, which is then nobody's yet
 */
export async function answerReview(
  deps: ReviewDeps,
  exchange: Exchange,
  outgoing: Outgoing,
  evidence: Promise<unknown>,
): Promise<ForwardOutcome | Refusal | undefined> {
  const { client, parsed, body } = exchange
  const kind = selfReviewKind(parsed.info)
  if (kind === undefined || client.channel.kind !== 'response') return undefined
  const contentType = client.request.headers['content-type'] ?? ''
  const review = readSelfReview(kind, contentType, body.bytes)
  if (isRefusal(review)) return review
  const said = await ask(exchange, outgoing)
  if (isRefusal(said)) return said
  const upstream = await asActor(exchange, review, said)
  const answer = answerSelfReview(review, upstream, policyOf(deps, exchange))
  if (isRefusal(answer)) return answer
  try {
    await evidence
  } catch {
    return refuse('ledger_unavailable')
  }
  const { response } = client.channel
  const warnings = answer.warning === undefined ? [] : [answer.warning]
  response.writeHead(answer.status, {
    ...passedOn({}, { requestId: outgoing.requestId, warnings }),
    'content-type': answer.contentType,
    'content-length': String(answer.body.length),
  })
  response.end(answer.body)
  const bytesToServer = outgoing.body.length
  return { status: answer.status, bytesToClient: answer.body.length, bytesToServer }
}

/**
 * In mode `issuer` the name that asks has no rights of its own, and its credential is for this review alone: the API server says no to every
 * question. What counts is what it says of whom the name acts for.
 */
async function asActor(
  { cluster, requester, decision }: Exchange,
  review: SelfReview,
  said: ReviewAnswer,
): Promise<ReviewAnswer> {
  if (cluster.credential.mode !== 'issuer' || said.status >= 300) return said
  const question = review.kind === 'access' ? questionOf(review) : undefined
  const read = z.looseObject({}).safeParse(readJson(said.body))
  if (question === undefined || !read.success) return said
  const identity = identityOf(actorOf(requester), decision.obligations.grantGroups)
  const access = await reviewAccess(cluster, identity, question)
  const problem = { evaluationError: 'nestgate: the cluster could not be asked about its roles' }
  const status = { allowed: access === 'allowed', ...(access === 'unknown' ? problem : {}) }
  return { ...said, body: Buffer.from(JSON.stringify({ ...read.data, status })) }
}

function questionOf({
  resource,
  path,
}: Extract<SelfReview, { kind: 'access' }>): CallAttributes | undefined {
  if (resource !== undefined) return { ...resource, nonResourcePath: '' }
  const none = { group: '', version: '', resource: '', subresource: '', namespace: '', name: '' }
  return path === undefined ? undefined : { ...none, verb: path.verb, nonResourcePath: path.path }
}

function readJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString())
  } catch {
    return undefined
  }
}

function policyOf(
  { decider, kinds }: ReviewDeps,
  { requester, cluster }: Exchange,
): Parameters<typeof answerSelfReview>[2] {
  const served = kinds.served(cluster.name)
  return {
    decide: (attributes) => decider.decide(factsOf(requester, cluster.name, attributes)),
    effectsOf,
    ...(served.length === 0 ? {} : { served }),
  }
}

/** What a request with this line could amount to; its body is not known. */
function effectsOf(info: RequestInfo): Pick<RequestAttributes, 'actions' | 'equivalents'> {
  return {
    actions: actionsOf({ info, parameters: NO_PARAMETERS, body: NO_BODY }),
    equivalents: equivalentsOf(info, NO_PARAMETERS),
  }
}

async function ask(
  { cluster }: Exchange,
  { path, headers, body }: Outgoing,
): Promise<ReviewAnswer | Refusal> {
  try {
    const answer = await cluster.requests.request({
      method: 'POST',
      path,
      headers: { ...headers, ...REVIEW_HEADERS },
      body,
    })
    const chunks: Buffer[] = []
    let size = 0
    const stream: AsyncIterable<Buffer> = answer.body
    for await (const chunk of stream) {
      size += chunk.length
      if (size > MAX_ANSWER_BYTES) return refuse('upstream_invalid', 'a review that is too long')
      chunks.push(chunk)
    }
    const type = answer.headers['content-type']
    return {
      status: answer.statusCode,
      contentType: typeof type === 'string' ? type : 'application/json',
      body: Buffer.concat(chunks),
    }
  } catch {
    return refuse('upstream_unavailable')
  }
}
