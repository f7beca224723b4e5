/**
 * Who asks: a process of a pod behind its sidecar, a subject that an OIDC issuer vouches for, or both, where an agent
 * sends its own token along. Never neither. Everything that depends on who asks is made here, in one place: facts for
 * policy, names in the ledger, the key under which limits and approvals count, and the identity upstream.
 */
import type { IncomingMessage } from 'node:http'
import { AGENT_HEADER, SUBJECT_TOKEN_HEADER } from '../../shared/headers.ts'
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import type { Facts, ProcessFacts } from '../../shared/policy/facts.ts'
import { isRefusal } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { DigestInput } from '../approvals/digest.ts'
import { userName } from '../credentials/actor.ts'
import type { Actor } from '../credentials/actor.ts'
import type { DirectClients } from '../identity/direct.ts'
import { PROCESS_LEVEL } from '../identity/naming.ts'
import type { Names, Naming } from '../identity/naming.ts'
import type { VerifiedSubject } from '../identity/oidc.ts'
import type { Caller, Sidecars } from '../identity/sidecars.ts'
import type { OidcRecord, SubjectRecord } from '../ledger/entry.ts'

/** A process of a pod, named. */
export interface AgentRequester extends Caller {
  readonly names: Names
}

/** See the head of the file. */
export type Requester =
  | { readonly agent: AgentRequester; readonly subject?: VerifiedSubject }
  | { readonly agent?: undefined; readonly subject: VerifiedSubject }

/** What identification needs. */
export interface IdentityDeps {
  readonly sidecars: Sidecars
  readonly direct: DirectClients
  readonly naming: Naming
}

/** Finds out who sent a request to a cluster. A sidecar says so by its tag; without one it is a direct client. */
export async function identifyRequester(
  { sidecars, direct, naming }: IdentityDeps,
  cluster: string,
  request: IncomingMessage,
): Promise<Requester | Refusal> {
  if (request.headers[AGENT_HEADER] === undefined && direct.handles(request)) {
    const subject = await direct.authenticate(request)
    return isRefusal(subject) ? subject : { subject }
  }
  const caller = await sidecars.identify(cluster, request)
  if (isRefusal(caller)) return caller
  const subject =
    request.headers[SUBJECT_TOKEN_HEADER] === undefined
      ? undefined
      : await direct.subjectOf(request)
  if (isRefusal(subject)) return subject
  const agent = { ...caller, names: await naming.name(caller) }
  return subject === undefined ? { agent } : { agent, subject }
}

/** Under which limits and approvals count: a pod of its cluster, or a subject of its issuer. */
export function keyOf({ agent, subject }: Requester): string {
  return agent === undefined
    ? `subject ${JSON.stringify([subject.issuer, subject.sub])}`
    : `pod ${agent.pod.cluster}/${agent.pod.podUid}`
}

/** The process instance that asks; empty for a direct client, and where a process could not be named. */
export function instanceOf({ agent }: Requester): string {
  return agent?.tag.instanceId ?? ''
}

/** All names under which whoever asks could appear as a reviewer. */
export function requesterNames({ agent, subject }: Requester): readonly string[] {
  return [
    ...(agent === undefined ? [] : [userName(agent.pod)]),
    ...(subject === undefined ? [] : [subject.name, ...subject.names]),
  ]
}

/** The name under which whoever asks stands in the ledger: the pod's service account, or the subject. */
export function userOf({ agent, subject }: Requester): string {
  return agent === undefined ? subject.name : userName(agent.pod)
}

/** Whoever asks, as it stands in the ledger. */
export function subjectOf(requester: Requester): SubjectRecord {
  const { agent } = requester
  const name = userOf(requester)
  if (agent === undefined) return { type: 'oidc', name }
  const { namespace, podName, podUid } = agent.pod
  return { type: 'serviceAccount', name, namespace, podName, podUid }
}

/** The subject of a token, as it stands in the ledger. */
export function oidcOf({ subject }: Requester): OidcRecord | undefined {
  if (subject === undefined) return undefined
  const { issuer, sub, name, groups, ci } = subject
  return { issuer, sub, name, groups, ...(ci === undefined ? {} : { ci }) }
}

/** What policy decides on. */
export function factsOf(
  { agent, subject }: Requester,
  cluster: string,
  request: RequestAttributes,
): Facts {
  return {
    cluster,
    process: agent === undefined ? undefined : processFacts(agent),
    subject: subject && { name: subject.name, groups: subject.groups, ci: subject.ci },
    request,
  }
}

function processFacts({ pod, tag, names }: AgentRequester): ProcessFacts {
  // what else holds the connection may be another program
  const proved = PROCESS_LEVEL.has(tag.verdict) ? tag.verified : undefined
  return {
    verdict: tag.verdict,
    namespace: pod.namespace,
    serviceAccount: pod.serviceAccount,
    agent: names.agent,
    ancestors: names.chain,
    exe: proved?.exe,
    sha256: proved?.exeSha256,
    uid: proved?.uid,
    container: names.container?.name,
    image: names.container?.image,
  }
}

/** Whoever asks, in all that stays the same when the same program runs again in the same container. */
export function digestIdentity({ agent, subject }: Requester): DigestInput['identity'] {
  const verified = agent?.tag.verified
  return {
    podUid: agent?.pod.podUid ?? '',
    containerId: verified?.containerId ?? '',
    uid: verified?.uid ?? -1,
    exe: verified?.exe ?? '',
    subject: subject && { issuer: subject.issuer, sub: subject.sub, ci: subject.ci },
  }
}

/** Who acts upstream. */
export function actorOf({ agent, subject }: Requester): Actor {
  if (agent === undefined) return { kind: 'subject', name: subject.name }
  const { namespace, serviceAccount } = agent.pod
  return { kind: 'serviceAccount', namespace, serviceAccount }
}
