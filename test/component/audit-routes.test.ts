import { expect } from 'chai'
import { createHash } from 'node:crypto'
import { after, before, beforeEach, describe, it } from 'mocha'
import { MAX_REMEMBERED_TOKENS, withLogins } from '../../broker/audit/logins.ts'
import type { PeopleAuthenticator } from '../../broker/identity/people.ts'
import type { Store } from '../../broker/store/store.ts'
import { Fault } from '../../shared/errors.ts'
import { refuse } from '../../shared/reasons.ts'
import { auditEntrySchema, auditPageSchema } from '../../shared/wire.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { intent, outcome } from '../support/entries.ts'
import { MemoryLedger } from '../support/memory-ledger.ts'

describe('the audit routes', () => {
  let ledger: MemoryLedger
  let api: ApiServer
  let failing = false
  before(async () => {
    ledger = new MemoryLedger()
    api = await startApi((store) => {
      const own = ledger.over(store)
      return new Proxy(own, {
        get: (target, key) =>
          failing && key === 'append'
            ? () => Promise.reject(new Fault('store_failed', 'disk full'))
            : (Reflect.get(target, key) as unknown),
      })
    })
  })
  after(() => api.close())
  beforeEach(() => {
    failing = false
  })

  const get = async (path: string, who = 'carol'): Promise<{ status: number; body: unknown }> => {
    const response = await fetch(api.url + path, {
      headers: { authorization: `Bearer token-${who}` },
    })
    return { status: response.status, body: await response.json() }
  }
  const reads = (): unknown[] =>
    ledger.rows
      .filter(({ entry }) => entry.kind === 'system' && entry.event === 'audit_read')
      .map(({ entry }) => entry)

  it('show one entry, where its proof is, and write the reading down', async () => {
    const seq = await ledger.append([intent(), outcome('x')])
    const { status, body } = await get(`/v1/audit/events/${seq}`)
    expect(status).to.equal(200)
    const shown = auditEntrySchema.strict().parse(body)
    expect(shown).to.include({ seq, kind: 'intent' })
    expect(shown.entry).to.deep.equal(ledger.rows[seq]?.event.entry)
    expect(Buffer.from(shown.leaf, 'base64')).to.deep.equal(Buffer.from(ledger.rows[seq]!.bytes))
    expect(shown.proof).to.equal(`/v1/ledger/proof/${seq}`)
    expect(reads().at(-1)).to.deep.include({
      ...{ actor: 'carol', detail: { query: `{"seq":${seq}}`, returned: 1 } },
    })
  })

  for (const place of ['999999', '-1', 'x', '1e3', '99999999999999999', '%00']) {
    it(`answer 404 to entry ${place}`, async () => {
      const { status, body } = await get(`/v1/audit/events/${place}`)
      expect([status, body]).to.have.deep.nested.property('[1].code', 'entry_unknown')
      expect(status).to.equal(404)
    })
  }

  it('answer 404 to an entry whose text is gone, never with a neighbour', async () => {
    const seq = await ledger.append([intent(), intent()])
    ledger.firstSeq = seq + 1
    expect(await get(`/v1/audit/events/${seq}`)).to.have.nested.property(
      'body.code',
      'entry_unknown',
    )
    expect(await get(`/v1/audit/events/${seq + 1}`)).to.include({ status: 200 })
    ledger.firstSeq = 0
  })

  it('do not read a ledger for a HEAD', async () => {
    for (const path of ['watch', 'export?format=csv']) {
      const { status } = await fetch(`${api.url}/v1/audit/${path}`, {
        ...{ method: 'HEAD', headers: { authorization: 'Bearer token-carol' } },
      })
      expect(status).to.equal(404)
    }
  })

  it('refuse a condition on one entry', async () => {
    expect(await get('/v1/audit/events/0?verb=get')).to.have.nested.property(
      'body.code',
      'query_invalid',
    )
  })

  it('find by any link of the chain, by what a request comes to, and by reason', async () => {
    const chain = ['worker', 'planner']
    const denied = { effect: 'deny', reason: 'policy_no_match' } as const
    const attributes = {
      ...{
        policyVerb: 'connect',
        actions: ['exec'] as const,
        equivalents: [],
        parameters: { dryRun: false },
      },
      objectName: 'web-0',
    }
    const seq = await ledger.append([
      intent({ agent: 'tool', chain }),
      intent({ agent: 'planner' }),
      intent({ agent: 'other', request: { attributes }, decision: denied }),
    ])
    const found = async (query: string): Promise<number[]> =>
      auditPageSchema
        .parse((await get(`/v1/audit/events?${query}`)).body)
        .items.map((item) => item.seq - seq)
    expect(await found('process=planner')).to.deep.equal([1, 0])
    expect(await found('agent=planner')).to.deep.equal([1])
    expect(await found('ancestor=planner')).to.deep.equal([0])
    expect(await found('action=exec')).to.deep.equal([2])
    expect(await found('reason=policy_no_match')).to.deep.equal([2])
  })

  it('page through thousands without loss while entries arrive, by cursors that go nowhere else', async () => {
    const agent = 'pages'
    const first = await ledger.append(Array.from({ length: 2_500 }, () => intent({ agent })))
    const seen: number[] = []
    let query = `agent=${agent}&limit=1000`
    for (;;) {
      const { items, next } = auditPageSchema.parse((await get(`/v1/audit/events?${query}`)).body)
      seen.push(...items.map(({ seq }) => seq))
      await ledger.append([intent({ agent })])
      if (next === undefined) break
      query = `agent=${agent}&limit=1000&cursor=${next}`
    }
    expect(seen).to.deep.equal(Array.from({ length: 2_500 }, (_, i) => first + 2_499 - i))
  })

  it('write down what a person asks, by the filter that was asked', async () => {
    await get('/v1/audit/events?event=audit_read&limit=1')
    expect(reads().at(-1)).to.have.deep.nested.property(
      'detail.query',
      '{"event":"audit_read","limit":1}',
    )
  })

  describe('sign-ins', () => {
    const logins = (): unknown[] =>
      ledger.rows
        .filter(({ entry }) => entry.kind === 'system' && entry.event === 'login')
        .map(({ entry }) => entry)

    it('are entries, one for each token, before the call goes on', async () => {
      const count = logins().length
      await Promise.all([get('/v1/me', 'bob'), get('/v1/me', 'bob'), get('/v1/approvals', 'bob')])
      await get('/v1/me', 'bob')
      expect(logins().slice(count)).to.deep.equal([
        {
          ...{ kind: 'system', event: 'login', actor: 'bob' },
          detail: { issuer: 'token', roles: 'reviewer' },
        },
      ])
    })

    it('are none without a ledger, and are tried again', async () => {
      failing = true
      for (const path of ['/v1/me', '/v1/policy', '/v1/clusters', '/v1/me'])
        expect(await get(path, 'eve')).to.have.nested.property('body.code', 'ledger_unavailable')
      failing = false
      expect(await get('/v1/me', 'eve')).to.include({ status: 200 })
      expect(logins().at(-1)).to.deep.include({ actor: 'eve' })
    })

    it('are no entry for who is nobody', async () => {
      const count = logins().length
      expect(await get('/v1/me', 'nobody')).to.include({ status: 401 })
      expect(logins()).to.have.length(count)
    })

    it('remember a bounded number of tokens, those used last', async () => {
      let written = 0
      const store: Pick<Store, 'append'> = {
        append: () => Promise.resolve((written += 1)),
      }
      const people: PeopleAuthenticator = {
        authenticate: () =>
          Promise.resolve({ name: 'x', roles: ['auditor'], issuer: 'https://idp.example' }),
      }
      const known = withLogins(people, store)
      const call = (token: string): Promise<unknown> =>
        known.authenticate({ headers: { authorization: `Bearer ${token}` }, rawHeaders: [] })
      await call('first')
      await call('second')
      for (let i = 0; i < MAX_REMEMBERED_TOKENS - 1; i += 1) {
        await call(createHash('sha256').update(String(i)).digest('hex'))
        if (i % 100 === 0) await call('first')
      }
      written = 0
      await call('first')
      expect(written).to.equal(0)
      await call('second')
      expect(written).to.equal(1)
    })

    it('pass a refusal on', async () => {
      const known = withLogins(
        { authenticate: () => Promise.resolve(refuse('issuer_unavailable')) },
        { append: () => Promise.reject(new Error('not to be called')) },
      )
      const message = { headers: { authorization: 'Bearer x' }, rawHeaders: [] }
      expect(await known.authenticate(message)).to.deep.equal({ refused: 'issuer_unavailable' })
    })
  })
})
