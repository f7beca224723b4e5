/**
 * What we read out of a request against what kube-apiserver read: thousands of generated requests are sent to a real API
 * server, and our attributes are held against its audit records. The server is started and ended here; it needs the
 * cluster scripts and their binaries (scripts/cluster.ts). DIFFERENTIAL_SEED and DIFFERENTIAL_COUNT repeat or widen a run.
 */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openCluster, webhookCapable } from '../../scripts/cluster.ts'
import type { Cluster } from '../../scripts/cluster.ts'
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import { parseTarget } from '../../shared/kubernetes/path.ts'
import { readAttributes } from '../../shared/kubernetes/request-attributes.ts'
import { readRequestInfo } from '../../shared/kubernetes/request-info.ts'
import { isRefusal } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { Dice, generateRequest, selectorRequests } from './generator.ts'
import type { GeneratedRequest } from './generator.ts'
import { RawClient, serverOf } from './raw-client.ts'
import type { Answer } from './raw-client.ts'

/** Fewest requests that must have been compared. */
const LEAST_COMPARED = 2000
const COUNT = Number(process.env['DIFFERENTIAL_COUNT'] ?? '5000')
const SEED = Number(process.env['DIFFERENTIAL_SEED'] ?? Date.now() % 2 ** 32)
const CONNECTIONS = 8
/** What parsers read differently (research: gateways.md, 2b): only a request that has some of it may be refused for its path. */
const AMBIGUOUS =
  /\/\/|(?:\/|%2f)(?:\.|%2e){1,2}(?:[/?]|$)|%2f|%5c|%3b|%25|%00|%0a|%ff|%(?![0-9a-f]{2})|[\\;#|"<>^`{}[\]\u0080-\uffff]/i
/** Methods that the Kubernetes API has a verb for. */
const KNOWN_METHODS: ReadonlySet<string> = new Set([
  'GET',
  'HEAD',
  'POST',
  'PUT',
  'PATCH',
  'DELETE',
])
/** Ports away from a cluster that may run beside this one. */
const OWN_PORTS = { CLUSTER_PORT: '26443', CLUSTER_ETCD_PORT: '22379' }
/** How long the server's last records may take, in milliseconds. */
const RECORDS_LIMIT_MS = 20_000
/** Every stage: the first says what the request line is, the later ones add what the body names. */
const AUDIT_POLICY = {
  apiVersion: 'audit.k8s.io/v1',
  kind: 'Policy',
  rules: [{ level: 'Metadata' }],
}

interface AuditEvent {
  readonly auditID: string
  readonly stage: string
  readonly verb: string
  readonly requestURI: string
  readonly objectRef?: Readonly<Record<string, string>>
}

interface Sent {
  readonly id: string
  readonly request: GeneratedRequest
  readonly ours: RequestAttributes | Refusal
  readonly answer: Answer
}

/** What the audit record calls it, or what we would call it there. */
interface Reading {
  readonly verb: string
  readonly resource: string
  readonly subresource: string
  readonly namespace: string
  readonly name: string
  readonly apiGroup: string
  readonly apiVersion: string
}

function readOurs({ method, target: raw, contentType, body }: GeneratedRequest): Sent['ours'] {
  const target = parseTarget(raw)
  if (isRefusal(target)) return target
  const info = readRequestInfo(method, target)
  if (isRefusal(info)) return info
  return readAttributes({ method, target, info, contentType, body: Buffer.from(body) })
}

function ourReading({ info }: RequestAttributes): Reading {
  const { verb, resource, subresource, namespace, name, apiGroup, apiVersion } = info
  return { verb, resource, subresource, namespace, name, apiGroup, apiVersion }
}

function serverReading({ verb, objectRef = {} }: AuditEvent): Reading {
  const field = (key: string): string => objectRef[key] ?? ''
  return {
    verb,
    resource: field('resource'),
    subresource: field('subresource'),
    namespace: field('namespace'),
    name: field('name'),
    apiGroup: field('apiGroup'),
    apiVersion: field('apiVersion'),
  }
}

function onTheWire(request: GeneratedRequest, id: string): Buffer {
  const { method, target, contentType, body } = request
  const bytes = Buffer.from(body)
  const head = [
    `${method} ${target} HTTP/1.1`,
    'Host: kubernetes',
    `Audit-ID: ${id}`,
    ...(contentType === '' ? [] : [`Content-Type: ${contentType}`]),
    `Content-Length: ${bytes.length}`,
  ]
  return Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), bytes])
}

/** The request as the broker would forward it, where that differs from how it was sent. */
function canonical(request: GeneratedRequest): GeneratedRequest | undefined {
  const target = parseTarget(request.target)
  if (isRefusal(target)) return undefined
  const text = target.query === '' ? target.path : `${target.path}?${target.query}`
  return text === request.target ? undefined : { ...request, target: text }
}

async function sendAll(kubeconfig: string, requests: readonly GeneratedRequest[]): Promise<Sent[]> {
  const server = serverOf(kubeconfig)
  const queue = requests.entries()
  const sent: Sent[] = []
  const work = async (): Promise<void> => {
    const client = new RawClient(server)
    // the iterator is shared: each request is taken once
    for (const [index, request] of queue) {
      const id = `differential-${SEED}-${index}`
      const answer = await client.send(onTheWire(request, id), request.method)
      sent.push({ id, request, ours: readOurs(request), answer })
    }
    client.close()
  }
  await Promise.all(Array.from({ length: CONNECTIONS }, work))
  return sent
}

/** Audit records by id, once there is one for every answer that did not come from the HTTP server alone. */
async function readAudit(file: string, sent: readonly Sent[]): Promise<Map<string, AuditEvent[]>> {
  const until = Date.now() + RECORDS_LIMIT_MS
  for (;;) {
    const events = new Map<string, AuditEvent[]>()
    for (const line of readFileSync(file, 'utf8').split('\n')) {
      if (!line.includes(`"differential-${SEED}-`) || !line.endsWith('}')) continue
      const event = JSON.parse(line) as AuditEvent
      events.set(event.auditID, [...(events.get(event.auditID) ?? []), event])
    }
    const open = sent.filter(({ id, answer }) => {
      const stages = events.get(id)?.map(({ stage }) => stage) ?? []
      return stages.length > 0 && !answer.cut && !stages.includes('ResponseComplete')
    })
    if (open.length === 0 || Date.now() > until) return events
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
}

function tally(keys: readonly string[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {}
  for (const key of keys) counts[key] = (counts[key] ?? 0) + 1
  return counts
}

describe('request attributes against the audit log of a real API server', () => {
  let cluster: Cluster | undefined
  let work = ''
  let sent: readonly Sent[] = []
  let audit: ReadonlyMap<string, readonly AuditEvent[]> = new Map()

  before(async () => {
    if ((process.env['KUBECONFIG'] ?? '') !== '')
      throw new Error('unset KUBECONFIG: this test starts an API server of its own')
    console.log(`differential: DIFFERENTIAL_SEED=${SEED} DIFFERENTIAL_COUNT=${COUNT}`)
    work = mkdtempSync(join(tmpdir(), 'nestgate-differential-'))
    const policy = join(work, 'audit-policy.json')
    writeFileSync(policy, JSON.stringify(AUDIT_POLICY))
    const dir = join(work, 'cluster')
    const env = {
      ...(await webhookCapable()),
      ...OWN_PORTS,
      CLUSTER_APISERVER_FLAGS: `--audit-policy-file=${policy}`,
    }
    cluster = await openCluster({ node: false, dir, env })
    const dice = new Dice(SEED)
    const generated = Array.from({ length: COUNT }, () => generateRequest(dice))
    const requests = [...selectorRequests(), ...generated]
    const forwarded = requests.map(canonical).filter((request) => request !== undefined)
    sent = await sendAll(cluster.kubeconfig, [...requests, ...forwarded])
    audit = await readAudit(join(dir, 'logs', 'audit.jsonl'), sent)
  })

  after(async () => {
    await cluster?.stop()
    rmSync(work, { recursive: true, force: true })
  })

  /** Requests of which both we and the server made something. */
  function* compared(): Generator<{
    one: Sent
    ours: RequestAttributes
    events: readonly AuditEvent[]
  }> {
    for (const one of sent) {
      const events = audit.get(one.id)
      if (events !== undefined && !isRefusal(one.ours)) yield { one, ours: one.ours, events }
    }
  }

  it(`reads verb and object of at least ${LEAST_COMPARED} requests as the server does`, () => {
    const wrong: string[] = []
    const verbs: string[] = []
    for (const { one, ours, events } of compared()) {
      const first = events.find(({ stage }) => stage === 'RequestReceived')
      if (first === undefined) continue
      verbs.push(ours.info.isResourceRequest ? ours.info.verb : 'non-resource')
      const mine = ourReading(ours)
      const theirs = serverReading(first)
      const same =
        JSON.stringify(mine) === JSON.stringify(theirs) &&
        ours.info.isResourceRequest === (first.objectRef !== undefined)
      const { method, target } = one.request
      if (!same)
        wrong.push(`${method} ${target}: ${JSON.stringify(mine)}, server ${JSON.stringify(theirs)}`)
    }
    console.log(`differential: sent ${sent.length}, recorded ${audit.size}, compared`, verbs.length)
    console.log('differential: compared by verb', tally(verbs))
    console.log('differential: answers', tally(sent.map(({ answer }) => `${answer.status}`)))
    if (wrong.length > 0)
      throw new Error(`${wrong.length} read differently:\n${wrong.slice(0, 20).join('\n')}`)
    expect(verbs.length).to.be.at.least(LEAST_COMPARED)
  })

  it('finds the name of a created object where the server finds it', () => {
    let named = 0
    for (const { one, ours, events } of compared()) {
      const last = events.find(({ stage }) => stage === 'ResponseComplete')
      if (last === undefined || ours.info.verb !== 'create' || one.answer.status !== 201) continue
      const { name } = (JSON.parse(one.answer.body) as { metadata: { name: string } }).metadata
      const { generateName } = ours.parameters
      if (ours.objectName === '')
        expect(name.startsWith(generateName ?? '-'), `${name} of ${one.request.body}`).to.equal(
          true,
        )
      else expect(ours.objectName, one.request.body).to.equal(name)
      expect(ours.objectName, one.request.body).to.equal(last.objectRef?.['name'] ?? '')
      named += 1
    }
    console.log(`differential: created objects whose names were compared ${named}`)
    expect(named).to.be.above(0)
  })

  it('refuses what the server accepts only where parsers differ, or no verb is known', () => {
    const refused = sent.flatMap(({ id, ours, request }) =>
      isRefusal(ours) && audit.has(id) ? [{ ...ours, request }] : [],
    )
    const reasons = refused.map(({ refused: code, detail }) => `${code}: ${detail ?? ''}`)
    console.log('differential: refused by us, accepted by the server', tally(reasons))
    const unexplained = refused.filter(({ refused: code, request: { method, target } }) =>
      code === 'path_ambiguous'
        ? !AMBIGUOUS.test(target)
        : code !== 'method_unsupported' || KNOWN_METHODS.has(method),
    )
    expect(unexplained).to.deep.equal([])
  })

  it('accepts nothing that the server could not read', () => {
    const unread = sent.filter(
      ({ id, ours, answer }) => !isRefusal(ours) && !audit.has(id) && answer.status !== 0,
    )
    expect(
      unread.slice(0, 20).map(({ request, answer }) => ({ request, status: answer.status })),
    ).to.deep.equal([])
  })
})
