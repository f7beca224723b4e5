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
  /** SHA-256 of the executed file, hex; absent where it could not be hashed, and then `exeNote` says why. */
  exeSha256: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .optional(),
  /** What is odd about the executable: not hashed, deleted, never a file. */
  exeNote: text.optional(),
  /** How many programs the sidecar has seen this process execute, from 0 on. */
  execOrdinal: z.int().nonnegative().optional(),
  /** Effective user and group id. */
  uid: z.int().nonnegative(),
  gid: z.int().nonnegative(),
  /** Parents, nearest first, up to the first process of the pod. */
  ancestors: z.array(processSchema).max(MAX_ANCESTORS),
})

const declaredSchema = z.strictObject({
  /** argv[0], then the script's path where the first is an interpreter, then how many arguments were left out. */
  command: text.optional(),
  /** Path of the script that an interpreter was told to run. */
  script: text.optional(),
  /** `AGENT_NAME` of the process's environment. */
  agentName: text.optional(),
})

const socketSchema = z.strictObject({
  /** User id of the process that created the client's socket. */
  uid: z.int().nonnegative(),
  /** Number of the control group that created it, as the kernel counts them; a kernel before 5.8 does not tell. */
  cgroupId: z
    .string()
    .regex(/^\d{1,20}$/)
    .optional(),
})

/** What the kernel says about the socket itself, whoever holds it. */
export type SocketFacts = z.infer<typeof socketSchema>

export const agentTagSchema = z.strictObject({
  verdict: z.enum(VERDICTS),
  /** Why the verdict is not `exclusive`. */
  reason: text.optional(),
  /** Stable for one run of one program in one process; absent where nothing could be named. */
  instanceId: text.optional(),
  verified: verifiedSchema.optional(),
  /** Kernel-held too; all there is to go by where the sidecar does not see the pod's processes (profile C). */
  socket: socketSchema.optional(),
  declared: declaredSchema.optional(),
})

/** See the head of the file. */
export type AgentTag = z.infer<typeof agentTagSchema>
/** The kernel-held half. */
export type Verified = z.infer<typeof verifiedSchema>
/** The half the process can set. */
export type Declared = z.infer<typeof declaredSchema>
