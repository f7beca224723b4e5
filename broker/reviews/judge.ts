/** Asking policy about requests that were not made: one at a time, each once, and a bounded number of them. */
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import { parseTarget } from '../../shared/kubernetes/path.ts'
import { isConnect, NON_RESOURCE } from '../../shared/kubernetes/request-info.ts'
import type { RequestInfo } from '../../shared/kubernetes/request-info.ts'
import type { Decision } from '../../shared/policy/decision.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { WELL_KNOWN } from './well-known.ts'

/** A decision, as far as a review tells of it. */
export type PolicyAnswer = Pick<Decision, 'effect' | 'rules' | 'explanation' | 'reason'>

/** What policy says of a request that was not made. */
export interface Judged extends PolicyAnswer {
  /** Rules that also look at what a review does not say, the body. */
  readonly dependsOn: readonly string[]
}

/** A resource that the cluster serves. */
export interface ServedResource {
  readonly apiGroup: string
  /** With subresource, as in RBAC rules. */
  readonly resource: string
  readonly namespaced: boolean
  readonly verbs: readonly string[]
}

/** What a review is answered with, beside the cluster's own answer. */
export interface ReviewPolicy {
  /** The decision on a request of the same caller with these attributes. */
  decide(attributes: RequestAttributes): PolicyAnswer
  /** Actions and equivalents by attributes alone. */
  effectsOf(info: RequestInfo): Pick<RequestAttributes, 'actions' | 'equivalents'>
  /** From discovery. Without it, wildcards are tried on the resources of Kubernetes itself. */
  readonly served?: readonly ServedResource[]
}

/** Questions to policy in one review. */
export const MAX_QUESTIONS = 3_000

/** Policy's answers within one review. */
export interface Judge {
  readonly served: readonly ServedResource[]
  /** Whether `served` is what discovery says. */
  readonly discovered: boolean
  /** Undefined when too much was asked. */
  ofResource(question: ResourceParts): Judged | undefined
  ofPath(path: string, verb: string): Judged | undefined
}

/** A resource request without its content. */
export interface ResourceParts {
  readonly verb: string
  readonly apiGroup: string
  readonly apiVersion: string
  readonly namespace: string
  /** With subresource. */
  readonly resource: string
  readonly name: string
}

/** Makes a judge for one review. */
export function createJudge(policy: ReviewPolicy): Judge {
  const served = policy.served ?? WELL_KNOWN
  const scopes = new Map(
    served.map(({ apiGroup, resource, namespaced }) => [`${apiGroup}/${resource}`, namespaced]),
  )
  const known = new Map<string, Judged>()
  const ask = (info: RequestInfo, path: string): Judged | undefined => {
    const key = JSON.stringify([info, path])
    const before = known.get(key)
    if (before !== undefined) return before
    if (known.size >= MAX_QUESTIONS) return undefined
    const answer = decideBlindly(policy, attributesOf(info, path, policy.effectsOf(info)))
    known.set(key, answer)
    return answer
  }
  return {
    served,
    discovered: policy.served !== undefined,
    ofResource(parts): Judged | undefined {
      const info = infoOf(parts, scopes.get(`${parts.apiGroup}/${parts.resource}`))
      return ask(info, pathOf(info))
    },
    ofPath(path, verb): Judged | undefined {
      // as the path of a request would be read; patterns, which none would be, stay as they are
      const target = parseTarget(path)
      return ask({ ...NON_RESOURCE, verb }, isRefusal(target) ? path : target.path)
    },
  }
}

/** Verbs whose bodies rules look into. */
const WITH_BODY: ReadonlySet<string> = new Set(['create', 'update', 'patch'])

/** Decides with what is known, and asks again with a body that cannot be read: rules that mind would look into it. */
function decideBlindly(policy: ReviewPolicy, attributes: RequestAttributes): Judged {
  const answer = policy.decide(attributes)
  if (isBlind(answer)) return { ...answer, dependsOn: answer.rules }
  if (!WITH_BODY.has(attributes.policyVerb)) return { ...answer, dependsOn: [] }
  const body = { state: 'opaque', contentType: '' } as const
  const second = policy.decide({ ...attributes, body })
  return { ...answer, dependsOn: isBlind(second) ? second.rules : [] }
}

function isBlind({ reason }: PolicyAnswer): boolean {
  return reason === 'body_opaque' || reason === 'policy_error'
}

/** As RequestInfo would be of the real request, whatever namespace the review names beside it. */
function infoOf(parts: ResourceParts, namespaced: boolean | undefined): RequestInfo {
  const { verb, apiGroup, apiVersion, name } = parts
  const [resource = '', ...rest] = parts.resource.split('/')
  const ofNamespace = apiGroup === '' && resource === 'namespaces'
  const inNamespace = namespaced === false ? '' : parts.namespace
  return {
    isResourceRequest: true,
    verb,
    apiGroup,
    apiVersion,
    namespace: ofNamespace ? name : inNamespace,
    resource,
    subresource: rest.join('/'),
    name,
  }
}

function pathOf(info: RequestInfo): string {
  const { apiGroup, apiVersion, namespace, resource, name, subresource } = info
  const ofNamespace = apiGroup === '' && resource === 'namespaces'
  const segments = [
    ...(apiGroup === '' ? ['api'] : ['apis', apiGroup]),
    apiVersion === '' || apiVersion === '*' ? 'v1' : apiVersion,
    ...(namespace === '' || ofNamespace ? [] : ['namespaces', namespace]),
    ...[resource, name, subresource].filter((segment) => segment !== ''),
  ]
  return `/${segments.map(encodeURIComponent).join('/')}`
}

function attributesOf(
  info: RequestInfo,
  path: string,
  effects: Pick<RequestAttributes, 'actions' | 'equivalents'>,
): RequestAttributes {
  return {
    info,
    path,
    policyVerb: isConnect(info) ? 'connect' : info.verb,
    ...effects,
    parameters: { dryRun: false },
    objectName: info.name,
    body: { state: 'none' },
  }
}
