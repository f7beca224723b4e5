/**
 * A stand-in for an API server, as witness of what reaches one: a real HTTPS server that records every request
 * and answers by the test's own handler. It also issues projected service-account tokens, publishes their keys
 * and reviews them, so that the broker's identity code runs unchanged against it.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { decodeJwt, exportJWK, generateKeyPair, jwtVerify, SignJWT } from 'jose'
import type { JWTPayload } from 'jose'
import { BROKER_AUDIENCE } from '../../shared/agent-tag.ts'
import { makeCertificates } from './certificates.ts'

/** A request as it arrived. */
export interface Seen {
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
  readonly body: string
}

/** See the head of the file. */
export interface Upstream {
  readonly url: string
  readonly caFile: string
  readonly tokenFile: string
  readonly issuer: string
  readonly seen: Seen[]
  /** Answers requests that are not about tokens; the default says 200 `{}`. */
  onRequest: (request: IncomingMessage, response: ServerResponse, body: string) => void
  onUpgrade: (request: IncomingMessage, socket: Duplex) => void
  /** What it serves, by group version; asked by the broker itself, and not among `seen`. All else is for `onRequest`. */
  serves: Readonly<Record<string, readonly object[]>>
  /** When false, the key set and token reviews answer 503. */
  identityUp: boolean
  /** What the broker itself is told of the pod of {@link POD}; not found when undefined. Not among `seen`. */
  pod: object | undefined
  /** The same of other pods, by `NAMESPACE/NAME`. */
  readonly otherPods: Map<string, object>
  /** Answers questions for pods with this status in place of an answer. */
  podsRefused: number | undefined
  /** How often the broker itself asked for a pod. */
  podFetches: number
  /** What the broker itself asked about roles, which are answered by `rolesAllow`. Not among `seen`. */
  readonly accessReviews: object[]
  rolesAllow: boolean
  /** Requests for the key set so far. */
  jwksFetches: number
  /** A projected token; `claims` replace or remove (undefined) the usual ones. */
  token(claims?: Readonly<Record<string, unknown>>): Promise<string>
  /** Signs with a new key from here on, published under a new id. */
  rotateKey(): Promise<void>
  /** Publishes no key any more but the one that signs. */
  withdrawKeys(): void
  close(): Promise<void>
}

/** The pod that tokens are bound to unless a test says otherwise. */
export const POD = {
  namespace: 'agents',
  serviceAccount: 'worker',
  podName: 'pod-1',
  podUid: 'uid-1',
} as const

/** The pod of {@link POD} as the API server shows it, with these containers running. */
export function podWith(
  containers: readonly { readonly name: string; readonly id: string; readonly image?: string }[],
  uid: string = POD.podUid,
): object {
  const containerStatuses = containers.map(
    ({ name, id, image = 'registry.example/agents/tools:1' }) => ({
      name,
      image,
      imageID: `registry.example/agents/tools@sha256:${'5'.repeat(64)}`,
      containerID: `containerd://${id}`,
    }),
  )
  return { kind: 'Pod', metadata: { uid }, status: { containerStatuses } }
}

const namespaced = (...names: readonly string[]): readonly object[] =>
  names.map((name) => ({ name, namespaced: true, verbs: ['get', 'list'] }))
const clusterScoped = (...names: readonly string[]): readonly object[] =>
  names.map((name) => ({ name, namespaced: false, verbs: ['get', 'list'] }))

/** What it serves unless a test says otherwise. */
const DISCOVERY: Readonly<Record<string, readonly object[]>> = {
  '/api/v1': [
    ...namespaced('pods', 'pods/log', 'pods/exec', 'pods/attach', 'pods/portforward', 'pods/proxy'),
    ...namespaced('pods/eviction', 'pods/ephemeralcontainers', 'pods/status'),
    ...namespaced('configmaps', 'secrets', 'services', 'services/proxy', 'events'),
    ...namespaced('serviceaccounts', 'serviceaccounts/token'),
    ...clusterScoped('namespaces', 'namespaces/finalize', 'namespaces/status'),
    ...clusterScoped('nodes', 'nodes/proxy'),
  ],
  '/apis/apps/v1': namespaced('deployments', 'deployments/scale', 'deployments/status'),
  '/apis/authorization.k8s.io/v1': clusterScoped(
    'selfsubjectaccessreviews',
    'selfsubjectrulesreviews',
  ),
}

const ISSUER = 'https://kubernetes.default.svc.cluster.local'

/** Starts one on a free loopback port. */
export async function startUpstream(): Promise<Upstream> {
  const dir = await mkdtemp(join(tmpdir(), 'nestgate-upstream-'))
  const { ca, cert, key } = makeCertificates({ hosts: ['127.0.0.1', 'localhost'] })
  const caFile = join(dir, 'ca.crt')
  const tokenFile = join(dir, 'token')
  await writeFile(caFile, ca)
  await writeFile(tokenFile, 'the-brokers-own-token\n', { mode: 0o600 })
  let keyNumber = 0
  let pair = await generateKeyPair('RS256')
  const published: object[] = []
  const publish = async (): Promise<void> => {
    keyNumber += 1
    published.push({
      ...(await exportJWK(pair.publicKey)),
      kid: `key-${keyNumber}`,
      alg: 'RS256',
      use: 'sig',
    })
  }
  await publish()

  const answerIdentity = async (url: string, body: string): Promise<object | undefined> => {
    if (url === '/openid/v1/jwks') {
      upstream.jwksFetches += 1
      return { keys: published }
    }
    if (url === '/apis/authorization.k8s.io/v1/subjectaccessreviews') {
      upstream.accessReviews.push(JSON.parse(body) as object)
      return { status: { allowed: upstream.rolesAllow } }
    }
    if (url !== '/apis/authentication.k8s.io/v1/tokenreviews') return undefined
    const { spec } = JSON.parse(body) as { spec: { token: string; audiences: string[] } }
    try {
      const { payload } = await jwtVerify(spec.token, pair.publicKey, { audience: spec.audiences })
      return reviewed(payload, spec.audiences)
    } catch {
      return { status: { authenticated: false, error: 'invalid' } }
    }
  }

  const server = createServer({ cert, key }, (request, response) => {
    void handle(request, response)
  })
  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const body = Buffer.concat(chunks).toString()
    const { method = '', url = '', headers, rawHeaders } = request
    if (/^\/api\/v1\/namespaces\/[^/]+\/pods\/[^/]+$/.test(url) && isBrokers(headers)) {
      upstream.podFetches += 1
      const [, , , , namespace, , name] = url.split('/')
      const own = namespace === POD.namespace && name === POD.podName
      const found = own ? upstream.pod : upstream.otherPods.get(`${namespace}/${name}`)
      const status = upstream.podsRefused ?? (found === undefined ? 404 : 200)
      response.writeHead(status, { 'content-type': 'application/json' })
      response.end(JSON.stringify(found ?? { kind: 'Status' }))
      return
    }
    const identity = await answerIdentity(url, body)
    if (identity !== undefined) {
      response.writeHead(upstream.identityUp ? 200 : 503, { 'content-type': 'application/json' })
      response.end(JSON.stringify(identity))
      return
    }
    const served = isBrokers(headers) ? upstream.serves[url] : undefined
    if (served !== undefined) {
      response.writeHead(200, { 'content-type': 'application/json' })
      response.end(JSON.stringify({ kind: 'APIResourceList', resources: served }))
      return
    }
    upstream.seen.push({ method, url, headers, rawHeaders, body })
    upstream.onRequest(request, response, body)
  }
  server.on('upgrade', (request: IncomingMessage, socket: Duplex) => {
    const { method = '', url = '', headers, rawHeaders } = request
    upstream.seen.push({ method, url, headers, rawHeaders, body: '' })
    upstream.onUpgrade(request, socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0

  const upstream: Upstream = {
    url: `https://127.0.0.1:${port}`,
    caFile,
    tokenFile,
    issuer: ISSUER,
    seen: [],
    serves: DISCOVERY,
    identityUp: true,
    pod: podWith([{ name: 'planner', id: 'c'.repeat(64) }]),
    otherPods: new Map(),
    podsRefused: undefined,
    podFetches: 0,
    accessReviews: [],
    rolesAllow: true,
    jwksFetches: 0,
    onRequest: (_request, response) =>
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
    onUpgrade: (_request, socket) => socket.destroy(),
    token: async (claims = {}) => {
      const nowS = Math.floor(Date.now() / 1000)
      const payload: Record<string, unknown> = {
        iss: ISSUER,
        aud: [BROKER_AUDIENCE],
        sub: `system:serviceaccount:${POD.namespace}:${POD.serviceAccount}`,
        iat: nowS,
        exp: nowS + 600,
        'kubernetes.io': {
          namespace: POD.namespace,
          pod: { name: POD.podName, uid: POD.podUid },
          serviceaccount: { name: POD.serviceAccount, uid: 'sa-uid' },
        },
        ...claims,
      }
      for (const [name, value] of Object.entries(payload))
        if (value === undefined) Reflect.deleteProperty(payload, name)
      return new SignJWT(payload)
        .setProtectedHeader({ alg: 'RS256', kid: `key-${keyNumber}` })
        .sign(pair.privateKey)
    },
    rotateKey: async () => {
      pair = await generateKeyPair('RS256')
      await publish()
    },
    withdrawKeys: () => {
      published.splice(0, published.length - 1)
    },
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await rm(dir, { recursive: true })
    },
  }
  return upstream
}

/** Whether a request is the broker's own, and in nobody's name: by its own token without impersonation, or by a token of ours for itself. */
export function isBrokers(headers: IncomingHttpHeaders): boolean {
  if ('impersonate-user' in headers) return false
  try {
    return decodeJwt((headers.authorization ?? '').replace('Bearer ', '')).sub === 'broker'
  } catch {
    return true
  }
}

function reviewed(payload: JWTPayload, audiences: readonly string[]): object {
  const pod = payload['kubernetes.io'] as { pod?: { name: string; uid: string } } | undefined
  const extra =
    pod?.pod === undefined
      ? {}
      : {
          'authentication.kubernetes.io/pod-name': [pod.pod.name],
          'authentication.kubernetes.io/pod-uid': [pod.pod.uid],
        }
  return { status: { authenticated: true, audiences, user: { username: payload.sub, extra } } }
}
