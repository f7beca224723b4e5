/** Placeholders of an update that is about to go upstream, put back where policy wants that (broker/masking/writes/restore.ts). */
import { Fault } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { createAsker } from '../approvals/as-caller.ts'
import { objectPath } from '../approvals/target.ts'
import type { MaskingKey } from '../masking/key.ts'
import { findPlaceholders } from '../masking/writes/find.ts'
import { restoreBody } from '../masking/writes/restore.ts'
import type { Restored } from '../masking/writes/restore.ts'
import type { Store } from '../store/store.ts'
import { askerOf, questionEntries } from './asking.ts'
import { MAX_BODY_BYTES } from './body.ts'
import { refusedCredential } from './credential.ts'
import type { Exchange } from './exchange.ts'
import { maskingOf } from './masking.ts'
import { isRestorable } from './writes.ts'

/** What restoring needs. */
export interface RestoreDeps {
  readonly store: Store
  readonly masking: MaskingKey
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/**
 * Puts back what the placeholders of an update stand for; its intent is durable. The object is read as the caller, and the
 * question stands in the ledger before anything of it goes upstream.
 *
 * @returns undefined where there is nothing to put back
 */
export async function restoredOf(
  deps: RestoreDeps,
  exchange: Exchange,
): Promise<Restored | Refusal | undefined> {
  if (!isRestorable(exchange)) return undefined
  const written = findPlaceholders(exchange.attributes, exchange.body.bytes)
  if (written === undefined) return undefined
  const current = await currentObject(deps, exchange, written)
  if (isRefusal(current)) return current
  try {
    const restored = restoreBody({
      body: exchange.body.bytes,
      current,
      masking: maskingOf(exchange),
      placeholders: deps.masking.placeholders(exchange.cluster.name),
    })
    const tooLarge = !isRefusal(restored) && restored.body.length > MAX_BODY_BYTES
    return tooLarge ? refuse('body_too_large', 'with the values that were put back') : restored
  } catch (error) {
    if (error instanceof Fault && error.code === 'answer_unmaskable')
      return refuse('answer_unmaskable')
    throw error
  }
}

/** The object that an update is about, whole. @param written - what is refused where there is none, or none for the caller */
async function currentObject(
  deps: RestoreDeps,
  exchange: Exchange,
  written: Refusal,
): Promise<Buffer | Refusal> {
  const path = objectPath(exchange.attributes)
  if (path === undefined) return written
  const asker = createAsker(askerOf(exchange), deps.now)
  const said = await asker
    .ask({ purpose: 'restore', method: 'GET', path })
    .catch(refusedCredential(deps, exchange))
  if (isRefusal(said)) return said
  try {
    await deps.store.append(questionEntries(exchange, asker.asked))
  } catch {
    return refuse('ledger_unavailable')
  }
  if ('silent' in said)
    return refuse('upstream_unavailable', `the object was not read: ${said.silent}`)
  if (said.status === 404 || said.status === 403)
    return {
      ...written,
      detail: `the object cannot be read (${said.status}): ${written.detail ?? ''}`,
    }
  return said.status === 200
    ? said.bytes
    : refuse('upstream_invalid', `status ${said.status} where the object was read`)
}
