/**
 * The part of a Pod (core/v1) that the webhook reads. What arrives has been decoded and encoded by the API
 * server, but admission runs before validation: names may be empty or repeated, numbers out of range, lists
 * null. What is not read here is left out of the view and never touched in the pod.
 */
import { z } from 'zod'

/** Go writes empty lists as null where the type has no `omitempty`; read as an empty list. */
function list<T extends z.ZodType>(item: T): z.ZodType<readonly z.output<T>[]> {
  return z
    .array(item)
    .nullish()
    .transform((items) => items ?? [])
}

const text = z.string().nullish()
const flag = z.boolean().nullish()
const secretReference = z.object({ name: text }).nullish()

const envSchema = z.object({
  name: text,
  value: text,
  valueFrom: z.object({ secretKeyRef: secretReference }).nullish(),
})

const mountSchema = z.object({ name: text, mountPath: text })

/** As whom a pod or a container runs. */
const securityContextSchema = z
  .object({ runAsUser: z.number().nullish(), runAsGroup: z.number().nullish() })
  .nullish()

const capabilitiesSchema = z.object({ add: list(z.string()), drop: list(z.string()) }).nullish()

const containerContextSchema = z
  .object({
    runAsUser: z.number().nullish(),
    runAsGroup: z.number().nullish(),
    privileged: flag,
    capabilities: capabilitiesSchema,
  })
  .nullish()

const containerSchema = z.object({
  name: text,
  env: list(envSchema),
  envFrom: list(z.object({ secretRef: secretReference })),
  volumeMounts: list(mountSchema),
  securityContext: containerContextSchema,
  ports: list(z.object({ containerPort: z.number().nullish() })),
})

const sourceSchema = z.object({
  serviceAccountToken: z.object({ audience: text }).nullish(),
  secret: secretReference,
})

const volumeSchema = z.object({
  name: text,
  secret: z.object({ secretName: text }).nullish(),
  projected: z.object({ sources: list(sourceSchema) }).nullish(),
})

/** The three lists of a pod that hold containers; a check that forgets one is a bypass (CVE-2023-2728, CVE-2024-3177). */
export const CONTAINER_LISTS = ['initContainers', 'containers', 'ephemeralContainers'] as const

/** One of {@link CONTAINER_LISTS}. */
export type ContainerList = (typeof CONTAINER_LISTS)[number]

/** A pod as the webhook reads it; see the head of the file. */
export const podSchema = z.object({
  metadata: z
    .object({
      name: text,
      generateName: text,
      annotations: z.record(z.string(), z.string()).nullish(),
    })
    .nullish(),
  spec: z.object({
    hostNetwork: flag,
    hostPID: flag,
    hostIPC: flag,
    securityContext: securityContextSchema,
    initContainers: list(containerSchema),
    containers: list(containerSchema),
    ephemeralContainers: list(containerSchema),
    volumes: list(volumeSchema),
  }),
})

/** See {@link podSchema}. */
export type Pod = z.infer<typeof podSchema>
/** A container of any list. */
export type Container = z.infer<typeof containerSchema>
/** A volume of a pod. */
export type Volume = z.infer<typeof volumeSchema>
/** A mount of a container. */
export type VolumeMount = z.infer<typeof mountSchema>

/** A container, with where it stands. */
export interface PlacedContainer {
  readonly list: ContainerList
  readonly index: number
  readonly container: Container
}

/** Every container of a pod, in the order of {@link CONTAINER_LISTS}. */
export function allContainers(pod: Pod): readonly PlacedContainer[] {
  return CONTAINER_LISTS.flatMap((name) =>
    pod.spec[name].map((container, index) => ({ list: name, index, container })),
  )
}
