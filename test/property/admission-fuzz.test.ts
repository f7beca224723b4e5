/**
 * The running webhook against what no API server would send: reviews changed in structure and in bytes, over HTTPS on kept connections.
 * It must answer each, with no fault, soon, in bounded memory, and never allow a pod with a way left open.
 *
 * `NESTGATE_FUZZ_S`: how long, in seconds (default 6); `NESTGATE_FUZZ_SEED`: to see the same inputs again.
 */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { createInterface } from 'node:readline'
import { expect } from 'chai'
import fc from 'fast-check'
import { after, before, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import { loadCaCertificates } from '../../shared/injection/broker-authority.ts'
import type { InjectionSettings } from '../../shared/injection/sidecar-spec.ts'
import { readStrictJson } from '../../shared/kubernetes/strict-json.ts'
import { makeCertificates } from '../support/certificates.ts'
import { openWays } from '../support/invariants.ts'
import { admit } from '../support/pod-admission.ts'
import type { Json } from '../support/pod-admission.ts'
import { hostilePod, oddPod } from '../support/pod-generator.ts'
import { plainPod } from '../support/pods.ts'
import { PluginRefusal } from '../support/service-account-plugin.ts'
import { SETTINGS, inject, reviewOf } from '../support/reviews.ts'
import { applyStrictly } from './injection/apply-patch.ts'
import { mutated, pickOf, randomOf } from './injection/mutate.ts'

const SECONDS = Number(process.env['NESTGATE_FUZZ_S'] ?? 6)
const SEED = Number(process.env['NESTGATE_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const MAIN = new URL('../../webhook/main.ts', import.meta.url).pathname
const PATHS = [
  '/mutate',
  '/mutate',
  '/mutate/process',
  '/mutate/container',
  '/observe',
  '/validate',
  '/validate/any',
] as const
/** Connections at once. */
const CONNECTIONS = 4
/** Heap of the webhook, in MiB: what leaks ends it. */
const HEAP_MIB = 160
/** Most memory of the whole process, in MiB. */
const MAX_RSS_MIB = 450
/** Longest wait for an answer, in milliseconds, on a busy machine. */
const MAX_WAIT_MS = 10_000
/** Longest answer that carries no patch, in bytes: nothing of the author's is repeated at length. */
const MAX_PLAIN_ANSWER = 8_192
const MIB = 2 ** 20

type Random = () => number
/** Makes a body of a review. */
type Making = (review: Json, random: Random) => Uint8Array

const encode = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))

/** Puts `text` behind a random one of the places where `mark` stands. */
function spliceAt(body: string, mark: string, text: string, random: Random): string {
  const places: number[] = []
  for (let at = body.indexOf(mark); at !== -1; at = body.indexOf(mark, at + 1)) places.push(at)
  if (places.length === 0) return body
  const at = pickOf(random, places) + mark.length
  return body.slice(0, at) + text + body.slice(at)
}

const DOUBLES = [
  '"hostNetwork":false,"hostNetwork":true,',
  '"name":"x","name":"y",',
  '"spec":{"containers":[]},',
  '"volumes":[],',
  '"\\u0068ostPID":false,"hostPID":true,',
  '"a:b":1,"a:b":"\\":\\"",',
  '"__proto__":{"a":1},"__proto__":{"b":2},',
]
const STRANGE = [
  '"\\ud800"',
  '"\\udc00x"',
  '"\\u0000"',
  '"\\uFEFF"',
  '1e400',
  '-0',
  '12345678901234567890',
  '0.1e-9',
]

const makings: readonly Making[] = [
  (review) => encode(review),
  (review, random) => encode(mutated(review, random)),
  (review, random) => encode(mutated(review, random)),
  // The pod only: the review stays one.
  (review, random) => {
    const { request, ...rest } = review as { request: Json }
    return encode({ ...rest, request: { ...request, object: mutated(request['object'], random) } })
  },
  (review, random) =>
    Buffer.from(spliceAt(JSON.stringify(review), '{', pickOf(random, DOUBLES), random)),
  (review, random) => {
    const member = `"unknown":${pickOf(random, STRANGE)},`
    return Buffer.from(spliceAt(JSON.stringify(review), '{', member, random))
  },
  // Bytes: one changed, a slice taken out, doubled, or cut off.
  (review, random) => {
    const body = encode(review)
    body[Math.floor(random() * body.length)] = Math.floor(random() * 256)
    return body
  },
  (review, random) => {
    const body = encode(review)
    const [start, end] = [random(), random()]
      .map((it) => Math.floor(it * body.length))
      .sort((a, b) => a - b)
    const slice = body.subarray(start, end)
    const parts = pickOf(random, [
      [body.subarray(0, start), body.subarray(end)],
      [body.subarray(0, end), slice, body.subarray(end)],
      [body.subarray(0, end)],
      [body, slice],
    ])
    return Buffer.concat(parts)
  },
  // Invalid UTF-8, overlong forms, a byte order mark.
  (review, random) => {
    const body = encode(review)
    const at = body.indexOf('"name":"') + 8
    const bytes = pickOf(random, [
      [0xff],
      [0xc0, 0xaf],
      [0xed, 0xa0, 0x80],
      [0xf4, 0x90, 0x80, 0x80],
    ])
    return Buffer.concat([body.subarray(0, at), Buffer.from(bytes), body.subarray(at)])
  },
  (review) => Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), encode(review)]),
  // Depth.
  (review, random) => {
    const levels = pickOf(random, [50, 120, 5_000, 200_000])
    const [open, close] = pickOf(random, [
      ['[', ']'],
      ['{"a":', '}'],
    ] as const)
    const deep = `"deep":${open.repeat(levels)}1${close.repeat(levels)},`
    return Buffer.from(spliceAt(JSON.stringify(review), '{', deep, random))
  },
]

/** Large ones are rare: they take their time. */
const largeMakings: readonly Making[] = [
  (review, random) => {
    const letter = pickOf(random, ['x', '"', '\\', ':', '\u00e9', '\ud83d\ude00'])
    const text = JSON.stringify(letter.repeat((1 + random()) * 1.2 * MIB))
    const member = `${pickOf(random, ['"name"', '"image"', '"unknown"', text])}:${text},`
    return Buffer.from(spliceAt(JSON.stringify(review), '{', member, random))
  },
  (review, random) => {
    const count = 20_000
    const list = JSON.stringify(
      Array.from({ length: count }, () => pickOf(random, [{}, null, 1, ['x']])),
    )
    const member = `"${pickOf(random, ['volumes', 'containers', 'env', 'sources', 'x'])}":${list},`
    return Buffer.from(spliceAt(JSON.stringify(review), '{', member, random))
  },
  (review, random) => {
    const object = (review as { request: { object: Json } }).request.object
    const containers = Array.from({ length: pickOf(random, [500, 3_000]) }, (_, index) => ({
      name: `c${index}`,
      image: 'x'.repeat(200),
      env: [{ name: 'KUBECONFIG', value: 'x' }],
    }))
    return encode(reviewOf({ ...object, spec: { ...(object['spec'] as Json), containers } }))
  },
  (review) => Buffer.concat([encode(review), Buffer.alloc(8 * MIB, 0x20)]),
]
/** How many of a hundred bodies are large. */
const LARGE_PERCENT = 1

describe('the webhook under fuzzed reviews', function () {
  this.timeout((SECONDS + 60) * 1000)
  const certificates = makeCertificates({ hosts: ['localhost'] })
  const settings: InjectionSettings = {
    ...SETTINGS,
    brokerCaPem: loadCaCertificates(certificates.ca),
  }
  let folder: string
  let child: ChildProcess
  let ended: Promise<unknown>
  let port: number
  let agent: Agent
  const noise: string[] = []

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'fuzz-'))
    const file = (name: string): string => join(folder, name)
    await writeFile(file('tls.crt'), certificates.cert)
    await writeFile(file('tls.key'), certificates.key, { mode: 0o600 })
    await writeFile(file('ca.crt'), certificates.ca)
    const { image, brokerUrl, cluster, mode } = settings
    const config = {
      listen: { host: '127.0.0.1', port: 0 },
      tls: { certFile: file('tls.crt'), keyFile: file('tls.key') },
      sidecar: { image, mode, brokerUrl, cluster, brokerCaFile: file('ca.crt') },
      tokens: {
        apiAudiences: settings.apiAudiences,
        allowedAudiences: settings.allowedAudiences,
      },
      events: { enabled: false },
    }
    await writeFile(file('config.yaml'), JSON.stringify(config))
    const flags = [`--max-old-space-size=${HEAP_MIB}`, MAIN, '--config', file('config.yaml')]
    child = spawn(process.execPath, flags, { stdio: ['ignore', 'pipe', 'pipe'], env: {} })
    ended = once(child, 'exit')
    child.stderr?.on('data', (chunk: Buffer) => noise.push(chunk.toString()))
    agent = new Agent({
      connect: { ca: certificates.ca },
      connections: CONNECTIONS,
      headersTimeout: MAX_WAIT_MS,
      bodyTimeout: MAX_WAIT_MS,
    })
    port = await portOf(child).catch((error: unknown) => {
      throw new Error(noise.join(''), { cause: error })
    })
  })

  after(async () => {
    await agent.close()
    child.kill('SIGTERM')
    await ended
    await rm(folder, { recursive: true, force: true })
  })

  function rssMib(): number {
    const status = readFileSync(`/proc/${child.pid ?? 0}/status`, 'utf8')
    return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) / 1024
  }

  async function post(path: string, body: Uint8Array): Promise<{ status: number; text: string }> {
    const answer = await request(`https://localhost:${port}${path}`, {
      dispatcher: agent,
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    })
    return { status: answer.statusCode, text: await answer.body.text() }
  }

  /** Reviews of pods as they come: hostile ones, odd ones, and such as were injected already. */
  function reviews(): readonly Json[] {
    const hostile = fc.sample(hostilePod, { seed: SEED, numRuns: 150 }).map(({ pod }) => pod)
    const odd = fc.sample(oddPod, { seed: SEED, numRuns: 100 })
    const injected = odd.map((pod) => inject(pod, settings).pod ?? {})
    return [...others(injected), ...ofPods([plainPod(), ...hostile, ...odd, ...injected])]
  }

  /** What the final state is asked about, beside new pods. */
  function others(injected: readonly Json[]): readonly Json[] {
    const updates = injected.slice(0, 40).map((pod, index) => {
      const object = mutated(pod, randomOf(SEED + index))
      const subResource = index % 2 === 0 ? 'ephemeralcontainers' : ''
      return reviewOf(object, { operation: 'UPDATE', oldObject: pod, subResource })
    })
    const of = (resource: string, operation: string, object: Json, more: Json = {}): Json =>
      reviewOf(object, { operation, resource: { group: '', version: 'v1', resource }, ...more })
    const labelled = { metadata: { labels: { 'nestgate.dev/inject': 'enabled' } } }
    const secret = { type: 'kubernetes.io/service-account-token', data: { a: 'eA==' } }
    return [
      ...updates,
      of('pods', 'CONNECT', { container: 'nestgate-sidecar' }, { subResource: 'exec' }),
      of('pods', 'CONNECT', { ports: [8001] }, { subResource: 'portforward' }),
      of('secrets', 'CREATE', secret),
      of('secrets', 'UPDATE', secret, { oldObject: secret }),
      of('namespaces', 'UPDATE', { metadata: {} }, { oldObject: labelled }),
    ]
  }

  function ofPods(pods: readonly Json[]): readonly Json[] {
    return pods
      .filter((pod) => JSON.stringify(pod).length < 50_000)
      .flatMap((pod) => {
        try {
          return [reviewOf(admit(pod, '1.33')), reviewOf(pod)]
        } catch (error) {
          if (error instanceof PluginRefusal) return []
          throw error
        }
      })
  }

  /** What is wrong with an answer, or undefined. */
  function faultOf(
    path: string,
    body: Uint8Array,
    answer: { status: number; text: string },
  ): string | undefined {
    const { status, text } = answer
    if (![200, 400, 413].includes(status)) return `status ${status}: ${text.slice(0, 200)}`
    const json = JSON.parse(text) as { kind: string; response?: Json }
    if (status !== 200)
      return json.kind === 'Status' && text.length <= MAX_PLAIN_ANSWER
        ? undefined
        : 'no Status, or a long one'
    const { response = {} } = json
    const read = readStrictJson(body)
    if ('problem' in read && /twice|UTF-8/.test(read.problem))
      return `${read.problem}, and was read`
    if (response['patch'] === undefined && text.length > MAX_PLAIN_ANSWER) return 'a long answer'
    const { request } = JSON.parse(
      Buffer.from(body)
        .toString()
        .replace(/^\uFEFF/, ''),
    ) as { request: Json }
    if (response['uid'] !== request['uid']) return 'another uid'
    if (path.startsWith('/validate') && request['operation'] !== 'CREATE') return undefined
    if (path.startsWith('/validate') && 'patch' in response) return 'a patch that should not be'
    if (response['allowed'] !== true || path === '/observe')
      return response['patch'] === undefined ? undefined : 'a patch that should not be'
    if ((request['resource'] as Json)['resource'] !== 'pods') return undefined
    // A node's own mirror pod is let through as it is.
    if (JSON.stringify(request['userInfo'] ?? {}).includes('system:nodes')) return undefined
    const operations = JSON.parse(
      Buffer.from((response['patch'] ?? 'W10=') as string, 'base64').toString(),
    ) as []
    const pod = applyStrictly(request['object'], operations)
    const ways = openWays(pod, settings)
    return ways.length === 0 ? undefined : `allowed with ${JSON.stringify(ways)}`
  }

  it(`answers all of them rightly (seed ${SEED})`, async () => {
    const pool = reviews()
    const statuses = new Map<number, number>()
    const until = performance.now() + SECONDS * 1000
    let index = 0
    let slowest = 0
    let most = 0
    async function work(): Promise<void> {
      while (performance.now() < until) {
        const seed = SEED + index
        index += 1
        const random = randomOf(seed)
        const path = pickOf(random, PATHS)
        const review = pickOf(random, pool)
        const making = pickOf(random, random() * 100 < LARGE_PERCENT ? largeMakings : makings)
        const body = making(review, random)
        const start = performance.now()
        const answer = await post(path, body)
        slowest = Math.max(slowest, performance.now() - start)
        statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
        const fault = faultOf(path, body, answer)
        if (fault === undefined) continue
        const file = join(tmpdir(), `nestgate-fuzz-${seed}.json`)
        await writeFile(file, body)
        expect.fail(`${path}: ${fault}; the body is in ${file}`)
      }
    }
    const watch = setInterval(() => (most = Math.max(most, rssMib())), 200)
    try {
      await Promise.all(Array.from({ length: CONNECTIONS }, work))
    } finally {
      clearInterval(watch)
    }
    if (process.env['NESTGATE_FUZZ_S'] !== undefined)
      console.log({
        reviews: index,
        statuses,
        slowest: Math.round(slowest),
        mostMib: Math.round(most),
      })
    // Both sides were seen: it reads most of them, and refuses what is no review.
    expect(statuses.get(200)).to.be.greaterThan(20)
    expect(statuses.get(400)).to.be.greaterThan(20)
    expect(most).to.be.lessThan(MAX_RSS_MIB)
    expect(child.exitCode).to.equal(null)
    expect(noise.join('')).to.equal('')
    const good = await post('/mutate', encode(reviewOf(plainPod())))
    expect(good.status).to.equal(200)
    expect(good.text).to.include('"patchType":"JSONPatch"')
  })
})

/** The port that a webhook says it listens on. Its log is read to the end, so that it never waits. */
async function portOf(child: ChildProcess): Promise<number> {
  if (child.stdout === null) throw new Error('no output')
  const lines = createInterface({ input: child.stdout })
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => {
      reject(new Error(`the webhook ended with ${code ?? 'a signal'}`))
    })
    lines.on('line', (line) => {
      const { port } = JSON.parse(line) as { port?: number }
      if (port !== undefined) resolve(port)
    })
  })
}
