/** Reports that take long: what clients hear meanwhile, and what they hear of a refusal or a fault that comes late. */
import { expect } from 'chai'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { request } from 'undici'
import { accessReviewRoutes } from '../../broker/api/access-review-routes.ts'
import { faultHandler } from '../../broker/api/answers.ts'
import { createPeople } from '../../broker/identity/people.ts'
import { createClient } from '../../cli/client.ts'
import { slow, whole } from '../../cli/review.ts'
import { campaignSchema, reportSchema } from '../../shared/access-review-wire.ts'
import { memoryLedger } from '../support/memory-reviews.ts'
import type { MemoryLedger } from '../support/memory-reviews.ts'
import { policyOf } from '../support/policies.ts'
import { SILENT } from '../support/sqlite-store.ts'

const TOKEN = 'token'
const PERIOD = 'since=2020-01-01T00:00:00Z&until=2030-01-01T00:00:00Z'

describe('a report that takes long', () => {
  let server: Server
  let url: string
  let ledger: MemoryLedger
  /** What the checkpoint waits for. */
  let coming: Promise<void>
  let release: () => void
  let fail: (error: Error) => void
  beforeEach(async () => {
    ledger = memoryLedger()
    coming = new Promise((resolve, reject) => {
      release = resolve
      fail = reject
    })
    const app = express()
    const tokenSha256 = createHash('sha256').update(TOKEN).digest('hex')
    app.use(
      '/v1',
      accessReviewRoutes(
        {
          people: createPeople([{ name: 'carol', roles: ['auditor'], tokenSha256 }]),
          store: ledger,
          accessReview: {
            store: ledger,
            checkpoints: {
              origin: 'x',
              current: async () => {
                await coming
                return ledger.checkpoints.current()
              },
            },
            policy: () =>
              policyOf(`
  - { id: named, match: { agents: [scanner], verbs: [get], resources: [pods] }, effect: allow }`),
            scopes: { get: () => undefined },
            acceptVerdicts: ['exclusive'],
            registrations: [],
            now: Date.now,
          },
          signOfLifeMs: 20,
        },
        express.json(),
      ),
    )
    app.use(faultHandler(SILENT))
    server = createServer(app).listen(0, '127.0.0.1')
    await once(server, 'listening')
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  afterEach(async () => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })

  const headers = { authorization: `Bearer ${TOKEN}` }
  const client = (): ReturnType<typeof createClient> =>
    createClient({ url: new URL(url), token: TOKEN })

  it('begins its answer before it is there', async () => {
    const response = await request(`${url}/v1/access-review?${PERIOD}`, { headers })
    expect(response.statusCode).to.equal(200)
    release()
    const text = await response.body.text()
    expect(text).to.match(/^ +\{/)
    expect(reportSchema.parse(JSON.parse(text)).principals).to.have.length(1)
  })

  it('is one at a time', async () => {
    const first = request(`${url}/v1/access-review?${PERIOD}`, { headers })
    await first
    const second = await request(`${url}/v1/access-review?${PERIOD}`, { headers })
    expect(second.statusCode).to.equal(503)
    expect(await second.body.json()).to.include({ code: 'broker_busy' })
    release()
    await (await first).body.dump()
    const third = await request(`${url}/v1/access-review?${PERIOD}`, { headers })
    expect(third.statusCode).to.equal(200)
    await third.body.dump()
  })

  it('tells a refusal that comes late', async () => {
    const body = {
      ...{ title: 't', since: '2020-01-01T00:00:00Z', until: '2030-01-01T00:00:00Z' },
      ...{ reviewers: ['a'], scope: { agent: 'nobody' } },
    }
    const one = client()
    const asked = one.post(slow(campaignSchema), 'v1/campaigns', body)
    setTimeout(release, 100)
    const answer = await asked
    expect(() => whole(answer)).to.throw('campaign_unfit')
    await one.close()
  })

  it('is cut, and not taken for whole, where it fails late', async () => {
    const one = client()
    const asked = one.get(slow(reportSchema), `v1/access-review?${PERIOD}`).then(
      () => 'came',
      (error: unknown) => String(error),
    )
    setTimeout(() => {
      fail(new Error('disk full'))
    }, 100)
    expect(await asked).to.match(/CallError/)
    await one.close()
    // and the next one may be made
    coming = Promise.resolve()
    const next = await request(`${url}/v1/access-review?${PERIOD}`, { headers })
    expect(next.statusCode).to.equal(200)
    await next.body.dump()
  })
})
