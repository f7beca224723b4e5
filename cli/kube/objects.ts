/** What the commands read of a cluster's objects, as kubectl prints them. What is not read here may be anything. */
import { z } from 'zod'
import { selectorSchema } from './selector.ts'

/** Go leaves empty values out, or writes null. */
function list<T extends z.ZodType>(item: T): z.ZodType<readonly z.output<T>[]> {
  return z
    .array(item)
    .nullish()
    .transform((items) => items ?? [])
}

const text = z
  .string()
  .nullish()
  .transform((value) => value ?? '')
const strings = list(z.string())
const count = z
  .number()
  .nullish()
  .transform((value) => value ?? 0)
const textMap = z
  .record(z.string(), z.string())
  .nullish()
  .transform((value): Readonly<Record<string, string>> => value ?? {})

/** Metadata of any object. */
export const metadataSchema = z.object({
  name: text,
  namespace: text,
  labels: textMap,
  annotations: textMap,
  deletionTimestamp: z.string().nullish(),
  ownerReferences: list(z.object({ kind: text, name: text, controller: z.boolean().nullish() })),
})

/** See {@link metadataSchema}. */
export type Metadata = z.infer<typeof metadataSchema>

const metadata = metadataSchema

/** A Node. */
export const nodeSchema = z.object({
  metadata,
  status: z.object({
    nodeInfo: z.object({ kubeletVersion: text, operatingSystem: text }),
  }),
})

const containerSchema = z.object({
  name: text,
  image: text,
  command: strings,
  args: strings,
  env: list(z.object({ name: text, value: z.string().nullish() })),
  volumeMounts: list(z.object({ name: text, mountPath: text })),
})

const podSpecSchema = z.object({
  initContainers: list(containerSchema),
  containers: list(containerSchema),
  volumes: list(
    z.object({
      name: text,
      configMap: z.object({ name: text }).nullish(),
      secret: z.object({ secretName: text }).nullish(),
    }),
  ),
})

/** A Deployment, StatefulSet or DaemonSet. */
export const workloadSchema = z.object({
  kind: text,
  metadata,
  spec: z.object({
    replicas: z.number().nullish(),
    template: z.object({ metadata: z.object({ labels: textMap }).nullish(), spec: podSpecSchema }),
  }),
  status: z.object({ readyReplicas: count }).nullish(),
})

/** See {@link workloadSchema}. */
export type Workload = z.infer<typeof workloadSchema>

/** A PodDisruptionBudget. */
export const budgetSchema = z.object({
  metadata,
  spec: z.object({ selector: selectorSchema }),
})

const ruleSchema = z.object({ apiGroups: strings, operations: strings, resources: strings })

/** A MutatingWebhookConfiguration or ValidatingWebhookConfiguration. */
export const webhookConfigurationSchema = z.object({
  metadata,
  webhooks: list(
    z.object({
      name: text,
      clientConfig: z.object({
        caBundle: text,
        url: text,
        service: z.object({ name: text, namespace: text, path: text }).nullish(),
      }),
      rules: list(ruleSchema),
      namespaceSelector: selectorSchema,
      failurePolicy: text,
      reinvocationPolicy: text,
    }),
  ),
})

/** See {@link webhookConfigurationSchema}. */
export type WebhookConfiguration = z.infer<typeof webhookConfigurationSchema>
/** One webhook of it. */
export type WebhookEntry = WebhookConfiguration['webhooks'][number]

/** A Namespace. */
export const namespaceSchema = z.object({ metadata })

/** A ConfigMap. */
export const configMapSchema = z.object({ metadata, data: textMap })

/** A ServiceAccount. */
export const serviceAccountSchema = z.object({ metadata, secrets: list(z.object({ name: text })) })

/** A RoleBinding. */
export const roleBindingSchema = z.object({
  metadata,
  roleRef: z.object({ kind: text, name: text }),
  subjects: list(z.object({ kind: text, name: text, namespace: text })),
})

const peerSchema = z.object({
  podSelector: selectorSchema,
  namespaceSelector: selectorSchema,
  ipBlock: z.object({ cidr: text, except: strings }).nullish(),
})
const portSchema = z.object({
  protocol: text,
  port: z.union([z.number(), z.string()]).nullish(),
  endPort: z.number().nullish(),
})

/** A NetworkPolicy. */
export const networkPolicySchema = z.object({
  metadata,
  spec: z.object({
    podSelector: selectorSchema,
    policyTypes: strings,
    egress: list(z.object({ to: list(peerSchema), ports: list(portSchema) })),
  }),
})

/** See {@link networkPolicySchema}. */
export type NetworkPolicy = z.infer<typeof networkPolicySchema>
/** What one rule of it lets out. */
export type EgressRule = NetworkPolicy['spec']['egress'][number]

/** A LimitRange. */
export const limitRangeSchema = z.object({
  metadata,
  spec: z.object({
    limits: list(
      z.object({
        type: text,
        min: textMap,
        max: textMap,
        default: textMap,
        defaultRequest: textMap,
        maxLimitRequestRatio: textMap,
      }),
    ),
  }),
})

/** See {@link limitRangeSchema}. */
export type LimitRange = z.infer<typeof limitRangeSchema>

/** A ResourceQuota. */
export const quotaSchema = z.object({
  metadata,
  spec: z.object({ hard: textMap, scopes: strings, scopeSelector: z.unknown().optional() }),
  status: z.object({ used: textMap }).nullish(),
})

/** See {@link quotaSchema}. */
export type Quota = z.infer<typeof quotaSchema>

/** A ValidatingAdmissionPolicy, as far as it is compared; its expressions are looked at as text. */
export const policySchema = z.object({
  metadata,
  spec: z.looseObject({ failurePolicy: text }),
})

/** A ValidatingAdmissionPolicyBinding. */
export const policyBindingSchema = z.object({
  metadata,
  spec: z.object({ policyName: text, validationActions: strings }),
})

/** A Pod, as far as its place in the cluster goes; the webhook's own schema reads the rest. */
export const storedPodSchema = z.object({
  metadata,
  spec: podSpecSchema,
  status: z.object({ phase: text }).nullish(),
})

/** See {@link storedPodSchema}. */
export type StoredPod = z.infer<typeof storedPodSchema>
