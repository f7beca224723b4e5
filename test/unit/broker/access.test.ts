import { expect } from 'chai'
import { describe, it } from 'mocha'
import { createAccessReviews, YES_LIFE_MS } from '../../../broker/credentials/access.ts'
import { callOf } from '../../../broker/credentials/api-call.ts'
import type { AskedConnection } from '../../../broker/credentials/cluster-json.ts'

const IDENTITY = { user: 'system:serviceaccount:agents:worker', groups: [] }
const CALL = callOf('GET', '/api/v1/namespaces/shop/pods/web').attributes

/** A cluster whose roles say the same of everything. */
function clusterSaying(allowed: boolean, name = 'prod') {
  const asked: unknown[] = []
  const own = {
    request: ({ body }: { readonly body: string }) => {
      asked.push(JSON.parse(body))
      const text = JSON.stringify({ status: { allowed } })
      return Promise.resolve({ statusCode: 201, body: [Buffer.from(text)] })
    },
  }
  const credential = { own: () => Promise.resolve({}) }
  return { asked, connection: { name, own, credential } as unknown as AskedConnection }
}

describe('what the roles of a cluster say', () => {
  it('is asked again when a yes is old, and for each no', async () => {
    const clock = { ms: 1_700_000_000_000 }
    const reviews = createAccessReviews(() => clock.ms)
    const yes = clusterSaying(true)
    for (const passed of [0, YES_LIFE_MS - 1, 1]) {
      clock.ms += passed
      expect(await reviews.check(yes.connection, IDENTITY, CALL)).to.equal('allowed')
    }
    expect(yes.asked.length).to.equal(2)
    const no = clusterSaying(false)
    for (let i = 0; i < 2; i += 1)
      expect(await reviews.check(no.connection, IDENTITY, CALL)).to.equal('refused')
    expect(no.asked.length).to.equal(2)
  })

  it('is asked again when the clock was set back', async () => {
    const clock = { ms: 1_700_000_000_000 }
    const reviews = createAccessReviews(() => clock.ms)
    const { connection, asked } = clusterSaying(true)
    await reviews.check(connection, IDENTITY, CALL)
    clock.ms -= 3_600_000
    await reviews.check(connection, IDENTITY, CALL)
    expect(asked.length).to.equal(2)
  })

  it('is not what another cluster said that had its name before', async () => {
    const reviews = createAccessReviews(() => 1_700_000_000_000)
    expect(await reviews.check(clusterSaying(true).connection, IDENTITY, CALL)).to.equal('allowed')
    expect(await reviews.check(clusterSaying(false).connection, IDENTITY, CALL)).to.equal('refused')
  })
})
