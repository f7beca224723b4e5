/** The operations of sessions and their recordings. */
import * as session from '../../../shared/recording/session-wire.ts'
import { followQuerySchema, grepQuerySchema, sessionsQuerySchema } from '../session-query.ts'
import { ASCIICAST_TYPE, EVENTS_TYPE, SEALED_TYPE } from '../session-recordings.ts'
import { z } from 'zod'
import type { Operation } from './operation.ts'

const TAG = { tag: 'sessions' }
const LISTERS = ['auditor', 'reviewer'] as const
/** Whole events, base64. */
const eventsSchema = z.string()
/** A line of an asciicast v3. */
const castSchema = z.union([z.looseObject({}), z.array(z.unknown())])

/** See operations.ts. */
export const SESSION_OPERATIONS: readonly Operation[] = [
  {
    ...{ method: 'get', path: '/sessions', id: 'listSessions', ...TAG },
    ...{ summary: 'Sessions, newest first', caller: LISTERS, query: sessionsQuerySchema },
    answer: { json: session.sessionPageSchema },
  },
  {
    ...{ method: 'get', path: '/sessions/grep', id: 'grepSessions', ...TAG },
    ...{ summary: 'Lines of recordings with a text', caller: ['auditor'], query: grepQuerySchema },
    answer: { texts: ['application/x-ndjson'] },
  },
  {
    ...{ method: 'get', path: '/sessions/{id}', id: 'showSession', ...TAG },
    ...{ summary: 'One session', caller: LISTERS, answer: { json: session.sessionSchema } },
  },
  {
    ...{ method: 'get', path: '/sessions/{id}/events', id: 'showRecording', ...TAG },
    ...{ summary: 'The events of its recording', caller: ['auditor'] },
    headers: { Range: 'one range of bytes; answered by 206' },
    answer: { texts: [EVENTS_TYPE] },
  },
  {
    ...{ method: 'get', path: '/sessions/{id}/asciicast', id: 'showAsciicast', ...TAG },
    ...{ summary: 'Its recording as an asciicast v3, safe to show', caller: ['auditor'] },
    answer: { texts: [ASCIICAST_TYPE] },
  },
  {
    ...{ method: 'get', path: '/sessions/{id}/details', id: 'showDetails', ...TAG },
    ...{ summary: 'Files, connections, marks and result of its recording', caller: ['auditor'] },
    answer: { json: session.sessionDetailsSchema },
  },
  {
    ...{ method: 'get', path: '/sessions/{id}/sealed', id: 'showSealed', ...TAG },
    ...{ summary: 'The sealed chunks of its recording', caller: ['auditor'] },
    answer: { texts: [SEALED_TYPE] },
  },
  {
    ...{ method: 'get', path: '/sessions/{id}/follow', id: 'followSession', ...TAG },
    ...{ summary: 'A session while it runs', caller: LISTERS, query: followQuerySchema },
    headers: { 'Last-Event-ID': 'as `from`, and before it' },
    answer: {
      events: {
        ...{ events: eventsSchema, cast: castSchema, detail: session.sessionDetailSchema },
        end: session.sessionSchema,
      },
    },
  },
  {
    ...{ method: 'post', path: '/sessions/{id}/kill', id: 'killSession', ...TAG },
    ...{ summary: 'End a running session', caller: ['reviewer'], body: session.killSchema },
    answer: { json: session.sessionSchema },
  },
  {
    ...{ method: 'post', path: '/sessions/{id}/view', id: 'viewSession', ...TAG },
    ...{ summary: 'A link by which a browser plays it', caller: ['auditor'] },
    answer: { json: session.sessionViewSchema },
  },
]
