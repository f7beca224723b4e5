/** What every store must do, whatever database is behind it. */
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import type { ApprovalFilter, EventFilter, Store } from '../../broker/store/store.ts'
import { Fault } from '../../shared/errors.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { intent, outcome, pending } from '../support/entries.ts'

/** A database that can be opened again and again. */
export interface Database {
  /** @param now - milliseconds since the epoch */
  open(now?: () => number): Promise<Store>
  remove(): Promise<void> | void
}

const approvalEntry = (requestId: string, to: string) =>
  ({
    kind: 'approval',
    requestId,
    cluster: 'main',
    from: 'PENDING',
    to,
    actor: 'alice',
    reason: 'because',
  }) as const

/** The rejection of a promise, or undefined. */
export function faultOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  )
}

/** Runs the suite against databases that `create` makes, each empty. */
export function storeSuite(name: string, create: () => Database): void {
  describe(`${name} as a store`, () => {
    let database: Database
    let store: Store
    let nowMs: number

    beforeEach(async () => {
      nowMs = Date.parse('2026-01-02T03:04:05.678Z')
      database = create()
      store = await database.open(() => nowMs)
    })
    afterEach(async () => {
      await store.close()
      await database.remove()
    })

    it('numbers entries from 0 on, without gaps, in the order of the calls', async () => {
      const firsts = await Promise.all([
        store.append([intent(), intent()]),
        store.append([intent()]),
        store.append([intent(), intent(), intent()]),
        store.append([intent()]),
      ])
      expect(firsts).to.deep.equal([0, 2, 3, 6])
      const events = await store.events({}, 10)
      expect(events.map(({ seq }) => seq)).to.deep.equal([6, 5, 4, 3, 2, 1, 0])
    })

    it('gives entries back as they were written, with version and time', async () => {
      const entry = intent()
      await store.append([entry])
      const [event] = await store.events({}, 1)
      const time = '2026-01-02T03:04:05.678000Z'
      expect(event).to.deep.equal({
        seq: 0,
        time,
        kind: 'intent',
        requestId: entry.requestId,
        entry: { v: 1, time, ...entry },
      })
    })

    it('keeps numbering and entries over a restart', async () => {
      await store.append([intent(), intent()])
      await store.close()
      store = await database.open(() => nowMs)
      expect(await store.append([intent()])).to.equal(2)
      expect(await store.events({}, 10)).to.have.length(3)
    })

    it('finds entries by each condition, and only those', async () => {
      const special = {
        requestId: newRequestId(nowMs),
        cluster: 'other',
        subject: { type: 'person', name: 'carol', podUid: 'pod-9' },
        agent: 'scanner',
        chain: ['shell', 'shell', 'orchestrator'],
        tag: { verdict: 'exclusive', verified: { ...intent().tag!.verified!, exe: '/opt/scan' } },
        request: {
          verb: 'create',
          resource: 'pods',
          subresource: 'exec',
          namespace: 'bank',
          name: 'vault-0',
        },
        decision: { effect: 'deny', rules: ['first', 'no-exec'], reason: 'policy_denied' },
        approval: { id: 'x', reviewer: 'dave', reason: 'ok' },
      } as const
      await store.append([intent(), intent(special), intent(), outcome('other-request', 200)])
      const filters: readonly EventFilter[] = [
        { requestId: special.requestId },
        { cluster: 'other' },
        { subject: 'carol' },
        { podUid: 'pod-9' },
        { agent: 'scanner' },
        { exe: '/opt/scan' },
        { verb: 'create' },
        { resource: 'pods/exec' },
        { namespace: 'bank' },
        { name: 'vault-0' },
        { effect: 'deny' },
        { rule: 'no-exec' },
        { rule: 'first' },
        { ancestor: 'shell' },
        { ancestor: 'orchestrator' },
        { ancestor: 'shell', rule: 'no-exec', agent: 'scanner' },
        { reviewer: 'dave' },
        { status: 403 },
        { kind: 'intent', verb: 'create', cluster: 'other', effect: 'deny', rule: 'no-exec' },
      ]
      for (const filter of filters) {
        const found = await store.events(filter, 10)
        expect(
          found.map(({ seq }) => seq),
          JSON.stringify(filter),
        ).to.deep.equal([1])
      }
    })

    it('finds nothing where one of several conditions fails', async () => {
      await store.append([intent({ chain: ['planner'] })])
      const filters: readonly EventFilter[] = [
        { verb: 'get', namespace: 'elsewhere' },
        { agent: '/usr/bin/kubectl', effect: 'deny' },
        { rule: 'look-around', verb: 'delete' },
        { rule: 'look-aroun' },
        { ancestor: '/usr/bin/kubectl' },
        { ancestor: 'sh', rule: 'look-around' },
        { ancestor: 'planner', rule: 'look-aroun' },
        { ancestor: 'planner', verb: 'delete' },
        { subject: 'SYSTEM:serviceaccount:shop:agents' },
        { name: "web-0' OR '1'='1" },
        { name: 'web-%' },
      ]
      for (const filter of filters) {
        expect(await store.events(filter, 10), JSON.stringify(filter)).to.deep.equal([])
      }
    })

    it('finds intent, approvals and outcome of one request by its id', async () => {
      const { requestId } = intent()
      const approved = approvalEntry(requestId, 'APPROVED')
      await store.append([intent({ requestId }), approved, outcome(requestId), intent()])
      const found = await store.events({ requestId }, 10)
      expect(found.map(({ kind }) => kind)).to.deep.equal(['outcome', 'approval', 'intent'])
    })

    it('finds a decision by its reviewer, and a failed answer by its status', async () => {
      const { requestId } = intent()
      await store.append([approvalEntry(requestId, 'DENIED'), outcome(requestId, 500)])
      expect((await store.events({ reviewer: 'alice' }, 9)).map(({ seq }) => seq)).to.eql([0])
      expect((await store.events({ status: 500 }, 9)).map(({ seq }) => seq)).to.eql([1])
    })

    it('bounds by time: since is included, until is not, also where the clock was set back', async () => {
      const base = nowMs
      for (const offset of [0, 1000, 5000, 2000, 3000]) {
        nowMs = base + offset
        await store.append([intent()])
      }
      const seqs = async (filter: EventFilter): Promise<number[]> =>
        (await store.events(filter, 10)).map(({ seq }) => seq)
      expect(await seqs({ sinceMs: base + 1000 })).to.deep.equal([4, 3, 2, 1])
      expect(await seqs({ sinceMs: base + 2001 })).to.deep.equal([4, 2])
      expect(await seqs({ untilMs: base + 2000 })).to.deep.equal([1, 0])
      expect(await seqs({ sinceMs: base + 2000, untilMs: base + 3001 })).to.deep.equal([4, 3])
      expect(await seqs({ sinceMs: base + 5001 })).to.deep.equal([])
    })

    it('pages below a sequence number without missing or repeating an entry while others are written', async () => {
      await store.append(Array.from({ length: 25 }, () => intent()))
      const seen: number[] = []
      let before: number | undefined
      for (;;) {
        const page = await store.events({ verb: 'get' }, 10, before)
        if (page.length === 0) break
        seen.push(...page.map(({ seq }) => seq))
        before = page.at(-1)?.seq
        await store.append([intent()])
      }
      expect(seen).to.deep.equal(Array.from({ length: 25 }, (_, i) => 24 - i))
    })

    it('stores a held request with its entries, and gives it back whole', async () => {
      const approval = pending({ tag: { odd: ['\u0000', '\ud83d\ude00'] }, query: 'a=b&a=c' })
      await store.hold(approval, [intent({ requestId: approval.id })])
      expect(await store.approval(approval.id)).to.deep.equal(approval)
      expect(await store.events({ requestId: approval.id }, 10)).to.have.length(1)
    })

    it('refuses a second held request of the same id, and writes none of its entries', async () => {
      const approval = pending()
      await store.hold(approval, [intent()])
      const second = store.hold({ ...approval, name: 'other' }, [intent()])
      const beside = store.append([intent()])
      expect(await faultOf(second))
        .to.be.instanceOf(Fault)
        .with.property('code', 'store_failed')
      expect(await beside).to.equal(1)
      expect(await store.events({}, 10)).to.have.length(2)
      expect((await store.approval(approval.id))?.name).to.equal(approval.name)
    })

    it('applies a transition once: the other of two with the same version misses and writes nothing', async () => {
      const approval = pending()
      await store.hold(approval, [])
      const change = (to: 'APPROVED' | 'DENIED') =>
        store.transition({
          ...{ id: approval.id, version: 1, to, reviewer: 'alice', reason: 'because' },
          ...{ nowMs, expiresAtMs: nowMs + 1000, entry: approvalEntry(approval.id, to) },
        })
      const [first, second] = await Promise.all([change('APPROVED'), change('DENIED')])
      expect(second).to.equal(undefined)
      expect(first).to.deep.equal({
        ...approval,
        ...{ state: 'APPROVED', version: 2, reviewer: 'alice', reason: 'because' },
        decidedAt: new Date(nowMs).toISOString(),
        expiresAt: new Date(nowMs + 1000).toISOString(),
      })
      expect(await store.approval(approval.id)).to.deep.equal(first)
      const events = await store.events({ requestId: approval.id }, 10)
      expect(events.map(({ entry }) => entry['to'])).to.deep.equal(['APPROVED'])
    })

    it('keeps reviewer and reason through later transitions, and writes further entries in order', async () => {
      const approval = pending()
      await store.hold(approval, [])
      const common = { id: approval.id, nowMs, entry: approvalEntry(approval.id, 'APPROVED') }
      await store.transition({
        ...{ ...common, version: 1, to: 'APPROVED' },
        ...{ reviewer: 'alice', reason: 'because' },
      })
      const later = await store.transition({
        ...{ ...common, version: 2, to: 'EXECUTING' },
        also: [outcome(approval.id)],
      })
      expect(later).to.include({ state: 'EXECUTING', reviewer: 'alice', reason: 'because' })
      const kinds = (await store.events({}, 10)).map(({ kind }) => kind)
      expect(kinds).to.deep.equal(['outcome', 'approval', 'approval'])
    })

    it('misses a transition of a request that is not there', async () => {
      const change = { id: newRequestId(nowMs), version: 1, to: 'DENIED', nowMs } as const
      const moved = await store.transition({ ...change, entry: approvalEntry('x', 'DENIED') })
      expect(moved).to.equal(undefined)
      expect(await store.events({}, 1)).to.deep.equal([])
    })

    it('lists held requests by state, newest first, up to a limit', async () => {
      const ids: string[] = []
      for (let i = 0; i < 4; i += 1) {
        const approval = pending({ createdAt: new Date(nowMs + i).toISOString() })
        ids.push(approval.id)
        await store.hold({ ...approval, state: i === 1 ? 'DENIED' : 'PENDING' }, [])
      }
      const list = async (states: ('PENDING' | 'DENIED')[], limit: number): Promise<number[]> =>
        (await store.approvals({ states }, limit)).map(({ id }) => ids.indexOf(id))
      expect(await list(['PENDING'], 10)).to.deep.equal([3, 2, 0])
      expect(await list(['PENDING'], 2)).to.deep.equal([3, 2])
      expect(await list([], 10)).to.deep.equal([3, 2, 1, 0])
      expect(await list(['PENDING', 'DENIED'], 10)).to.deep.equal([3, 2, 1, 0])
    })

    it('lists held requests by cluster and by open review', async () => {
      const [plain, reviewed, far] = [
        pending(),
        pending({ review: 'open', state: 'SUCCEEDED' }),
        pending({ review: 'open', state: 'UNKNOWN', cluster: 'far' }),
      ]
      for (const approval of [plain, reviewed, far]) await store.hold(approval, [])
      const ids = async (filter: ApprovalFilter): Promise<string[]> =>
        (await store.approvals(filter, 10)).map(({ id }) => id)
      expect(await ids({ review: 'open' })).to.have.members([reviewed.id, far.id])
      expect(await ids({ review: 'open', cluster: 'main' })).to.deep.equal([reviewed.id])
      expect(await ids({ cluster: 'main', states: ['PENDING'] })).to.deep.equal([plain.id])
      const { id, version } = reviewed
      const entry = approvalEntry(id, 'SUCCEEDED')
      await store.transition({ id, version, to: 'SUCCEEDED', nowMs, review: 'closed', entry })
      expect(await ids({ review: 'open' })).to.deep.equal([far.id])
      expect(await ids({ review: 'closed' })).to.deep.equal([reviewed.id])
    })

    it('takes no second pending one of the same digest and caller, and writes nothing of it', async () => {
      const first = pending()
      const again = pending({ digest: first.digest })
      const other = pending({ digest: first.digest, callerKey: 'somebody' })
      const results = await Promise.all([
        store.hold(first, [intent({ requestId: 'first' })]),
        store.hold(again, [intent({ requestId: 'again' })]),
        store.hold(other, []),
        store.hold({ ...again, id: 'approved', state: 'APPROVED' }, []),
      ])
      expect(results).to.deep.equal([true, false, true, true])
      expect(await store.approval(again.id)).to.equal(undefined)
      expect(await store.events({ requestId: 'again' }, 1)).to.deep.equal([])
      const entry = approvalEntry(first.id, 'DENIED')
      await store.transition({ id: first.id, version: 1, to: 'DENIED', nowMs, entry })
      expect(await store.hold(again, [])).to.equal(true)
    })

    it('finds repeats of a request: the open ones, and what was granted or denied of late', async () => {
      const decide = async (to: 'APPROVED' | 'DENIED', spent: boolean): Promise<string> => {
        const held = pending({ digest: 'd' })
        const { id } = held
        await store.hold(held, [])
        const common = { id, nowMs, entry: approvalEntry(id, to), reviewer: 'alice' }
        const granted = to === 'APPROVED' ? { granted: true as const } : {}
        await store.transition({ ...common, version: 1, to, ...granted })
        if (spent) await store.transition({ ...common, version: 2, to: 'EXECUTING' })
        return id
      }
      const denied = await decide('DENIED', false)
      const spent = await decide('APPROVED', true)
      const approved = await decide('APPROVED', false)
      const open = pending({ digest: 'd' })
      await store.hold(open, [])
      await store.hold(pending({ digest: 'd', callerKey: 'somebody' }), [])
      const same = async (grantedSinceMs: number, deniedSinceMs: number): Promise<string[]> => {
        const since = { grantedSinceMs, deniedSinceMs }
        return (await store.same({ digest: 'd', callerKey: 'pod-1', ...since })).map(({ id }) => id)
      }
      expect(await same(nowMs, nowMs)).to.have.members([open.id, approved])
      expect(await same(nowMs - 1, nowMs)).to.have.members([open.id, approved, spent])
      expect(await same(nowMs, nowMs - 1)).to.have.members([open.id, approved, denied])
    })

    it('finishes what it accepted before it closes, and refuses what comes later', async () => {
      const accepted = Array.from({ length: 600 }, () => store.append([intent()]))
      const closed = store.close()
      const late = await faultOf(store.append([intent()]))
      await closed
      expect(late).to.be.instanceOf(Fault).with.property('code', 'store_closed')
      expect(new Set(await Promise.all(accepted)).size).to.equal(600)
      store = await database.open()
      expect(await store.append([intent()])).to.equal(600)
    })
  })
}
