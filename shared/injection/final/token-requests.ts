/**
 * Tokens that are asked for by name (`serviceaccounts/token`, `kubectl create token`), past every pod: one for the API server is what
 * a token Secret is, and one for the broker, bound to a pod, is the sidecar's own: whoever has it registers a key for the pod and
 * speaks as any of its processes.
 */
import { z } from 'zod'
import { BROKER_AUDIENCE } from '../../agent-tag.ts'
import { isRefusal, refuse } from '../../reasons.ts'
import type { Refusal } from '../../reasons.ts'
import type { InjectionSettings } from '../sidecar-spec.ts'
import { readObject } from './request.ts'
import type { FinalRequest } from './request.ts'

/**
 * Kubelets ask for the tokens that pods project; which ones they may, the node authorizer and NodeRestriction say. Only the cluster's
 * authority puts anybody into this group.
 */
const NODE_GROUP = 'system:nodes'

const requestSchema = z.object({
  spec: z.object({ audiences: z.array(z.string()).nullish() }).nullish(),
})

/** Judges a `CREATE serviceaccounts/token`: `token_requested`, or undefined for a kubelet and for audiences that pods may project. */
export function judgeTokenRequest(
  request: FinalRequest,
  { allowedAudiences, apiAudiences }: InjectionSettings,
): Refusal | undefined {
  if (request.caller.groups.includes(NODE_GROUP)) return undefined
  const asked = readObject(requestSchema, request.object, 'object')
  if (isRefusal(asked)) return asked
  // Without any, the token is for the API server (authentication.k8s.io/v1, TokenRequestSpec).
  const audiences = asked.spec?.audiences ?? []
  if (audiences.length === 0) return refuse('token_requested', 'spec.audiences')
  const never = ['', BROKER_AUDIENCE, ...apiAudiences]
  const index = audiences.findIndex(
    (audience) => never.includes(audience) || !allowedAudiences.includes(audience),
  )
  return index === -1 ? undefined : refuse('token_requested', `spec.audiences[${index}]`)
}
