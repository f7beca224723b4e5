/**
 * How the sidecar's process is started: what the webhook writes into pods, and what benchmarks and tests start.
 */

/**
 * Node's options. `--disable-sigusr1`: the signal would open Node's inspector to the other processes of the pod. The
 * others keep the process small (docs/decisions/0004-a-small-sidecar.md): short-lived objects get 1 MiB (times three)
 * before they are collected, all others 64 MiB; the heap prefers size to speed; and code is compiled by V8's lighter
 * compilers only, since the heaviest one takes more memory than the proxy it makes faster.
 */
export const SIDECAR_NODE_FLAGS: readonly string[] = [
  '--disable-sigusr1',
  '--max-semi-space-size=1',
  '--max-old-space-size=64',
  '--optimize-for-size',
  '--no-opt',
]
