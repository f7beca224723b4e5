/** The first step of whatever is recorded: a recorder, before anything is dialled. */
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import type { Recording } from '../../shared/policy/decision.ts'
import type { SessionFacts } from '../../shared/recording/session-wire.ts'
import { createRecorder, NO_RECORDER } from './recorder.ts'
import type { SessionRecorder } from './recorder.ts'
import type { Recordings } from './recordings/types.ts'

/** What sessions need. */
export interface SessionDeps {
  readonly recordings: Recordings
  readonly log: Logger
}

/** Begins a recording, as policy wants it. @returns undefined where it must be recorded and cannot be: nothing may go ahead then */
export async function openRecorder(
  { recordings, log }: SessionDeps,
  facts: SessionFacts,
  terms: Recording,
): Promise<SessionRecorder | undefined> {
  if (terms.mode === 'off') return NO_RECORDER
  try {
    return createRecorder(await recordings.begin(facts, terms), terms, facts)
  } catch (error) {
    log.error({ requestId: facts.id, error: messageOf(error) }, 'a recording could not begin')
    return terms.mode === 'required' ? undefined : NO_RECORDER
  }
}
