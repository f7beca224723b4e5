/**
 * Names the containers of a pod. A sidecar reports the container id that the kernel shows; which container of the
 * pod that is, and from which image, only the API server can say. Asked in the broker's own name (`get pods`),
 * remembered by pod. Whoever may write `pods/status` there can change the answer; kubelets may, agents must not.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import type { Logger } from '../../shared/log.ts'
import { clusterJson } from '../credentials/cluster-json.ts'
import type { ClusterConnection } from '../credentials/connection.ts'
import { containersByUser, isUserKey, podUsersSchema, userKey } from './container-users.ts'
import type { PodIdentity } from './service-account-tokens.ts'

/** A container of a pod, as the API server knows it. */
export interface ContainerIdentity {
  readonly name: string
  /** With digest where the runtime reports one, else as the runtime calls it: what the ledger keeps. */
  readonly image: string
  /** All that it is called, for selectors: with digest, and with tag. */
  readonly images: readonly string[]
}

/** Containers of one pod by id, and by the users that name one ({@link userKey}). */
export type ContainerTable = ReadonlyMap<string, ContainerIdentity>

/** See the head of the file. */
export interface Containers {
  /** What is known of a pod, if it need not be asked about for any of these ids. Costs no waiting. */
  known(pod: PodIdentity, ids: readonly string[]): ContainerTable | undefined
  /** Asks the API server, unless it was asked just now. What it does not say is missing in the table; does not reject. */
  ask(pod: PodIdentity, ids: readonly string[]): Promise<ContainerTable>
  /**
   * As `ask`, again and again while the container may be too new for its kubelet to have reported it: at most
   * {@link SETTLE_MS} after the id was first asked for.
   */
  settle(pod: PodIdentity, id: string): Promise<ContainerTable>
}

/** Pods remembered; the oldest goes first. */
const MAX_PODS = 10_000
/** Ids remembered of a pod that it did not have: sandboxes, and whatever a broken sidecar may invent. */
const MAX_MISSES = 64
/** A pod is not asked about more often, in milliseconds; an unknown id is looked for again after this long at first, */
const RETRY_MS = 1_000
/** … then after twice as long each time, up to this, in milliseconds. */
const MAX_RETRY_MS = 300_000
/** A container that runs is in its pod's status after at most about this long, in milliseconds: kubelet looks every second. */
export const SETTLE_MS = 5_000

/** A container added to a running pod may have any user, so what users mean is asked anew after this long, in milliseconds. */
export const USERS_LIFE_MS = 5_000

const statusSchema = z.array(
  z.object({
    name: z.string(),
    image: z.string().default(''),
    imageID: z.string().default(''),
    containerID: z.string().default(''),
  }),
)

const podSchema = z.object({
  metadata: z.object({ uid: z.string() }),
  spec: podUsersSchema.default({}),
  status: z.object({
    containerStatuses: statusSchema.default([]),
    initContainerStatuses: statusSchema.default([]),
    ephemeralContainerStatuses: statusSchema.default([]),
  }),
})

interface Miss {
  readonly firstAtMs: number
  readonly retryMs: number
  readonly nextAtMs: number
}

interface KnownPod {
  containers: ContainerTable
  /** False when the last question got no answer. */
  answered: boolean
  askedAtMs: number
  readonly misses: Map<string, Miss>
}

const NOT_SAID = 'the API server does not say which containers a pod has'
const NOTHING: ContainerTable = new Map()

/** @param connections - ways to the registered clusters, by name */
export function createContainers(deps: {
  readonly connections: { get(name: string): ClusterConnection | undefined }
  readonly log: Logger
  readonly now: () => number
}): Containers {
  const { connections, log, now } = deps
  const pods = new Map<string, KnownPod>()
  const pending = new Map<string, Promise<void>>()

  const read = async (pod: PodIdentity, key: string): Promise<void> => {
    const found = await readContainers(connections.get(pod.cluster), pod)
    const known = pods.get(key) ?? { containers: NOTHING, misses: new Map<string, Miss>() }
    const answered = typeof found !== 'string'
    if (!answered) log.warn({ ...pod, problem: found }, NOT_SAID)
    remember(pods, key, {
      containers: answered ? found : known.containers,
      answered,
      askedAtMs: now(),
      misses: known.misses,
    })
  }

  const known = (pod: PodIdentity, ids: readonly string[]): ContainerTable | undefined => {
    const remembered = pods.get(keyOf(pod))
    if (remembered === undefined) return ids.length === 0 ? NOTHING : undefined
    const nowMs = now()
    const ageMs = nowMs - remembered.askedAtMs
    if (ageMs < RETRY_MS) return remembered.containers
    if (ageMs >= USERS_LIFE_MS && ids.some(isUserKey)) return undefined
    const due = ids.some(
      (id) => !remembered.containers.has(id) && (remembered.misses.get(id)?.nextAtMs ?? 0) <= nowMs,
    )
    return due ? undefined : remembered.containers
  }

  const ask = async (pod: PodIdentity, ids: readonly string[]): Promise<ContainerTable> => {
    const key = keyOf(pod)
    if (known(pod, ids) === undefined) {
      const asked = pending.get(key) ?? read(pod, key).finally(() => pending.delete(key))
      pending.set(key, asked)
      await asked
    }
    const remembered = pods.get(key)
    if (remembered !== undefined) noteMisses(remembered, ids, now())
    return remembered?.containers ?? NOTHING
  }

  return {
    known,
    ask,
    async settle(pod, id): Promise<ContainerTable> {
      for (;;) {
        const containers = await ask(pod, [id])
        const remembered = pods.get(keyOf(pod))
        const miss = remembered?.misses.get(id)
        if (containers.has(id) || remembered?.answered !== true || miss === undefined)
          return containers
        if (now() - miss.firstAtMs >= SETTLE_MS) return containers
        await sleep(RETRY_MS)
      }
    },
  }
}

/** A pod's uid is unique in its cluster only. */
function keyOf(pod: PodIdentity): string {
  return `${pod.cluster}/${pod.podUid}`
}

function remember(pods: Map<string, KnownPod>, key: string, pod: KnownPod): void {
  pods.delete(key)
  const oldest = pods.size >= MAX_PODS ? pods.keys().next() : undefined
  if (oldest?.done === false) pods.delete(oldest.value)
  pods.set(key, pod)
}

/** Keeps which ids a pod does not have, so that sandboxes and the like do not cost a question each time. */
function noteMisses({ containers, misses }: KnownPod, ids: readonly string[], nowMs: number): void {
  for (const id of ids) {
    const miss = misses.get(id)
    if (containers.has(id)) {
      misses.delete(id)
    } else if (miss === undefined) {
      const oldest = misses.size >= MAX_MISSES ? misses.keys().next() : undefined
      if (oldest?.done === false) misses.delete(oldest.value)
      misses.set(id, { firstAtMs: nowMs, retryMs: RETRY_MS, nextAtMs: nowMs + RETRY_MS })
    } else if (miss.nextAtMs <= nowMs) {
      const retryMs = Math.min(miss.retryMs * 2, MAX_RETRY_MS)
      misses.set(id, { ...miss, retryMs, nextAtMs: nowMs + retryMs })
    }
  }
}

/** The containers of a pod, or why they are not known. */
async function readContainers(
  connection: ClusterConnection | undefined,
  pod: PodIdentity,
): Promise<ContainerTable | string> {
  if (connection === undefined) return 'no such cluster'
  const path = `/api/v1/namespaces/${encodeURIComponent(pod.namespace)}/pods/${encodeURIComponent(pod.podName)}`
  const answer = await clusterJson(connection, 'GET', path)
  if ('problem' in answer) return answer.problem
  const parsed = podSchema.safeParse(answer.json)
  if (!parsed.success) return 'the answer is not a pod'
  if (parsed.data.metadata.uid !== pod.podUid) return 'another pod has its name now'
  const { containerStatuses, initContainerStatuses, ephemeralContainerStatuses } =
    parsed.data.status
  const found = new Map<string, ContainerIdentity>()
  for (const status of [
    ...containerStatuses,
    ...initContainerStatuses,
    ...ephemeralContainerStatuses,
  ]) {
    const [, id] = /^[a-z0-9.-]+:\/\/([0-9a-f]{64})$/.exec(status.containerID) ?? []
    if (id !== undefined) found.set(id, identityOf(status))
  }
  const byName = new Map([...found.values()].map((container) => [container.name, container]))
  for (const [uid, name] of containersByUser(parsed.data.spec)) {
    const container = byName.get(name)
    if (container !== undefined) found.set(userKey(uid), container)
  }
  return found
}

/** `imageID` is `REPOSITORY@DIGEST` for pulled images; for imported ones it is a bare digest, which names nothing to a reader. */
function identityOf(status: z.infer<typeof statusSchema>[number]): ContainerIdentity {
  const { name, image } = status
  const imageId = status.imageID.replace(/^docker-pullable:\/\//, '')
  return {
    name,
    image: imageId.includes('@') || image === '' ? imageId : image,
    images: [imageId, image].filter((text) => text !== ''),
  }
}
