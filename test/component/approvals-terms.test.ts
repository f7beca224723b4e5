import { expect } from 'chai'
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { createApprovals, MAX_PREVIEW_BYTES } from '../../broker/approvals/approvals.ts'
import { DENIED_AGAIN_MS } from '../../broker/approvals/repeats.ts'
import type { ApprovalEvent, Approvals, Asked, Claimed } from '../../broker/approvals/types.ts'
import type { StoredApproval, Store } from '../../broker/store/store.ts'
import { isRefusal } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { facts, intent } from '../support/entries.ts'
import { newFile, open, SILENT } from '../support/sqlite-store.ts'

const CLAIMER = new URL('../support/claim-until-killed.ts', import.meta.url)
const NEVER = new AbortController().signal

describe('held requests, by their terms', () => {
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
  const restart = async (): Promise<void> => {
    approvals.close()
    await store.close()
    await start()
  }
  beforeEach(async () => {
    nowMs = Date.now()
    ;({ file, remove } = newFile())
    await start()
  })
  afterEach(async () => {
    approvals.close()
    await store.close()
    remove()
  })

  type Change = Parameters<typeof facts>[0]
  const ask = async (change: Change = {}): Promise<Asked> => {
    const held = facts(change)
    return accepted(await approvals.ask(held, [intent({ requestId: held.id })]))
  }
  const hold = async (change: Change = {}): Promise<StoredApproval> => (await ask(change)).approval
  const approve = (id: string, reviewer = 'alice', groups: string[] = [], names: string[] = []) =>
    approvals.decide({ id, reviewer, groups, names, approve: true, reason: `${reviewer} agrees` })
  const deny = (id: string, reviewer = 'alice') =>
    approvals.decide({ id, reviewer, approve: false, reason: 'no' })
  const revoke = (id: string, reviewer = 'root') =>
    approvals.revoke({ id, reviewer, reason: 'changed my mind' })
  const claim = ({ id, digest, callerKey, instanceId }: StoredApproval, instance = instanceId) =>
    approvals.claim({ id, digest, callerKey, instanceId: instance })
  const run = async (held: StoredApproval): Promise<Claimed> => {
    await approve(held.id)
    return accepted(await claim(held))
  }
  const states = async (id: string): Promise<string[]> => {
    const events = await store.events({ requestId: id, kind: 'approval' }, 100)
    return events.map(({ entry }) => `${String(entry['from'])} ${String(entry['to'])}`).toReversed()
  }
  const state = async (id: string): Promise<string> => accepted(await approvals.get(id)).state

  describe('quorums', () => {
    const quorums = [
      { group: 'sre', count: 1 },
      { group: 'security', count: 1 },
    ]

    it('are met by different people of each group, with an entry for each who spoke', async () => {
      const { id } = await hold({ terms: { quorums } })
      expect(await approve(id, 'ann', ['sre'])).to.include({ state: 'PENDING' })
      expect(await approve(id, 'bob', ['sre'])).to.include({ refused: 'reviewer_not_eligible' })
      const done = accepted(await approve(id, 'eve', ['security', 'other']))
      expect(done).to.include({ state: 'APPROVED', reviewer: 'eve', reason: 'eve agrees' })
      expect(done.progress.reviews.map(({ reviewer }) => reviewer)).to.deep.equal(['ann', 'eve'])
      expect(await states(id)).to.deep.equal([
        ...['RECEIVED PENDING', 'PENDING PENDING', 'PENDING APPROVED'],
      ])
      const spoke = await store.events({ requestId: id, reviewer: 'ann' }, 10)
      expect(spoke.map(({ entry }) => entry['review'])).to.deep.equal([
        { verdict: 'approve', groups: ['sre'] },
      ])
    })

    it('let who is in several groups make room for who is in one, in whatever order they come', async () => {
      const ann = ['ann', ['sre', 'security']] as const
      const bob = ['bob', ['sre']] as const
      for (const [first, second] of [
        [ann, bob],
        [bob, ann],
      ] as const) {
        const { id } = await hold({ terms: { quorums } })
        expect(await approve(id, first[0], [...first[1]])).to.include({ state: 'PENDING' })
        expect(await approve(id, second[0], [...second[1]])).to.include({ state: 'APPROVED' })
      }
    })

    it('count each person once, by whatever name', async () => {
      const { id } = await hold({ terms: { quorums: [{ group: 'sre', count: 2 }] } })
      await approve(id, 'ann', ['sre'])
      for (const [name, names] of [
        ['ann', []],
        ['ANN', []],
        ['oidc:7', ['Ann']],
      ] as const) {
        expect(await approve(id, name, ['sre'], [...names])).to.include({
          refused: 'already_reviewed',
        })
      }
      expect(await approve(id, 'bob', ['sre'])).to.include({ state: 'APPROVED' })
    })

    it('are refused to strangers, who are told what is missing, and who may still deny', async () => {
      const { id } = await hold({ terms: { quorums } })
      const refused = await approve(id, 'zoe', ['cooks'])
      expect(refused).to.deep.equal({
        refused: 'reviewer_not_eligible',
        detail: '1 of sre, 1 of security',
      })
      await approve(id, 'ann', ['sre'])
      expect(await deny(id, 'ann')).to.include({ state: 'DENIED', reviewer: 'ann' })
      expect(await approve(id, 'eve', ['security'])).to.include({ refused: 'approval_not_pending' })
    })

    it('keep every review over a restart, and lose none of two that come at once', async () => {
      const { id } = await hold({ terms: { quorums: [{ group: 'sre', count: 3 }] } })
      await Promise.all([approve(id, 'ann', ['sre']), approve(id, 'bob', ['sre'])])
      await restart()
      expect(await state(id)).to.equal('PENDING')
      expect(await approve(id, 'cid', ['sre'])).to.include({ state: 'APPROVED' })
    })
  })

  const involved: readonly [string, Change, string, string[], string[]][] = [
    ['the subject of its token', { requesters: ['oidc:Zoë'] }, 'oidc:zoe\u0308', [], []],
    ['them under another name', { requesters: ['oidc:7'] }, 'ann', [], ['oidc:7']],
    ['an owner of the agent', { owners: ['Ann'] }, 'ann', [], []],
    ['a member of the owning group', { owners: ['group:bots'] }, 'ann', ['bots'], []],
    ['a name that differs in case only', { requesters: ['STRASSE'] }, 'straße', [], []],
  ]
  for (const [what, change, name, groups, names] of involved) {
    it(`are not decided by ${what}`, async () => {
      const { id } = await hold(change)
      const review = { id, reviewer: name, groups, names, reason: 'x' }
      for (const approve of [true, false]) {
        expect(await approvals.decide({ ...review, approve })).to.include({
          refused: 'self_approval',
        })
      }
      expect(await states(id)).to.deep.equal(['RECEIVED PENDING'])
    })
  }

  it('expire by their own terms, pending and approved', async () => {
    const [one, two] = [
      await hold({ terms: { pendingSeconds: 5 } }),
      await hold({ terms: { approvedSeconds: 5 } }),
    ]
    await approve(two.id)
    nowMs += 5_000
    expect(await claim(two)).to.include({ refused: 'approval_expired' })
    expect(await approve(one.id)).to.include({ refused: 'approval_not_pending' })
  })

  it('are approved or expired, never both, where one broker decides as another one’s clock ends it', async () => {
    const other = createApprovals({ store, log: SILENT, now: () => nowMs + 5_000 })
    try {
      for (let i = 0; i < 20; i += 1) {
        const { id } = await hold({ terms: { pendingSeconds: 5 } })
        const approving = (): Promise<unknown> => approve(id)
        const expiring = (): Promise<unknown> => other.get(id)
        const both = i % 2 === 0 ? [approving, expiring] : [expiring, approving]
        const answers = await Promise.all(both.map((one) => one()))
        const end = (answers as (Refusal | StoredApproval)[]).some(isRefusal)
          ? 'EXPIRED'
          : 'APPROVED'
        expect(await states(id)).to.deep.equal(['RECEIVED PENDING', `PENDING ${end}`])
        expect(await state(id)).to.equal(end)
      }
    } finally {
      other.close()
    }
  })

  it('keep a preview up to a size, and say where it was cut', async () => {
    const preview = { kind: 'diff', text: `x${'é'.repeat(MAX_PREVIEW_BYTES / 2)}` } as const
    const { id } = await hold({ preview })
    const kept = accepted(await approvals.get(id)).preview
    expect(kept?.text).to.equal(`x${'é'.repeat(MAX_PREVIEW_BYTES / 2 - 1)}`)
    expect(kept?.note).to.contain('cut')
  })

  describe('asked again', () => {
    const digest = 'e'.repeat(64)
    const again = { digest }

    it('join what is pending: one ticket, and both intents', async () => {
      const first = await hold(again)
      const second = facts({ ...again, instanceId: 'instance-2' })
      const asked = await approvals.ask(second, [intent({ requestId: second.id })])
      expect(asked).to.deep.include({ folded: true, approval: first })
      const kinds = (await store.events({ requestId: second.id }, 9)).map(({ entry }) => [
        entry['kind'],
        entry['to'],
      ])
      expect(kinds).to.deep.equal([
        ['approval', 'FOLDED'],
        ['intent', undefined],
      ])
      await approve(first.id)
      expect(await claim(first, 'instance-2')).to.have.nested.property(
        'approval.state',
        'EXECUTING',
      )
      expect(await claim(first)).to.include({ refused: 'approval_spent' })
    })

    it('become one ticket however many come at once, also past each other’s memory', async () => {
      const other = createApprovals({ store, log: SILENT, now: () => nowMs })
      const asked = await Promise.all(
        Array.from({ length: 20 }, (_, i) => (i % 2 ? other : approvals).ask(facts(again), [])),
      )
      other.close()
      const ids = asked.map((one) => accepted(one).approval.id)
      expect(new Set(ids).size).to.equal(1)
      expect(asked.filter((one) => !accepted(one).folded)).to.have.length(1)
      expect(await store.approvals({ states: ['PENDING'] }, 10)).to.have.length(1)
    })

    for (const [what, change] of [
      ['another digest', { digest: 'f'.repeat(64) }],
      ['another caller', { digest, callerKey: 'somebody' }],
    ] as const) {
      it(`do not join with ${what}`, async () => {
        await hold(again)
        expect(await ask(change)).to.include({ folded: false })
      })
    }

    it('find what was approved after its client was sent away, from any process', async () => {
      const first = await hold(again)
      expect(await approvals.parked(first.id, first)).to.include({ state: 'PENDING' })
      await approve(first.id)
      const { approval, folded } = await ask({ ...again, instanceId: 'instance-2' })
      expect([approval.id, approval.state, folded]).to.deep.equal([first.id, 'APPROVED', true])
      expect(accepted(await claim(approval, 'instance-2')).approval.state).to.equal('EXECUTING')
      expect((await ask(again)).approval.state).to.equal('PENDING')
    })

    it('find it in return mode, where no client ever waited', async () => {
      const first = await hold({ ...again, clientWaits: false })
      await approve(first.id)
      await restart()
      expect((await ask(again)).approval.id).to.equal(first.id)
    })

    it('ask anew while the client of an approved one still waits: it will use it', async () => {
      const first = await hold(again)
      await approve(first.id)
      const { approval, folded } = await ask({ ...again, instanceId: 'instance-2' })
      expect([folded, approval.state]).to.deep.equal([false, 'PENDING'])
      expect(await claim(first, 'instance-2')).to.include({ refused: 'approval_mismatch' })
      expect(accepted(await claim(first)).approval.id).to.equal(first.id)
    })

    it('get the same denial, for a moment and for the same process only', async () => {
      const first = await hold(again)
      await deny(first.id)
      nowMs += DENIED_AGAIN_MS - 1
      expect(await ask(again)).to.deep.include({ folded: true })
      expect((await ask(again)).approval).to.include({ id: first.id, state: 'DENIED' })
      const other = await hold({ ...again, instanceId: 'instance-2' })
      expect(other).to.include({ state: 'PENDING' })
      await deny(other.id)
      nowMs += DENIED_AGAIN_MS
      expect((await ask(again)).approval).to.include({ state: 'PENDING' })
    })

    it('are not full where they join', async () => {
      await hold(again)
      for (let i = 0; i < 99; i += 1) await hold()
      expect(await approvals.ask(facts(), [])).to.include({ refused: 'approvals_full' })
      expect(await ask(again)).to.include({ folded: true })
    })
  })

  describe('reused', () => {
    const terms = { reuseSeconds: 60 }
    const same = { digest: 'e'.repeat(64), terms }

    it('pass again within the time, each as a request of its own that names the approval', async () => {
      const first = await hold(same)
      await run(first)
      await approvals.finish(first.id, 'SUCCEEDED')
      nowMs += 59_000
      for (let i = 0; i < 3; i += 1) {
        const { approval, folded } = await ask(same)
        expect(approval).to.include({ state: 'APPROVED', reusedFrom: first.id, reviewer: 'alice' })
        expect(folded).to.equal(false)
        expect(accepted(await claim(approval)).approval.state).to.equal('EXECUTING')
        await approvals.finish(approval.id, 'SUCCEEDED')
        expect((await states(approval.id))[0]).to.equal('RECEIVED APPROVED')
      }
      // what was reused does not begin a new time
      nowMs += 1_000
      expect((await ask(same)).approval).to.include({ state: 'PENDING' })
    })

    const refused: readonly [string, (first: StoredApproval) => Promise<unknown>, Change][] = [
      ['that ended UNKNOWN', (first) => approvals.finish(first.id, 'UNKNOWN'), same],
      [
        'whose reuse was ended',
        async (first) => {
          await approvals.finish(first.id, 'SUCCEEDED')
          accepted(await revoke(first.id))
        },
        same,
      ],
      ['once', (first) => approvals.finish(first.id, 'SUCCEEDED'), { ...same, terms: {} }],
      [
        'that lacks people of now',
        (first) => approvals.finish(first.id, 'SUCCEEDED'),
        { ...same, terms: { ...terms, quorums: [{ group: 'sre', count: 1 }] } },
      ],
      [
        'by who asks now',
        (first) => approvals.finish(first.id, 'SUCCEEDED'),
        { ...same, requesters: ['Alice'] },
      ],
    ]
    for (const [what, prepare, change] of refused) {
      it(`do not pass on an approval ${what}`, async () => {
        const first = await hold(same)
        await run(first)
        await prepare(first)
        expect((await ask(change)).approval).to.include({ state: 'PENDING' })
      })
    }

    it('are not claimed when the approval is revoked between asking and claiming', async () => {
      const first = await hold(same)
      await run(first)
      await approvals.finish(first.id, 'SUCCEEDED')
      const { approval } = await ask(same)
      accepted(await revoke(first.id))
      expect(await claim(approval)).to.include({
        refused: 'approval_revoked',
        detail: 'changed my mind',
      })
    })
  })

  describe('revoked', () => {
    it('cannot be claimed, and say why', async () => {
      const held = await hold()
      await approve(held.id)
      expect(await revoke(held.id, 'alice')).to.include({ state: 'REVOKED', reviewer: 'alice' })
      expect(await claim(held)).to.deep.equal({
        refused: 'approval_revoked',
        detail: 'changed my mind',
      })
      expect((await states(held.id)).at(-1)).to.equal('APPROVED REVOKED')
    })

    it('while a stream runs: it is cut at once, and its end is no error', async () => {
      const held = await hold({ streaming: true })
      const { revoked } = await run(held)
      expect(revoked.aborted).to.equal(false)
      await revoke(held.id)
      expect(revoked.aborted).to.equal(true)
      await approvals.finish(held.id, 'SUCCEEDED')
      expect(await state(held.id)).to.equal('REVOKED')
    })

    it('by another broker: the stream is cut within the safety net', async () => {
      const held = await hold({ streaming: true })
      const { revoked } = await run(held)
      const other = createApprovals({ store, log: SILENT, now: () => nowMs })
      accepted(await other.revoke({ id: held.id, reviewer: 'root', reason: 'x' }))
      other.close()
      await new Promise((resolve) => {
        revoked.addEventListener('abort', resolve)
      })
    }).timeout(4_000)

    it('not while anything else runs, nor before or after', async () => {
      const held = await hold()
      expect(await revoke(held.id)).to.include({ refused: 'approval_not_revocable' })
      const { revoked } = await run(held)
      expect(await revoke(held.id)).to.include({ refused: 'approval_not_revocable' })
      await approvals.finish(held.id, 'SUCCEEDED')
      expect(await revoke(held.id)).to.include({ refused: 'approval_not_revocable' })
      expect(revoked.aborted).to.equal(false)
    })

    it('or claimed, never both', async () => {
      for (let i = 0; i < 20; i += 1) {
        const held = await hold()
        await approve(held.id)
        const [claimed, revoked] = await Promise.all([claim(held), revoke(held.id)])
        expect([claimed, revoked].filter(isRefusal)).to.have.length(1)
        expect(await state(held.id)).to.equal(isRefusal(claimed) ? 'REVOKED' : 'EXECUTING')
      }
    })
  })

  describe('broken through in an emergency', () => {
    const emergency = (change: Change = {}): Promise<Claimed> => approvals.open(facts(change), [])
    const close = (
      id: string,
      reviewer = 'alice',
      verdict: 'justified' | 'unjustified' = 'justified',
    ) => approvals.closeReview({ id, reviewer, verdict, reason: 'I called them' })

    it('run at once and leave a review, that another person closes once', async () => {
      const { approval, revoked } = await emergency({ requesters: ['ann'] })
      const { id } = approval
      expect(approval).to.include({ state: 'EXECUTING', breakGlass: true, review: 'open' })
      expect(revoked.aborted).to.equal(false)
      expect(await close(id)).to.include({ refused: 'review_not_open' })
      await approvals.finish(id, 'SUCCEEDED')
      const openOnes = await approvals.list({ review: 'open' }, 10)
      expect(openOnes.map((one) => one.id)).to.deep.equal([id])
      expect(await close(id, 'Ann')).to.include({ refused: 'self_approval' })
      const closed = accepted(await close(id, 'alice', 'unjustified'))
      expect(closed).to.include({ state: 'SUCCEEDED', review: 'closed' })
      expect(closed.progress.closing).to.include({ verdict: 'unjustified', reviewer: 'alice' })
      expect(await close(id)).to.include({ refused: 'review_not_open' })
      expect(await approvals.list({ review: 'open' }, 10)).to.deep.equal([])
      expect(await states(id)).to.deep.equal([
        ...['RECEIVED EXECUTING', 'EXECUTING SUCCEEDED', 'SUCCEEDED SUCCEEDED'],
      ])
    })

    it('keep their review open over a restart in which the request was lost', async () => {
      const { approval } = await emergency()
      await restart()
      expect(await approvals.get(approval.id)).to.include({ state: 'UNKNOWN', review: 'open' })
      expect(await close(approval.id)).to.include({ review: 'closed' })
      await restart()
      expect(await approvals.get(approval.id)).to.include({ review: 'closed' })
    })

    it('can be cut while they stream, and are reviewed all the same', async () => {
      const { approval, revoked } = await emergency({ streaming: true })
      await revoke(approval.id)
      expect(revoked.aborted).to.equal(true)
      expect(await close(approval.id)).to.include({ state: 'REVOKED', review: 'closed' })
    })

    it('are nobody’s to reuse, and no other request has a review', async () => {
      const terms = { reuseSeconds: 600 }
      const { approval } = await emergency({ digest: 'e'.repeat(64), terms })
      await approvals.finish(approval.id, 'SUCCEEDED')
      const { approval: next } = await ask({ digest: 'e'.repeat(64), terms })
      expect(next).to.include({ state: 'PENDING' })
      await run(next)
      await approvals.finish(next.id, 'SUCCEEDED')
      expect(await close(next.id)).to.include({ refused: 'review_not_open' })
    })
  })

  describe('left by their client', () => {
    it('stay where the terms keep them, and wait for anybody', async () => {
      const held = await hold({ terms: { onLeave: 'keep' } })
      expect(await approvals.leave(held.id, held)).to.include({ state: 'PENDING' })
      expect(accepted(await approvals.get(held.id)).progress.clientWaits).to.equal(false)
      await approve(held.id)
      expect(accepted(await claim(held, 'other')).approval.state).to.equal('EXECUTING')
    })

    it('are cancelled only by the last of those who wait', async () => {
      const held = await hold({ digest: 'e'.repeat(64) })
      await ask({ digest: 'e'.repeat(64) })
      expect(await approvals.leave(held.id, held)).to.include({ state: 'PENDING' })
      expect(await approvals.leave(held.id, held)).to.include({ state: 'CANCELLED' })
      expect(await approvals.leave(held.id, held)).to.include({ refused: 'approval_not_pending' })
    })

    it('stay when the client was sent away before it left', async () => {
      const held = await hold()
      await approvals.parked(held.id, held)
      expect(await approvals.leave(held.id, held)).to.include({ state: 'PENDING' })
    })

    it('or approved, never both', async () => {
      for (let i = 0; i < 20; i += 1) {
        const held = await hold()
        const [left, approved] = await Promise.all([
          approvals.leave(held.id, held),
          approve(held.id),
        ])
        expect([left, approved].filter(isRefusal)).to.have.length(1)
      }
    })
  })

  it('of direct clients are waited for and claimed by their key', async () => {
    const direct = facts({ callerKey: 'oidc:ci', instanceId: '', podUid: undefined })
    const { approval } = accepted(await approvals.ask(direct, []))
    const waiting = approvals.waitFor(approval.id, { callerKey: 'oidc:ci' }, 20_000, NEVER)
    await approve(approval.id)
    expect(await waiting).to.include({ state: 'APPROVED' })
    expect(await approvals.waitFor(approval.id, { callerKey: 'oidc:other' }, 0, NEVER)).to.include({
      refused: 'request_unknown',
    })
    expect(await approvals.leave(approval.id, { podUid: '' })).to.include({
      refused: 'request_unknown',
    })
    expect(accepted(await claim(approval)).approval.state).to.equal('EXECUTING')
  })

  it('of direct clients outlive the broker: the same request finds its approval', async () => {
    const change = { ...{ callerKey: 'oidc:ci', instanceId: '', podUid: undefined } }
    const [one, two] = [
      await hold({ ...change, digest: 'd'.repeat(64) }),
      await hold({ ...change, digest: 'e'.repeat(64) }),
    ]
    await approve(one.id)
    await restart()
    const { approval, folded } = await ask({ ...change, digest: one.digest })
    expect([approval.id, approval.state, folded]).to.deep.equal([one.id, 'APPROVED', true])
    expect(accepted(await claim(approval)).approval.state).to.equal('EXECUTING')
    expect((await ask({ ...change, digest: two.digest })).approval.id).to.equal(two.id)
  })

  describe('listened to', () => {
    it('tell every change in order, and are not disturbed by a listener that fails', async () => {
      const seen: string[] = []
      approvals.subscribe(() => {
        throw new Error('a listener')
      })
      const end = approvals.subscribe(({ from, approval }: ApprovalEvent) => {
        seen.push(`${from} ${approval.state}`)
      })
      const held = await hold({ terms: { quorums: [{ group: 'sre', count: 2 }] } })
      await approve(held.id, 'ann', ['sre'])
      await approve(held.id, 'bob', ['sre'])
      await claim(held)
      await approvals.finish(held.id, 'FAILED')
      end()
      await hold()
      expect(seen).to.deep.equal([
        ...['RECEIVED PENDING', 'PENDING PENDING', 'PENDING APPROVED', 'APPROVED EXECUTING'],
        'EXECUTING FAILED',
      ])
      expect(seen).to.deep.equal(await states(held.id))
    })
  })
})

describe('a broker that is killed between claim and end', () => {
  it('leaves each claimed request UNKNOWN or ended, releases none again, and loses none', async () => {
    const { file, remove } = newFile()
    const child = spawn(process.execPath, [CLAIMER.pathname, file], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const claimed = new Set<string>()
    const ended = new Set<string>()
    for await (const line of createInterface({ input: child.stdout })) {
      const [what, id = ''] = line.split(' ')
      ;(what === 'CLAIMED' ? claimed : ended).add(id)
      if (claimed.size === 100) child.kill('SIGKILL')
    }
    const store = await open(file)
    const approvals = createApprovals({ store, log: SILENT, now: Date.now })
    await approvals.recover()
    const all = new Map((await store.approvals({}, 10_000)).map((one) => [one.id, one]))
    expect(claimed.size).to.be.at.least(100)
    let unknown = 0
    for (const id of claimed) {
      const one = all.get(id)
      if (one === undefined) throw new Error('a claimed request is lost')
      expect(one.state).to.be.oneOf(ended.has(id) ? ['SUCCEEDED'] : ['SUCCEEDED', 'UNKNOWN'])
      if (one.state === 'UNKNOWN') unknown += 1
      expect(await approvals.claim(one)).to.include({ refused: 'approval_spent' })
    }
    expect(unknown).to.be.at.least(1)
    for (const one of all.values()) {
      const path = await store.events({ requestId: one.id, kind: 'approval' }, 10)
      expect(path).to.have.length(one.version)
      expect(path[0]?.entry['to']).to.equal(one.state)
      expect(one.state).to.be.oneOf(['PENDING', 'APPROVED', 'SUCCEEDED', 'UNKNOWN'])
    }
    approvals.close()
    await store.close()
    remove()
  }).timeout(30_000)
})

function accepted<T extends object>(result: T | Refusal): T {
  if (isRefusal(result)) throw new Error(`refused: ${result.refused}`)
  return result
}
