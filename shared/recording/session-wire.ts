/** Sessions as the broker's API answers them, and as their documents are stored (without what only the broker needs). */
import { z } from 'zod'

/** Kinds of sessions. `debug` is a change of ephemeral containers: it has no streams. */
export const SESSION_KINDS = ['exec', 'attach', 'portforward', 'proxy', 'logs', 'debug'] as const
/** `cut`: the broker that ran it ended before it; the recording is readable up to its last whole chunk. */
export const SESSION_STATES = ['running', 'ended', 'cut', 'failed', 'expired'] as const

/** Why a session ended, where the program did not. */
export const SESSION_ENDINGS = [
  'refused',
  'client_left',
  'stream_broken',
  'protocol_invalid',
  'killed',
  'revoked',
  'recording_failed',
  'recording_full',
  'broker_ended',
] as const

const text = z.string()
const count = z.int().min(0)

/** All that is known of a session before it runs. */
export const sessionFactsSchema = z.strictObject({
  /** The request's id. */
  id: text,
  kind: z.enum(SESSION_KINDS),
  cluster: text,
  namespace: text,
  /** The pod; of a proxy upgrade the object it goes to. */
  name: text,
  container: text.optional(),
  /** What is run, word by word; of exec only. */
  command: z.array(text).optional(),
  tty: z.boolean(),
  stdin: z.boolean(),
  /** Name of who asks, as the cluster knows it. */
  subject: text,
  /** Name of the process, as policy knows it; absent for a direct client. */
  agent: text.optional(),
  chain: z.array(text).optional(),
  rules: z.array(text),
  policyDigest: text,
  approval: z
    .strictObject({
      id: text,
      approvers: z.array(text),
      reason: text,
      breakGlass: z.boolean().optional(),
    })
    .optional(),
  /** What the client speaks: `v5.channel.k8s.io`, `SPDY/3.1`, … */
  protocol: text,
  /** ISO 8601, UTC. */
  startedAt: text,
})

/** How the program, or the forwarding, ended. */
export const sessionResultSchema = z.strictObject({
  status: z.enum(['Success', 'Failure']),
  exitCode: z.int().optional(),
  reason: text.optional(),
  message: text.optional(),
})

/** Sums, as the last event of the recording has them. */
export const sessionTotalsSchema = z.strictObject({
  stdinBytes: count,
  stdoutBytes: count,
  stderrBytes: count,
  connections: count,
  bytesUp: count,
  bytesDown: count,
  files: count,
  /** Regions that were masked. */
  masked: count,
  /** Set where not all was kept, because a bound was reached. */
  truncated: z.boolean(),
})

/** A session, with what is known of its recording. */
export const sessionSchema = z.strictObject({
  ...sessionFactsSchema.shape,
  state: z.enum(SESSION_STATES),
  endedAt: text.optional(),
  result: sessionResultSchema.optional(),
  totals: sessionTotalsSchema.optional(),
  /** Why it ended, where not by itself. */
  ending: z.enum(SESSION_ENDINGS).optional(),
  /** Absent where it has no recording. */
  recording: z
    .strictObject({
      mode: z.enum(['required', 'best_effort']),
      masked: z.boolean(),
      stdin: z.boolean(),
      /** Whole chunks so far, their events in bytes, and the running hash over them (shared/recording/chain.ts), hex. */
      chunks: count,
      bytes: count,
      runningSha256: text,
      /** When it may be removed, ISO 8601; absent: never. */
      expiresAt: text.optional(),
    })
    .optional(),
})

/** A page of sessions, newest first. */
export const sessionPageSchema = z.strictObject({
  sessions: z.array(sessionSchema),
  next: text.optional(),
})

/** Types of events that are told beside the terminal's output, by their names in events.ts. */
export const DETAIL_TYPES = [
  'stdinOmitted',
  'result',
  'marker',
  'connectionOpened',
  'connectionClosed',
  'file',
  'end',
] as const

/** Something in a recording that is no terminal output. */
export const sessionDetailSchema = z.strictObject({
  type: z.enum(DETAIL_TYPES),
  /** Microseconds since the start. */
  atUs: count,
  /** The event's payload (docs/decisions/0009). Its texts are whatever the session made them. */
  value: z.looseObject({}),
})

/** Answer of `GET /v1/sessions/{id}/details`: in order, the first of each type; `more` names types that have more than are shown. */
export const sessionDetailsSchema = z.strictObject({
  items: z.array(sessionDetailSchema),
  more: z.array(z.enum(DETAIL_TYPES)),
})

/** Body of `POST /v1/sessions/{id}/kill`. */
export const killSchema = z.strictObject({ reason: z.string().min(1).max(500) })

/** Answer of `POST /v1/sessions/{id}/view`: where a browser plays it; the ticket is in the fragment, which no server sees. */
export const sessionViewSchema = z.strictObject({ url: text, expiresAt: text })

/** A line of `GET /v1/sessions/grep`. */
export const grepMatchSchema = z.strictObject({
  id: text,
  startedAt: text,
  /** When the line began, microseconds since the start. */
  atUs: count,
  stream: z.enum(['stdin', 'stdout', 'stderr']),
  /** Number of the line in its stream, from 1. */
  line: z.int().min(1),
  /** What the line says, without escape sequences; of a long one the part around the match. */
  text,
})

/** The last line of it. */
export const grepEndSchema = z.strictObject({
  /** Sessions that were read. */
  searched: count,
  /** Sessions whose further matches were left out. */
  cut: z.array(text).optional(),
  /** Sessions whose recordings could not be read here: at another broker, or not readable. */
  unread: z.array(text).optional(),
  /** Cursor that goes on, where not all sessions were searched. */
  more: text.optional(),
})

export type DetailType = (typeof DETAIL_TYPES)[number]
export type SessionDetail = z.infer<typeof sessionDetailSchema>
export type SessionDetails = z.infer<typeof sessionDetailsSchema>
export type SessionView = z.infer<typeof sessionViewSchema>
export type GrepMatch = z.infer<typeof grepMatchSchema>
export type GrepEnd = z.infer<typeof grepEndSchema>
export type SessionFacts = z.infer<typeof sessionFactsSchema>
export type SessionEnding = (typeof SESSION_ENDINGS)[number]
export type SessionKind = SessionFacts['kind']
export type SessionState = (typeof SESSION_STATES)[number]
export type SessionResult = z.infer<typeof sessionResultSchema>
export type SessionTotals = z.infer<typeof sessionTotalsSchema>
export type Session = z.infer<typeof sessionSchema>
export type SessionPage = z.infer<typeof sessionPageSchema>
