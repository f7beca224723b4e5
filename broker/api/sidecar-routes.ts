/**
 * What sidecars ask for: to register their key, to wait for their own held requests, to say that the client left or was sent away,
 * and whether the containers beside them are through.
 */
import express from 'express'
import type { IncomingHttpHeaders } from 'node:http'
import type { Request, Router } from 'express'
import { z } from 'zod'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { MAX_WAIT_S, registrationSchema } from '../../shared/wire.ts'
import type { HeldRequest, NeighbourState } from '../../shared/wire.ts'
import type { Approvals } from '../approvals/types.ts'
import { onceEach, problemsOf } from '../audit/query.ts'
import type { StoredApproval, Store } from '../store/store.ts'
import { route } from './answers.ts'
import type { Result } from './answers.ts'
import { ofId, queryOf } from './people-routes.ts'

/** A message's headers, as Node parsed them and as they came. */
interface Message {
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
}

/** What the API asks about sidecars; broker/identity/sidecars.ts answers. */
export interface SidecarAuthenticator {
  /** The pod whose token the message carries. */
  authenticate(message: Message): Promise<Pod | Refusal>
  /** Makes the key of `proof` the pod's own; `jwk` is to be stored. */
  register(
    message: Message,
    proof: string,
  ): Promise<{ podUid: string; keyId: string; jwk: object } | Refusal>
}

/** What the API asks about the containers of a pod; broker/identity/neighbours.ts answers. */
export interface PodStates {
  /** What the containers beside the pod's sidecar do. */
  stateOf(pod: Pod): Promise<NeighbourState | Refusal>
}

/** The pod behind a call. */
export interface Pod {
  readonly cluster: string
  readonly namespace: string
  readonly podName: string
  readonly podUid: string
}

/** What these routes need. */
export interface SidecarRoutesDeps {
  readonly approvals: Approvals
  readonly store: Store
  readonly sidecars: SidecarAuthenticator
  readonly neighbours: PodStates
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** Query of `GET /v1/requests/{id}`. */
export const waitSchema = z.strictObject({
  /** Seconds. */
  wait: z
    .string()
    .regex(/^\d{1,2}$/, 'expected whole seconds')
    .transform(Number)
    .pipe(z.int().max(MAX_WAIT_S))
    .optional(),
})

/** The routes under `/v1/sidecars`, `/v1/sidecar` and `/v1/requests`. @param json - reads a JSON body */
export function sidecarRoutes(deps: SidecarRoutesDeps, json: express.RequestHandler): Router {
  const { approvals, sidecars, neighbours } = deps
  const router = express.Router({ caseSensitive: true, strict: true })
  router.post(
    '/sidecars',
    json,
    route((request) => register(deps, request)),
  )
  router.get(
    '/sidecar/pod',
    route(async (request) => {
      const pod = await sidecars.authenticate(request)
      if (isRefusal(pod)) return pod
      const state = await neighbours.stateOf(pod)
      return typeof state === 'string' ? { neighbours: state } : state
    }),
  )
  router.get(
    '/requests/:id',
    route(async (request, signal) => {
      const pod = await sidecars.authenticate(request)
      if (isRefusal(pod)) return pod
      const raw = onceEach(queryOf(request))
      if (isRefusal(raw)) return raw
      const parsed = waitSchema.safeParse(raw.values)
      if (!parsed.success) return refuse('query_invalid', problemsOf(parsed.error))
      const waitMs = (parsed.data.wait ?? 0) * 1000
      return ofOwn(approvals, pod, request, (id) =>
        approvals.waitFor(id, { podUid: pod.podUid }, waitMs, signal),
      )
    }),
  )
  for (const [verb, goes] of [
    ['cancel', 'leave'],
    ['park', 'parked'],
  ] as const) {
    router.post(
      `/requests/:id/${verb}`,
      route(async (request) => {
        const pod = await sidecars.authenticate(request)
        if (isRefusal(pod)) return pod
        const { podUid } = pod
        return ofOwn(approvals, pod, request, (id) => approvals[goes](id, { podUid }))
      }),
    )
  }
  return router
}

async function register(
  { sidecars, store, now }: SidecarRoutesDeps,
  request: Request,
): Promise<Result> {
  const body = registrationSchema.safeParse(request.body)
  if (!body.success) return refuse('body_invalid', problemsOf(body.error))
  const registered = await sidecars.register(request, body.data.proof)
  if (isRefusal(registered)) return registered
  const pod = await sidecars.authenticate(request)
  if (isRefusal(pod)) return pod
  const { podUid, keyId, jwk } = registered
  const at = new Date(now()).toISOString()
  // so that every broker knows it, and this one when it starts again
  const key = { kind: 'sidecar_key', id: `${pod.cluster}/${podUid}`, body: { ...jwk, at } } as const
  const entry = {
    kind: 'system',
    event: 'sidecar_registered',
    actor: `${pod.cluster}/${pod.namespace}/${pod.podName}`,
    detail: { podUid, keyId },
  } as const
  await store.put([key], [entry])
  return { podUid, keyId }
}

/**
 * Calls with the id of the path, if that request is the pod's own. The cluster counts too: whoever runs one
 * cluster could give a pod there the uid of a pod in another.
 */
async function ofOwn(
  approvals: Approvals,
  pod: Pod,
  request: Request,
  call: (id: string) => Promise<StoredApproval | Refusal>,
): Promise<Result> {
  const found = await ofId(request, async (id) => {
    const approval = await approvals.get(id)
    if (isRefusal(approval)) return approval
    return approval.cluster === pod.cluster ? call(id) : refuse('request_unknown')
  })
  if (isRefusal(found)) return found
  const { id, state, expiresAt, reason, reviewer } = found
  const answer: HeldRequest & Record<string, unknown> = { id, state, expiresAt }
  if (reason !== undefined) answer.reason = reason
  if (reviewer !== undefined) answer.reviewer = reviewer
  return answer
}
