/**
 * The gateway over real sockets: a broker's listener in front, an upstream as witness behind, a real store between.
 * What matters is what the upstream saw, when it saw it, and what the ledger holds.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { connect } from 'node:tls'
import type { TLSSocket } from 'node:tls'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import type { Approvals } from '../../broker/approvals/approvals.ts'
import { MAX_OPEN_PER_REQUESTER } from '../../broker/gateway/running.ts'
import type { Running } from '../../broker/gateway/running.ts'
import type { Registration } from '../../broker/identity/registrations.ts'
import type { Store } from '../../broker/store/store.ts'
import type { AgentTag } from '../../shared/agent-tag.ts'
import type { AuditEvent } from '../../shared/wire.ts'
import { makeCertificates } from '../support/certificates.ts'
import type { Certificates } from '../support/certificates.ts'
import { startKubelet } from '../support/fake-kubelet.ts'
import { CHANNEL, openChannels } from '../support/remote-clients.ts'
import { startGateway } from '../support/running-gateway.ts'
import type { Gate, RunningGateway } from '../support/running-gateway.ts'
import { makeSidecarKey, TAG } from '../support/sidecar-keys.ts'
import type { SidecarKey } from '../support/sidecar-keys.ts'
import { podWith, startUpstream } from '../support/upstream.ts'
import type { Seen, Upstream } from '../support/upstream.ts'

const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: read, match: {verbs: [get, list, watch], resources: [pods, pods/log, configmaps]}, effect: allow}
- {id: write, match: {verbs: [create, update], resources: [configmaps]}, effect: allow}
- {id: exec, match: {verbs: [connect], resources: [pods/exec]}, effect: allow}
- {id: delete, match: {verbs: [delete, patch], resources: [pods]}, effect: hold, reason: somebody looks}
- {id: attach, match: {verbs: [connect], resources: [pods/attach]}, effect: hold}
- {id: by-agent, match: {verbs: [get], resources: [services], agents: [deployer]}, effect: allow}
- {id: by-ancestor, match: {verbs: [get], resources: [events], ancestors: [orchestrator]}, effect: allow}
- {id: secrets, match: {verbs: ["*"], resources: [secrets]}, effect: deny}
`
const REGISTRATIONS: readonly Registration[] = [
  { name: 'orchestrator', match: { containers: ['planner'], executables: ['/usr/bin/node'] } },
  { name: 'deployer', match: { executables: ['/opt/deploy'], uids: [1000] } },
]
const N = '/api/v1/namespaces/agents'

const PLANNER = 'c'.repeat(64)

const asObject = (text: string): Record<string, unknown> =>
  JSON.parse(text) as Record<string, unknown>

interface Reply {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

describe('the gateway', () => {
  let upstream: Upstream
  let certificates: Certificates
  let store: Store
  let gate: Gate
  let approvals: Approvals
  let running: Running
  let server: RunningGateway
  let key: SidecarKey
  let token: string
  let client: Agent

  before(async () => {
    certificates = makeCertificates({ hosts: ['127.0.0.1'] })
    upstream = await startUpstream()
    token = await upstream.token()
    key = await makeSidecarKey()
    client = new Agent({ connect: { ca: certificates.ca }, pipelining: 1 })
  })

  after(async () => {
    await client.destroy()
    await upstream.close()
  })

  beforeEach(async () => {
    upstream.seen.length = 0
    upstream.podFetches = 0
    upstream.pod = podWith([{ name: 'planner', id: PLANNER }])
    upstream.onRequest = (_request, response) =>
      response.writeHead(200, { 'content-type': 'application/json' }).end('{"kind":"Pod"}')
    const started = { upstream, certificates, key, token, policy: POLICY }
    server = await startGateway({ ...started, registrations: REGISTRATIONS })
    ;({ store, approvals, running, gate } = server)
  })

  afterEach(async () => {
    await server.close()
  })

  async function headersFor(
    more: Record<string, string> = {},
    tag: AgentTag = TAG,
  ): Promise<Record<string, string>> {
    return {
      authorization: `Bearer ${token}`,
      'nestgate-agent': await key.tag(tag),
      'nestgate-hold': 'wait',
      ...more,
    }
  }

  async function call(
    method: string,
    path: string,
    more: Record<string, string> = {},
    body?: string,
    tag?: AgentTag,
  ): Promise<Reply> {
    const answer = await request(`https://127.0.0.1:${server.port}/clusters/test${path}`, {
      method: method as 'GET',
      dispatcher: client,
      headers: await headersFor(more, tag),
      ...(body === undefined ? {} : { body }),
    })
    return { status: answer.statusCode, headers: answer.headers, text: await answer.body.text() }
  }

  /** Sends bytes as they are, without a client that would tidy them. */
  async function raw(
    lines: readonly string[],
  ): Promise<{ socket: TLSSocket; text: () => string; ended: Promise<void> }> {
    const socket = connect({ port: server.port, host: '127.0.0.1', ca: certificates.ca })
    let text = ''
    socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
    const ended = new Promise<void>((resolve) => socket.once('close', resolve))
    socket.on('error', () => undefined)
    await new Promise((resolve) => socket.once('secureConnect', resolve))
    socket.write(`${lines.join('\r\n')}\r\n\r\n`)
    return { socket, text: () => text, ended }
  }

  async function rawLines(start: string, more: readonly string[] = []): Promise<readonly string[]> {
    const headers = await headersFor()
    return [
      start,
      'Host: broker',
      ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
      ...more,
    ]
  }

  const entries = async (kind?: string): Promise<readonly AuditEvent[]> =>
    (await store.events(kind === undefined ? {} : { kind }, 100)).toReversed()

  async function untilOutcome(count = 1): Promise<readonly AuditEvent[]> {
    for (let i = 0; i < 100; i += 1) {
      const found = await entries('outcome')
      if (found.length >= count) return found
      await sleep(20)
    }
    throw new Error('no outcome')
  }

  /** What reached the upstream, apart from what the broker looked at for a reviewer. */
  const effects = (): readonly Seen[] =>
    upstream.seen.filter(
      ({ method, headers, url }) =>
        method !== 'GET' || 'upgrade' in headers || url.includes('watch'),
    )

  describe('naming', () => {
    const python = TAG.verified!
    const node = { pid: 7, startTicks: '5', exe: '/usr/bin/node', containerId: PLANNER }
    const tagged = (change: object): AgentTag => ({ ...TAG, verified: { ...python, ...change } })
    const pause = { pid: 1, startTicks: '1', exe: '/pause', containerId: 'f'.repeat(64) }

    it('writes the name of the process, those above it, and its container', async () => {
      const tag = tagged({ ancestors: [{ ...node, exe: '/bin/sh' }, node, pause] })
      const { status } = await call('GET', `${N}/pods/p`, {}, undefined, tag)
      const [intent] = await entries('intent')
      expect(status).to.equal(200)
      expect(intent?.entry).to.deep.include({
        agent: 'unregistered/planner/python3.11',
        chain: ['unregistered/planner/sh', 'orchestrator', 'unregistered/fffffffffffff/pause'],
        container: {
          name: 'planner',
          image: `registry.example/agents/tools@sha256:${'5'.repeat(64)}`,
        },
      })
      const found = await store.events({ ancestor: 'orchestrator' }, 10)
      expect(found.map(({ seq }) => seq)).to.deep.equal([intent?.seq])
      expect(await store.events({ ancestor: 'unregistered/planner/python3.11' }, 10)).to.eql([])
      expect(await store.events({ agent: 'orchestrator' }, 10)).to.deep.equal([])
    })

    it('lets policy ask for the process and for any link above it', async () => {
      const spawned = tagged({ ancestors: [{ ...node, exe: '/bin/sh' }, node] })
      const rows: readonly (readonly [string, AgentTag, number])[] = [
        ['events', spawned, 200],
        ['events', tagged({ ancestors: [{ ...node, exe: '/bin/sh' }] }), 403],
        ['events', tagged({ exe: '/usr/bin/node', ancestors: [] }), 403],
        ['services', tagged({ exe: '/opt/deploy' }), 200],
        ['services', tagged({ exe: '/opt/deploy', uid: 0 }), 403],
        ['services', tagged({ ancestors: [{ ...node, exe: '/opt/deploy' }] }), 403],
      ]
      for (const [index, [resource, tag, expected]] of rows.entries()) {
        const { status } = await call('GET', `${N}/${resource}/x`, {}, undefined, tag)
        expect(status, `row ${index}`).to.equal(expected)
      }
    })

    it('believes nothing that the process says of itself', async () => {
      const declared = { command: '/opt/deploy', agentName: 'deployer' }
      const forged = { ...TAG, declared }
      const more = { 'user-agent': 'deployer', 'x-agent-name': 'deployer' }
      expect((await call('GET', `${N}/services/x`, more, undefined, forged)).status).to.equal(403)
      const [intent] = await entries('intent')
      expect(intent?.entry['agent']).to.equal('unregistered/planner/python3.11')
    })

    it('writes down the trace that a client declares, where it is one', async () => {
      const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
      for (const value of [traceparent, 'Bearer abc', `${traceparent}-x`])
        await call('GET', `${N}/pods/p`, { traceparent: value })
      const traces = (await entries('intent')).map(
        ({ entry }) => (entry['request'] as { traceparent?: string }).traceparent,
      )
      expect(traces.filter((trace) => trace !== undefined)).to.deep.equal([traceparent])
      expect(traces).to.have.length(3)
    })

    it('does not name a container that is not of that pod, nor any once another pod has its name', async () => {
      const own = tagged({ exe: '/usr/bin/node', containerId: 'd'.repeat(64), ancestors: [] })
      upstream.pod = podWith([{ name: 'planner', id: PLANNER }], 'uid-2')
      await call('GET', `${N}/pods/p`, {}, undefined, tagged({ exe: '/usr/bin/node' }))
      await call('GET', `${N}/pods/p`, {}, undefined, own)
      const named = (await entries('intent')).map(({ entry }) => [
        entry['agent'],
        entry['container'],
      ])
      expect(named).to.deep.equal([
        ['unregistered/ccccccccccccc/node', undefined],
        ['unregistered/ddddddddddddd/node', undefined],
      ])
    })

    it('asks for a pod once, and goes on where the API server does not say', async () => {
      // the check of the token has asked too
      upstream.podFetches = 0
      for (let i = 0; i < 5; i += 1) await call('GET', `${N}/pods/p`)
      expect(upstream.podFetches).to.equal(1)
      expect((await entries('intent')).length).to.equal(5)
    })

    it('waits for a container that its kubelet has not reported yet, if a name hangs on it', async () => {
      upstream.pod = podWith([])
      const tag = tagged({ exe: '/usr/bin/node', ancestors: [] })
      setTimeout(() => {
        upstream.pod = podWith([{ name: 'planner', id: PLANNER }])
      }, 300)
      await call('GET', `${N}/pods/p`, {}, undefined, tag)
      const [intent] = await entries('intent')
      expect(intent?.entry['agent']).to.equal('orchestrator')
    })
  })

  describe('forwarding', () => {
    it('acts as the pod’s service account, with the broker’s own credential and the request id', async () => {
      const { status, headers, text } = await call('GET', `${N}/pods/p?x=1`)
      expect([status, text]).to.deep.equal([200, '{"kind":"Pod"}'])
      const [seen] = upstream.seen
      expect(seen).to.include({ method: 'GET', url: `${N}/pods/p?x=1` })
      expect(seen?.headers).to.include({
        authorization: 'Bearer the-brokers-own-token',
        'impersonate-user': 'system:serviceaccount:agents:worker',
        'impersonate-extra-nestgate.dev%2frequest-id': headers['nestgate-request-id'],
        'audit-id': headers['nestgate-request-id'],
      })
    })

    for (const [what, body, bound] of [
      ['is in the body', { metadata: { name: 'one' } }, 'one'],
      [
        'the API server makes, as admission is asked about it',
        { metadata: { generateName: 'some-' } },
        'some-*',
      ],
      ['is in a body that is not read', undefined, '*'],
    ] as const)
      it(`binds a creation whose name ${what}`, async () => {
        const headers =
          body === undefined ? { 'content-type': 'application/vnd.kubernetes.protobuf' } : {}
        await call(
          'POST',
          `${N}/configmaps`,
          headers,
          body === undefined ? 'k8s\0' : JSON.stringify(body),
        )
        const { headers: sent } = upstream.seen.at(-1) ?? { headers: {} }
        expect(sent).to.include({
          'impersonate-extra-nestgate.dev%2fbind': `CREATE /configmaps/ agents/${bound}`,
        })
      })

    it('passes on nothing by which a client claims to be somebody', async () => {
      const forged = {
        'Impersonate-User': 'admin',
        'impersonate-group': 'system:masters',
        'Impersonate-Uid': '0',
        Impersonate_User: 'admin',
        'X-Remote-User': 'admin',
        'x-forwarded-for': '1.2.3.4',
        'audit-id': 'mine',
        cookie: 'a=b',
        connection:
          'keep-alive, Impersonate-User, Impersonate-Extra-Nestgate.dev%2frequest-id, audit-id',
      }
      const lines = await rawLines(
        `GET /clusters/test${N}/pods HTTP/1.1`,
        Object.entries(forged).map(([name, value]) => `${name}: ${value}`),
      )
      const { socket, text } = await raw(lines)
      await untilOutcome()
      socket.destroy()
      expect(text()).to.match(/^HTTP\/1\.1 200/)
      const names = (upstream.seen[0]?.rawHeaders ?? [])
        .filter((_value, index) => index % 2 === 0)
        .map((name) => name.toLowerCase())
      expect(
        names
          .filter(
            (name) =>
              name.startsWith('impersonate') ||
              name.startsWith('x-') ||
              name === 'audit-id' ||
              name === 'cookie',
          )
          .toSorted(),
      ).to.deep.equal([
        'audit-id',
        'impersonate-extra-nestgate.dev%2fprocess',
        'impersonate-extra-nestgate.dev%2frequest-id',
        'impersonate-user',
      ])
      expect(upstream.seen[0]?.headers['impersonate-user']).to.equal(
        'system:serviceaccount:agents:worker',
      )
    })

    it('writes who, which process, what, and why, then the outcome', async () => {
      const { headers } = await call('GET', `${N}/pods/p`)
      await untilOutcome()
      const [intent, outcome] = (await entries()).map(({ entry }) => entry)
      expect(intent).to.deep.include({
        kind: 'intent',
        requestId: headers['nestgate-request-id'],
        cluster: 'test',
        tag: TAG,
      })
      expect(intent?.['subject']).to.deep.equal({
        type: 'serviceAccount',
        name: 'system:serviceaccount:agents:worker',
        namespace: 'agents',
        podName: 'pod-1',
        podUid: 'uid-1',
      })
      expect(intent?.['request']).to.include({
        verb: 'get',
        resource: 'pods',
        name: 'p',
        namespace: 'agents',
        method: 'GET',
      })
      expect(intent?.['decision']).to.deep.include({ effect: 'allow', rules: ['read'] })
      expect(intent?.['credential']).to.deep.equal({
        mode: 'impersonation',
        user: 'system:serviceaccount:agents:worker',
      })
      expect(outcome).to.include({
        kind: 'outcome',
        requestId: headers['nestgate-request-id'],
        status: 200,
        bytesToClient: 14,
      })
      expect(JSON.stringify(await entries()))
        .not.to.contain(token)
        .and.not.to.contain('the-brokers-own-token')
    })

    it('streams: a watcher gets an event before the watch ends', async () => {
      let finish = (): void => undefined
      upstream.onRequest = (_request, response) => {
        response.writeHead(200, { 'content-type': 'application/json' })
        response.write('{"type":"ADDED"}\n')
        finish = () => response.end('{"type":"DELETED"}\n')
      }
      const answer = await request(
        `https://127.0.0.1:${server.port}/clusters/test${N}/pods?watch=1`,
        {
          dispatcher: client,
          headers: await headersFor(),
        },
      )
      const chunks: string[] = []
      for await (const chunk of answer.body) {
        chunks.push(String(chunk))
        finish()
      }
      expect(chunks.join('')).to.equal('{"type":"ADDED"}\n{"type":"DELETED"}\n')
      expect(chunks[0]).to.equal('{"type":"ADDED"}\n')
    })

    it('keeps back-pressure: a reader that stops does not make the broker swallow the answer', async () => {
      let written = 0
      upstream.onRequest = (_request, response) => {
        response.writeHead(200, { 'content-type': 'application/json' })
        const object = { kind: 'Pod', metadata: { name: 'p'.repeat(1024 * 1024) } }
        const chunk = `${JSON.stringify({ type: 'ADDED', object })}\n`
        const pump = (): void => {
          while (written < 256) {
            written += 1
            if (!response.write(chunk)) {
              response.once('drain', pump)
              return
            }
          }
          response.end()
        }
        pump()
      }
      const { socket } = await raw(await rawLines(`GET /clusters/test${N}/pods?watch=1 HTTP/1.1`))
      socket.pause()
      await sleep(500)
      expect(socket.destroyed).to.equal(false)
      socket.destroy()
      expect(written).to.be.within(1, 63)
      const [outcome] = await untilOutcome()
      expect(outcome?.entry).to.include({ reason: 'client_left', status: 200 })
    })

    it('ends the upstream request when the client leaves, and says so', async () => {
      let closed = false
      upstream.onRequest = (incoming, response) => {
        response.writeHead(200, { 'content-type': 'application/json' })
        response.write('{"type":"ADDED","object":{"kind":"Pod"}}\n')
        incoming.socket.once('close', () => (closed = true))
      }
      const { socket, text } = await raw(
        await rawLines(`GET /clusters/test${N}/pods?watch=1 HTTP/1.1`),
      )
      while (!text().includes('\r\n\r\n')) await sleep(10)
      socket.destroy()
      const [outcome] = await untilOutcome()
      expect(outcome?.entry).to.include({ reason: 'client_left', status: 200 })
      expect(closed).to.equal(true)
    })

    it('does not pass on redirects, and none of our own header names', async () => {
      upstream.onRequest = (_request, response) =>
        response.writeHead(302, { location: 'https://evil/' }).end()
      const redirected = await call('GET', `${N}/pods/p`)
      expect(redirected.status).to.equal(502)
      expect(redirected.headers).not.to.have.property('location')
      upstream.onRequest = (_request, response) =>
        response
          .writeHead(202, {
            'nestgate-held': 'fake',
            'nestgate-request-id': 'fake',
            location: 'https://evil/',
          })
          .end()
      const faked = await call('GET', `${N}/pods/p`)
      expect(faked.status).to.equal(202)
      expect(faked.headers).not.to.have.any.keys('nestgate-held', 'location')
      expect(faked.headers['nestgate-request-id']).to.match(/^[0-9a-f-]{36}$/)
    })

    it('answers 502 when the API server breaks off before it answers', async () => {
      upstream.onRequest = (incoming) => incoming.socket.destroy()
      const { status, text } = await call('GET', `${N}/pods/p`)
      expect([status, asObject(text)['kind']]).to.deep.equal([502, 'Status'])
      const [outcome] = await untilOutcome()
      expect(outcome?.entry).to.include({ reason: 'upstream_unavailable', status: 502 })
    })

    it('answers HEAD and 204 without a body', async () => {
      upstream.onRequest = (_request, response) => response.writeHead(204).end()
      expect(await call('GET', `${N}/pods/p`)).to.include({ status: 204, text: '' })
      upstream.onRequest = (_request, response) =>
        response.writeHead(200, { 'content-length': '5' }).end()
      expect(await call('HEAD', `${N}/pods/p`)).to.include({ status: 200, text: '' })
    })
  })

  describe('evidence', () => {
    it('is durable before a write reaches the API server', async () => {
      let release = (): void => undefined
      gate.hold = new Promise((resolve) => (release = resolve))
      const pending = call(
        'POST',
        `${N}/configmaps`,
        { 'content-type': 'application/json' },
        '{"a":1}',
      )
      await sleep(200)
      expect(upstream.seen).to.have.length(0)
      gate.hold = undefined
      release()
      expect((await pending).status).to.equal(200)
      expect(upstream.seen[0]?.body).to.equal('{"a":1}')
    })

    it('is durable before a reader gets the first byte, while the API server works already', async () => {
      let release = (): void => undefined
      gate.hold = new Promise((resolve) => (release = resolve))
      const { text, socket } = await raw(await rawLines(`GET /clusters/test${N}/pods/p HTTP/1.1`))
      await sleep(200)
      expect(upstream.seen).to.have.length(1)
      expect(text()).to.equal('')
      gate.hold = undefined
      release()
      while (!text().includes('{"kind":"Pod"}')) await sleep(10)
      socket.destroy()
    })

    it('is durable before anything but a GET goes to a watch path, which is a watch to Kubernetes by any method', async () => {
      gate.fail = true
      for (const method of ['POST', 'PUT', 'DELETE']) {
        expect(
          (await call(method, '/api/v1/watch/namespaces/agents/pods', {}, 'x')).status,
          method,
        ).to.equal(503)
      }
      expect(upstream.seen).to.have.length(0)
    })

    it('is written for what an ending broker cuts off', async () => {
      upstream.onUpgrade = (_request, socket) => {
        socket.write(
          'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n',
        )
      }
      const session = await raw(
        await rawLines(`POST /clusters/test${N}/pods/p/exec?stdout=true HTTP/1.1`, [
          'Connection: Upgrade',
          'Upgrade: SPDY/3.1',
          'X-Stream-Protocol-Version: v4.channel.k8s.io',
          'Content-Length: 0',
        ]),
      )
      while (!session.text().includes('\r\n\r\n')) await sleep(10)
      await running.close()
      expect((await entries('outcome')).map(({ entry }) => entry['status'])).to.deep.equal([101])
      await session.ended
    })

    it('is a condition: without it writes do not go out and reads are not answered', async () => {
      gate.fail = true
      const write = await call('POST', `${N}/configmaps`, {}, '{}')
      expect([write.status, upstream.seen.length]).to.deep.equal([503, 0])
      const read = await call('GET', `${N}/pods/p`)
      expect(read.status).to.equal(503)
      expect(read.text).to.contain('ledger_unavailable').and.not.to.contain('"Pod"')
      const denied = await call('GET', `${N}/secrets/s`)
      expect(denied.status).to.equal(503)
    })
  })

  describe('refusing', () => {
    it('says who refused, by which rule, and under which id; and forwards nothing', async () => {
      const { status, text, headers } = await call('GET', `${N}/secrets/s`)
      expect(status).to.equal(403)
      const body = asObject(text)
      expect(body).to.include({ kind: 'Status', reason: 'Forbidden', code: 403 })
      expect(body['message'])
        .to.contain('rule "secrets" denies get secrets s in agents')
        .and.to.contain(headers['nestgate-request-id'])
      expect(upstream.seen).to.have.length(0)
      const [intent, outcome] = (await entries()).map(({ entry }) => entry)
      expect(intent?.['decision']).to.deep.include({ effect: 'deny', reason: 'policy_denied' })
      expect(intent).not.to.have.property('credential')
      expect(outcome).to.include({ status: 403, reason: 'policy_denied' })
    })

    it('does not let one pod keep a cluster from the others', async () => {
      upstream.onRequest = (_request, response) => {
        response.writeHead(200, { 'content-type': 'application/json' })
        response.write('{"type":"ADDED","object":{"kind":"Pod"}}\n')
      }
      const lines = await rawLines(`GET /clusters/test${N}/pods?watch=1 HTTP/1.1`)
      const watches = await Promise.all(
        Array.from({ length: MAX_OPEN_PER_REQUESTER }, () => raw(lines)),
      )
      while (upstream.seen.length < MAX_OPEN_PER_REQUESTER) await sleep(10)
      const refused = await call('GET', `${N}/pods/p`)
      expect([refused.status, refused.headers['nestgate-refused']]).to.deep.equal([
        503,
        'broker_busy',
      ])
      for (const { socket } of watches) socket.destroy()
      await untilOutcome(100)
    })

    const PATHS = [
      '//api/v1/pods',
      `${N}/pods/p%2Fexec`,
      `${N}/pods/../secrets/s`,
      `${N}/pods/x/%2e%2e/secrets`,
      `${N}/pods;x`,
      `${N}/pods?a;b`,
    ]
    for (const path of PATHS) {
      it(`answers 400 to ${path} and records it`, async () => {
        const { text, socket } = await raw(await rawLines(`GET /clusters/test${path} HTTP/1.1`))
        while (!text().includes('path_ambiguous')) await sleep(10)
        socket.destroy()
        expect(text()).to.match(/^HTTP\/1\.1 400/)
        expect(upstream.seen).to.have.length(0)
        expect((await entries('refusal'))[0]?.entry).to.include({
          reason: 'path_ambiguous',
          cluster: 'test',
        })
      })
    }

    it('does not serve methods that Kubernetes has no verb for', async () => {
      expect((await call('OPTIONS', `${N}/pods`)).status).to.equal(405)
    })

    it('does not take bodies over 3 MiB, announced or not', async () => {
      const big = 'x'.repeat(3 * 1024 * 1024 + 1)
      expect((await call('POST', `${N}/configmaps`, {}, big)).status).to.equal(413)
      const { text, socket } = await raw(
        await rawLines(`POST /clusters/test${N}/configmaps HTTP/1.1`, [
          'Transfer-Encoding: chunked',
        ]),
      )
      socket.write(`${big.length.toString(16)}\r\n${big}\r\n0\r\n\r\n`)
      while (!text().includes('body_too_large')) await sleep(10)
      socket.destroy()
      expect(upstream.seen).to.have.length(0)
    })

    it('does not serve unknown clusters, strangers, or processes that are not exclusive', async () => {
      const unknown = await request(`https://127.0.0.1:${server.port}/clusters/other/api`, {
        dispatcher: client,
        headers: await headersFor(),
      })
      expect([unknown.statusCode, await unknown.body.text()]).to.satisfy(
        ([status, text]: [number, string]) => status === 404 && text.includes('cluster_unknown'),
      )
      expect((await call('GET', '/version', { authorization: 'Bearer x' })).status).to.equal(401)
      const shared = await call('GET', '/version', {}, undefined, {
        ...TAG,
        verdict: 'shared',
        reason: 'two processes',
      })
      expect([shared.status, shared.text]).to.satisfy(
        ([status, text]: [number, string]) => status === 403 && text.includes('caller_shared'),
      )
      const nobody = await call('GET', '/version', {}, undefined, {
        verdict: 'unidentified',
        reason: 'nobody holds the socket',
      })
      expect([nobody.status, nobody.text]).to.satisfy(
        ([status, text]: [number, string]) =>
          status === 403 && text.includes('caller_unidentified'),
      )
      expect(upstream.seen).to.have.length(0)
    })
  })

  describe('holding', () => {
    const DELETE = `${N}/pods/p`

    async function held(): Promise<string> {
      const answer = await call('DELETE', DELETE, { 'content-type': 'application/json' }, '{"x":1}')
      expect(answer.status).to.equal(202)
      expect(effects()).to.have.length(0)
      const id = String(answer.headers['nestgate-held'])
      expect(JSON.parse(answer.text)).to.include({ id, state: 'PENDING' })
      return id
    }

    const again = (
      id: string,
      body = '{"x":1}',
      tag: AgentTag = TAG,
      path = DELETE,
    ): Promise<Reply> =>
      call(
        'DELETE',
        path,
        { 'content-type': 'application/json', 'nestgate-request': id },
        body,
        tag,
      )

    it('lets exactly the approved request through, once', async () => {
      const id = await held()
      expect((await again(id)).status, 'before approval').to.equal(403)
      await approvals.decide({ id, reviewer: 'alice', approve: true, reason: 'fine' })
      const passed = await again(id)
      expect([passed.status, passed.headers['nestgate-request-id']]).to.deep.equal([200, id])
      expect(effects()).to.have.length(1)
      expect(effects()[0]?.headers['audit-id']).to.equal(id)
      const outcomes = (await untilOutcome(2)).map(({ entry }) => entry)
      expect(outcomes.at(-1)).to.include({ requestId: id, status: 200 })
      const intent = (await entries('intent'))
        .map(({ entry }) => entry)
        .findLast((entry) => entry['requestId'] === id)
      expect(intent?.['approval']).to.deep.equal({
        id,
        reviewer: 'alice',
        approvers: ['alice'],
        reason: 'fine',
      })
      expect((await again(id)).text).to.contain('approval_spent')
      expect(effects()).to.have.length(1)
      expect(await store.approval(id)).to.include({ state: 'SUCCEEDED' })
    })

    const OTHERS: readonly (readonly [string, (id: string) => Promise<Reply>])[] = [
      ['another body', (id) => again(id, '{"x":2}')],
      ['another path', (id) => again(id, '{"x":1}', TAG, `${N}/pods/q`)],
      ['another query', (id) => again(id, '{"x":1}', TAG, `${DELETE}?gracePeriodSeconds=0`)],
      ['another process', (id) => again(id, '{"x":1}', { ...TAG, instanceId: 'instance-2' })],
      [
        'another program',
        (id) => again(id, '{"x":1}', { ...TAG, verified: { ...TAG.verified!, exe: '/bin/sh' } }),
      ],
      ['a process that nobody named', (id) => again(id, '{"x":1}', { verdict: 'unidentified' })],
    ]
    for (const [what, attempt] of OTHERS) {
      it(`does not let ${what} use an approval`, async () => {
        const id = await held()
        await approvals.decide({ id, reviewer: 'alice', approve: true, reason: 'fine' })
        expect((await attempt(id)).status).to.equal(403)
        expect(effects()).to.have.length(0)
        expect((await again(id)).status).to.equal(200)
      })
    }

    it('sends away a caller that cannot wait, and lets it come back', async () => {
      const away = (): Promise<Reply> =>
        call('DELETE', DELETE, { 'nestgate-hold': 'return' }, '{"x":1}', {
          ...TAG,
          instanceId: `run-${Math.random()}`,
        })
      const answer = await away()
      expect(answer.status).to.equal(403)
      expect(answer.text).to.contain('approval_pending')
      expect(answer.headers['retry-after']).to.match(/^\d+$/)
      const [ticket] = await approvals.list({ states: ['PENDING'] }, 10)
      expect((await away()).text, 'the same ticket').to.contain(ticket?.id)
      await approvals.decide({ id: ticket!.id, reviewer: 'alice', approve: true, reason: 'fine' })
      const passed = await away()
      expect([passed.status, passed.headers['nestgate-request-id']]).to.deep.equal([
        200,
        ticket?.id,
      ])
      expect(passed.headers.warning).to.contain('approved by alice')
      expect((await away()).text, 'a new one')
        .to.contain('approval_pending')
        .and.not.to.contain(ticket?.id)
      expect(effects()).to.have.length(1)
    })

    it('calls an approved write unknown when it was sent and no answer came, and never sends it again', async () => {
      const id = await held()
      await approvals.decide({ id, reviewer: 'alice', approve: true, reason: 'fine' })
      upstream.onRequest = (incoming, response) => {
        if (incoming.method === 'DELETE') incoming.socket.destroy()
        else response.writeHead(200, { 'content-type': 'application/json' }).end('{"kind":"Pod"}')
      }
      expect((await again(id)).status).to.equal(502)
      await untilOutcome()
      while ((await store.approval(id))?.state === 'EXECUTING') await sleep(10)
      expect(await store.approval(id)).to.include({ state: 'UNKNOWN' })
      expect((await again(id)).text).to.contain('approval_spent')
      expect(effects()).to.have.length(1)
    })

    it('refuses after a denial', async () => {
      const id = await held()
      await approvals.decide({ id, reviewer: 'alice', approve: false, reason: 'keep it' })
      expect((await again(id)).text).to.contain('approval_denied')
      expect(effects()).to.have.length(0)
    })
  })

  describe('upgrades', () => {
    const LAST_BYTES = 2_000_000
    const UPGRADE = [
      'Connection: Upgrade',
      'Upgrade: SPDY/3.1',
      'X-Stream-Protocol-Version: v4.channel.k8s.io',
      'Content-Length: 0',
    ]

    it('join client and API server after the 101, both ways, and count', async () => {
      const kubelet = startKubelet(upstream)
      kubelet.programs.set('talk', async (io) => {
        io.onStdin((bytes) => void io.stdout(`echo ${bytes.toString()}`))
        await io.stdinEnd
        await io.stdout(`${'x'.repeat(LAST_BYTES)}bye`)
        return 0
      })
      const channels = await openChannels(
        {
          ...{ port: server.port, ca: certificates.ca },
          path: `/clusters/test${N}/pods/p/exec`,
          query: 'command=talk&stdin=true&stdout=true',
          headers: await headersFor(),
        },
        'v5.channel.k8s.io',
      )
      await channels.send(CHANNEL.stdin, 'hello')
      while (!channels.bytes(CHANNEL.stdout).includes('echo hello')) await sleep(10)
      await channels.closeChannel(CHANNEL.stdin)
      await channels.closed
      expect(channels.bytes(CHANNEL.stdout).subarray(-4).toString()).to.equal('xbye')
      expect(channels.status).to.include({ status: 'Success' })
      expect(kubelet.last().headers).to.include({
        upgrade: 'SPDY/3.1',
        'impersonate-user': 'system:serviceaccount:agents:worker',
      })
      const [outcome] = await untilOutcome()
      expect(outcome?.entry).to.include({
        status: 101,
        bytesToServer: 5,
        bytesToClient: LAST_BYTES + 13,
      })
    })

    it('do not run for a client that has left already', async () => {
      let release = (): void => undefined
      gate.hold = new Promise((resolve) => (release = resolve))
      const { socket } = await raw(
        await rawLines(
          `POST /clusters/test${N}/pods/p/exec?command=rm&stdout=true HTTP/1.1`,
          UPGRADE,
        ),
      )
      await sleep(100)
      socket.destroy()
      await sleep(100)
      gate.hold = undefined
      release()
      const [outcome] = await untilOutcome()
      expect(outcome?.entry).to.include({ reason: 'client_left', status: 0 })
      expect(upstream.seen).to.have.length(0)
    })

    it('have no body, whose bytes would be part of the session', async () => {
      const { text, ended } = await raw(
        await rawLines(`POST /clusters/test${N}/pods/p/exec?stdout=true HTTP/1.1`, [
          'Connection: Upgrade',
          'Upgrade: SPDY/3.1',
          'Content-Length: 5',
        ]),
      )
      await ended
      expect(text())
        .to.match(/^HTTP\/1\.1 400 /)
        .and.to.contain('header_invalid')
      expect(upstream.seen).to.have.length(0)
    })

    it('get no header of ours from an API server', async () => {
      upstream.onUpgrade = (_request, socket) => {
        socket.end(
          'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nNestgate-Held: 1\r\nLocation: x\r\n\r\n',
        )
      }
      const { text, ended } = await raw(
        await rawLines(`POST /clusters/test${N}/pods/p/exec?stdout=true HTTP/1.1`, UPGRADE),
      )
      await ended
      expect(text())
        .to.match(/^HTTP\/1\.1 101 /)
        .and.not.to.match(/nestgate-held|location/i)
    })

    it('pass on an API server’s refusal as an ordinary answer and close', async () => {
      upstream.onUpgrade = (_request, socket) => {
        socket.end(
          'HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno',
        )
      }
      const { text, ended } = await raw(
        await rawLines(`POST /clusters/test${N}/pods/p/exec?stdout=true HTTP/1.1`, UPGRADE),
      )
      await ended
      expect(text())
        .to.match(/^HTTP\/1\.1 403 /)
        .and.to.match(/no$/)
    })

    it('leave no raw connection behind when the API server redirects', async () => {
      upstream.onUpgrade = (_request, socket) => {
        socket.end('HTTP/1.1 302 Found\r\nLocation: https://evil/\r\nContent-Length: 0\r\n\r\n')
      }
      const { text, ended } = await raw(
        await rawLines(`POST /clusters/test${N}/pods/p/exec?stdout=true HTTP/1.1`, UPGRADE),
      )
      await ended
      expect(text())
        .to.match(/^HTTP\/1\.1 502 /)
        .and.not.to.contain('evil')
    })

    it('are refused, held and recorded like any request', async () => {
      const denied = await raw(
        await rawLines(`POST /clusters/test${N}/pods/p/portforward HTTP/1.1`, [
          'Connection: Upgrade',
          'Upgrade: SPDY/3.1',
          'X-Stream-Protocol-Version: portforward.k8s.io',
        ]),
      )
      await denied.ended
      expect(denied.text())
        .to.match(/^HTTP\/1\.1 403 /)
        .and.to.contain('policy_no_match')
      const heldOne = await raw(
        await rawLines(`GET /clusters/test${N}/pods/p/attach?stdout=true HTTP/1.1`, [
          'Connection: Upgrade',
          'Upgrade: websocket',
          'Sec-WebSocket-Version: 13',
          'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
          'Sec-WebSocket-Protocol: v5.channel.k8s.io',
        ]),
      )
      await heldOne.ended
      expect(heldOne.text())
        .to.match(/^HTTP\/1\.1 202 /)
        .and.to.match(/nestgate-held: [0-9a-f-]{36}/i)
      expect(effects()).to.have.length(0)
    })

    it('that speak no protocol that is understood are refused before they are decided on', async () => {
      for (const lines of [
        ['Connection: Upgrade', 'Upgrade: SPDY/3.1'],
        ['Connection: Upgrade', 'Upgrade: SPDY/3.1', 'X-Stream-Protocol-Version: channel.k8s.io'],
      ]) {
        const refused = await raw(
          await rawLines(`POST /clusters/test${N}/pods/p/exec?stdout=true HTTP/1.1`, lines),
        )
        await refused.ended
        expect(refused.text())
          .to.match(/^HTTP\/1\.1 400 /)
          .and.to.contain('session_protocol_unsupported')
      }
      expect(upstream.seen).to.have.length(0)
    })

    it('are for sessions only, and for the two protocols that Kubernetes has', async () => {
      for (const [path, protocol] of [
        [`${N}/pods`, 'websocket'],
        [`${N}/pods/p/exec`, 'h2c'],
      ] as const) {
        const { text, ended } = await raw(
          await rawLines(`GET /clusters/test${path} HTTP/1.1`, [
            'Connection: Upgrade',
            `Upgrade: ${protocol}`,
          ]),
        )
        await ended
        expect(text())
          .to.match(/^HTTP\/1\.1 400 /)
          .and.to.contain('upgrade_unsupported')
      }
    })
  })
})
