import { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import type { AgentTag } from '../../../shared/agent-tag.ts'
import { createLog } from '../../../shared/log.ts'
import { refuse } from '../../../shared/reasons.ts'
import type { Refusal } from '../../../shared/reasons.ts'
import type { DeliverDeps } from '../../../sidecar/deliver.ts'
import { MAX_BUSY, watchCaller } from '../../../sidecar/watch-caller.ts'

/** Time between two looks, in milliseconds, and what is long enough for some of them. */
const EVERY_MS = 5
const MANY_MS = 150

const CALLER: AgentTag = { verdict: 'exclusive', instanceId: 'a' }
const BUSY = refuse('attribution_busy')
type Answer = AgentTag | Refusal

describe('watching who holds a session', () => {
  let looks: number
  let changes: number
  let stop: () => void

  beforeEach(() => {
    looks = 0
    changes = 0
  })
  afterEach(() => {
    stop()
  })

  /** Answers look by look; the last answer goes on. */
  function watch(answers: readonly (Answer | Promise<Answer>)[], caller = CALLER): void {
    const identify = (): Promise<Answer> => {
      looks += 1
      return Promise.resolve(answers[Math.min(looks, answers.length) - 1] ?? caller)
    }
    const deps = {
      callers: { identify } as unknown as DeliverDeps['callers'],
      log: createLog('test', 'silent'),
      metrics: { lookup: () => undefined },
      now: () => 0,
    }
    const changed = (): void => {
      changes += 1
    }
    stop = watchCaller(deps, new Socket(), caller, changed, EVERY_MS)
  }

  it('goes on while nothing has changed', async () => {
    watch([CALLER])
    await sleep(MANY_MS)
    expect(looks).to.be.greaterThan(MAX_BUSY + 1)
    expect(changes).to.equal(0)
  })

  const others: [string, Answer][] = [
    ['another instance', { ...CALLER, instanceId: 'b' }],
    ['several', { verdict: 'shared', reason: 'held by processes 1, 2' }],
    ['nobody', { verdict: 'unidentified', reason: 'gone' }],
    ['one less sure', { ...CALLER, verdict: 'container_only' }],
    ['one who is refused', refuse('connection_identity_changed')],
  ]
  for (const [name, answer] of others)
    it(`tells, once, that it is held by ${name}`, async () => {
      watch([CALLER, CALLER, answer])
      await sleep(MANY_MS)
      expect([looks, changes]).to.deep.equal([3, 1])
    })

  it('tells that the user of the socket is another, where no more is known', async () => {
    const before: AgentTag = { verdict: 'container_only', socket: { uid: 1 } }
    watch([before, { verdict: 'container_only', socket: { uid: 2 } }], before)
    await sleep(MANY_MS)
    expect([looks, changes]).to.deep.equal([2, 1])
  })

  it('bears looks at too much to search, but not too many in a row', async () => {
    const few = Array.from({ length: MAX_BUSY - 1 }, () => BUSY)
    watch([...few, CALLER, ...few, CALLER, BUSY])
    await sleep(MANY_MS)
    expect([looks, changes]).to.deep.equal([2 * MAX_BUSY + MAX_BUSY, 1])
  })

  it('tells nothing once it was ended, in the middle of a look as well', async () => {
    const late = Promise.withResolvers<Answer>()
    watch([late.promise])
    while (looks === 0) await sleep(1)
    stop()
    late.resolve({ ...CALLER, instanceId: 'b' })
    await sleep(MANY_MS)
    expect([looks, changes]).to.deep.equal([1, 0])
  })

  it('looks no more once it was ended', async () => {
    watch([{ ...CALLER, instanceId: 'b' }])
    stop()
    await sleep(MANY_MS)
    expect([looks, changes]).to.deep.equal([0, 0])
  })
})
