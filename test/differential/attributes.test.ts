/**
 * Our reading of requests against kube-apiserver's own: generated request lines go to a real API server as raw bytes, and
 * its audit record of each is compared with what we make of the same bytes. `npm run differential`; the seed is printed,
 * and NESTGATE_SEED repeats a run. Everything sent is harmless: names that do not exist, dry runs, watches of a second.
 */
import { randomInt } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import type { TLSSocket } from 'node:tls'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { parse } from 'yaml'
import { openCluster } from '../../scripts/cluster.ts'
import type { Cluster } from '../../scripts/cluster.ts'
import { sleep } from '../../scripts/run.ts'
import { parseTarget } from '../../shared/kubernetes/path.ts'
import { readAttributes } from '../../shared/kubernetes/request-attributes.ts'
import { readRequestInfo } from '../../shared/kubernetes/request-info.ts'
import type { RequestInfo } from '../../shared/kubernetes/request-info.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { newRequestId } from '../../shared/request-id.ts'

/** Requests sent, and of those that the server recorded and we accept, compared at least. */
const SENT = 4_000
const COMPARED = 2_000
const CONNECTIONS = 8
/** A request that is not answered by then is counted as unanswered, in milliseconds. */
const ANSWER_MS = 10_000
/** Ports of a control plane of its own, away from others that may run beside it. */
const PORTS = { CLUSTER_PORT: '17443', CLUSTER_ETCD_PORT: '13379' }

/** Numbers from a seed: mulberry32, so that a run can be repeated. */
function generator(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

interface Generated {
  readonly id: string
  readonly method: string
  readonly target: string
  readonly contentType: string
  readonly body: string
}

/** Makes harmless requests of every shape that RequestInfo tells apart. */
class Requests {
  readonly #random: () => number

  constructor(seed: number) {
    this.#random = generator(seed)
  }

  #pick<T>(items: readonly [T, ...T[]]): T {
    return items[Math.floor(this.#random() * items.length)] ?? items[0]
  }

  #chance(of: number): boolean {
    return this.#random() < of
  }

  next(): Generated {
    const method = this.#method()
    const path = this.#path()
    const writes = method === 'POST' || method === 'PUT' || method === 'PATCH'
    const query = this.#query(writes || method === 'DELETE')
    const [contentType, body] = writes ? this.#body(method) : ['', '']
    return {
      id: newRequestId(Date.now()),
      method,
      target: query === '' ? path : `${path}?${query}`,
      contentType,
      body,
    }
  }

  #method(): string {
    if (this.#chance(0.5)) return 'GET'
    return this.#pick(['HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'DELETE', 'OPTIONS'])
  }

  #path(): string {
    if (this.#chance(0.06))
      return this.#pick([
        '/',
        '/version',
        '/healthz',
        '/api',
        '/apis',
        '/api/v1',
        '/apis/apps',
        '/apis/apps/v1',
        '/openapi/v2',
        '/metrics/',
        '/nothing/here',
      ])
    const prefix = this.#pick([
      '/api/v1',
      '/api/v1',
      '/apis/apps/v1',
      '/apis/batch/v1',
      '/apis/rbac.authorization.k8s.io/v1',
      '/apis/none.example/v1',
      '/api/v2',
    ])
    const word = this.#chance(0.08) ? this.#pick(['/watch', '/proxy', '/watch/', '/watch']) : ''
    const namespace = this.#chance(0.6)
      ? `/namespaces/${this.#pick(['shop', 'default', 'none', 'a-b.c'])}`
      : ''
    const parts = [...this.#rest(namespace !== '')]
    const path = `${prefix}${word}${namespace}${parts.map((part) => `/${part}`).join('')}`
    return this.#spelled(path)
  }

  *#rest(inNamespace: boolean): Generator<string> {
    if (inNamespace && this.#chance(0.12)) {
      if (this.#chance(0.5)) yield this.#pick(['status', 'finalize'])
      return
    }
    yield this.#pick([
      'pods',
      'pods',
      'secrets',
      'configmaps',
      'deployments',
      'jobs',
      'roles',
      'nodes',
      'namespaces',
      'services',
      'widgets',
      'serviceaccounts',
    ])
    if (this.#chance(0.4)) return
    yield this.#pick([
      'none-1',
      'web',
      'a.b',
      'x:y',
      'https:web:8443',
      'proxy',
      'watch',
      'status',
      'UPPER',
      '%77eb',
    ])
    if (this.#chance(0.5)) return
    yield this.#pick([
      'status',
      'log',
      'scale',
      'exec',
      'attach',
      'portforward',
      'proxy',
      'eviction',
      'ephemeralcontainers',
      'token',
      'finalize',
      'approval',
      'none',
    ])
    if (this.#chance(0.2)) yield this.#pick(['deeper', 'a', 'exec'])
  }

  /** Other spellings of a path, some of which we refuse on purpose. */
  #spelled(path: string): string {
    if (this.#chance(0.06)) return `${path}/`
    if (this.#chance(0.05))
      return path.replace(/[a-z](?=[^/]*$)/, (letter) => `%${letter.charCodeAt(0).toString(16)}`)
    if (this.#chance(0.03))
      return this.#pick([
        path.replace('/api', '//api'),
        `${path}//`,
        path.replace(/\/([^/]+)$/, '/./$1'),
        path.replace(/\/([^/]+)$/, '%2f$1'),
        `${path};a=b`,
      ])
    return path
  }

  #query(isWrite: boolean): string {
    const terms: string[] = []
    if (isWrite) terms.push('dryRun=All')
    else terms.push('timeoutSeconds=1')
    if (this.#chance(0.25))
      terms.push(
        this.#pick([
          'watch',
          'watch=',
          'watch=0',
          'watch=1',
          'watch=false',
          'watch=FALSE',
          'watch=true',
          'watch=no',
          'watch=0&watch=1',
          'watch=true&watch=false',
          'Watch=1',
        ]),
      )
    if (this.#chance(0.25))
      terms.push(
        this.#pick([
          'fieldSelector=metadata.name%3Dweb',
          'fieldSelector=metadata.name%3D%3Dweb',
          'fieldSelector=metadata.name!%3Dweb',
          'fieldSelector=metadata.name=web',
          'fieldSelector=metadata.name%3Dweb,status.phase%3DRunning',
          'fieldSelector=status.phase%3DRunning,metadata.name%3Dweb',
          'fieldSelector=metadata.name%3Da%2Fb',
          'fieldSelector=metadata.name%3D',
          'fieldSelector=metadata.name',
          'fieldSelector=',
          'fieldSelector=metadata.name%3Da%5C%2Cb',
          'fieldSelector=metadata.namespace%3Dshop',
          'fieldSelector=metadata.name%3Dx&fieldSelector=metadata.name%3Dy',
          'fieldSelector=metadata.name%3Dweb,metadata.name%3Dother',
          'fieldSelector=metadata.name%3D..',
        ]),
      )
    if (this.#chance(0.15))
      terms.push(
        this.#pick([
          'limit=5',
          'limit=x',
          'limit=',
          'limit=-1',
          'limit=1.5',
          'limit=9223372036854775808',
          'timeoutSeconds=x',
          'resourceVersion=0',
          'resourceVersion=x',
          'allowWatchBookmarks=maybe',
          'continue=%00',
          'limit=+5',
          'limit=0x5',
          'limit=1&limit=x',
          'resourceVersionMatch=x',
        ]),
      )
    if (this.#chance(0.1))
      terms.push(
        this.#pick([
          'labelSelector=a%3Db',
          'labelSelector=%21%21',
          'pretty=true',
          'a=1;b=2',
          'x=%zz',
          'command=ls&stdin=',
        ]),
      )
    if (terms.length > 1 && this.#chance(0.3)) terms.reverse()
    return terms.join('&')
  }

  #body(method: string): readonly [string, string] {
    const metadata = this.#pick([
      { name: 'made-1' },
      { name: 'web' },
      { generateName: 'made-' },
      {},
    ])
    if (method === 'PATCH')
      return ['application/merge-patch+json', JSON.stringify({ metadata: {} })]
    return ['application/json', JSON.stringify({ metadata })]
  }
}

/** Sends requests one after another over one connection at a time. */
class Sender {
  readonly #tls: {
    readonly host: string
    readonly port: number
    readonly ca: string
    readonly cert: string
    readonly key: string
  }

  constructor(kubeconfig: string) {
    const config = parse(readFileSync(kubeconfig, 'utf8')) as {
      clusters: { cluster: Record<string, string> }[]
      users: { user: Record<string, string> }[]
    }
    const cluster = config.clusters[0]?.cluster ?? {}
    const user = config.users[0]?.user ?? {}
    const text = (value: string | undefined): string =>
      Buffer.from(value ?? '', 'base64').toString()
    const url = new URL(cluster['server'] ?? '')
    this.#tls = {
      host: url.hostname,
      port: Number(url.port),
      ca: text(cluster['certificate-authority-data']),
      cert: text(user['client-certificate-data']),
      key: text(user['client-key-data']),
    }
  }

  /** Settles when the answer's connection is closed, which each request asks for. @returns the status, 0 for none */
  async send({ id, method, target, contentType, body }: Generated): Promise<number> {
    const socket: TLSSocket = connect({ ...this.#tls, ALPNProtocols: ['http/1.1'] })
    const lines = [
      `${method} ${target} HTTP/1.1`,
      `Host: ${this.#tls.host}`,
      `Audit-ID: ${id}`,
      'Connection: close',
      ...(body === ''
        ? []
        : [`Content-Type: ${contentType}`, `Content-Length: ${Buffer.byteLength(body)}`]),
    ]
    return new Promise((resolve) => {
      let head = ''
      const timer = setTimeout(() => socket.destroy(), ANSWER_MS)
      socket.on('data', (chunk: Buffer) => {
        if (head.length < 64) head += chunk.toString('latin1')
      })
      socket.on('error', () => undefined)
      socket.once('close', () => {
        clearTimeout(timer)
        resolve(Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1] ?? 0))
      })
      socket.write(`${lines.join('\r\n')}\r\n\r\n${body}`, 'latin1')
    })
  }
}

interface Recorded {
  readonly auditID: string
  readonly verb: string
  readonly objectRef?: Readonly<Record<string, string>>
}

/** What the server's record says, in the words of RequestInfo. */
function recordedInfo({ verb, objectRef }: Recorded): Partial<RequestInfo> {
  if (objectRef === undefined) return { isResourceRequest: false, verb }
  return {
    isResourceRequest: true,
    verb,
    apiGroup: objectRef['apiGroup'] ?? '',
    apiVersion: objectRef['apiVersion'] ?? '',
    namespace: objectRef['namespace'] ?? '',
    resource: objectRef['resource'] ?? '',
    subresource: objectRef['subresource'] ?? '',
    name: objectRef['name'] ?? '',
  }
}

/** What we make of the same bytes; the code of our refusal where we make nothing of them. */
function ourInfo({ method, target: raw, contentType, body }: Generated): RequestInfo | string {
  const target = parseTarget(raw)
  if (isRefusal(target)) return target.refused
  const info = readRequestInfo(method, target)
  if (isRefusal(info)) return info.refused
  const attributes = readAttributes({ method, target, info, contentType, body: Buffer.from(body) })
  return isRefusal(attributes) ? attributes.refused : attributes.info
}

describe('request attributes, beside kube-apiserver’s audit records', function () {
  this.timeout(400_000)
  const seed = Number(process.env['NESTGATE_SEED'] ?? randomInt(2 ** 31))
  let cluster: Cluster
  let sent: readonly Generated[] = []
  let recorded = new Map<string, Recorded>()

  before(async () => {
    console.log(`    seed ${seed}`)
    cluster = await openCluster({
      node: false,
      dir: join(tmpdir(), 'nestgate-differential'),
      env: PORTS,
    })
    const requests = new Requests(seed)
    sent = Array.from({ length: SENT }, () => requests.next())
    const sender = new Sender(cluster.kubeconfig)
    let next = 0
    await Promise.all(
      Array.from({ length: CONNECTIONS }, async () => {
        for (let one = sent[next++]; one !== undefined; one = sent[next++]) await sender.send(one)
      }),
    )
    await sleep(2000) // the server writes its log in batches
    recorded = recordsOf(cluster)
  })

  after(async () => {
    await cluster.stop()
  })

  function recordsOf({ dir = '' }: Cluster): Map<string, Recorded> {
    const lines = readFileSync(join(dir, 'logs', 'audit.jsonl'), 'utf8')
      .trimEnd()
      .split('\n')
    return new Map(
      lines.map((line) => JSON.parse(line) as Recorded).map((record) => [record.auditID, record]),
    )
  }

  it('are equal for every request that both accept', () => {
    const differences: string[] = []
    let compared = 0
    for (const request of sent) {
      const record = recorded.get(request.id)
      const ours = ourInfo(request)
      if (record === undefined || typeof ours === 'string') continue
      compared += 1
      const theirs = recordedInfo(record)
      const same = Object.entries(theirs).every(([key, value]) => Reflect.get(ours, key) === value)
      if (!same)
        differences.push(
          `${request.method} ${request.target}\n  server ${JSON.stringify(theirs)}\n  ours   ${JSON.stringify(ours)}`,
        )
    }
    console.log(`    ${compared} of ${sent.length} compared`)
    expect(differences.slice(0, 10).join('\n')).to.equal('')
    expect(compared).to.be.greaterThanOrEqual(COMPARED)
  })

  it('are refused by us alone only where readers could differ', () => {
    const refused = new Map<string, string[]>()
    for (const request of sent) {
      const ours = ourInfo(request)
      if (recorded.has(request.id) && typeof ours === 'string')
        refused.set(ours, [...(refused.get(ours) ?? []), `${request.method} ${request.target}`])
    }
    for (const [code, lines] of refused) console.log(`    ${code}: ${lines.length}, as ${lines[0]}`)
    expect([...refused.keys()]).to.satisfy((codes: readonly string[]) =>
      codes.every((code) =>
        ['path_ambiguous', 'method_unsupported', 'body_ambiguous'].includes(code),
      ),
    )
    const plain = /^[A-Z]+ (?:\/[a-zA-Z0-9.:-]+)+\/?(?:\?[a-zA-Z0-9=&.%,+-]*)?$/
    const unjustified = (refused.get('path_ambiguous') ?? [])
      .filter(
        (line) => plain.test(line) && !/%(?![0-9a-fA-F]{2})|%00|\/\.\.?(?:\/|$|\?)/.test(line),
      )
      .filter((line) => !/\/(?:watch|proxy)\/?(?:\?|$)/.test(line))
    expect(unjustified.slice(0, 5)).to.deep.equal([])
  })
})
