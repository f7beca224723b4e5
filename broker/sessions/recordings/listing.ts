/** Sessions, the newest first: ids sort by the time that the request came. */
import type { Session, SessionPage } from '../../../shared/recording/session-wire.ts'
import { BEHIND_ALL_IDS } from './documents.ts'
import type { Documents } from './documents.ts'
import type { SessionFilter } from './reader.ts'

/** Documents that are read at a time, and for one page at most. */
const READ_AT_ONCE = 200
const MAX_LOOKED_AT = 4_000
/** A session begins at most so long after its request came, in milliseconds: a held request may wait for a day, twice. */
const MAX_WAIT_MS = 2 * 86_400_000
/** Largest time that an id can have: u48. */
const MAX_ID_MS = 2 ** 48 - 1
const TEXT_FIELDS = ['kind', 'subject', 'agent', 'cluster', 'namespace', 'name', 'state'] as const

/** See `RecordingReader.list`. */
export async function listSessions(
  documents: Pick<Documents, 'page'>,
  filter: SessionFilter,
  limit: number,
  before: string | undefined,
): Promise<SessionPage> {
  const { prefix = '', sinceMs = 0, untilMs } = filter
  const earliest = idAt(sinceMs - MAX_WAIT_MS)
  let cursor = firstCursor(before, untilMs)
  const sessions: Session[] = []
  for (let looked = 0; looked < MAX_LOOKED_AT; looked += READ_AT_ONCE) {
    const page = await documents.page({ before: cursor }, prefix, READ_AT_ONCE)
    for (const { session } of page.documents) {
      if (session.id < earliest) return { sessions }
      if (!matches(session, filter)) continue
      sessions.push(session)
      if (sessions.length >= limit) return { sessions, next: session.id }
    }
    if (page.last === undefined) return { sessions }
    cursor = page.last
  }
  return { sessions, next: cursor }
}

/** No session that began before `untilMs` has a later id: its request came first. */
function firstCursor(before: string | undefined, untilMs: number | undefined): string {
  const until = untilMs === undefined ? BEHIND_ALL_IDS : idAt(untilMs)
  return before === undefined || before > until ? until : before
}

function matches(session: Session, filter: SessionFilter): boolean {
  const { sinceMs = -Infinity, untilMs = Infinity } = filter
  const startedMs = Date.parse(session.startedAt)
  if (startedMs < sinceMs || startedMs >= untilMs) return false
  return TEXT_FIELDS.every(
    (field) => filter[field] === undefined || filter[field] === session[field],
  )
}

/** Beginning of the ids of that time (RFC 9562, 5.7). */
function idAt(ms: number): string {
  const hex = Math.min(Math.max(Math.floor(ms), 0), MAX_ID_MS)
    .toString(16)
    .padStart(12, '0')
  return `${hex.slice(0, 8)}-${hex.slice(8)}`
}
