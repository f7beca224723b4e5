/** Why a session ends where its program does not: for the client, and for the recording. */
import type { SessionEnding } from '../../shared/recording/session-wire.ts'

/** See the head of the file. */
export interface Stop {
  readonly ending: SessionEnding
  /** For the client. */
  readonly text: string
  /** For the recording, where that is another: no name of a person is in it. */
  readonly kept?: string
}

export const RECORDING_FAILED: Stop = {
  ending: 'recording_failed',
  text: 'the session cannot be recorded any more',
}

const TEXTS: Readonly<Partial<Record<SessionEnding, string>>> = {
  client_left: 'the client left',
  stream_broken: 'the connection to the API server broke',
  protocol_invalid: 'the client sent what is none of its protocol',
}

/** Why a side's end ends the session. @param detail - what is known beside it; no word of anybody's content */
export function stopOf(ending: SessionEnding, detail?: string): Stop {
  const text = TEXTS[ending] ?? ending
  return { ending, text: detail === undefined ? text : `${text}: ${detail}` }
}

/** Somebody ended it. @param reason - what the writer's signal was aborted with (recordings/types.ts, Killed) */
export function killedStop(reason: unknown): Stop {
  const { actor = '', reason: why = '' } = isKilled(reason) ? reason : {}
  return { ending: 'killed', text: `ended by ${actor}: ${why}`, kept: why }
}

function isKilled(reason: unknown): reason is { readonly actor: string; readonly reason: string } {
  return typeof reason === 'object' && reason !== null && 'actor' in reason && 'reason' in reason
}
