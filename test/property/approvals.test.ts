import { expect } from 'chai'
import fc from 'fast-check'
import { after, before, describe, it } from 'mocha'
import { createApprovals, DEFAULT_PENDING_MS } from '../../broker/approvals/approvals.ts'
import type { Approvals } from '../../broker/approvals/approvals.ts'
import { requestDigest } from '../../broker/approvals/digest.ts'
import { mayBecome, TRANSITIONS } from '../../broker/approvals/states.ts'
import type { Store } from '../../broker/store/store.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { APPROVAL_STATES } from '../../shared/wire.ts'
import type { ApprovalState } from '../../shared/wire.ts'
import { facts } from '../support/entries.ts'
import { newFile, open, SILENT } from '../support/sqlite-store.ts'

const RUNS = process.env['SLOW'] === '1' ? 1000 : 40
const STEPS = [
  'approve',
  'deny',
  'cancel',
  'claim',
  'stranger',
  'succeed',
  'fail',
  'late',
  'get',
  'restart',
] as const
const ENDED: readonly ApprovalState[] = ['SUCCEEDED', 'FAILED', 'UNKNOWN']

/** Steps of one round run at the same time, rounds one after another. */
const rounds = fc.array(fc.array(fc.constantFrom(...STEPS), { minLength: 1, maxLength: 6 }), {
  maxLength: 6,
})

describe('a held request under any interleaving', () => {
  let store: Store
  let remove: () => void
  before(async () => {
    const made = newFile()
    remove = made.remove
    store = await open(made.file)
  })
  after(async () => {
    await store.close()
    remove()
  })

  it('is claimed at most once, only after an approval, and moves only along its table', async () => {
    await fc.assert(
      fc.asyncProperty(rounds, async (plan) => {
        let nowMs = Date.now()
        const make = (): Approvals => createApprovals({ store, log: SILENT, now: () => nowMs })
        let approvals = make()
        const held = facts({ id: newRequestId(nowMs) })
        const { id, digest, instanceId, podUid } = held
        await approvals.hold(held, [])
        let claims = 0
        let strangers = 0
        const count = (result: object): number => (isRefusal(result) ? 0 : 1)
        const steps: Record<(typeof STEPS)[number], () => Promise<unknown>> = {
          approve: () => approvals.decide({ id, reviewer: 'alice', approve: true, reason: 'x' }),
          deny: () => approvals.decide({ id, reviewer: 'bob', approve: false, reason: 'x' }),
          cancel: () => approvals.cancel(id, podUid),
          claim: async () => {
            const won = count(await approvals.claim({ id, digest, instanceId, podUid }))
            claims += won
          },
          stranger: async () => {
            const won = count(await approvals.claim({ id, digest, instanceId: 'other', podUid }))
            strangers += won
          },
          succeed: () => approvals.finish(id, 'SUCCEEDED'),
          fail: () => approvals.finish(id, 'FAILED'),
          late: () => {
            nowMs += DEFAULT_PENDING_MS
            return Promise.resolve()
          },
          get: () => approvals.get(id),
          restart: async () => {
            approvals.close()
            approvals = make()
            await approvals.recover()
          },
        }
        for (const round of plan) await Promise.all(round.map((step) => steps[step]()))
        approvals.close()

        const path = (await store.events({ requestId: id, kind: 'approval' }, 100))
          .map(
            ({ entry }) => [String(entry['from']), String(entry['to'])] as [string, ApprovalState],
          )
          .toReversed()
        const stored = await store.approval(id)
        expect(path[0]).to.deep.equal(['RECEIVED', 'PENDING'])
        path.slice(1).forEach(([from, to], i) => {
          expect(from).to.equal(path[i]?.[1])
          expect(mayBecome(from as ApprovalState, to)).to.equal(true)
        })
        expect(stored?.state).to.equal(path.at(-1)?.[1])
        expect(stored?.version).to.equal(path.length)
        const executed = path.filter(([, to]) => to === 'EXECUTING').length
        expect(claims).to.equal(executed)
        expect(claims).to.be.at.most(1)
        expect(strangers).to.equal(0)
        if (executed === 1) expect(path.map(([, to]) => to)).to.include('APPROVED')
        if (ENDED.includes(stored?.state ?? 'PENDING')) expect(executed).to.equal(1)
      }),
      { numRuns: RUNS },
    )
  }).timeout(60_000)

  it('can always end, and never leaves an end', () => {
    const ends = APPROVAL_STATES.filter((state) => TRANSITIONS[state].length === 0)
    expect(ends).to.have.members([
      'SUCCEEDED',
      'FAILED',
      'UNKNOWN',
      'DENIED',
      'EXPIRED',
      'CANCELLED',
      'REVOKED',
    ])
    const reaches = (state: ApprovalState, to: ApprovalState): boolean =>
      state === to || TRANSITIONS[state].some((next) => reaches(next, to))
    for (const state of APPROVAL_STATES) {
      expect(
        ends.some((end) => reaches(state, end)),
        state,
      ).to.equal(true)
      expect(reaches('PENDING', state), state).to.equal(true)
    }
  })
})

describe('the digest of any request', () => {
  const text = fc.string({ unit: 'binary', maxLength: 8 })
  const input = fc.record({
    ...{ cluster: text, method: text, path: text, contentType: text, bodySha256: text },
    connect: fc.boolean(),
    query: fc.array(fc.tuple(fc.oneof(text, fc.constant('timeout')), text), { maxLength: 4 }),
    identity: fc.record({ podUid: text, containerId: text, uid: fc.nat(), exe: text }),
  })
  /** What two requests must share to be one: pairs by name, in order within a name, without the timeout. */
  const meaning = (one: typeof input extends fc.Arbitrary<infer T> ? T : never): string => {
    const kept = one.query.filter(([name]) => one.connect || name !== 'timeout')
    const names = [...new Set(kept.map(([name]) => name))].sort()
    const query = names.map((name) => [
      name,
      kept.filter(([other]) => other === name).map(([, value]) => value),
    ])
    return JSON.stringify([
      one.cluster,
      one.method,
      one.path,
      query,
      one.contentType,
      one.bodySha256,
      one.identity,
    ])
  }

  it('is equal for two requests exactly when they mean the same', () => {
    fc.assert(
      fc.property(input, input, fc.boolean(), (one, other, shuffled) => {
        const second = shuffled ? { ...one, query: one.query.toReversed() } : other
        expect(requestDigest(one) === requestDigest(second)).to.equal(
          meaning(one) === meaning(second),
        )
      }),
      { numRuns: RUNS * 5 },
    )
  })
})
