/**
 * The decision on the way of a request: effective actions, terms of approval, targets, break-glass, direct clients. Over
 * real sockets and a real store; what matters is what the upstream saw, and as whom.
 */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:tls'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import { MAX_WAITING_BODY_BYTES } from '../../broker/gateway/hold.ts'
import type { AgentTag } from '../../shared/agent-tag.ts'
import type { AuditEvent } from '../../shared/wire.ts'
import { makeCertificates } from '../support/certificates.ts'
import { startGateway } from '../support/running-gateway.ts'
import type { RunningGateway } from '../support/running-gateway.ts'
import { mintRunnerToken, startRunnerIssuer } from '../support/runner-issuer.ts'
import type { RunnerIssuer } from '../support/runner-issuer.ts'
import { makeSidecarKey, TAG } from '../support/sidecar-keys.ts'
import type { SidecarKey } from '../support/sidecar-keys.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Seen, Upstream } from '../support/upstream.ts'
import { rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: read, match: {verbs: [get, list, watch], resources: ['*']}, effect: allow}
- {id: maps, match: {verbs: [create, update, patch], resources: [configmaps]}, effect: allow}
- {id: evictions, match: {verbs: [create], resources: [pods/eviction]}, effect: allow}
- {id: deletes, match: {verbs: [delete], resources: [pods]}, effect: hold, reason: somebody looks}
- {id: attaching, match: {verbs: [connect], resources: [pods/attach]}, effect: hold}
- {id: logs, match: {verbs: [get], resources: [pods/log]}, effect: hold}
- {id: returns, match: {verbs: [delete], resources: [services]}, effect: hold, approval: {mode: return}}
- {id: hasty, match: {verbs: [delete], resources: [configmaps]}, effect: hold, approval: {hold: 1s}}
- {id: again, match: {verbs: [delete], resources: [events]}, effect: hold, approval: {reuse: 10m}}
- {id: glass, match: {verbs: [delete], resources: [deployments], apiGroups: [apps]}, effect: breakGlass}
- {id: shown, match: {actions: [unmask], resources: [services]}, effect: hold, mask: none, approval: {reuse: 10m}}
- {id: taped, match: {verbs: [connect], resources: [pods/exec]}, effect: allow, record: true}
- {id: labelled, match: {verbs: [create], resources: [pods], labels: {app: [web]}}, effect: allow}
- {id: granted, match: {verbs: [patch], resources: [services], subjects: ['ci:*']}, effect: allow, grant: {groups: [deployers]}}
- {id: no-node-exec, match: {actions: [node-exec]}, effect: deny}
- {id: proxied, match: {verbs: [connect], resources: [services/proxy]}, effect: hold, approval: {mode: return}}
- {id: nodes, match: {verbs: [connect], resources: [nodes/proxy]}, effect: allow}
- {id: no-exec-here, match: {verbs: [connect], resources: [pods/exec], namespaces: [kube-system]}, effect: deny}
`
const N = '/api/v1/namespaces/agents'

interface Reply {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

describe('the decision on the way of a request', () => {
  const certificates = makeCertificates({ hosts: ['127.0.0.1'] })
  let upstream: Upstream
  let issuer: RunnerIssuer & { close(): Promise<void> }
  let server: RunningGateway
  let key: SidecarKey
  let token: string
  let client: Agent
  /** What the object that is asked for looks like. */
  let object: object

  before(async () => {
    upstream = await startUpstream()
    issuer = await startRunnerIssuer({ host: '127.0.0.1', ...certificates })
    token = await upstream.token()
    key = await makeSidecarKey()
    client = new Agent({ connect: { ca: certificates.ca }, pipelining: 1 })
    writeFileSync(caFile, certificates.ca)
  })

  after(async () => {
    await client.destroy()
    await upstream.close()
    await issuer.close()
    rmSync(caFile)
  })

  const caFile = join(tmpdir(), `nestgate-ci-ca-${process.pid}.pem`)

  beforeEach(async () => {
    upstream.seen.length = 0
    object = { kind: 'Pod', metadata: { name: 'p', uid: 'uid-a', resourceVersion: '1' } }
    upstream.onRequest = (_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(object))
    }
    server = await startGateway({
      ...{ upstream, certificates, key, token, policy: POLICY },
      registrations: [
        { name: 'owned', match: { uids: [TAG.verified?.uid ?? 0] }, owners: ['olga'] },
      ],
      oidc: [{ name: 'ci', issuer: issuer.issuer, audiences: ['nestgate'], caFile }],
    })
  })

  afterEach(async () => {
    await server.close()
  })

  async function send(
    method: string,
    path: string,
    headers: Record<string, string>,
    body?: string,
    prefix = '',
  ): Promise<Reply> {
    const address = `https://127.0.0.1:${server.port}${prefix}/clusters/test${path}`
    const answer = await request(address, {
      method: method as 'GET',
      dispatcher: client,
      headers: body === undefined ? headers : { 'content-type': 'application/json', ...headers },
      ...(body === undefined ? {} : { body }),
    })
    return { status: answer.statusCode, headers: answer.headers, text: await answer.body.text() }
  }

  /** As an agent's sidecar sends it. */
  async function call(
    method: string,
    path: string,
    more: Record<string, string> = {},
    body?: string,
    tag: AgentTag = TAG,
  ): Promise<Reply> {
    const own = { authorization: `Bearer ${token}`, 'nestgate-agent': await key.tag(tag) }
    return send(method, path, { ...own, 'nestgate-hold': 'wait', ...more }, body)
  }

  /** As a pipeline sends it. */
  async function ci(
    method: string,
    path: string,
    more: Record<string, string> = {},
  ): Promise<Reply> {
    const jwt = await mintRunnerToken(issuer, { sub: 'repo:shop' })
    return send(method, path, { authorization: `Bearer ${jwt}`, ...more })
  }

  /** Asks for a session, as an agent's sidecar does. @returns all that came back */
  async function upgrade(method: string, path: string, claim?: string): Promise<string> {
    const socket = connect({ port: server.port, host: '127.0.0.1', ca: certificates.ca })
    let text = ''
    socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
    socket.on('error', () => undefined)
    const ended = new Promise((resolve) => socket.once('close', resolve))
    const lines = [
      `${method} /clusters/test${path} HTTP/1.1`,
      'Host: broker',
      `Authorization: Bearer ${token}`,
      `Nestgate-Agent: ${await key.tag(TAG)}`,
      'Nestgate-Hold: wait',
      ...(claim === undefined ? [] : [`Nestgate-Request: ${claim}`]),
      'Connection: Upgrade',
      'Upgrade: SPDY/3.1',
      'X-Stream-Protocol-Version: v4.channel.k8s.io',
    ]
    socket.write(`${lines.join('\r\n')}\r\n\r\n`)
    await ended
    return text
  }

  /** What reached the upstream with an effect. */
  const effects = (): readonly Seen[] => upstream.seen.filter(({ method }) => method !== 'GET')
  const entries = async (kind: string): Promise<readonly AuditEvent[]> =>
    (await server.store.events({ kind }, 100)).toReversed()
  const heldId = ({ status, headers }: Reply): string => {
    expect(status).to.equal(202)
    return String(headers['nestgate-held'])
  }
  const approve = (id: string, reviewer = 'alice'): Promise<object> =>
    server.approvals.decide({ id, reviewer, approve: true, reason: 'fine' })

  async function state(id: string, wanted: string): Promise<void> {
    const end = performance.now() + 5000
    while ((await server.store.approval(id))?.state !== wanted && performance.now() < end)
      await sleep(10)
    expect(await server.store.approval(id)).to.include({ state: wanted })
  }

  describe('what a request amounts to', () => {
    it('an eviction is held by the rule that holds deletions, though another allows it', async () => {
      const answer = await call('POST', `${N}/pods/p/eviction`, {}, '{"metadata":{"name":"p"}}')
      const approval = await server.store.approval(heldId(answer))
      expect(approval).to.deep.include({ verb: 'create', rules: ['deletes'] })
      expect(effects()).to.have.length(0)
    })

    it('a command through a node is denied by its action, and by the pod that it is for', async () => {
      for (const [path, rule] of [
        ['exec/agents/p/main', 'no-node-exec'],
        ['exec/kube-system/p/main', 'no-'],
      ] as const) {
        const answer = await call('POST', `/api/v1/nodes/n1/proxy/${path}?command=id`)
        expect([answer.status, answer.text.includes(rule)]).to.deep.equal([403, true])
      }
      expect(upstream.seen).to.have.length(0)
    })

    it('a kind that the cluster does not serve is refused, and so is a wrong scope', async () => {
      for (const path of [
        `${N}/widgets/w`,
        `${N}/nodes/n1`,
        '/apis/none.example/v1/things',
        `${N}/pods/p/none`,
      ]) {
        upstream.onRequest = (_request, response) => response.writeHead(404).end('{}')
        const answer = await call('GET', path)
        expect([path, answer.status, answer.text.includes('kind_unknown')]).to.deep.equal([
          path,
          404,
          true,
        ])
      }
    })

    it('a body that policy asks about must be readable, and readable one way', async () => {
      const path = `${N}/pods`
      const good = await call('POST', path, {}, '{"metadata":{"name":"a","labels":{"app":"web"}}}')
      expect(good.status).to.equal(200)
      const other = await call('POST', path, {}, '{"metadata":{"name":"a","labels":{"app":"db"}}}')
      expect(other.text).to.include('policy_no_match')
      const twice = '{"metadata":{"name":"a","labels":{"app":"db"},"labels":{"app":"web"}}}'
      expect((await call('POST', path, {}, twice)).text).to.include('body_ambiguous')
      const protobuf = { 'content-type': 'application/vnd.kubernetes.protobuf' }
      const opaque = await call('POST', path, protobuf, 'k8s\u0000xyz')
      expect([opaque.status, opaque.text.includes('body_opaque')]).to.deep.equal([415, true])
      expect(effects()).to.have.length(1)
    })

    it('is in the ledger as policy saw it', async () => {
      await call('DELETE', `${N}/pods/p?gracePeriodSeconds=0`)
      const [intent] = await entries('intent')
      expect(intent?.entry)
        .to.have.nested.property('request.attributes.actions')
        .deep.equal(['force-delete'])
      expect(intent?.entry).to.have.nested.property('decision.effect', 'hold')
    })
  })

  describe('a request to see what is hidden', () => {
    const asked = (path: string): string => `${path}?&nestgate.dev%2Funmask=true&pretty=1`

    it('is approved for one time, and the API server does not see that it is one', async () => {
      const path = `${N}/services/a`
      const id = heldId(await call('GET', asked(path)))
      await approve(id)
      upstream.seen.length = 0
      const shown = await call('GET', asked(path), { 'nestgate-request': id })
      expect(shown.status).to.equal(200)
      expect(upstream.seen.map(({ url }) => url)).to.include(`${path}?pretty=1`)
      expect(upstream.seen.filter(({ url }) => url.includes('unmask'))).to.deep.equal([])
      const [intent] = await entries('intent')
      expect(intent?.entry)
        .to.have.nested.property('request.attributes.actions')
        .deep.equal(['unmask'])
      expect(intent?.entry)
        .to.have.nested.property('request.query')
        .that.includes('nestgate.dev%2Funmask=true')
      expect(heldId(await call('GET', asked(path)))).to.not.equal(id)
    })

    it('is refused where no rule shows it, and of more than one object', async () => {
      const hidden = await call('GET', asked(`${N}/pods/p`))
      expect([hidden.status, hidden.text.includes('unmask_denied')]).to.deep.equal([403, true])
      for (const path of [`${N}/services`, `${N}/services/a/status`, '/version']) {
        const wrong = await call('GET', asked(path))
        expect([wrong.status, wrong.text.includes('query_invalid')]).to.deep.equal([400, true])
      }
      expect(upstream.seen).to.have.length(0)
    })
  })

  describe('approval', () => {
    it('shows what goes, as the caller may see it, and tells the ledger what was looked at', async () => {
      const id = heldId(await call('DELETE', `${N}/pods/p`))
      const approval = await server.store.approval(id)
      expect(approval?.target).to.include({ uid: 'uid-a', resourceVersion: '1' })
      expect(approval?.preview?.text).to.include('kind: Pod').and.to.include('name: p')
      expect(approval?.owners).to.deep.equal(['olga'])
      const looked = upstream.seen
      expect(looked).to.have.length.greaterThan(0)
      for (const { method, headers } of looked) {
        expect(method).to.equal('GET')
        expect(headers['impersonate-user']).to.equal('system:serviceaccount:agents:worker')
      }
      const noted = (await entries('system')).map(
        ({ entry }) => entry['detail'] as { auditId: string },
      )
      expect(noted.map(({ auditId }) => auditId)).to.include.members(
        looked.map(({ headers }) => headers['audit-id']),
      )
    })

    it('is not the owner’s to give', async () => {
      const id = heldId(await call('DELETE', `${N}/pods/p`))
      expect(await approve(id, 'Olga')).to.include({ refused: 'self_approval' })
    })

    it('is worth nothing once the target has changed', async () => {
      const id = heldId(await call('DELETE', `${N}/pods/p`))
      await approve(id)
      object = { kind: 'Pod', metadata: { name: 'p', uid: 'uid-b', resourceVersion: '9' } }
      const answer = await call('DELETE', `${N}/pods/p`, { 'nestgate-request': id })
      expect([answer.status, answer.text.includes('approval_target_changed')]).to.deep.equal([
        409,
        true,
      ])
      expect(effects()).to.have.length(0)
      await state(id, 'FAILED')
    })

    it('passes a status that a controller wrote meanwhile', async () => {
      const id = heldId(await call('DELETE', `${N}/pods/p`))
      await approve(id)
      object = {
        kind: 'Pod',
        metadata: { name: 'p', uid: 'uid-a', resourceVersion: '2' },
        status: { phase: 'Running' },
      }
      const answer = await call('DELETE', `${N}/pods/p`, { 'nestgate-request': id })
      expect(answer.status).to.equal(200)
      expect(answer.headers.warning).to.match(/^299 nestgate ".*approved by alice/)
    })

    it('is denied where the target cannot be checked', async () => {
      const id = heldId(await call('DELETE', `${N}/pods/p`))
      await approve(id)
      upstream.onRequest = (_request, response) => response.writeHead(500).end()
      const answer = await call('DELETE', `${N}/pods/p`, { 'nestgate-request': id })
      expect(answer.text).to.include('target_unreadable')
      expect(effects()).to.have.length(0)
    })

    it('has failed, and is not left running, where the ledger fails before anything is sent', async () => {
      const id = heldId(await call('DELETE', `${N}/pods/p`))
      await approve(id)
      server.gate.fail = true
      const answer = await call('DELETE', `${N}/pods/p`, { 'nestgate-request': id })
      expect(answer.status).to.be.at.least(500)
      expect(effects()).to.have.length(0)
      await state(id, 'FAILED')
    })

    it('is asked once for one request, however often it is sent', async () => {
      const first = heldId(await call('DELETE', `${N}/pods/p`))
      expect(heldId(await call('DELETE', `${N}/pods/p`))).to.equal(first)
      expect(await server.approvals.list({ states: ['PENDING'] }, 10)).to.have.length(1)
    })

    it('answers the repeat of a denied request as the first', async () => {
      const id = heldId(await call('DELETE', `${N}/pods/p`))
      await server.approvals.decide({ id, reviewer: 'alice', approve: false, reason: 'keep it' })
      const again = await call('DELETE', `${N}/pods/p`)
      expect(again.text).to.include('approval_denied').and.to.include('keep it')
      expect(await server.approvals.list({ states: ['PENDING'] }, 10)).to.have.length(0)
    })

    it('is for later where the rule wants it so', async () => {
      const away = (): Promise<Reply> => call('DELETE', `${N}/services/s`)
      const answer = await away()
      expect([answer.status, answer.headers['retry-after']]).to.deep.equal([403, '30'])
      const [ticket] = await server.approvals.list({ states: ['PENDING'] }, 10)
      expect(answer.text).to.include(ticket?.id)
      await approve(ticket!.id)
      const other = { ...TAG, instanceId: 'another-run' }
      const passed = await call('DELETE', `${N}/services/s`, {}, undefined, other)
      expect(passed.status).to.equal(200)
      expect((await away()).text).to.include('approval_pending')
      expect(effects()).to.have.length(1)
    })

    it('does not do once policy asks for other people', async () => {
      const path = `${N}/services/s`
      await call('DELETE', path)
      const [ticket] = await server.approvals.list({ states: ['PENDING'] }, 10)
      await approve(ticket!.id)
      const stricter = 'approval: {mode: return, quorums: [{group: owners, count: 1}]}'
      server.usePolicy(POLICY.replace('approval: {mode: return}', stricter))
      expect((await call('DELETE', path)).text).to.include('approval_expired')
      expect((await call('DELETE', path)).text).to.include('approval_pending')
      expect(effects()).to.have.length(0)
    })

    it('of what is proxied is for its method alone', async () => {
      const path = `${N}/services/s/proxy/users/5`
      await call('GET', path)
      const [ticket] = await server.approvals.list({ states: ['PENDING'] }, 10)
      await approve(ticket!.id)
      const claims = { 'nestgate-request': ticket!.id }
      expect((await call('DELETE', path, claims)).text).to.include('approval_mismatch')
      expect((await call('DELETE', path)).text).to.include('approval_pending')
      expect(effects()).to.have.length(0)
      const overrides = { 'x-http-method-override': 'DELETE', x_original_url: '/users/6' }
      expect((await call('GET', path, overrides)).status).to.equal(200)
      for (const name of Object.keys(overrides))
        expect(upstream.seen.at(-1)?.headers).not.to.have.property(name)
    })

    it('may be used again by the very same request, for as long as the rule says', async () => {
      const id = heldId(await call('DELETE', `${N}/events/e`))
      await approve(id)
      expect((await call('DELETE', `${N}/events/e`, { 'nestgate-request': id })).status).to.equal(
        200,
      )
      await state(id, 'SUCCEEDED')
      const again = await call('DELETE', `${N}/events/e`)
      expect(again.status).to.equal(200)
      expect(await server.store.approval(String(again.headers['nestgate-request-id']))).to.include({
        reusedFrom: id,
      })
      heldId(await call('DELETE', `${N}/events/other`))
    })

    it('is good for the second try of a session that the API server refused, once', async () => {
      const attach = (method: string, claim?: string): Promise<string> =>
        upgrade(method, `${N}/pods/p/attach?stdout=true`, claim)
      const [id = ''] = /[0-9a-f-]{36}/.exec(await attach('GET')) ?? []
      await approve(id)
      upstream.onUpgrade = (_request, socket) =>
        socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n')
      expect(await attach('GET', id)).to.match(/^HTTP\/1\.1 400/)
      await state(id, 'FAILED')
      upstream.onUpgrade = (_request, socket) =>
        socket.end(
          'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n',
        )
      expect(await attach('POST')).to.match(/^HTTP\/1\.1 101/)
      expect(await attach('POST')).to.match(/^HTTP\/1\.1 202/)
    })

    it('that is revoked ends the second try that runs on it, whatever its id', async () => {
      const path = `${N}/pods/p/attach?stdout=true`
      const [id = ''] = /[0-9a-f-]{36}/.exec(await upgrade('GET', path)) ?? []
      await approve(id)
      upstream.onUpgrade = (_request, socket) =>
        socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n')
      await upgrade('GET', path, id)
      await state(id, 'FAILED')
      upstream.onUpgrade = (_request, socket) => {
        socket.on('error', () => undefined)
        socket.write(
          'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n',
        )
      }
      const running = upgrade('POST', path)
      let run
      while (run === undefined) {
        await sleep(10)
        ;[run] = await server.approvals.list({ states: ['EXECUTING'] }, 1)
      }
      expect(run.reusedFrom).to.equal(id)
      await server.approvals.revoke({ id, reviewer: 'bob', reason: 'enough' })
      await running
      await state(run.id, 'REVOKED')
    })

    it('that is revoked ends the stream that runs on it', async () => {
      upstream.onRequest = (incoming: IncomingMessage, response: ServerResponse) => {
        if (incoming.url?.includes('/log') !== true) {
          response
            .writeHead(200, { 'content-type': 'application/json' })
            .end(JSON.stringify(object))
          return
        }
        response.writeHead(200, { 'content-type': 'text/plain' })
        response.write('first line\n')
      }
      const path = `${N}/pods/p/log?follow=true`
      const id = heldId(await call('GET', path))
      await approve(id)
      const running = call('GET', path, { 'nestgate-request': id }).catch((error: unknown) => error)
      await state(id, 'EXECUTING')
      await server.approvals.revoke({ id, reviewer: 'bob', reason: 'enough' })
      expect(await running).to.be.instanceOf(Error)
      await state(id, 'REVOKED')
      const end = performance.now() + 3000
      while ((await entries('outcome')).length === 0 && performance.now() < end) await sleep(10)
      const outcomes = (await entries('outcome')).map(({ entry }) => entry)
      expect(outcomes.at(-1)).to.include({ requestId: id, reason: 'revoked' })
    })
  })

  it('break-glass goes ahead at once, and stays open for its review', async () => {
    object = { kind: 'Deployment', metadata: { name: 'd', uid: 'uid-d', resourceVersion: '1' } }
    const answer = await call('DELETE', '/apis/apps/v1/namespaces/agents/deployments/d')
    expect([answer.status, String(answer.headers.warning).includes('break-glass')]).to.deep.equal([
      200,
      true,
    ])
    await state(String(answer.headers['nestgate-request-id']), 'SUCCEEDED')
    const [open] = await server.approvals.list({ review: 'open' }, 10)
    expect(open).to.include({ breakGlass: true, state: 'SUCCEEDED' })
    expect(open?.id).to.equal(answer.headers['nestgate-request-id'])
    const intent = (await entries('intent')).at(-1)?.entry
    expect(intent?.['approval']).to.include({ breakGlass: true })
  })

  describe('a direct client', () => {
    it('acts as its subject, with the groups of the rule and none of its own', async () => {
      const answer = await ci('PATCH', `${N}/services/s`, {
        'impersonate-user': 'admin',
        'impersonate-group': 'system:masters',
      })
      expect(answer.status).to.equal(200)
      const [{ headers }] = upstream.seen as [Seen]
      expect(headers['impersonate-user']).to.equal('ci:repo:shop')
      expect(headers['impersonate-group']).to.equal('deployers')
      const [intent] = await entries('intent')
      expect(intent?.entry).to.deep.include({ subject: { type: 'oidc', name: 'ci:repo:shop' } })
      expect(intent?.entry).not.to.have.property('tag')
    })

    it('waits where it is, and goes through once approved', async () => {
      const waiting = ci('DELETE', `${N}/pods/p`)
      let ticket
      while (ticket === undefined) {
        await sleep(10)
        ;[ticket] = await server.approvals.list({ states: ['PENDING'] }, 1)
      }
      expect(await approve(ticket.id, 'CI:repo:shop')).to.include({ refused: 'self_approval' })
      await approve(ticket.id)
      const answer = await waiting
      expect([answer.status, answer.headers['nestgate-request-id']]).to.deep.equal([200, ticket.id])
    })

    it('that waits is decided on again once it is approved', async () => {
      const waiting = ci('DELETE', `${N}/pods/p`)
      let ticket
      while (ticket === undefined) {
        await sleep(10)
        ;[ticket] = await server.approvals.list({ states: ['PENDING'] }, 1)
      }
      server.usePolicy(
        `${POLICY}- {id: frozen, match: {verbs: [delete], resources: [pods]}, effect: deny}\n`,
      )
      await approve(ticket.id)
      expect((await waiting).text)
        .to.include('policy_denied')
        .and.to.include('frozen')
      expect(effects()).to.have.length(0)
    })

    it('is told to come back when the time of the rule is over', async () => {
      const answer = await ci('DELETE', `${N}/configmaps/c`)
      expect(answer.text).to.include('approval_pending')
      const [ticket] = await server.approvals.list({ states: ['PENDING'] }, 1)
      await approve(ticket!.id)
      expect((await ci('DELETE', `${N}/configmaps/c`)).status).to.equal(200)
    })

    it('is not kept waiting with a large body, which would have to be kept too', async () => {
      const jwt = await mintRunnerToken(issuer, { sub: 'repo:shop' })
      const large = JSON.stringify({ gracePeriodSeconds: 5, x: 'x'.repeat(MAX_WAITING_BODY_BYTES) })
      const answer = await send('DELETE', `${N}/pods/p`, { authorization: `Bearer ${jwt}` }, large)
      expect(answer.text).to.include('approval_pending')
    })

    it('may ask to be told at once', async () => {
      const answer = await ci('DELETE', `${N}/pods/p`, { 'nestgate-approval': 'return' })
      expect(answer.text).to.include('approval_pending')
    })

    it('may ask for it by the address', async () => {
      const jwt = await mintRunnerToken(issuer, { sub: 'repo:shop' })
      const own = { authorization: `Bearer ${jwt}` }
      const back = (): Promise<Reply> =>
        send('DELETE', `${N}/pods/p?gracePeriodSeconds=5`, own, undefined, '/return')
      expect((await back()).text).to.include('approval_pending')
      const [ticket] = await server.approvals.list({ states: ['PENDING'] }, 10)
      expect((await back()).text).to.include(ticket?.id)
      expect(ticket).to.include({ path: `${N}/pods/p` })
      await approve(ticket!.id)
      expect((await back()).status).to.equal(200)
      expect(effects().map(({ url }) => url)).to.deep.equal([`${N}/pods/p?gracePeriodSeconds=5`])
      // what is not held is not changed by it, and the address is no way around policy
      const read = await send('GET', `${N}/pods/p`, own, undefined, '/return')
      expect(read.status).to.equal(200)
      const denied = await send('PATCH', `${N}/pods/p`, own, '{}', '/return')
      expect([denied.status, effects().length]).to.deep.equal([403, 1])
      for (const prefix of ['/return/return', '/Return', '/return/', '//return']) {
        const other = await send('DELETE', `${N}/pods/p`, own, undefined, prefix)
        expect([prefix, other.status]).to.deep.equal([prefix, 404])
      }
    })

    it('cannot claim a ticket by naming it, nor speak as an agent', async () => {
      const id = heldId(await call('DELETE', `${N}/pods/p`))
      await approve(id)
      const claimed = await ci('DELETE', `${N}/pods/p`, {
        'nestgate-request': id,
        'nestgate-approval': 'return',
      })
      expect(claimed.text).to.include('approval_pending')
      const tagged = await ci('GET', `${N}/pods/p`, { 'nestgate-agent': await key.tag(TAG) })
      expect(tagged.status).to.equal(401)
      expect(effects()).to.have.length(0)
    })

    it('is refused with a token that is not its issuer’s', async () => {
      const jwt = await mintRunnerToken(issuer, { sub: 'repo:shop', aud: 'somebody-else' })
      const answer = await send('GET', `${N}/pods/p`, { authorization: `Bearer ${jwt}` })
      expect([answer.status, answer.text.includes('credentials_invalid')]).to.deep.equal([
        401,
        true,
      ])
      expect(upstream.seen).to.have.length(0)
    })
  })
})
