/** Refusals and outcomes: what goes to the ledger, and then to the client. Without its entry no refusal is told either. */
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { REASONS, refusalText, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { OutcomeEntry } from '../ledger/entry.ts'
import type { Store } from '../store/store.ts'
import { answerRefusal } from './client.ts'
import type { Exchange, Identified } from './exchange.ts'
import type { ForwardOutcome } from './forward.ts'
import { evidenceOf } from './payload.ts'
import { subjectOf } from './requester.ts'

/** What recording needs. */
export interface RecordDeps {
  readonly store: Store
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** Refuses a request that was decided on: intent and outcome go in one commit. */
export async function refuseRecorded(
  deps: RecordDeps,
  exchange: Exchange,
  refusal: Refusal,
): Promise<void> {
  const { intent, payloads } = evidenceOf(exchange)
  const decision = { ...intent.decision, effect: 'deny' as const, reason: refusal.refused }
  await answerAfter(deps, exchange, refusal, async (outcome) => {
    await deps.store.append([{ ...intent, decision }, outcome], payloads)
  })
}

/** Refuses a request whose intent is in the ledger already. */
export async function refuseHeld(
  deps: RecordDeps,
  exchange: Exchange,
  refusal: Refusal,
): Promise<void> {
  await answerAfter(deps, exchange, refusal, async (outcome) => {
    await deps.store.append([outcome])
  })
}

async function answerAfter(
  deps: RecordDeps,
  { client, requestId, startedMs, cluster }: Exchange,
  refusal: Refusal,
  write: (outcome: OutcomeEntry) => Promise<void>,
): Promise<void> {
  try {
    await write({
      kind: 'outcome',
      requestId,
      cluster: cluster.name,
      status: REASONS[refusal.refused].status,
      bytesToClient: 0,
      bytesToServer: 0,
      durationMs: deps.now() - startedMs,
      reason: refusal.refused,
    })
  } catch {
    answerRefusal(client, refuse('ledger_unavailable'), requestId)
    return
  }
  answerRefusal(client, refusal, requestId)
}

/** Refuses a request whose caller is known but which could not be read. */
export async function refuseUnread(
  { store }: RecordDeps,
  { client, cluster, requester, requestId }: Omit<Identified, 'parsed'>,
  refusal: Refusal,
): Promise<void> {
  try {
    await store.append([
      {
        kind: 'refusal',
        requestId,
        cluster: cluster.name,
        subject: subjectOf(requester),
        reason: refusal.refused,
        detail: refusalText(refusal),
      },
    ])
  } catch {
    answerRefusal(client, refuse('ledger_unavailable'), requestId)
    return
  }
  answerRefusal(client, refusal, requestId)
}

/** Writes how a request ended whose answer is out already. Does not reject. */
export async function recordOutcome(
  { store, log, now }: RecordDeps,
  { requestId, cluster, startedMs }: Identified,
  outcome: ForwardOutcome,
): Promise<void> {
  const durationMs = now() - startedMs
  try {
    await store.append([
      { kind: 'outcome', requestId, cluster: cluster.name, durationMs, ...outcome },
    ])
  } catch (error) {
    // the missing outcome stays visible in the ledger
    log.error({ requestId, error: messageOf(error) }, 'an outcome could not be written')
  }
}
