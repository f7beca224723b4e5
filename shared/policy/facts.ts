/** What a decision is made on. All of it was verified before; nothing that a client merely declares is in here. */
import type { Verdict } from '../agent-tag.ts'
import type { RequestAttributes } from '../kubernetes/attributes.ts'

/** Where a pipeline's run comes from, as the token of its CI system says. */
export interface CiFacts {
  /** With its owner or group, e.g. `our-company/shop`. */
  readonly repository: string
  /** Full, e.g. `refs/heads/main`. */
  readonly ref: string
  /** Id of the run, in the CI system's own spelling. */
  readonly run: string
}

/** A person or pipeline that an OIDC issuer vouches for. */
export interface SubjectFacts {
  /** Name as the issuer's configuration makes it: with its prefix, unique among all issuers. */
  readonly name: string
  readonly groups: readonly string[]
  /** Of issuers that are configured as CI systems; absent with all others. */
  readonly ci?: CiFacts | undefined
}

/** A process in a pod. */
export interface ProcessFacts {
  readonly verdict: Verdict
  /** Namespace and service account of the pod. */
  readonly namespace: string
  readonly serviceAccount: string
  /** Name of the process, and of those above it from the parent outwards (broker/identity/naming.ts). */
  readonly agent: string
  readonly ancestors: readonly string[]
  readonly exe: string | undefined
  readonly sha256: string | undefined
  readonly uid: number | undefined
  readonly container: string | undefined
  readonly image: string | undefined
}

/** See the head of the file. A request has a process, a subject, or both; never neither. */
export interface Facts {
  readonly cluster: string
  /** Absent where a direct client calls, without a sidecar. */
  readonly process: ProcessFacts | undefined
  /** Of a direct client's own token, or of the token that an agent sent along. */
  readonly subject: SubjectFacts | undefined
  readonly request: RequestAttributes
}
