/**
 * Whether the containers beside a sidecar are through. A container that has ended may be started again; whether it will
 * be follows from the pod's restart policy and from how it ended (core/v1, RestartPolicy), which the kubelet tells the API
 * server. Asked in the broker's own name (`get pods`). Whoever may write `pods/status` can change the answer, and gains by
 * it that a pod is served no longer.
 */
import { z } from 'zod'
import { SIDECAR_NAME } from '../../shared/injection/sidecar-spec.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { NeighbourState } from '../../shared/wire.ts'
import { clusterJson } from '../credentials/cluster-json.ts'
import type { AskedConnection } from '../credentials/cluster-json.ts'

/** The pod that is asked about. */
export interface AskedPod {
  readonly cluster: string
  readonly namespace: string
  readonly podName: string
  readonly podUid: string
}

/** See the head of the file. */
export interface Neighbours {
  /**
   * The state of the containers beside a pod's sidecar.
   *
   * @returns `identity_unavailable` when the cluster could not be asked, `credentials_invalid` when the pod is gone
   */
  stateOf(pod: AskedPod): Promise<NeighbourState | Refusal>
}

const statusesSchema = z.array(
  z.object({
    name: z.string(),
    state: z
      .object({ terminated: z.object({ exitCode: z.number() }).nullish() })
      .nullish()
      .transform((state) => state?.terminated ?? undefined),
  }),
)

const containersSchema = z.array(
  z.object({ name: z.string(), restartPolicy: z.string().nullish() }),
)

const podSchema = z.object({
  metadata: z.object({ uid: z.string(), deletionTimestamp: z.string().nullish() }),
  spec: z.object({
    restartPolicy: z.enum(['Always', 'OnFailure', 'Never']),
    containers: containersSchema,
    initContainers: containersSchema.nullish(),
  }),
  status: z.object({
    phase: z.string().nullish(),
    containerStatuses: statusesSchema.nullish(),
    initContainerStatuses: statusesSchema.nullish(),
  }),
})

/** A pod, as far as it is read here. */
export type PodState = z.infer<typeof podSchema>

/** @param connections - ways to the registered clusters, by name */
export function createNeighbours(connections: {
  get(name: string): AskedConnection | undefined
}): Neighbours {
  const pending = new Map<string, Promise<NeighbourState | Refusal>>()
  return {
    stateOf(pod): Promise<NeighbourState | Refusal> {
      const key = `${pod.cluster}/${pod.podUid}`
      // one question for all that come meanwhile
      const asked =
        pending.get(key) ??
        ask(connections.get(pod.cluster), pod).finally(() => pending.delete(key))
      pending.set(key, asked)
      return asked
    },
  }
}

async function ask(
  connection: AskedConnection | undefined,
  pod: AskedPod,
): Promise<NeighbourState | Refusal> {
  if (connection === undefined) return refuse('cluster_unknown')
  const path = `/api/v1/namespaces/${encodeURIComponent(pod.namespace)}/pods/${encodeURIComponent(pod.podName)}`
  const answer = await clusterJson(connection, 'GET', path)
  if ('problem' in answer)
    return answer.status === 404
      ? refuse('credentials_invalid', 'the token’s pod is gone')
      : refuse('identity_unavailable', `the token’s pod: ${answer.problem}`)
  const found = readPod(answer.json)
  if (isRefusal(found)) return found
  return found.metadata.uid === pod.podUid
    ? neighbourState(found)
    : refuse('credentials_invalid', 'the token’s pod is gone')
}

/** What an API server answered, as a pod; exported for tests of {@link neighbourState}. */
export function readPod(json: unknown): PodState | Refusal {
  const parsed = podSchema.safeParse(json)
  return parsed.success
    ? parsed.data
    : refuse('identity_unavailable', 'the token’s pod: not the expected answer')
}

/**
 * Of a pod's containers but the sidecar. Ephemeral containers do not count: no pod waits for them. What is not known to
 * have ended runs.
 */
export function neighbourState({ metadata, spec, status }: PodState): NeighbourState {
  if (status.phase === 'Succeeded' || status.phase === 'Failed') return 'ended'
  const isGoing = typeof metadata.deletionTimestamp === 'string'
  // In a pod that is going nothing is started again.
  if (spec.restartPolicy === 'Always' && !isGoing) return 'permanent'
  const isFinal = (exitCode: number): boolean =>
    isGoing || spec.restartPolicy === 'Never' || exitCode === 0
  const ends = new Map(
    [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])].map(
      ({ name, state }) => [name, state],
    ),
  )
  // Init containers that keep running are ended by the kubelet, after the others.
  const awaited = [
    ...(spec.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy !== 'Always'),
    ...spec.containers.filter(({ name }) => name !== SIDECAR_NAME),
  ]
  const isThrough = awaited.every(({ name }) => {
    const end = ends.get(name)
    return end !== undefined && isFinal(end.exitCode)
  })
  return isThrough ? 'ended' : 'running'
}
