/** Liveness and readiness. Alive: the store has not ended for good, which only a restart mends. Ready: it answers in time. */
import type { RequestHandler } from 'express'
import { refuse } from '../../shared/reasons.ts'
import type { Store } from '../store/store.ts'
import { route } from './answers.ts'

/** How long the store may take to answer, in milliseconds; kubelet's own default patience is 1 s. */
const ANSWER_MS = 900
/** An id that no request has. */
const NO_REQUEST = 'health'

/** Answers `GET /healthz`: a slow disk is not death, a store that refuses is. */
export function liveness(store: Store): RequestHandler {
  return route(async () =>
    (await ask(store)) === 'failed' ? refuse('ledger_unavailable') : { status: 'ok' },
  )
}

/** Answers `GET /readyz`. */
export function readiness(store: Store): RequestHandler {
  return route(async () =>
    (await ask(store)) === 'answered' ? { status: 'ready' } : refuse('ledger_unavailable'),
  )
}

async function ask(store: Store): Promise<'answered' | 'failed' | 'slow'> {
  const { promise: slow, resolve } = Promise.withResolvers<'slow'>()
  const timer = setTimeout(() => {
    resolve('slow')
  }, ANSWER_MS)
  const asked = store.approval(NO_REQUEST).then(
    () => 'answered' as const,
    () => 'failed' as const,
  )
  const result = await Promise.race([asked, slow])
  clearTimeout(timer)
  return result
}
