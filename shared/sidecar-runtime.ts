/**
 * How the sidecar's process is started: what the webhook writes into pods, and what the tests of its memory start.
 */

/**
 * Node's options. `--disable-sigusr1`: the signal would open Node's inspector to the other processes of the pod.
 */
export const SIDECAR_NODE_FLAGS: readonly string[] = ['--disable-sigusr1']
