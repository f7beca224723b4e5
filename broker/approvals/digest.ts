/**
 * The digest that an approval is for: two requests have the same one only if the API server would do the
 * same for the same process. The canonical form is a JSON array with fixed places, so that no choice of
 * values in one place can look like another place's.
 */
import { createHash } from 'node:crypto'
import type { CiFacts } from '../../shared/policy/facts.ts'

/** What is approved. */
export interface DigestInput {
  readonly cluster: string
  /** HTTP method as sent; of no account where `session` is set. */
  readonly method: string
  /** Canonical path, as `parseTarget` gives it. */
  readonly path: string
  /** Decoded query pairs in the order sent, as `parseTarget` gives them. */
  readonly query: readonly (readonly [string, string])[]
  /** Whether it opens a way to a program in a pod, for which every parameter may mean something. */
  readonly connect: boolean
  /** Whether GET and POST ask for the same; never of what is proxied, where the program heeds the method. */
  readonly session: boolean
  readonly contentType: string
  /** Lower-case hex. */
  readonly bodySha256: string
  /** Groups that policy grants: whoever acts with others is not the one who was approved. */
  readonly grantGroups: readonly string[]
  /**
   * Who asks: the process, in all that stays the same when the same program runs again in the same container,
   * and the person or pipeline whose token came with it.
   */
  readonly identity: {
    /** Empty, as all that follows but `subject`, where a direct client asks. */
    readonly podUid: string
    readonly containerId: string
    readonly uid: number
    readonly exe: string
    /** Issuer and `sub` of the token: names that never move to somebody else. */
    readonly subject?:
      | {
          readonly issuer: string
          readonly sub: string
          /** Of a pipeline: its `sub` may be the same for several repositories, if their owner has it so. */
          readonly ci?: Pick<CiFacts, 'repository' | 'ref'> | undefined
        }
      | undefined
  }
}

/** Names the canonical form; a changed form needs a new one. */
const FORM = 'nestgate-request/2'
/** In place of the method where a session is opened: kubectl's GET for a WebSocket and its POST for SPDY ask for the same. */
const CONNECT_METHOD = 'CONNECT'
/** A client's patience is no part of what it asks for: kubectl sends other values when it tries again. */
const IGNORED_PARAMETER = 'timeout'

/**
 * The digest of a request, SHA-256 in lower-case hex. Query pairs are ordered by name; pairs of one name
 * keep their order, because the API server reads the first and an approval of `a=1&a=2` is none of `a=2&a=1`.
 */
export function requestDigest(input: DigestInput): string {
  const { cluster, path, contentType, bodySha256, identity } = input
  const method = input.session ? CONNECT_METHOD : input.method
  const pairs = input.query
    .filter(([name]) => input.connect || name !== IGNORED_PARAMETER)
    .toSorted(([a], [b]) => compare(a, b))
  const form = [
    FORM,
    ...[cluster, method, path, pairs, contentType, bodySha256],
    ...[identity.podUid, identity.containerId, identity.uid, identity.exe],
    subjectForm(identity.subject),
    [...new Set(input.grantGroups)].toSorted(compare),
  ]
  return createHash('sha256').update(JSON.stringify(form)).digest('hex')
}

function subjectForm(subject: DigestInput['identity']['subject']): readonly string[] | null {
  if (subject === undefined) return null
  const { issuer, sub, ci } = subject
  return [issuer, sub, ...(ci === undefined ? [] : [ci.repository, ci.ref])]
}

/** By UTF-16 code units; the sort is stable. */
function compare(a: string, b: string): number {
  if (a === b) return 0
  return a < b ? -1 : 1
}
