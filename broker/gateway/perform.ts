/**
 * What happens to a request that may go ahead: credential → intent → restore → forward → respond → outcome. Its decision is made,
 * and for an approved one the claim is taken.
 */
import { upstreamQuery } from '../../shared/kubernetes/unmask.ts'
import { isRefusal, REASONS, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { ApprovalRecord } from '../ledger/entry.ts'
import type { RequestCredential } from '../credentials/credential.ts'
import { answerRefusal } from './client.ts'
import { credentialOf, refusedCredential } from './credential.ts'
import type { Exchange } from './exchange.ts'
import { forwardRequest } from './forward.ts'
import type { ForwardOutcome, NotAnswered, Outgoing } from './forward.ts'
import { upstreamHeaders } from './headers.ts'
import { answerMasking } from './masking.ts'
import { evidenceOf } from './payload.ts'
import type { Evidence } from './payload.ts'
import { recordOutcome, refuseRecorded } from './record.ts'
import type { RecordDeps } from './record.ts'
import { answerReview } from './self-review.ts'
import type { ReviewDeps } from './self-review.ts'
import type { MaskingKey } from '../masking/key.ts'
import type { RunningSessionDeps } from '../sessions/relay.ts'
import { lookedAt } from './restore.ts'
import { debugFacts, forwardSession, logTerms, tapLogs } from './session.ts'

/** By what an approved request goes ahead. */
export interface Grant {
  readonly record: ApprovalRecord
  /** Texts that the client's user is to see. */
  readonly warnings: readonly string[]
  /** Aborted when the approval is revoked while the request runs. */
  readonly revoked: AbortSignal
}

/** What performing needs. */
export type PerformDeps = RecordDeps &
  ReviewDeps &
  RunningSessionDeps & {
    /** What stands for hidden values. */
    readonly masking: MaskingKey
  }

/** See the head of the file. Never rejects for what the client or the API server did. */
export async function perform(
  deps: PerformDeps,
  exchange: Exchange,
  grant?: Grant,
): Promise<ForwardOutcome> {
  const credential = await credentialOf(exchange, grant?.record.approvers ?? []).catch(
    refusedCredential(deps, exchange),
  )
  if (isRefusal(credential)) {
    return refused(deps, exchange, credential)
  }
  try {
    return await performWith(deps, exchange, credential, grant)
  } finally {
    credential.over()
  }
}

async function refused(
  deps: PerformDeps,
  exchange: Exchange,
  refusal: Refusal,
): Promise<ForwardOutcome> {
  await refuseRecorded(deps, exchange, refusal)
  const { status } = REASONS[refusal.refused]
  return { status, bytesToClient: 0, bytesToServer: 0, reason: refusal.refused }
}

async function performWith(
  deps: PerformDeps,
  exchange: Exchange,
  credential: RequestCredential,
  grant: Grant | undefined,
): Promise<ForwardOutcome> {
  const outgoing = outgoingOf(deps, exchange, credential, grant)
  if (isRefusal(outgoing)) return refused(deps, exchange, outgoing)
  const { intent, payloads } = performed(exchange, credential, grant)
  const evidence = deps.store.append([intent], payloads)
  // whoever needs the intent awaits it below; until then its failure must not count as nobody's
  evidence.catch(() => undefined)
  if (!exchange.parsed.read) {
    try {
      await evidence
    } catch {
      return answerInstead(exchange, {
        notAnswered: refuse('ledger_unavailable'),
        bytesToServer: 0,
      })
    }
  }
  const result = await sendLookedAt(deps, exchange, outgoing, evidence, grant)
  const outcome = 'notAnswered' in result ? answerInstead(exchange, result) : result
  await recordOutcome(deps, exchange, outcome)
  return outcome
}

/** Sends a request with what its placeholders stand for, where policy wants them put back, and no guess at what is immutable. */
async function sendLookedAt(
  deps: PerformDeps,
  exchange: Exchange,
  outgoing: Outgoing,
  evidence: Promise<unknown>,
  grant: Grant | undefined,
): Promise<ForwardOutcome | NotAnswered> {
  const restored = await lookedAt(deps, exchange)
  if (restored === undefined) return send(deps, exchange, outgoing, evidence, grant)
  if (isRefusal(restored)) return { notAnswered: restored, bytesToServer: 0 }
  const { body, fields } = restored
  const result = await send(deps, exchange, { ...outgoing, body }, evidence, grant)
  // how long the values are is nobody's concern
  const known = { ...result, bytesToServer: exchange.body.bytes.length }
  return 'notAnswered' in known ? known : { ...known, restored: fields }
}

/** Outcomes of requests that were sent, and of whose answer nothing is known. */
const WITHOUT_ANSWER: ReadonlySet<ForwardOutcome['reason']> = new Set([
  'upstream_unavailable',
  'answer_unmaskable',
])

/** What became of an approved request; unknown when it was sent and no answer came, or none that could be shown. */
export function fateOf({ status, reason }: ForwardOutcome): 'SUCCEEDED' | 'FAILED' | 'UNKNOWN' {
  if (status === 0 || WITHOUT_ANSWER.has(reason)) return 'UNKNOWN'
  return status < 400 ? 'SUCCEEDED' : 'FAILED'
}

function outgoingOf(
  deps: PerformDeps,
  exchange: Exchange,
  credential: RequestCredential,
  grant: Grant | undefined,
): Outgoing | Refusal {
  const { requestId, parsed, body } = exchange
  const headers = upstreamHeaders(exchange, credential.headers)
  if (isRefusal(headers)) return headers
  const mask = answerMasking(exchange, deps.masking)
  const query = upstreamQuery(parsed.target)
  return {
    requestId,
    method: parsed.method,
    path: query === '' ? parsed.path : `${parsed.path}?${query}`,
    headers,
    ...(mask === undefined ? {} : { mask }),
    answered: credential.over,
    body: body.bytes,
    longRunning: parsed.longRunning,
    ...(grant === undefined ? {} : { warnings: grant.warnings, revoked: grant.revoked }),
  }
}

function performed(
  exchange: Exchange,
  { user }: RequestCredential,
  grant: Grant | undefined,
): Evidence {
  const { grantGroups } = exchange.decision.obligations
  const { intent, payloads } = evidenceOf(exchange)
  return {
    intent: {
      ...intent,
      ...(grant === undefined ? {} : { approval: grant.record }),
      credential: {
        mode: exchange.cluster.credential.mode,
        user,
        ...(grantGroups.length === 0 ? {} : { groups: grantGroups }),
      },
    },
    payloads,
  }
}

async function send(
  deps: PerformDeps,
  exchange: Exchange,
  outgoing: Outgoing,
  evidence: Promise<unknown>,
  grant: Grant | undefined,
): Promise<ForwardOutcome | NotAnswered> {
  const { client, cluster, parsed } = exchange
  const { channel } = client
  const review = await answerReview(deps, exchange, outgoing, evidence)
  if (review !== undefined)
    return isRefusal(review) ? { notAnswered: review, bytesToServer: outgoing.body.length } : review
  if (channel.kind === 'socket')
    return forwardSession(deps, exchange, outgoing, channel.socket, grant?.record)
  const seen = await seenBy(deps, exchange, outgoing, evidence, grant)
  if (isRefusal(seen)) return { notAnswered: seen, bytesToServer: 0 }
  const pool = parsed.longRunning ? cluster.watches : cluster.requests
  return forwardRequest(pool, seen, channel.response, evidence)
}

/** Begins what is recorded of an ordinary request: a log stream, or a change of ephemeral containers; the rest goes as it is. */
async function seenBy(
  deps: PerformDeps,
  exchange: Exchange,
  outgoing: Outgoing,
  evidence: Promise<unknown>,
  grant: Grant | undefined,
): Promise<Outgoing | Refusal> {
  const debug = debugFacts(exchange, grant?.record)
  if (debug !== undefined) {
    try {
      await deps.recordings.note(debug)
    } catch {
      return refuse('recording_unavailable')
    }
  }
  const terms = logTerms(exchange)
  if (terms === undefined) return outgoing
  try {
    await evidence
  } catch {
    return refuse('ledger_unavailable')
  }
  const tap = await tapLogs(deps, exchange, terms, grant?.record)
  // what is recorded is text, whatever the client would take
  const headers = { ...outgoing.headers, 'accept-encoding': 'identity' }
  return isRefusal(tap) ? tap : { ...outgoing, headers, tap }
}

function answerInstead(
  { client, requestId }: Exchange,
  { notAnswered, bytesToServer }: NotAnswered,
): ForwardOutcome {
  const status = answerRefusal(client, notAnswered, requestId)
  return { status, bytesToClient: 0, bytesToServer, reason: notAnswered.refused }
}
