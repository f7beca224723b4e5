/** Times and counts of the connections to PostgreSQL, in one place: no request waits for ever. All times are milliseconds. */

/** How long a connection may take to open. */
export const CONNECT_TIMEOUT_MS = 5_000
/** How long calls wait for a connection that was lost; from then on they fail at once, until there is one again. */
export const PATIENCE_MS = 5_000
/** Between two tries to open a connection: first, and at most. */
export const FIRST_RETRY_MS = 50
export const MAX_RETRY_MS = 2_000
/** One statement; the server ends it. Removing a range of entries is the longest. */
export const STATEMENT_TIMEOUT_MS = 30_000
/** Waiting for the head of the ledger while other brokers write. */
export const LOCK_TIMEOUT_MS = 5_000
/** A broker that stands still within a transaction gives the head back: the server ends its session. */
export const IDLE_IN_TRANSACTION_MS = 10_000
/** One piece of work as a whole; the connection is cut then, as neither server nor network may answer any more. */
export const WORK_TIMEOUT_MS = 45_000
/** A question that waited this long for a free connection is refused. */
export const QUEUE_TIMEOUT_MS = 10_000
/** Connections for questions that one access answers, and for those that may take their time. */
export const QUICK_CONNECTIONS = 3
export const READ_CONNECTIONS = 3
/** Statements kept prepared on one connection, and the most values that such a one binds. */
export const MAX_PREPARED = 200
export const MAX_PREPARED_VALUES = 24
/** How often changes are looked for behind the notifications. */
export const POLL_MS = 2_000
