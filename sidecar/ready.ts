/** The one address that the sidecar answers itself. */

/** Answers 200 once the broker knows this sidecar's key, 503 before. */
export const READY_PATH = '/.nestgate/ready'
