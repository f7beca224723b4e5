/** The addresses that the sidecar answers itself. */

/** What they all begin with. */
export const OWN_PREFIX = '/.nestgate/'
/** Answers 200 once requests can be served, 503 before. */
export const READY_PATH = `${OWN_PREFIX}ready`
/** Answers with what the sidecar says of the process that asks. */
export const WHOAMI_PATH = `${OWN_PREFIX}whoami`
