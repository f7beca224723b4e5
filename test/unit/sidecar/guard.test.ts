import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { createLog } from '../../../shared/log.ts'
import { SearchLimitError } from '../../../sidecar/caller/holders.ts'
import { createGuard } from '../../../sidecar/guard.ts'
import type { Guard, GuardDeps } from '../../../sidecar/guard.ts'
import { WHOAMI_PATH } from '../../../sidecar/own-paths.ts'
import type { RiskyNeighbour } from '../../../sidecar/posture.ts'

const OWN: object = { verdict: 'exclusive', verified: { pid: process.pid } }

describe('guard', () => {
  let server: Server
  let port = 0
  let whoami: unknown
  let risky: readonly RiskyNeighbour[]
  let survey: GuardDeps['survey']
  let time: number

  beforeEach(async () => {
    whoami = OWN
    risky = []
    survey = () => Promise.resolve({ seen: 5, unread: 0 })
    time = 0
    server = createServer((request, response) => {
      response.end(request.url === WHOAMI_PATH ? JSON.stringify(whoami) : '')
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    port = (server.address() as AddressInfo).port
  })
  afterEach(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })

  function guard(settings: Partial<GuardDeps> = {}): Guard {
    return createGuard({
      profile: 'R',
      posture: 'degrade',
      survey: () => survey(),
      neighbours: () => risky,
      log: createLog('test', 'silent'),
      now: () => time,
      ...settings,
    })
  }

  it('lets nothing pass before its first test', async () => {
    const tested = guard()
    expect(tested.gate()?.refused).to.equal('attribution_unavailable')
    await tested.test(port)
    expect([tested.gate(), tested.level()]).to.deep.equal([undefined, { kind: 'process' }])
    expect(tested.gauges()).to.include({ self_test_passed: 1, processes_seen: 5 })
  })

  for (const [name, answer] of [
    ['another process', { verdict: 'exclusive', verified: { pid: 1 } }],
    ['nobody', { verdict: 'unidentified', reason: 'gone' }],
    ['no answer', 7],
  ] as const)
    it(`fails when its own connection is that of ${name}`, async () => {
      whoami = answer
      const tested = guard()
      await tested.test(port)
      expect(tested.gate()?.refused).to.equal('attribution_unavailable')
      whoami = OWN
      await tested.test(port)
      expect(tested.gate()).to.equal(undefined)
    })

  it('fails when its own listener does not answer', async () => {
    const tested = guard()
    await tested.test(1)
    expect(tested.gate()?.detail).to.contain('ECONNREFUSED')
  })

  it('is not undone by more processes than can be searched', async () => {
    const tested = guard()
    await tested.test(port)
    survey = () => Promise.reject(new SearchLimitError('many'))
    await tested.test(port)
    expect(tested.gate()).to.equal(undefined)
  })

  it('tells containers apart in profile C, by the user of its own connection', async () => {
    whoami = { verdict: 'container_only', socket: { uid: process.geteuid?.() } }
    const tested = guard({ profile: 'C', survey: () => Promise.reject(new Error('not asked')) })
    await tested.test(port)
    expect([tested.gate(), tested.level().kind]).to.deep.equal([undefined, 'container'])
  })

  describe('with risky neighbours', () => {
    beforeEach(() => {
      risky = [{ pid: 9, key: '9 100', capabilities: ['NET_RAW'] }]
    })

    it('overlooks one that is there for moments only, as runtimes start processes', async () => {
      const tested = guard()
      const testing = tested.test(port)
      risky = [{ pid: 9, key: '9 101', capabilities: ['NET_RAW'] }]
      await testing
      expect(tested.level().kind).to.equal('process')
    })

    it('names containers only, until none was seen for a minute', async () => {
      const tested = guard()
      await tested.test(port)
      expect(tested.gate()).to.equal(undefined)
      expect(JSON.stringify(tested.level())).to.contain('container').and.to.contain('NET_RAW')
      risky = []
      time = 59_000
      await tested.test(port)
      expect(tested.level().kind).to.equal('container')
      time = 61_000
      expect(tested.level().kind).to.equal('process')
    })

    it('serves nothing where the operator says refuse', async () => {
      const tested = guard({ posture: 'refuse' })
      await tested.test(port)
      expect(tested.gate()?.refused).to.equal('identity_level')
    })

    it('only shows it where the operator says report', async () => {
      const tested = guard({ posture: 'report' })
      await tested.test(port)
      expect([tested.gate(), tested.level().kind]).to.deep.equal([undefined, 'process'])
      expect(tested.gauges()['risky_neighbours']).to.equal(1)
    })
  })
})
