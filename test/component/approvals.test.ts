import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { createApprovals, MAX_PENDING_PER_POD } from '../../broker/approvals/approvals.ts'
import type { Approvals, Asked } from '../../broker/approvals/types.ts'
import type { ApprovalEntry } from '../../broker/ledger/entry.ts'
import type { StoredApproval, Store } from '../../broker/store/store.ts'
import { isRefusal } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { facts, intent, pending, TERMS } from '../support/entries.ts'
import { newFile, open, SILENT } from '../support/sqlite-store.ts'

const PENDING_MS = TERMS.pendingSeconds * 1000
const APPROVED_MS = TERMS.approvedSeconds * 1000
const NEVER = new AbortController().signal

describe('held requests', () => {
  let file: string
  let remove: () => void
  let store: Store
  let approvals: Approvals
  let nowMs: number

  const start = async (): Promise<void> => {
    store = await open(file, { now: () => nowMs })
    approvals = createApprovals({ store, log: SILENT, now: () => nowMs })
    await approvals.recover()
  }
  const stop = async (): Promise<void> => {
    approvals.close()
    await store.close()
  }
  beforeEach(async () => {
    nowMs = Date.now()
    ;({ file, remove } = newFile())
    await start()
  })
  afterEach(async () => {
    await stop()
    remove()
  })

  const ask = async (change: Parameters<typeof facts>[0] = {}): Promise<Asked> => {
    const held = facts(change)
    return accepted(await approvals.ask(held, [intent({ requestId: held.id })]))
  }
  const hold = async (change: Parameters<typeof facts>[0] = {}): Promise<StoredApproval> =>
    (await ask(change)).approval
  const approve = (id: string, reviewer = 'alice') =>
    approvals.decide({ id, reviewer, approve: true, reason: 'fine' })
  const deny = (id: string) =>
    approvals.decide({ id, reviewer: 'alice', approve: false, reason: 'no' })
  const claimed = (held: StoredApproval, change: Partial<StoredApproval> = {}) => {
    const { id, digest, instanceId, callerKey } = { ...held, ...change }
    return approvals.claim({ id, digest, instanceId, callerKey })
  }
  /** The record of a claim that succeeds. */
  const claim = async (held: StoredApproval, change: Partial<StoredApproval> = {}) => {
    const result = await claimed(held, change)
    return isRefusal(result) ? result : result.approval
  }
  const states = async (id: string): Promise<string[]> => {
    const events = await store.events({ requestId: id, kind: 'approval' }, 100)
    return events.map(({ entry }) => `${String(entry['from'])} ${String(entry['to'])}`).toReversed()
  }

  it('go from asking to done with an entry for each step', async () => {
    const held = await hold()
    expect(held).to.include({ state: 'PENDING', version: 1 })
    expect(Date.parse(held.expiresAt)).to.equal(nowMs + PENDING_MS)
    expect(await approve(held.id)).to.include({
      state: 'APPROVED',
      reviewer: 'alice',
      reason: 'fine',
    })
    expect(await claim(held)).to.include({ state: 'EXECUTING', reviewer: 'alice' })
    await approvals.finish(held.id, 'SUCCEEDED')
    expect(await approvals.get(held.id)).to.include({ state: 'SUCCEEDED' })
    expect(await states(held.id)).to.deep.equal([
      ...['RECEIVED PENDING', 'PENDING APPROVED', 'APPROVED EXECUTING', 'EXECUTING SUCCEEDED'],
    ])
    const kinds = (await store.events({ requestId: held.id }, 10)).map(({ kind }) => kind)
    expect(kinds.at(-1)).to.equal('intent')
  })

  it('are claimed by exactly one of many who try at once', async () => {
    const held = await hold()
    await approve(held.id)
    const results = await Promise.all(Array.from({ length: 20 }, () => claim(held)))
    const won = results.filter((result) => !isRefusal(result))
    expect(won).to.have.length(1)
    expect(results.filter(isRefusal).map(({ refused }) => refused)).to.deep.equal(
      Array.from({ length: 19 }, () => 'approval_spent'),
    )
  })

  const mismatches: readonly [string, Partial<StoredApproval>, string][] = [
    ['another digest', { digest: 'f'.repeat(64) }, 'approval_mismatch'],
    ['another process', { instanceId: 'instance-2' }, 'approval_mismatch'],
    ['another caller', { callerKey: 'pod-2' }, 'request_unknown'],
    ['another id', { id: 'nothing' }, 'request_unknown'],
  ]
  for (const [what, change, reason] of mismatches) {
    it(`are not claimed with ${what}, and stay claimable`, async () => {
      const held = await hold()
      await approve(held.id)
      expect(await claim(held, change)).to.have.property('refused', reason)
      expect(await claim(held)).to.include({ state: 'EXECUTING' })
    })
  }

  const unclaimable: readonly [string, (held: StoredApproval) => Promise<unknown>, string][] = [
    ['nobody decided', () => Promise.resolve(), 'approval_required'],
    ['denied', (held) => deny(held.id), 'approval_denied'],
    ['cancelled', (held) => approvals.leave(held.id, held), 'approval_cancelled'],
    [
      'expired undecided',
      () => {
        nowMs += PENDING_MS
        return Promise.resolve()
      },
      'approval_expired',
    ],
    [
      'approved too long ago',
      async (held) => {
        await approve(held.id)
        nowMs += APPROVED_MS
      },
      'approval_expired',
    ],
    [
      'claimed already',
      async (held) => {
        await approve(held.id)
        await claim(held)
      },
      'approval_spent',
    ],
    [
      'done',
      async (held) => {
        await approve(held.id)
        await claim(held)
        await approvals.finish(held.id, 'FAILED')
      },
      'approval_spent',
    ],
  ]
  for (const [what, prepare, reason] of unclaimable) {
    it(`are not claimed when ${what}`, async () => {
      const held = await hold()
      await prepare(held)
      expect(await claim(held)).to.have.property('refused', reason)
    })
  }

  it('stay claimable until the very end of their time, and a moment before', async () => {
    const held = await hold()
    nowMs += PENDING_MS - 1
    await approve(held.id)
    nowMs += APPROVED_MS - 1
    expect(await claim(held)).to.include({ state: 'EXECUTING' })
  })

  for (const reviewer of [
    'system:serviceaccount:shop:agents',
    'System:ServiceAccount:shop:agents',
  ]) {
    it(`are not decided by who asked: ${reviewer}`, async () => {
      const held = await hold()
      expect(await approve(held.id, reviewer)).to.have.property('refused', 'self_approval')
      expect(await approvals.get(held.id)).to.include({ state: 'PENDING' })
    })
  }

  it('are decided once: the second reviewer is told so, whatever they say', async () => {
    const held = await hold()
    const [first, second] = await Promise.all([deny(held.id), approve(held.id, 'bob')])
    expect(first).to.include({ state: 'DENIED', reviewer: 'alice' })
    expect(second).to.have.property('refused', 'approval_not_pending')
    expect(await approvals.leave(held.id, held)).to.have.property('refused', 'approval_not_pending')
    expect(await states(held.id)).to.deep.equal(['RECEIVED PENDING', 'PENDING DENIED'])
  })

  it('are cancelled by their own pod only', async () => {
    const held = await hold()
    expect(await approvals.leave(held.id, { podUid: 'pod-2' })).to.have.property(
      'refused',
      'request_unknown',
    )
    expect(await approvals.leave(held.id, { podUid: 'pod-1' })).to.include({ state: 'CANCELLED' })
  })

  describe('waited for', () => {
    const wait = (held: StoredApproval, ms: number, signal = NEVER, podUid = 'pod-1') =>
      approvals.waitFor(held.id, { podUid }, ms, signal)

    it('wake who waits as soon as somebody decides', async () => {
      const held = await hold()
      const waiting = wait(held, 20_000)
      const startMs = performance.now()
      await approve(held.id)
      expect(await waiting).to.include({ state: 'APPROVED' })
      expect(performance.now() - startMs).to.be.lessThan(900)
    })

    it('answer at once when the decision was made before', async () => {
      const held = await hold()
      await deny(held.id)
      expect(await wait(held, 20_000)).to.include({ state: 'DENIED', reason: 'no' })
    })

    it('answer PENDING when the time is over', async () => {
      expect(await wait(await hold(), 50)).to.include({ state: 'PENDING' })
    })

    it('stop waiting when the client leaves, or the broker closes', async () => {
      const held = await hold()
      const leaving = new AbortController()
      const waits = [wait(held, 20_000, leaving.signal), wait(held, 20_000)]
      leaving.abort()
      expect(await waits[0]).to.include({ state: 'PENDING' })
      approvals.close()
      expect(await waits[1]).to.include({ state: 'PENDING' })
    })

    it('see a decision that was made past this process, within the safety net', async () => {
      const held = await hold()
      const waiting = wait(held, 20_000)
      const entry: ApprovalEntry = {
        ...{ kind: 'approval', requestId: held.id, cluster: 'main' },
        ...{ from: 'PENDING', to: 'DENIED', actor: 'x', reason: 'y' },
      }
      await store.transition({ id: held.id, version: 1, to: 'DENIED', nowMs, entry })
      expect(await waiting).to.include({ state: 'DENIED' })
    })

    it('tell who waits that the time is up', async () => {
      const held = await hold()
      const waiting = wait(held, 20_000)
      nowMs += PENDING_MS
      expect(await waiting).to.include({ state: 'EXPIRED' })
    })

    it('are unknown to another pod', async () => {
      const held = await hold()
      expect(await wait(held, 20_000, NEVER, 'pod-2')).to.have.property(
        'refused',
        'request_unknown',
      )
    })
  })

  it('expire by themselves, with an entry, though nobody looks', async () => {
    const held = await hold()
    nowMs += PENDING_MS
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    expect(await store.approval(held.id)).to.include({ state: 'EXPIRED' })
    expect(await states(held.id)).to.deep.equal(['RECEIVED PENDING', 'PENDING EXPIRED'])
  })

  it('are listed as what they are now: an overdue one is not open', async () => {
    const old = await hold()
    nowMs += PENDING_MS - 10
    const young = await hold()
    nowMs += 20
    expect((await approvals.list({ states: ['PENDING'] }, 10)).map(({ id }) => id)).to.deep.equal([
      young.id,
    ])
    const all = await approvals.list({}, 10)
    expect(all.map(({ id, state }) => [id, state])).to.deep.equal([
      [young.id, 'PENDING'],
      [old.id, 'EXPIRED'],
    ])
  })

  it('are limited for each pod, also when they come together, and room is made by decisions', async () => {
    const results = await Promise.all(
      Array.from({ length: MAX_PENDING_PER_POD + 5 }, () => approvals.ask(facts(), [])),
    )
    expect(results.filter(isRefusal).map(({ refused }) => refused)).to.deep.equal(
      Array.from({ length: 5 }, () => 'approvals_full'),
    )
    expect(await hold({ podUid: 'pod-2' })).to.include({ state: 'PENDING' })
    await approve(accepted(results[0]!).approval.id)
    expect(await hold()).to.include({ state: 'PENDING' })
    await stop()
    await start()
    expect(await approvals.ask(facts(), [])).to.have.property('refused', 'approvals_full')
  })

  it('leave no trace in the limit when the store failed', async () => {
    for (let i = 0; i < MAX_PENDING_PER_POD; i += 1) {
      // Stored past this process, so that the id is taken and the store refuses it.
      const taken = pending()
      await store.hold(taken, [])
      const failed = await approvals
        .ask(facts({ id: taken.id }), [])
        .catch((fault: unknown) => fault)
      expect(failed).to.have.property('code', 'store_failed')
    }
    expect(await hold()).to.include({ state: 'PENDING' })
  })

  describe('after a restart', () => {
    it('are still there, decided and undecided, and can be claimed', async () => {
      const [undecided, approved] = [await hold(), await hold()]
      await approve(approved.id)
      await stop()
      await start()
      expect(await claim(approved)).to.include({ state: 'EXECUTING' })
      await approve(undecided.id)
      expect(await claim(undecided)).to.include({ state: 'EXECUTING' })
    })

    it('are UNKNOWN when they were executing, with an outcome that says why, and only once', async () => {
      const held = await hold()
      await approve(held.id)
      await claim(held)
      for (let i = 0; i < 2; i += 1) {
        await stop()
        await start()
      }
      expect(await approvals.get(held.id)).to.include({ state: 'UNKNOWN', reviewer: 'alice' })
      expect(await claim(held)).to.have.property('refused', 'approval_spent')
      const outcomes = await store.events({ requestId: held.id, kind: 'outcome' }, 10)
      expect(outcomes.map(({ entry }) => [entry['status'], entry['reason']])).to.deep.equal([
        [0, 'broker_restarted'],
      ])
      expect((await states(held.id)).at(-1)).to.equal('EXECUTING UNKNOWN')
      await approvals.finish(held.id, 'SUCCEEDED')
      expect(await approvals.get(held.id)).to.include({ state: 'UNKNOWN' })
    })

    it('are expired when their time ran out meanwhile', async () => {
      const held = await hold()
      await stop()
      nowMs += PENDING_MS
      await start()
      expect(await approve(held.id)).to.have.property('refused', 'approval_not_pending')
      expect(await approvals.get(held.id)).to.include({ state: 'EXPIRED' })
    })
  })
})

function accepted<T extends object>(result: T | Refusal): T {
  if (isRefusal(result)) throw new Error(`refused: ${result.refused}`)
  return result
}
