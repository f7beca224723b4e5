/** Linux capabilities as far as they decide about who is calling: webhook, sidecar and broker must mean the same. */

/**
 * Those by which a process can speak on another's connection, or read it, whatever a lookup sees: raw packets on the
 * loopback, tracing, the kernel's own tables. With their numbers of include/uapi/linux/capability.h.
 */
export const SPEAKING_FOR_OTHERS = {
  NET_RAW: 13,
  NET_ADMIN: 12,
  SYS_PTRACE: 19,
  SYS_ADMIN: 21,
  BPF: 39,
} as const

/**
 * Those by which a container can reach what is not its own: memory of other processes, files of the node behind its own
 * (open_by_handle_at), the kernel. With one of them there is a way to a credential, so no pod of a labelled namespace has it.
 */
export const REACHING_BEYOND = [
  'SYS_ADMIN',
  'SYS_PTRACE',
  'SYS_MODULE',
  'SYS_RAWIO',
  'DAC_READ_SEARCH',
  'BPF',
  'PERFMON',
  'CHECKPOINT_RESTORE',
] as const

/** Names as pods list them: with and without `CAP_`, in either case; runtimes accept all of these. */
export function capabilityNames(list: readonly string[] | null | undefined): ReadonlySet<string> {
  return new Set((list ?? []).map((entry) => entry.toUpperCase().replace(/^CAP_/, '')))
}
