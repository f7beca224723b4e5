/** Writes that are about to go upstream, for which the object has to be looked at: placeholders are put back where policy wants that (broker/masking/writes/restore.ts), guesses at what is immutable are refused. */
import { z } from 'zod'
import { Fault } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { createAsker } from '../approvals/as-caller.ts'
import { objectPath } from '../approvals/target.ts'
import type { MaskingKey } from '../masking/key.ts'
import { findPlaceholders } from '../masking/writes/find.ts'
import { isGuessWhereImmutable } from '../masking/writes/guesses.ts'
import { hiddenBy } from '../masking/writes/hidden.ts'
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
 * Looks at the object of a write whose intent is durable, as the caller, where that is needed. The question stands in the ledger before
 * anything of the write goes upstream.
 *
 * @returns the body in which placeholders are put back; `mask_oracle` for a value that could be a guess at what is `immutable`: it
 *   succeeds only where it is the one that is there; undefined where the request can go as it is
 */
export async function lookedAt(
  deps: RestoreDeps,
  exchange: Exchange,
): Promise<Restored | Refusal | undefined> {
  const { attributes, body } = exchange
  const masking = maskingOf(exchange)
  const written = isRestorable(exchange) ? findPlaceholders(attributes, body.bytes) : undefined
  const mayGuess = isGuessWhereImmutable(attributes, masking, hiddenBy(masking))
  if (written === undefined && !mayGuess) return undefined
  const current = await currentObject(deps, exchange)
  if (isRefusal(current)) return current
  if ('missing' in current) return unread(written, current.missing)
  if (mayGuess && mayBeImmutable(current.bytes))
    return refuse('mask_oracle', 'a change of what is immutable')
  return written === undefined ? undefined : restored(deps, exchange, current.bytes)
}

function restored(deps: RestoreDeps, exchange: Exchange, current: Buffer): Restored | Refusal {
  try {
    const result = restoreBody({
      body: exchange.body.bytes,
      current,
      masking: maskingOf(exchange),
      placeholders: deps.masking.placeholders(exchange.cluster.name),
    })
    const tooLarge = !isRefusal(result) && result.body.length > MAX_BODY_BYTES
    return tooLarge ? refuse('body_too_large', 'with the values that were put back') : result
  } catch (error) {
    if (error instanceof Fault && error.code === 'answer_unmaskable')
      return refuse('answer_unmaskable')
    throw error
  }
}

/** What of an object says whether it can change. */
const immutableSchema = z.looseObject({ immutable: z.boolean().optional() })

function mayBeImmutable(bytes: Buffer): boolean {
  try {
    const read = immutableSchema.safeParse(JSON.parse(bytes.toString()))
    return !read.success || read.data.immutable === true
  } catch {
    return true
  }
}

const NOT_FOUND = 404

/** What becomes of a write whose object is not known. @param written - what is refused in any case */
function unread(written: Refusal | undefined, status: number): Refusal | undefined {
  if (written === undefined)
    return status === NOT_FOUND
      ? undefined
      : refuse('mask_oracle', `the object cannot be read (${status}): it may be immutable`)
  if (status === 0) return written
  return {
    ...written,
    detail: `the object cannot be read (${status}): ${written.detail ?? ''}`,
  }
}

/** The object that a request is about, or the status because of which it is not known: 404, 403, or 0 where nobody can be asked. */
type Current = { readonly bytes: Buffer } | { readonly missing: number } | Refusal

async function currentObject(deps: RestoreDeps, exchange: Exchange): Promise<Current> {
  const path = objectPath(exchange.attributes)
  if (path === undefined) return { missing: 0 }
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
  const { status, bytes } = said
  if (status === 404 || status === 403) return { missing: status }
  return status === 200
    ? { bytes }
    : refuse('upstream_invalid', `status ${status} where the object was read`)
}
