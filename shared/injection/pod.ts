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
  valueFrom: z
    .object({ secretKeyRef: secretReference, fileKeyRef: z.object({ volumeName: text }).nullish() })
    .nullish(),
})

const mountSchema = z.object({ name: text, mountPath: text })

const id = z.number().nullish()
/** Present for Windows only; what it says does not matter. */
const windowsOptions = z.object({}).nullish()

/** As whom a pod runs. */
const securityContextSchema = z
  .object({
    runAsUser: id,
    runAsGroup: id,
    fsGroup: id,
    supplementalGroups: list(z.number()),
    windowsOptions,
  })
  .nullish()

/** What the pod as a whole may use (PodSpec.resources, from 1.32 on), by resource name. */
const amounts = z.record(z.string(), z.unknown()).nullish()

const capabilitiesSchema = z.object({ add: list(z.string()), drop: list(z.string()) }).nullish()

const containerContextSchema = z
  .object({
    runAsUser: id,
    runAsGroup: id,
    privileged: flag,
    procMount: text,
    capabilities: capabilitiesSchema,
    windowsOptions,
  })
  .nullish()

const containerSchema = z.object({
  name: text,
  env: list(envSchema),
  envFrom: list(z.object({ secretRef: secretReference })),
  volumeMounts: list(mountSchema),
  securityContext: containerContextSchema,
  ports: list(z.object({ containerPort: z.number().nullish(), protocol: text })),
})

const sourceSchema = z.object({
  serviceAccountToken: z.object({ audience: text }).nullish(),
  podCertificate: z.object({ signerName: text }).nullish(),
  secret: secretReference,
})

const volumeSchema = z.object({
  name: text,
  secret: z.object({ secretName: text }).nullish(),
  hostPath: z.object({}).nullish(),
  csi: z.object({ driver: text }).nullish(),
  flexVolume: z.object({}).nullish(),
  gitRepo: z.object({}).nullish(),
  projected: z.object({ sources: list(sourceSchema) }).nullish(),
})

/** The three lists of a pod that hold containers; a check that forgets one is a bypass (CVE-2023-2728, CVE-2024-3177). */
export const CONTAINER_LISTS = ['initContainers', 'containers', 'ephemeralContainers'] as const

/** One of {@link CONTAINER_LISTS}. */
export type ContainerList = (typeof CONTAINER_LISTS)[number]

/** Whose pod it is; strict decoding is the API server's. */
const ownerSchema = z.object({
  apiVersion: text,
  kind: text,
  name: text,
  uid: text,
  controller: flag,
})

/** On which nodes a pod must run (NodeAffinity). */
const affinitySchema = z
  .object({
    nodeAffinity: z
      .object({
        requiredDuringSchedulingIgnoredDuringExecution: z
          .object({
            nodeSelectorTerms: list(
              z.object({
                matchExpressions: list(
                  z.object({ key: text, operator: text, values: list(z.string()) }),
                ),
              }),
            ),
          })
          .nullish(),
      })
      .nullish(),
  })
  .nullish()

/** A pod as the webhook reads it; see the head of the file. */
export const podSchema = z.object({
  metadata: z
    .object({
      name: text,
      generateName: text,
      annotations: z.record(z.string(), z.string()).nullish(),
      ownerReferences: list(ownerSchema),
    })
    .nullish(),
  spec: z.object({
    os: z.object({ name: text }).nullish(),
    nodeSelector: z.record(z.string(), z.string()).nullish(),
    affinity: affinitySchema,
    hostNetwork: flag,
    hostPID: flag,
    hostIPC: flag,
    securityContext: securityContextSchema,
    resources: z.object({ requests: amounts, limits: amounts }).nullish(),
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

/** Whether the pod has resources as a whole, which its containers share. */
export function isBounded({ spec }: Pod): boolean {
  return [spec.resources?.requests, spec.resources?.limits].some(
    (amounts) => Object.keys(amounts ?? {}).length > 0,
  )
}
