import { expect } from 'chai'
import { connect } from 'node:net'
import { after, before, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import type { StoredApproval } from '../../broker/store/store.ts'
import { Fault } from '../../shared/errors.ts'
import { isRefusal, REASONS } from '../../shared/reasons.ts'
import type { Reason } from '../../shared/reasons.ts'
import { newRequestId } from '../../shared/request-id.ts'
import {
  approvalListSchema,
  approvalSchema,
  auditPageSchema,
  contextSchema,
  heldRequestSchema,
  MAX_WAIT_S,
} from '../../shared/wire.ts'
import { facts, intent } from '../support/entries.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'

interface Reply {
  readonly status: number
  readonly headers: Record<string, string | string[] | undefined>
  readonly body: unknown
}

describe('the broker’s API', () => {
  let api: ApiServer
  let dispatcher: Agent
  before(async () => {
    api = await startApi()
    dispatcher = new Agent()
  })
  after(async () => {
    await dispatcher.close()
    await api.close()
  })

  const call = async (
    who: string | undefined,
    method: 'GET' | 'POST' | 'PUT' | 'DELETE',
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Reply> => {
    const text = body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body)
    const response = await request(api.url + path, {
      ...{ method, dispatcher, body: text },
      headers: {
        ...(who === undefined ? {} : { authorization: `Bearer ${who}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
    })
    const received = await response.body.text()
    return {
      status: response.statusCode,
      headers: response.headers,
      body: JSON.parse(received) as unknown,
    }
  }
  const hold = async (change: Parameters<typeof facts>[0] = {}): Promise<StoredApproval> => {
    const held = facts(change)
    const asked = await api.approvals.ask(held, [intent({ requestId: held.id })])
    if (isRefusal(asked)) throw new Error(asked.refused)
    return asked.approval
  }
  const expectRefusal = ({ status, headers, body }: Reply, reason: Reason): void => {
    expect(body).to.deep.include({ code: reason, status: REASONS[reason].status })
    expect(status).to.equal(REASONS[reason].status)
    expect(headers['content-type']).to.match(/^application\/problem\+json/)
    expect(body).to.have.property('requestId', headers['nestgate-request-id'])
  }

  it('says nothing about itself, and lets nothing be cached', async () => {
    const { headers } = await call(undefined, 'GET', '/healthz')
    expect(headers).to.include({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
    for (const name of ['x-powered-by', 'server', 'etag'])
      expect(headers).to.not.have.property(name)
  })

  it('is alive and ready while its store answers', async () => {
    expect(await call(undefined, 'GET', '/healthz')).to.deep.include({
      status: 200,
      body: { status: 'ok' },
    })
    expect(await call(undefined, 'GET', '/readyz')).to.deep.include({
      status: 200,
      body: { status: 'ready' },
    })
  })

  const id = newRequestId(0)
  const unknown: readonly [string, 'GET' | 'POST' | 'PUT' | 'DELETE', string][] = [
    ['no such address', 'GET', '/'],
    ['a longer address', 'GET', '/v1/approvals/x/y'],
    ['another method', 'DELETE', `/v1/approvals/${id}`],
    ['another method', 'PUT', '/v1/approvals'],
    ['a slash too many', 'GET', '/v1/approvals/'],
    ['other case', 'GET', '/v1/Approvals'],
    ['another version', 'GET', '/v2/approvals'],
  ]
  for (const [what, method, path] of unknown) {
    it(`answers 404 to ${what}: ${method} ${path}`, async () => {
      expectRefusal(await call('token-root', method, path), 'path_unknown')
    })
  }

  const denied: readonly [string | undefined, 'GET' | 'POST', string, Reason][] = [
    [undefined, 'GET', '/v1/approvals', 'credentials_missing'],
    ['wrong', 'GET', '/v1/approvals', 'credentials_invalid'],
    ['pod-1', 'GET', '/v1/audit/events', 'credentials_invalid'],
    ['pod-1', 'POST', `/v1/approvals/${id}/approve`, 'credentials_invalid'],
    ['token-alice', 'GET', '/v1/audit/events', 'role_missing'],
    ['token-carol', 'POST', `/v1/approvals/${id}/approve`, 'role_missing'],
    ['token-carol', 'POST', `/v1/approvals/${id}/deny`, 'role_missing'],
    ['token-carol', 'POST', `/v1/approvals/${id}/revoke`, 'role_missing'],
    ['token-carol', 'POST', `/v1/approvals/${id}/review`, 'role_missing'],
    [undefined, 'GET', '/v1/approvals/watch', 'credentials_missing'],
    ['pod-1', 'GET', '/v1/approvals/watch', 'credentials_invalid'],
    ['wrong', 'GET', `/v1/approvals/${id}/context`, 'credentials_invalid'],
    [undefined, 'GET', '/v1/me', 'credentials_missing'],
    [undefined, 'GET', '/v1/policy', 'credentials_missing'],
    ['pod-1', 'GET', '/v1/policy', 'credentials_invalid'],
    ['token-alice', 'POST', `/v1/requests/${id}/park`, 'credentials_invalid'],
    ['token-alice', 'GET', `/v1/requests/${id}`, 'credentials_invalid'],
    ['token-root', 'POST', `/v1/requests/${id}/cancel`, 'credentials_invalid'],
    ['token-root', 'POST', '/v1/sidecars', 'credentials_invalid'],
  ]
  for (const [who, method, path, reason] of denied) {
    it(`refuses ${method} ${path.replace(id, 'ID')} to ${who ?? 'nobody'} with ${reason}`, async () => {
      const body =
        method === 'POST'
          ? { ...(path === '/v1/sidecars' ? { proof: 'good' } : { reason: 'x' }) }
          : undefined
      expectRefusal(await call(who, method, path, body), reason)
    })
  }

  describe('for reviewers', () => {
    it('lists and shows held requests without what only the broker needs', async () => {
      const preview = { kind: 'diff', text: '-replicas: 3' } as const
      const held = await hold({ name: 'shown', preview })
      const { body } = await call('token-carol', 'GET', '/v1/approvals?state=PENDING&limit=1000')
      const [item] = approvalListSchema
        .parse(body)
        .items.filter(({ id: found }) => found === held.id)
      const shown = await call('token-alice', 'GET', `/v1/approvals/${held.id}`)
      expect(item).to.not.have.property('preview')
      // a list has no previews: a thousand of them would fill the memory
      expect(shown.body).to.deep.equal({ ...item, preview })
      expect(item).to.include({ name: 'shown', state: 'PENDING' })
      for (const hidden of ['version', 'instanceId', 'podUid', 'callerKey', 'progress'])
        expect(shown.body).to.not.have.property(hidden)
    })

    for (const query of [
      'state=OPEN',
      'state=',
      'state=PENDING&state=DENIED',
      'limit=0',
      'limit=1001',
      'limit=x',
      'review=both',
      'cluster=',
      'other=1',
    ]) {
      it(`refuses a list with ${query}`, async () => {
        expectRefusal(await call('token-alice', 'GET', `/v1/approvals?${query}`), 'query_invalid')
      })
    }

    for (const [verb, state] of [
      ['approve', 'APPROVED'],
      ['deny', 'DENIED'],
    ] as const) {
      it(`takes a decision once: ${verb}`, async () => {
        const held = await hold()
        const path = `/v1/approvals/${held.id}/${verb}`
        const first = await call('token-alice', 'POST', path, { reason: '  looks right ' })
        expect(approvalSchema.parse(first.body)).to.include({
          state,
          reviewer: 'alice',
          reason: 'looks right',
        })
        expectRefusal(
          await call('token-root', 'POST', path, { reason: 'me too' }),
          'approval_not_pending',
        )
      })
    }

    it('counts people of each group, and shows what is missing', async () => {
      const quorums = [
        { group: 'sre', count: 1 },
        { group: 'security', count: 1 },
      ]
      const held = await hold({ terms: { quorums }, owners: ['group:admins'] })
      const path = `/v1/approvals/${held.id}`
      const decide = (who: string) => call(who, 'POST', `${path}/approve`, { reason: 'ok' })
      expect((await call('token-alice', 'GET', path)).body).to.deep.include({ missing: quorums })
      expectRefusal(await decide('token-alice'), 'reviewer_not_eligible')
      const half = approvalSchema.parse((await decide('token-bob')).body)
      expect(half).to.include({ state: 'PENDING' })
      expect(half.missing).to.deep.equal([{ group: 'security', count: 1 }])
      expectRefusal(await decide('token-bob'), 'already_reviewed')
      const whole = approvalSchema.parse((await decide('token-eve')).body)
      expect(whole).to.include({ state: 'APPROVED' })
      expect(whole.missing).to.deep.equal([])
      expect(whole.reviews.map(({ reviewer, groups }) => [reviewer, groups])).to.deep.equal([
        ['bob', ['sre']],
        ['eve', ['security']],
      ])
      expect(JSON.stringify(whole)).to.not.contain('oidc:eve')
    })

    it('refuses a person under any of their names', async () => {
      const held = await hold({ requesters: ['OIDC:Eve'] })
      const path = `/v1/approvals/${held.id}/approve`
      expectRefusal(await call('token-eve', 'POST', path, { reason: 'x' }), 'self_approval')
    })

    it('revokes an approval, once', async () => {
      const held = await hold()
      const path = `/v1/approvals/${held.id}`
      const revoke = () => call('token-bob', 'POST', `${path}/revoke`, { reason: 'too late' })
      expectRefusal(await revoke(), 'approval_not_revocable')
      await call('token-alice', 'POST', `${path}/approve`, { reason: 'x' })
      const revoked = approvalSchema.parse((await revoke()).body)
      expect(revoked).to.include({ state: 'REVOKED', reviewer: 'alice' })
      expect(revoked.revocation).to.include({ reviewer: 'bob', reason: 'too late' })
      expectRefusal(await revoke(), 'approval_not_revocable')
    })

    it('lists break-glass requests to be reviewed, and takes the review', async () => {
      const { approval } = await api.approvals.open(facts({ cluster: 'far' }), [])
      const { id } = approval
      const path = `/v1/approvals/${id}/review`
      const body = { reason: 'there was a fire', verdict: 'justified' }
      const list = async (query: string): Promise<string[]> => {
        const answer = await call('token-carol', 'GET', `/v1/approvals?${query}`)
        return approvalListSchema.parse(answer.body).items.map((item) => item.id)
      }
      expect(await list('review=open')).to.deep.equal([id])
      expectRefusal(await call('token-alice', 'POST', path, body), 'review_not_open')
      await api.approvals.finish(id, 'SUCCEEDED')
      expectRefusal(await call('token-alice', 'POST', path, { reason: 'x' }), 'body_invalid')
      const closed = await call('token-alice', 'POST', path, body)
      expect(closed.body).to.deep.include({ review: 'closed' })
      expect(approvalSchema.parse(closed.body).closing).to.include({ verdict: 'justified' })
      expect(await list('review=open')).to.deep.equal([])
      expect(await list('review=closed&cluster=far')).to.deep.equal([id])
      expect(await list('review=closed&cluster=main')).to.deep.equal([])
      expectRefusal(await call('token-alice', 'POST', path, body), 'review_not_open')
    })

    it('shows what else the same agent did, newest first, and writes the reading down', async () => {
      const agent = `agent-${newRequestId(0)}`
      const held = await hold({ agent })
      const denied = { effect: 'deny', reason: 'policy_denied' } as const
      await api.store.append([
        intent({ agent, requestId: held.id }),
        ...Array.from({ length: 25 }, () => intent({ agent })),
        intent({ agent: 'somebody else' }),
        intent({ agent, request: { verb: 'create', subresource: 'exec' }, decision: denied }),
        intent({ agent, request: { isResourceRequest: false, resource: '', path: '/version' } }),
      ])
      const { status, body } = await call('token-alice', 'GET', `/v1/approvals/${held.id}/context`)
      expect(status).to.equal(200)
      const { items } = contextSchema.strict().parse(body)
      expect(items).to.have.length(20)
      expect(items[0]).to.include({ resource: '/version', effect: 'allow' })
      expect(items[1]).to.include({
        ...{ verb: 'create', resource: 'pods/exec', effect: 'deny', namespace: 'shop' },
        name: 'web-0',
      })
      expect(items.map(({ requestId }) => requestId)).to.not.include(held.id)
      const [read] = await api.store.events({ kind: 'system', subject: 'alice' }, 1)
      expect(read?.entry).to.deep.include({ event: 'audit_read' })
      expect(JSON.stringify(read?.entry)).to.contain(held.id)
    })

    it('refuses to watch with conditions', async () => {
      const answer = await call('token-alice', 'GET', '/v1/approvals/watch?state=PENDING')
      expectRefusal(answer, 'query_invalid')
    })

    it('says who one is', async () => {
      expect((await call('token-bob', 'GET', '/v1/me')).body).to.deep.equal({
        ...{ name: 'bob', roles: ['reviewer'], groups: ['sre'] },
      })
    })

    it('refuses who decides on their own request', async () => {
      const held = await hold({ subject: 'Alice' })
      expectRefusal(
        await call('token-alice', 'POST', `/v1/approvals/${held.id}/approve`, { reason: 'x' }),
        'self_approval',
      )
    })

    for (const [what, place] of [
      ['unknown', newRequestId(1)],
      ['no id', 'x'],
      ['an odd one', '%00'],
      ['a long one', 'x'.repeat(4000)],
    ] as const) {
      it(`answers 404 to ${what} id`, async () => {
        expectRefusal(await call('token-alice', 'GET', `/v1/approvals/${place}`), 'request_unknown')
      })
    }

    it('refuses an id that cannot be decoded', async () => {
      expectRefusal(await call('token-alice', 'GET', '/v1/approvals/%ff'), 'path_ambiguous')
    })

    const bodies: readonly [string, unknown, Record<string, string>, Reason][] = [
      ['none', undefined, {}, 'body_invalid'],
      ['broken JSON', '{"reason":', {}, 'body_invalid'],
      ['JSON that is no object', '"x"', {}, 'body_invalid'],
      ['an empty reason', { reason: '   ' }, {}, 'body_invalid'],
      ['a reason of another type', { reason: { a: 1 } }, {}, 'body_invalid'],
      ['a reason too long', { reason: 'x'.repeat(501) }, {}, 'body_invalid'],
      ['a key too many', { reason: 'x', reviewer: 'bob' }, {}, 'body_invalid'],
      ['another media type', '{"reason":"x"}', { 'content-type': 'text/plain' }, 'body_invalid'],
      [
        'an unknown character set',
        '{"reason":"x"}',
        { 'content-type': 'application/json; charset=x-odd' },
        'body_invalid',
      ],
      ['compressed', 'x', { 'content-encoding': 'gzip' }, 'body_invalid'],
      ['too large', JSON.stringify({ reason: 'x'.repeat(70_000) }), {}, 'body_too_large'],
    ]
    for (const [what, body, headers, reason] of bodies) {
      it(`refuses a decision whose body is ${what}, and decides nothing`, async () => {
        const held = await hold()
        expectRefusal(
          await call('token-alice', 'POST', `/v1/approvals/${held.id}/approve`, body, headers),
          reason,
        )
        expect(await api.approvals.get(held.id)).to.include({ state: 'PENDING' })
        await api.approvals.leave(held.id, { podUid: 'pod-1' })
      })
    }
  })

  describe('for sidecars', () => {
    it('registers a key and writes it down', async () => {
      const { status, body } = await call('pod-1', 'POST', '/v1/sidecars', { proof: 'good' })
      expect([status, body]).to.deep.equal([200, { podUid: 'pod-1', keyId: 'key-1' }])
      const [event] = await api.store.events(
        { kind: 'system', subject: 'main/shop/name-of-pod-1' },
        1,
      )
      expect(event?.entry).to.deep.include({
        event: 'sidecar_registered',
        detail: { podUid: 'pod-1', keyId: 'key-1' },
      })
    })

    it('refuses a bad proof and writes nothing', async () => {
      const before = await api.store.events({}, 1)
      expectRefusal(
        await call('pod-1', 'POST', '/v1/sidecars', { proof: 'bad' }),
        'credentials_invalid',
      )
      expectRefusal(
        await call('pod-1', 'POST', '/v1/sidecars', { proof: 'good', podUid: 'pod-2' }),
        'body_invalid',
      )
      expect(await api.store.events({}, 1)).to.deep.equal(before)
    })

    it('answers a wait with the decision as soon as it is made', async () => {
      const held = await hold()
      const waiting = call('pod-1', 'GET', `/v1/requests/${held.id}?wait=${MAX_WAIT_S}`)
      await new Promise((resolve) => setTimeout(resolve, 100))
      await call('token-alice', 'POST', `/v1/approvals/${held.id}/deny`, { reason: 'too risky' })
      const { status, body } = await waiting
      expect(status).to.equal(200)
      expect(heldRequestSchema.strict().parse(body)).to.include({
        state: 'DENIED',
        reason: 'too risky',
        reviewer: 'alice',
      })
    }).timeout(5_000)

    it('answers at once without a wait', async () => {
      const held = await hold()
      const { body } = await call('pod-1', 'GET', `/v1/requests/${held.id}`)
      expect(body).to.deep.equal({ id: held.id, state: 'PENDING', expiresAt: held.expiresAt })
    })

    for (const query of ['wait=26', 'wait=-1', 'wait=1.5', 'wait=', 'wait=1&wait=2', 'hold=1']) {
      it(`refuses ${query}`, async () => {
        const held = await hold()
        expectRefusal(
          await call('pod-1', 'GET', `/v1/requests/${held.id}?${query}`),
          'query_invalid',
        )
        await api.approvals.leave(held.id, { podUid: 'pod-1' })
      })
    }

    for (const stranger of ['pod-2', 'far-pod-1']) {
      it(`keeps a request from another pod: ${stranger}`, async () => {
        const held = await hold()
        expectRefusal(
          await call(stranger, 'GET', `/v1/requests/${held.id}?wait=20`),
          'request_unknown',
        )
        expectRefusal(
          await call(stranger, 'POST', `/v1/requests/${held.id}/cancel`),
          'request_unknown',
        )
        expect(await api.approvals.get(held.id)).to.include({ state: 'PENDING' })
      })
    }

    it('cancels a pending request, and refuses once it is decided', async () => {
      const held = await hold()
      const { body } = await call('pod-1', 'POST', `/v1/requests/${held.id}/cancel`)
      expect(body).to.include({ state: 'CANCELLED' })
      expectRefusal(
        await call('pod-1', 'POST', `/v1/requests/${held.id}/cancel`),
        'approval_not_pending',
      )
    })

    it('keeps a request whose client was sent away, until it comes back', async () => {
      const held = await hold()
      const { body } = await call('pod-1', 'POST', `/v1/requests/${held.id}/park`)
      expect(body).to.include({ state: 'PENDING' })
      await call('pod-1', 'POST', `/v1/requests/${held.id}/cancel`)
      const approval = await call('token-alice', 'GET', `/v1/approvals/${held.id}`)
      expect(approval.body).to.include({ state: 'PENDING', clientWaits: false })
      expectRefusal(await call('pod-2', 'POST', `/v1/requests/${held.id}/park`), 'request_unknown')
    })

    it('stops waiting when the client leaves', async () => {
      const held = await hold()
      const waitFor = api.approvals.waitFor.bind(api.approvals)
      const ended = Promise.withResolvers<number>()
      const startMs = performance.now()
      api.approvals.waitFor = async (...args) => {
        const result = await waitFor(...args)
        ended.resolve(performance.now() - startMs)
        return result
      }
      const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
      socket.write(
        `GET /v1/requests/${held.id}?wait=25 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer pod-1\r\n\r\n`,
      )
      await new Promise((resolve) => setTimeout(resolve, 100))
      socket.destroy()
      expect(await ended.promise).to.be.lessThan(1_000)
      api.approvals.waitFor = waitFor
    })
  })

  describe('for auditors', () => {
    it('pages through what matches, newest first, and writes down each reading', async () => {
      const agent = `agent-${newRequestId(0)}`
      const entries = Array.from({ length: 5 }, () => intent({ agent }))
      await api.store.append(entries)
      const seen: (string | undefined)[] = []
      let cursor = ''
      for (let page = 0; page < 3; page += 1) {
        const { status, body } = await call(
          'token-carol',
          'GET',
          `/v1/audit/events?agent=${agent}&limit=2${cursor}`,
        )
        expect(status).to.equal(200)
        const { items, next } = auditPageSchema.parse(body)
        seen.push(...items.map(({ requestId }) => requestId))
        expect(next === undefined).to.equal(page === 2)
        cursor = `&cursor=${next ?? ''}`
      }
      expect(seen).to.deep.equal(entries.map(({ requestId }) => requestId).toReversed())
      const reads = await api.store.events({ kind: 'system', subject: 'carol' }, 3)
      expect(reads.map(({ entry }) => entry['event'])).to.deep.equal([
        'audit_read',
        'audit_read',
        'audit_read',
      ])
      expect(JSON.stringify(reads[0]?.entry)).to.contain(agent)
    })

    it('gives no next page when the last one is exactly full', async () => {
      const agent = `agent-${newRequestId(0)}`
      await api.store.append([intent({ agent }), intent({ agent })])
      const { body } = await call('token-carol', 'GET', `/v1/audit/events?agent=${agent}&limit=2`)
      expect(body).to.not.have.property('next')
    })

    it('refuses a question it does not understand, and reads nothing', async () => {
      await call('token-carol', 'GET', '/v1/me')
      const before = await api.store.events({}, 1)
      expectRefusal(await call('token-carol', 'GET', '/v1/audit/events?user=x'), 'query_invalid')
      expect(await api.store.events({}, 1)).to.deep.equal(before)
    })
  })
})

describe('the broker’s API without its store', () => {
  const broken = (): Promise<never> =>
    Promise.reject(new Fault('store_failed', 'disk /secret/path is full'))

  it('shows nobody the audit when the reading cannot be written down', async () => {
    const api = await startApi((store) => ({ ...store, append: broken }))
    const response = await request(`${api.url}/v1/audit/events`, {
      headers: { authorization: 'Bearer token-carol' },
    })
    const text = await response.body.text()
    expect(response.statusCode).to.equal(503)
    expect(text)
      .to.contain('ledger_unavailable')
      .and.to.not.contain('items')
      .and.to.not.contain('secret')
    await api.close()
  })

  it('is neither alive nor ready when the store has ended', async () => {
    const api = await startApi((store) => ({ ...store, approval: broken }))
    for (const path of ['/healthz', '/readyz']) {
      const response = await request(api.url + path)
      expect(response.statusCode, path).to.equal(503)
      await response.body.dump()
    }
    await api.close()
  })

  it('is alive but not ready while the store is slow', async () => {
    const api = await startApi((store) => ({
      ...store,
      approval: () => new Promise(() => undefined),
    }))
    const status = async (path: string): Promise<number> => {
      const response = await request(api.url + path)
      await response.body.dump()
      return response.statusCode
    }
    expect(await Promise.all([status('/healthz'), status('/readyz')])).to.deep.equal([200, 503])
    await api.close()
  })
})
