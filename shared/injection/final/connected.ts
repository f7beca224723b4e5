/**
 * Sessions with a pod. A `CONNECT` has no pod, only options: the container's name decides. An empty name means the one container of
 * `spec.containers` where there is one, and is an error where there are several (kubernetes, pkg/registry/core/pod/strategy.go,
 * `validateContainer`; `kubectl.kubernetes.io/default-container` is kubectl's). A sidecar is never that one: see created.ts.
 */
import { z } from 'zod'
import { isRefusal, refuse } from '../../reasons.ts'
import type { Refusal } from '../../reasons.ts'
import { SIDECAR_NAME } from '../sidecar-spec.ts'
import { readObject } from './request.ts'
import type { Caller, FinalRequest } from './request.ts'

/** Extra of requests that the broker forwards. Only who may impersonate it can have it: in mode `impersonation` the broker, in mode
 * `issuer` its tokens. */
const REQUEST_ID = 'nestgate.dev/request-id'
/** Names of mode `issuer`; up to 1.29 they come without extras (`--oidc-username-prefix`), and the broker authorizes each of their requests. */
const ISSUER_PREFIX = 'nestgate:'

const optionsSchema = z.object({ container: z.string().nullish() })

/** Whether the broker forwarded the request, and so decided about it. */
export function isForwarded({ username, extra }: Caller): boolean {
  return (extra[REQUEST_ID] ?? []).length > 0 || username.startsWith(ISSUER_PREFIX)
}

/** Judges `pods/exec` and `pods/attach`: `sidecar_entered`, or undefined. */
export function judgeEntered(request: FinalRequest): Refusal | undefined {
  const options = readObject(optionsSchema, request.object, 'object')
  if (isRefusal(options)) return options
  if (options.container !== SIDECAR_NAME) return undefined
  return refuse('sidecar_entered', `container ${SIDECAR_NAME} of pod ${request.name}`)
}

/** Judges `pods/portforward`: `port_forward`, or undefined. */
export function judgePortForward({ caller, name }: FinalRequest): Refusal | undefined {
  return isForwarded(caller) ? undefined : refuse('port_forward', `pod ${name}`)
}
