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
  let rawSocket: boolean
  let survey: GuardDeps['survey']
  let time: number

  beforeEach(async () => {
    whoami = OWN
    risky = []
    rawSocket = false
    survey = () => Promise.resolve({ seen: 5, unread: 0, sawFirst: true })
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
      own: { pid: process.pid, isTraceable: false },
      profile: 'R',
      posture: 'degrade',
      survey: () => survey(),
      neighbours: () => risky,
      rawSockets: () => rawSocket,
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

  const problems: [string, Partial<GuardDeps>, RegExp][] = [
    [
      'it is the first process itself',
      { own: { pid: 1, isTraceable: false } },
      /shareProcessNamespace/,
    ],
    [
      'the first process is out of sight',
      { survey: () => Promise.resolve({ seen: 5, unread: 0, sawFirst: false }) },
      /shareProcessNamespace/,
    ],
    [
      'others of its user can trace it',
      { own: { pid: process.pid, isTraceable: true } },
      /can be traced/,
    ],
    [
      'others can trace it, in profile C too',
      { own: { pid: process.pid, isTraceable: true }, profile: 'C' },
      /can be traced/,
    ],
  ]
  for (const [name, settings, problem] of problems)
    it(`fails when ${name}`, async () => {
      const tested = guard(settings)
      await tested.test(port)
      expect(tested.gate()?.refused).to.equal('attribution_unavailable')
      expect(tested.gate()?.detail).to.match(problem)
      expect(tested.gauges()).to.include({ self_test_passed: 0 })
    })

  it('does not fail for too much to search, which each request meets for itself', async () => {
    const tested = guard()
    await tested.test(port)
    whoami = { reason: 'nestgate.dev/attribution_busy' }
    await tested.test(port)
    expect(tested.gate()).to.equal(undefined)
  })

  it('names no process while a raw socket is open in the pod, whoever has it', async () => {
    rawSocket = true
    const tested = guard()
    await tested.test(port)
    expect(tested.level()).to.include({ kind: 'container' })
    rawSocket = false
    time = 61_000
    expect(tested.level()).to.deep.equal({ kind: 'process' })
  })

  it('does not ask for processes in profile C', async () => {
    const survey = (): never => expect.fail('asked')
    const tested = guard({ profile: 'C', own: { pid: 1, isTraceable: false }, survey })
    whoami = { verdict: 'container_only', socket: { uid: process.geteuid?.() } }
    await tested.test(port)
    expect(tested.gate()).to.equal(undefined)
  })

  describe('watching', () => {
    let waits: number[]
    let looks: number[]
    let tests: number[]
    let ending: AbortController

    beforeEach(() => {
      waits = []
      looks = []
      tests = []
      ending = new AbortController()
    })

    /** Time goes on only as it waits, and ends after three minutes. */
    async function watched(): Promise<void> {
      const tested = guard({
        pause: (ms) => {
          waits.push(ms)
          time += ms
          if (time > 180_000) ending.abort()
          return Promise.resolve()
        },
        neighbours: () => {
          looks.push(time)
          return risky
        },
        survey: () => {
          tests.push(time)
          return survey()
        },
      })
      await tested.test(port)
      tests.length = looks.length = waits.length = time = 0
      await tested.watch(port, ending.signal)
    }

    it('looks at the neighbours every five seconds and tests everything every minute', async () => {
      await watched()
      expect(tests).to.deep.equal([60_000, 120_000, 180_000])
      expect(looks).to.deep.equal(Array.from({ length: 36 }, (_, at) => (at + 1) * 5000))
      expect(new Set(waits)).to.deep.equal(new Set([5000]))
    })

    it('looks again at once at neighbours that are risky', async () => {
      risky = [{ pid: 9, key: '9 100', capabilities: ['NET_RAW'] }]
      await watched()
      expect(looks.slice(0, 4)).to.deep.equal([5000, 5500, 10_500, 11_000])
    })

    it('fails, and passes again, as the tests do, which come more often while they fail', async () => {
      const states: (boolean | undefined)[] = []
      let recovered = false
      const tested = guard({
        pause: (ms) => {
          time += ms
          if (time % 60_000 === 5000) states.push(tested.gate() === undefined)
          if (time === 65_000) whoami = { verdict: 'unidentified' }
          if (time === 125_000) whoami = OWN
          if (time === 135_000) recovered = tested.gate() === undefined
          if (time > 240_000) ending.abort()
          return Promise.resolve()
        },
      })
      await tested.test(port)
      await tested.watch(port, ending.signal)
      expect(states).to.deep.equal([true, true, false, true, true])
      expect(recovered).to.equal(true)
    })

    it('ends when it is told to, without waiting for the next look', async () => {
      const watching = guard().watch(port, ending.signal)
      ending.abort()
      await watching
      expect(looks).to.deep.equal([])
    })
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

    for (const [posture, refused, level] of [
      ['degrade', undefined, 'container'],
      ['refuse', 'identity_level', 'process'],
    ] as const)
      it(`takes more of them than it may look at for a risk: ${posture}`, async () => {
        const neighbours = (): never => {
          throw new SearchLimitError('many threads')
        }
        const tested = guard({ posture, neighbours })
        await tested.test(port)
        expect([tested.gate()?.refused, tested.level().kind]).to.deep.equal([refused, level])
        expect(tested.gauges()['risky_neighbours']).to.equal(1)
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
