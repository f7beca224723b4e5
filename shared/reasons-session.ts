/** Refusals of sessions and their recordings: a part of REASONS (reasons.ts), which says what the fields are. */

export const SESSION_REASONS = {
  session_protocol_unsupported: {
    status: 400,
    sentence: 'the session asks for no protocol that is spoken here',
    remedy:
      'offer v5.channel.k8s.io, v4.channel.k8s.io or v4.base64.channel.k8s.io over WebSocket, or SPDY/3.1 with v4.channel.k8s.io or portforward.k8s.io',
  },
  session_invalid: {
    status: 400,
    sentence: 'the session’s streams are not what its request announces',
    remedy: 'ask for stdout, stderr, stdin and tty in the query as the client will use them',
  },
  recording_unavailable: {
    status: 503,
    sentence: 'the session must be recorded, and cannot be now',
    remedy: 'look at the broker’s log: its spool, key or archive is missing or full',
  },
  recording_failed: {
    status: 503,
    sentence: 'the session was ended because it could not be recorded any more',
    remedy: 'look at the broker’s log: its spool is gone or full',
  },
  session_unknown: {
    status: 404,
    sentence: 'there is no such session',
    remedy: 'check the id: nestgate sessions list',
  },
  session_unrecorded: {
    status: 404,
    sentence: 'the session has no recording',
    remedy: 'a rule left it out, or it had no streams; the ledger has its intent and outcome',
  },
  session_expired: {
    status: 410,
    sentence: 'the recording was removed when its time was over',
    remedy: 'the ledger still has its running hash; exports made before stay verifiable',
  },
  range_unsatisfiable: {
    status: 416,
    sentence: 'nothing of the range of bytes is there',
    remedy: 'ask for bytes below the size that Content-Range says',
  },
  session_over: {
    status: 409,
    sentence: 'the session is over',
    remedy: 'play it instead: nestgate sessions play ID',
  },
  session_elsewhere: {
    status: 503,
    sentence: 'what is asked for is at another broker',
    remedy: 'try again: the next connection may reach it; what is archived any broker can read',
  },
  recording_corrupt: {
    status: 500,
    sentence: 'the recording is not what the ledger says of it',
    remedy: 'treat it as tampered with: nestgate sessions verify ID shows where',
  },
} as const
