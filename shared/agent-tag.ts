/**
 * The agent tag: what a sidecar says about the process that made a request. Two halves that never mix:
 * `verified` is held by the kernel and read by the sidecar, `declared` is whatever the process can set
 * itself. Travels as a compact JWS (EdDSA) in the `Nestgate-Agent` header, signed with the key that the
 * sidecar registered for its pod; the broker must have checked signature and age before it believes one.
 */
import { z } from 'zod'
import { MAX_ANCESTORS, MAX_FIELD_LENGTH, VERDICTS } from './tag-constants.ts'

export * from './tag-constants.ts'

const text = z.string().max(MAX_FIELD_LENGTH)

const processSchema = z.strictObject({
  /** In the pod's process namespace. */
  pid: z.int().positive(),
  /** Field 22 of /proc/PID/stat: clock ticks after boot. */
  startTicks: z.string().regex(/^\d{1,20}$/),
  /** Link target of /proc/PID/exe, in the process's own mount namespace; absent where it may not be read. */
  exe: text.optional(),
  /** Container id from /proc/PID/cgroup, 64 hex digits. */
  containerId: text.optional(),
})

/** One process of a chain. */
export type ProcessRef = z.infer<typeof processSchema>

const verifiedSchema = processSchema.extend({
  bootId: text,
  /** Effective user and group id. */
  uid: z.int().nonnegative(),
  gid: z.int().nonnegative(),
  /** Parents, nearest first, up to the first process of the pod. */
  ancestors: z.array(processSchema).max(MAX_ANCESTORS),
})

const declaredSchema = z.strictObject({
  /** argv[0], then the script's path where the first is an interpreter, then how many arguments were left out. */
  command: text.optional(),
  /** `AGENT_NAME` of the process's environment. */
  agentName: text.optional(),
})

export const agentTagSchema = z.strictObject({
  verdict: z.enum(VERDICTS),
  /** Why the verdict is not `exclusive`. */
  reason: text.optional(),
  /** Stable for one run of one program in one process; absent where nothing could be named. */
  instanceId: text.optional(),
  verified: verifiedSchema.optional(),
  declared: declaredSchema.optional(),
})

/** See the head of the file. */
export type AgentTag = z.infer<typeof agentTagSchema>
/** The kernel-held half. */
export type Verified = z.infer<typeof verifiedSchema>
/** The half the process can set. */
export type Declared = z.infer<typeof declaredSchema>
