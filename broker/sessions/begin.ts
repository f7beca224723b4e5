/** The first step of whatever is recorded: a recorder, before anything is dialled. */
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import type { Recording } from '../../shared/policy/decision.ts'
import type { SessionFacts } from '../../shared/recording/session-wire.ts'
import { createRecorder, NO_RECORDER } from './recorder.ts'
import type { SessionRecorder } from './recorder.ts'
import type { Store } from '../store/store.ts'
import type { Recordings } from './recordings/types.ts'

/** What sessions need. */
export interface SessionDeps {
  readonly recordings: Recordings
  readonly store: Pick<Store, 'append'>
  readonly log: Logger
}

/** Begins a recording, as policy wants it. @returns undefined where it must be recorded and cannot be: nothing may go ahead then */
export async function openRecorder(
  deps: SessionDeps,
  facts: SessionFacts,
  terms: Recording,
): Promise<SessionRecorder | undefined> {
  const { recordings, log } = deps
  if (terms.mode === 'off') return NO_RECORDER
  try {
    return createRecorder(await recordings.begin(facts, terms), terms, facts)
  } catch (error) {
    log.error({ requestId: facts.id, error: messageOf(error) }, 'a recording could not begin')
    return terms.mode === 'required' ? undefined : unrecorded(deps, facts)
  }
}

/** It goes ahead without, as its rule lets it; but not without a word in the ledger. */
async function unrecorded(
  { store, log }: SessionDeps,
  { id, cluster, kind }: SessionFacts,
): Promise<SessionRecorder | undefined> {
  const entry = { kind: 'session', event: 'unrecorded', requestId: id, cluster } as const
  try {
    await store.append([{ ...entry, actor: 'broker', detail: { kind } }])
    return NO_RECORDER
  } catch (error) {
    log.error({ requestId: id, error: messageOf(error) }, 'nor could the ledger be told')
    return undefined
  }
}
