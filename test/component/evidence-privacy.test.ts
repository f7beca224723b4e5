/** Captured bodies and erasure, as auditors and admins ask for them: over the API and by `nestgate`. */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { request } from 'undici'
import { erasedEntry } from '../../broker/api/erasure-routes.ts'
import type { Store } from '../../broker/store/store.ts'
import { Fault } from '../../shared/errors.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { intent } from '../support/entries.ts'

const MAIN = new URL('../../cli/main.ts', import.meta.url).pathname
const CONTENT = '{"kind":"Pod","metadata":{"name":"p\u202e\\u001b"}}'
const SHA256 = createHash('sha256').update(CONTENT).digest('hex')
const NONE = '0'.repeat(64)

describe('evidence and the people in it', () => {
  let api: ApiServer
  /** What a broken disk does. */
  let failing = false
  /** What a broker that lies answers. */
  let lie: string | undefined

  before(async () => {
    const wrap = (store: Store): Store => ({
      ...store,
      append: (...given) =>
        failing ? Promise.reject(new Fault('store_failed', 'full')) : store.append(...given),
      payload: (sha256) =>
        lie === undefined ? store.payload(sha256) : Promise.resolve(Buffer.from(lie)),
    })
    api = await startApi(wrap)
    await api.store.append([intent()], [{ sha256: SHA256, content: Buffer.from(CONTENT) }])
  })
  after(() => api.close())

  const call = async (
    who: string,
    path: string,
    body?: unknown,
  ): Promise<{ readonly status: number; readonly body: unknown }> => {
    const json = { 'content-type': 'application/json' }
    const answer = await request(`${api.url}/v1/${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { authorization: `Bearer token-${who}`, ...(body === undefined ? {} : json) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    return { status: answer.statusCode, body: await answer.body.json() }
  }
  const nestgate = async (
    who: string,
    ...args: string[]
  ): Promise<{ readonly code: unknown; readonly out: string; readonly err: string }> => {
    const env = { NESTGATE_BROKER_URL: api.url, NESTGATE_TOKEN: `token-${who}` }
    const child = spawn(process.execPath, [MAIN, ...args], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let [out, err] = ['', '']
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
    const [code] = (await once(child, 'close')) as [unknown]
    return { code, out, err }
  }
  const latest = async (): Promise<Readonly<Record<string, unknown>>> =>
    (await api.store.events({ kind: 'system' }, 1))[0]?.entry ?? {}

  it('shows a captured body to auditors, and writes down who read it', async () => {
    expect(await call('carol', `audit/payloads/${SHA256}`)).to.deep.equal({
      ...{ status: 200, body: { sha256: SHA256, content: CONTENT } },
    })
    expect(await latest()).to.deep.include({
      ...{ event: 'audit_read', actor: 'carol' },
      detail: { query: JSON.stringify({ payload: SHA256 }), returned: 1 },
    })
    expect(await call('carol', `audit/payloads/${NONE}`)).to.have.nested.include({
      ...{ status: 404, 'body.code': 'path_unknown' },
    })
    expect(await latest()).to.deep.include({
      detail: { query: JSON.stringify({ payload: NONE }), returned: 0 },
    })
  })

  it('shows it to nobody else, not by another spelling, and not without the entry', async () => {
    for (const [who, path, status] of [
      ['alice', `audit/payloads/${SHA256}`, 403],
      ['nobody', `audit/payloads/${SHA256}`, 401],
      ['carol', `audit/payloads/${SHA256.toUpperCase()}`, 404],
      ['carol', `audit/payloads/${SHA256}?x=1`, 400],
    ] as const)
      expect(await call(who, path), path).to.include({ status })
    failing = true
    const answer = await call('carol', `audit/payloads/${SHA256}`)
    failing = false
    expect(answer).to.have.nested.include({ status: 503, 'body.code': 'ledger_unavailable' })
    expect(JSON.stringify(answer)).not.to.contain('Pod')
  })

  it('is printed safely by nestgate payload, and only with the hash that was asked for', async () => {
    const { code, out } = await nestgate('carol', 'payload', SHA256)
    expect([code, out]).to.deep.equal([0, `${CONTENT.replace('\u202e', '\\u{202e}')}\n`])
    lie = CONTENT.replace('Pod', 'Job')
    const lied = await nestgate('carol', 'payload', SHA256)
    lie = undefined
    expect(lied).to.deep.include({ code: 1, out: '' })
    expect(lied.err).to.contain('another hash')
    expect(await nestgate('carol', 'payload', 'x')).to.include({ code: 2 })
  })

  it('erases for admins, with an entry that does not name the person', async () => {
    const body = { name: 'zoe@example.com', reason: 'left; ticket 7' }
    const answer = await call('root', 'ledger/erase', body)
    expect(answer).to.have.nested.property('body.pseudonyms').that.is.a('number')
    expect(answer.status).to.equal(200)
    const entry = await latest()
    expect(entry).to.have.nested.include({
      ...{ event: 'personal_erased', actor: 'root', 'detail.reason': 'left; ticket 7' },
    })
    expect(JSON.stringify(entry)).not.to.contain('zoe')
    const { code, out } = await nestgate('root', 'erase', 'zoe@example.com', '--reason', 'again')
    expect([code, out.includes('zoe')]).to.deep.equal([0, false])
    expect(await latest()).to.have.nested.include({ 'detail.reason': 'again' })
  })

  it('erases for nobody else, not without a reason, nor with one that names the person', async () => {
    const body = { name: 'zoe', reason: 'left' }
    const before = await latest()
    for (const [who, given, status] of [
      ['carol', body, 403],
      ['alice', body, 403],
      ['nobody', body, 401],
      ['root', { name: 'zoe' }, 422],
      ['root', { ...body, name: '' }, 422],
      ['root', { ...body, reason: 'Zoe left' }, 422],
      ['root', { ...body, more: 1 }, 422],
    ] as const) {
      const answer = await call(who, 'ledger/erase', given)
      if (status === 422) expect(answer).to.have.nested.include({ 'body.code': 'body_invalid' })
      else expect(answer).to.include({ status })
    }
    expect(await latest()).to.deep.equal(before)
    expect(await nestgate('root', 'erase', 'zoe')).to.include({ code: 2 })
  })

  it('names the pseudonyms that lead nowhere', () => {
    expect(erasedEntry('root', 'left', ['personal:a', 'personal:b'])).to.deep.equal({
      ...{ kind: 'system', event: 'personal_erased', actor: 'root' },
      detail: { reason: 'left', count: 2, pseudonyms: 'personal:a,personal:b' },
    })
  })
})
