/**
 * The cluster's objects that certificates are kept in: three Secrets and the configurations of webhooks. Each write carries the
 * `resourceVersion` that was read, so that it is refused (409) where somebody else was faster.
 */
import { z } from 'zod'
import { isApiError } from '../../shared/in-cluster-api.ts'
import type { InClusterApi } from '../../shared/in-cluster-api.ts'
import { AUTHORITY_KEYS } from './authorities.ts'
import type { SecretData } from './authorities.ts'
import type { KeepConfig } from './config.ts'
import { KeepError } from './errors.ts'

/**
 * Annotation of a Secret that this program may replace. Not the label `app.kubernetes.io/managed-by`: Helm writes its own name
 * there, on every object that it installs.
 */
export const KEPT_BY = 'nestgate.dev/kept-by'
/** Its value. */
export const KEEPER = 'nestgate-certificates'

/** Keys of the Secrets that servers mount: what they trust, their certificate with its chain, its key. */
export const LEAF_KEYS = ['ca.crt', 'tls.crt', 'tls.key'] as const

/** Which of the Secrets. */
export type SecretRole = keyof KeepConfig['secrets']

const text = z.string()
const metadataSchema = z.looseObject({
  resourceVersion: text,
  annotations: z.record(text, text).nullish(),
})
const secretSchema = z.looseObject({
  metadata: metadataSchema,
  data: z.record(text, z.base64()).nullish(),
})
const configurationSchema = z.looseObject({
  metadata: metadataSchema,
  webhooks: z
    .array(
      z.looseObject({
        name: text,
        clientConfig: z.looseObject({ caBundle: z.base64().nullish() }),
      }),
    )
    .nullish(),
})

/** A Secret as it was read. */
export interface SecretSeen {
  readonly role: SecretRole
  readonly name: string
  readonly data: SecretData
  /** As the API server has it; undefined where there is none. */
  readonly object: z.infer<typeof secretSchema> | undefined
}

/** A configuration of webhooks as it was read. */
export interface ConfigurationSeen {
  readonly kind: string
  readonly name: string
  readonly path: string
  readonly version: string
  readonly webhooks: readonly { readonly name: string; readonly caBundle: string }[]
}

/** Reads and writes the objects. Each rejects with a KeepError, or with the ApiError of the client. */
export interface ClusterObjects {
  /** @throws KeepError `foreign` where it holds data that this program has not written */
  secret(role: SecretRole): Promise<SecretSeen>
  configurations(): readonly (() => Promise<ConfigurationSeen>)[]
  /** Changes keys of a Secret; a key whose text is empty goes. */
  writeSecret(seen: SecretSeen, changes: SecretData): Promise<void>
  /** Gives every webhook of a configuration this bundle (PEM). */
  writeBundle(seen: ConfigurationSeen, bundle: string): Promise<void>
}

/** The objects that a configuration names. */
export function clusterObjects(
  api: InClusterApi,
  {
    namespace,
    secrets,
    webhookConfigurations,
  }: Pick<KeepConfig, 'namespace' | 'secrets' | 'webhookConfigurations'>,
): ClusterObjects {
  const collection = `/api/v1/namespaces/${namespace}/secrets`
  return {
    async secret(role) {
      const name = secrets[role]
      const object = await readSecret(api, `${collection}/${name}`)
      const data = decoded(object?.data ?? {})
      if (object !== undefined) refuseForeign(`${namespace}/${name}`, role, object, data)
      return { role, name, data, object }
    },
    configurations: () =>
      webhookConfigurations.map((wanted) => () => readConfiguration(api, wanted)),
    async writeSecret({ name, object }, changes) {
      if (object !== undefined) {
        await api.update(`${collection}/${name}`, changed(object, changes))
        return
      }
      const made = {
        ...{ apiVersion: 'v1', kind: 'Secret', type: 'Opaque' },
        metadata: { name, namespace, annotations: { [KEPT_BY]: KEEPER } },
        data: encoded({}, changes),
      }
      await api.create(collection, made)
    },
    async writeBundle({ path, version, webhooks }, bundle) {
      const caBundle = Buffer.from(bundle).toString('base64')
      // Webhooks are merged by name; the version makes it a compare-and-set, which a patch is not by itself.
      await api.patch(path, 'strategic', {
        metadata: { resourceVersion: version },
        webhooks: webhooks.map(({ name }) => ({ name, clientConfig: { caBundle } })),
      })
    },
  }
}

async function readSecret(
  api: InClusterApi,
  path: string,
): Promise<z.infer<typeof secretSchema> | undefined> {
  let answer: unknown
  try {
    answer = await api.get(path)
  } catch (error) {
    if (isApiError(error, 'not_found')) return undefined
    throw error
  }
  // The issues of the schema would tell values.
  const { data } = secretSchema.safeParse(answer)
  if (data === undefined) throw new KeepError('unreachable', `GET ${path}: not a Secret`)
  return data
}

async function readConfiguration(
  api: InClusterApi,
  { kind, name }: KeepConfig['webhookConfigurations'][number],
): Promise<ConfigurationSeen> {
  const path = `/apis/admissionregistration.k8s.io/v1/${kind.toLowerCase()}s/${name}`
  const { data } = configurationSchema.safeParse(await api.get(path))
  if (data === undefined) throw new KeepError('unreachable', `GET ${path}: not a ${kind}`)
  return {
    ...{ kind, name, path, version: data.metadata.resourceVersion },
    webhooks: (data.webhooks ?? []).map(({ name: webhook, clientConfig }) => ({
      name: webhook,
      caBundle: plainText(clientConfig.caBundle ?? ''),
    })),
  }
}

function refuseForeign(
  name: string,
  role: SecretRole,
  { metadata }: z.infer<typeof secretSchema>,
  data: SecretData,
): void {
  if (metadata.annotations?.[KEPT_BY] === KEEPER) return
  const keys = role === 'authority' ? AUTHORITY_KEYS : LEAF_KEYS
  const held = keys.filter((key) => (data[key] ?? '') !== '')
  if (held.length === 0) return
  throw new KeepError(
    'foreign',
    `secret ${name} holds ${held.join(', ')} of somebody else; remove its data, or annotate it with ${KEPT_BY}=${KEEPER} to have it taken over`,
  )
}

function changed(object: z.infer<typeof secretSchema>, changes: SecretData): object {
  const { metadata } = object
  const annotations = { ...metadata.annotations, [KEPT_BY]: KEEPER }
  return {
    ...object,
    metadata: { ...metadata, annotations },
    data: encoded(object.data ?? {}, changes),
  }
}

function encoded(before: SecretData, changes: SecretData): SecretData {
  const fresh = Object.entries(changes).map(
    ([key, value]) => [key, Buffer.from(value).toString('base64')] as const,
  )
  const all = Object.entries({ ...before, ...Object.fromEntries(fresh) })
  return Object.fromEntries(all.filter(([key, value]) => value !== '' || !(key in changes)))
}

function decoded(data: SecretData): SecretData {
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, plainText(value)]))
}

function plainText(base64: string): string {
  return Buffer.from(base64, 'base64').toString('utf8')
}
