/**
 * A stand-in for the Kubernetes API, for machines that have nothing but Node: keeps objects in memory, lists, gets,
 * creates, deletes and watches them, issues and publishes service-account tokens, honours impersonation and `Audit-ID`.
 * It authorizes nothing and is good for nothing but the demo.
 */
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { z } from 'zod'
import { writeCertificates } from '../../cli/certificates.ts'
import { isRecord } from '../../shared/config.ts'
import type { AuditLine, DemoCluster } from './cluster.ts'

const ISSUER = 'https://kubernetes.default.svc.cluster.local'
const API_AUDIENCE = 'https://kubernetes.default.svc'
const KEY_ID = 'stand-in'

/** Kinds that kubectl may ask about with `--keep`: plural, kind, group/version, namespaced. */
const KINDS = [
  ['namespaces', 'Namespace', 'v1', false],
  ['pods', 'Pod', 'v1', true],
  ['secrets', 'Secret', 'v1', true],
  ['configmaps', 'ConfigMap', 'v1', true],
  ['serviceaccounts', 'ServiceAccount', 'v1', true],
  ['deployments', 'Deployment', 'apps/v1', true],
  ['roles', 'Role', 'rbac.authorization.k8s.io/v1', true],
  ['rolebindings', 'RoleBinding', 'rbac.authorization.k8s.io/v1', true],
  ['clusterroles', 'ClusterRole', 'rbac.authorization.k8s.io/v1', false],
  ['clusterrolebindings', 'ClusterRoleBinding', 'rbac.authorization.k8s.io/v1', false],
] as const

const tokenRequest = z.object({
  spec: z.object({
    audiences: z.array(z.string()).default([API_AUDIENCE]),
    expirationSeconds: z.number().default(3600),
    boundObjectRef: z.object({ name: z.string(), uid: z.string() }).optional(),
  }),
})

interface Reply {
  readonly status: number
  readonly body: object
}

/** Starts the stand-in on a free loopback port. @param dir - where its certificate goes */
export async function startStandIn(dir: string): Promise<DemoCluster> {
  const hosts = ['127.0.0.1', 'localhost']
  const made = writeCertificates({ dir, brokerHosts: hosts, webhookHosts: hosts, days: 2 })
  if ('problems' in made) throw new Error(made.problems.join('\n'))
  const read = (name: string): string => readFileSync(join(dir, name), 'utf8')
  const { publicKey, privateKey } = await generateKeyPair('RS256')
  const jwks = {
    keys: [{ ...(await exportJWK(publicKey)), kid: KEY_ID, alg: 'RS256', use: 'sig' }],
  }
  const adminToken = randomUUID()
  const objects = new Map<string, Record<string, unknown>>()
  const audit: AuditLine[] = []

  const issue = async (path: string, body: unknown): Promise<Reply> => {
    const { audiences, expirationSeconds, boundObjectRef } = tokenRequest.parse(body).spec
    const [, namespace = '', name = ''] =
      /\/namespaces\/([^/]+)\/serviceaccounts\/([^/]+)\//.exec(path) ?? []
    const iat = Math.floor(Date.now() / 1000)
    const token = await new SignJWT({
      iss: ISSUER,
      aud: audiences,
      sub: `system:serviceaccount:${namespace}:${name}`,
      iat,
      exp: iat + expirationSeconds,
      'kubernetes.io': {
        namespace,
        serviceaccount: {
          name,
          uid: uidOf(objects.get(`/api/v1/namespaces/${namespace}/serviceaccounts/${name}`)),
        },
        ...(boundObjectRef === undefined
          ? {}
          : { pod: { name: boundObjectRef.name, uid: boundObjectRef.uid } }),
      },
    })
      .setProtectedHeader({ alg: 'RS256', kid: KEY_ID })
      .sign(privateKey)
    return {
      status: 201,
      body: { kind: 'TokenRequest', apiVersion: 'authentication.k8s.io/v1', status: { token } },
    }
  }

  const answer = async (method: string, path: string, body: unknown): Promise<Reply> => {
    if (path === '/openid/v1/jwks') return { status: 200, body: jwks }
    if (path.endsWith('/token') && method === 'POST') return issue(path, body)
    return discovery(path) ?? stored(objects, method, path, body)
  }

  const server = createServer(
    { cert: read('broker.crt'), key: read('broker.key') },
    (request, response) => {
      void respond(request, response)
    },
  )
  const respond = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const chunks: Buffer[] = []
    const stream: AsyncIterable<Buffer> = request
    for await (const chunk of stream) chunks.push(chunk)
    const text = Buffer.concat(chunks).toString()
    const { pathname, searchParams } = new URL(request.url ?? '/', 'https://stand-in')
    const impersonated = request.headers['impersonate-user']
    if (typeof impersonated === 'string') {
      audit.push({
        auditId: String(request.headers['audit-id'] ?? ''),
        user: 'the broker',
        impersonatedUser: impersonated,
      })
    }
    const body: unknown = text === '' ? undefined : JSON.parse(text)
    const reply = await answer(request.method ?? '', pathname, body)
    response.writeHead(reply.status, { 'content-type': 'application/json' })
    if (!searchParams.has('watch')) response.end(JSON.stringify(reply.body))
    else response.write('')
  }
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0
  return {
    description: 'an embedded stand-in for the Kubernetes API',
    server: `https://127.0.0.1:${port}`,
    ca: read('ca.crt'),
    admin: { token: adminToken },
    audit: () => Promise.resolve(audit),
    close: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve()
        })
        server.closeAllConnections()
      }),
  }
}

/** What kubectl asks before anything else. */
function discovery(path: string): Reply | undefined {
  const groups = [
    ...new Set(KINDS.map(([, , version]) => version).filter((version) => version !== 'v1')),
  ]
  if (path === '/version')
    return { status: 200, body: { major: '1', minor: '30', gitVersion: 'v1.30.0-stand-in' } }
  if (path === '/api') return { status: 200, body: { kind: 'APIVersions', versions: ['v1'] } }
  if (path === '/apis') {
    const named = groups.map((groupVersion) => {
      const [name, version] = groupVersion.split('/')
      const entry = { groupVersion, version }
      return { name, versions: [entry], preferredVersion: entry }
    })
    return { status: 200, body: { kind: 'APIGroupList', apiVersion: 'v1', groups: named } }
  }
  const [, groupVersion] = /^\/apis?\/((?:[^/]+\/)?v1)$/.exec(path) ?? []
  if (groupVersion === undefined) return undefined
  const resources = KINDS.filter(([, , version]) => version === groupVersion).map(
    ([name, kind, , namespaced]) => ({
      name,
      kind,
      namespaced,
      singularName: kind.toLowerCase(),
      verbs: ['create', 'delete', 'get', 'list', 'watch'],
    }),
  )
  return {
    status: 200,
    body: { kind: 'APIResourceList', apiVersion: 'v1', groupVersion, resources },
  }
}

function stored(
  objects: Map<string, Record<string, unknown>>,
  method: string,
  path: string,
  body: unknown,
): Reply {
  const plural = KINDS.find(([name]) => path.endsWith(`/${name}`))
  if (method === 'POST' && plural !== undefined && isRecord(body))
    return created(objects, path, body)
  const object = objects.get(path)
  if (method === 'GET' && object !== undefined) return { status: 200, body: object }
  if (method === 'GET' && plural !== undefined) {
    const items = [...objects].filter(([key]) => isIn(key, path)).map(([, value]) => value)
    return {
      status: 200,
      body: { kind: `${plural[1]}List`, apiVersion: plural[2], metadata: {}, items },
    }
  }
  if (method === 'DELETE' && object !== undefined) {
    objects.delete(path)
    return {
      status: 200,
      body: { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success' },
    }
  }
  return failure(404, 'NotFound', `${path} is not here`)
}

function created(
  objects: Map<string, Record<string, unknown>>,
  path: string,
  body: Record<string, unknown>,
): Reply {
  const metadata = isRecord(body['metadata']) ? body['metadata'] : {}
  const key = `${path}/${String(metadata['name'])}`
  if (objects.has(key)) return failure(409, 'AlreadyExists', `${key} exists already`)
  const [, namespace] = /\/namespaces\/([^/]+)\//.exec(key) ?? []
  const object = {
    ...body,
    metadata: {
      ...metadata,
      ...(namespace === undefined ? {} : { namespace }),
      uid: randomUUID(),
      creationTimestamp: new Date().toISOString(),
    },
  }
  objects.set(key, object)
  return { status: 201, body: object }
}

/** Whether an object's path lies in a collection, of one namespace or of all. */
function isIn(key: string, collection: string): boolean {
  const at = key.lastIndexOf('/')
  const parent = key.slice(0, at)
  return parent === collection || parent.replace(/\/namespaces\/[^/]+(?=\/)/, '') === collection
}

function uidOf(object: Record<string, unknown> | undefined): string {
  const metadata = object?.['metadata']
  return isRecord(metadata) ? String(metadata['uid']) : 'none'
}

function failure(code: number, reason: string, message: string): Reply {
  return {
    status: code,
    body: {
      kind: 'Status',
      apiVersion: 'v1',
      metadata: {},
      status: 'Failure',
      code,
      reason,
      message,
    },
  }
}
