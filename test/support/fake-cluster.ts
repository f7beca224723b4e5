/**
 * The part of an API server that a keeper of certificates speaks to, in memory: Secrets and configurations of webhooks, with compare-and-set
 * on `resourceVersion`. Requests can be held up and broken, and each write is told of.
 */
import { ApiError } from '../../shared/in-cluster-api.ts'
import type { InClusterApi } from '../../shared/in-cluster-api.ts'

/** An object as it is stored. */
export interface Stored {
  readonly metadata: { name: string; resourceVersion: string; annotations?: Record<string, string> }
  readonly data?: Record<string, string>
  readonly type?: string
  readonly webhooks?: { name: string; clientConfig: { caBundle?: string; url?: string } }[]
}

/** One request, before it is done. */
export interface Asked {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH'
  readonly path: string
}

export interface FakeCluster {
  readonly objects: Map<string, Stored>
  /** Stores an object as it is, with a new version. */
  put(path: string, object: object): void
  /** Decoded data of a Secret. */
  data(path: string): Record<string, string>
  /** Called after each write. */
  onWrite: (path: string) => void
  /** A client. @param before - awaited before a request is done; @param after - before its answer is given */
  client(
    before?: (asked: Asked) => Promise<void> | void,
    after?: (asked: Asked) => Promise<void> | void,
  ): InClusterApi
}

export function fakeCluster(): FakeCluster {
  const objects = new Map<string, Stored>()
  let version = 0
  const cluster: FakeCluster = {
    objects,
    put(path, object) {
      version += 1
      const copy = structuredClone(object) as Stored
      objects.set(path, {
        ...copy,
        metadata: { ...copy.metadata, resourceVersion: String(version) },
      })
      cluster.onWrite(path)
    },
    data: (path) =>
      Object.fromEntries(
        Object.entries(objects.get(path)?.data ?? {}).map(([key, text]) => [
          key,
          Buffer.from(text, 'base64').toString(),
        ]),
      ),
    onWrite: () => undefined,
    client(before = () => undefined, after = () => undefined) {
      const send = async (asked: Asked, work: () => void): Promise<unknown> => {
        await before(asked)
        work()
        await after(asked)
        return undefined
      }
      const current = (path: string, given: Stored): Stored => {
        const found = objects.get(path)
        if (found === undefined) throw new ApiError('not_found', `${path}: 404`, 404)
        if (given.metadata.resourceVersion !== found.metadata.resourceVersion)
          throw new ApiError('conflict', `${path}: 409`, 409)
        return found
      }
      return {
        async get(path) {
          await before({ method: 'GET', path })
          const found = objects.get(path)
          if (found === undefined) throw new ApiError('not_found', `${path}: 404`, 404)
          return structuredClone(found)
        },
        create: (collection, object) => {
          const path = `${collection}/${(object as Stored).metadata.name}`
          return send({ method: 'POST', path }, () => {
            if (objects.has(path)) throw new ApiError('exists', `${path}: 409`, 409)
            cluster.put(path, object)
          })
        },
        update: (path, object) =>
          send({ method: 'PUT', path }, () => {
            current(path, object as Stored)
            cluster.put(path, object)
          }),
        patch: (path, _type, patch) =>
          send({ method: 'PATCH', path }, () => {
            const found = current(path, patch as Stored)
            const wanted = new Map((patch as Stored).webhooks?.map((one) => [one.name, one]))
            const webhooks = found.webhooks?.map(({ name, clientConfig }) => ({
              name,
              clientConfig: { ...clientConfig, ...wanted.get(name)?.clientConfig },
            }))
            cluster.put(path, { ...found, ...(webhooks === undefined ? {} : { webhooks }) })
          }),
        close: () => Promise.resolve(),
      }
    },
  }
  return cluster
}
