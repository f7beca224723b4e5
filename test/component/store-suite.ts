/** What every store must do, whatever database is behind it. */
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import type { IntentEntry } from '../../broker/ledger/entry.ts'
import { BLOCK_ENTRIES } from '../../broker/store/logic/postings.ts'
import { RANGE_ENTRIES } from '../../broker/store/logic/prune.ts'
import type { ApprovalFilter, EventFilter, RecordFilter, Store } from '../../broker/store/store.ts'
import { Fault } from '../../shared/errors.ts'
import { tileHashReader } from '../../shared/transparency/tiles.ts'
import {
  appendHashes,
  EMPTY_RANGE,
  leafHash,
  makeInclusionProof,
  rangeRoot,
  sameHash,
  verifyInclusion,
} from '../../shared/transparency/tree.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { intent, outcome, pending } from '../support/entries.ts'

/** A database that can be opened again and again. */
export interface Database {
  /** @param now - milliseconds since the epoch */
  open(now?: () => number): Promise<Store>
  remove(): Promise<void> | void
}

/** An entry that is quickly made and small. */
const SMALL = { kind: 'system', event: 'broker_started', actor: 'broker', detail: {} } as const

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
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

    it('finds by any conditions in many blocks what looking at each entry finds', async () => {
      const draw = (count: number): number => Math.floor(random() * count)
      const random = seeded(20261126)
      const made: { seq: number; timeMs: number; entry: IntentEntry }[] = []
      const base = nowMs
      while (made.length < 3 * BLOCK_ENTRIES + 100) {
        nowMs = base + made.length * 10 - (draw(20) === 0 ? 9000 : 0)
        const entries = Array.from({ length: 1 + draw(40) }, () =>
          intent({
            agent: `agent-${draw(3)}`,
            chain: draw(3) === 0 ? [] : [`agent-${draw(3)}`, 'root'],
            cluster: draw(40) === 0 ? 'rare' : 'main',
            request: { name: `pod-${draw(500)}`, namespace: draw(2) === 0 ? 'shop' : 'bank' },
            decision: { effect: draw(9) === 0 ? 'deny' : 'allow', rules: [`rule-${draw(4)}`] },
          }),
        )
        const first = await store.append(entries)
        for (const [i, entry] of entries.entries())
          made.push({ seq: first + i, timeMs: nowMs, entry })
      }
      const matches = (filter: EventFilter, { timeMs, entry }: (typeof made)[number]): boolean =>
        (filter.sinceMs === undefined || timeMs >= filter.sinceMs) &&
        (filter.untilMs === undefined || timeMs < filter.untilMs) &&
        (filter.agent === undefined || entry.agent === filter.agent) &&
        (filter.process === undefined ||
          [entry.agent, ...(entry.chain ?? [])].includes(filter.process)) &&
        (filter.cluster === undefined || entry.cluster === filter.cluster) &&
        (filter.name === undefined || entry.request.name === filter.name) &&
        (filter.namespace === undefined || entry.request.namespace === filter.namespace) &&
        (filter.effect === undefined || entry.decision.effect === filter.effect) &&
        (filter.rule === undefined || entry.decision.rules.includes(filter.rule))
      let found = 0
      for (let round = 0; round < 150; round += 1) {
        const maybe = (key: string, value: unknown, one = 3): object =>
          draw(one) === 0 ? { [key]: value } : {}
        const filter: EventFilter = {
          ...{ ...maybe('agent', `agent-${draw(4)}`), ...maybe('process', `agent-${draw(3)}`) },
          ...{ ...maybe('cluster', 'rare', 5), ...maybe('name', `pod-${draw(500)}`, 6) },
          ...{
            ...maybe('namespace', 'bank'),
            ...maybe('effect', 'deny'),
            ...maybe('rule', 'rule-1'),
          },
          ...{ ...maybe('sinceMs', base + draw(30_000)), ...maybe('untilMs', base + draw(30_000)) },
        }
        const before = draw(2) === 0 ? undefined : draw(made.length)
        const limit = 1 + draw(300)
        const expected = made
          .filter((one) => (before === undefined || one.seq < before) && matches(filter, one))
          .map(({ seq }) => seq)
          .reverse()
          .slice(0, limit)
        const events = await store.events(filter, limit, before)
        expect(
          events.map(({ seq }) => seq),
          JSON.stringify({ filter, limit, before }),
        ).to.deep.equal(expected)
        found += expected.length
      }
      expect(found).to.be.greaterThan(1000)
    }).timeout(60_000)

    it('grows the tree that RFC 6962 makes of its entries, and serves its tiles', async () => {
      for (const count of [1, 255, 1, 300, 1200]) {
        await store.append(Array.from({ length: count }, () => intent()))
        const hashes = (await store.leaves(0, 9999)).map(({ bytes }) => leafHash(bytes))
        const { size, root } = await store.head()
        expect(size).to.equal(hashes.length)
        expect(sameHash(root, rangeRoot(appendHashes(EMPTY_RANGE, hashes)))).to.equal(true)
      }
      const { size, root } = await store.head()
      const read = tileHashReader(size, async (level, index, width) => {
        const bytes = await store.tile(level, index, width)
        return bytes ?? new Uint8Array()
      })
      for (const { seq, bytes } of await store.leaves(size - 300, 300)) {
        const proof = await makeInclusionProof(seq, size, read)
        expect(verifyInclusion(seq, size, leafHash(bytes), proof, root), `entry ${seq}`).to.equal(
          true,
        )
      }
      expect(await store.tile(0, Math.floor(size / 256), 256)).to.equal(undefined)
      expect(await store.tile(1, 0, Math.floor(size / 256) + 1)).to.equal(undefined)
      expect(await store.tile(3, 0, 1)).to.equal(undefined)
    })

    it('keeps checkpoints, one of a size, and gives the largest up to a size', async () => {
      await store.append([intent(), intent(), intent()])
      const { root } = await store.head()
      const of = (size: number, note: string) => ({ size, root, timeUs: 1, note })
      await store.putCheckpoint(of(1, 'one'))
      await store.putCheckpoint(of(3, 'three'))
      await store.putCheckpoint(of(3, 'another'))
      expect((await store.checkpoint())?.note).to.equal('three')
      expect((await store.checkpoint(2))?.note).to.equal('one')
      expect(await store.checkpoint(0)).to.equal(undefined)
      expect((await store.checkpoints(1, 9)).map(({ size }) => size)).to.deep.equal([3])
      expect(await faultOf(store.putCheckpoint(of(4, 'of what is not there')))).to.be.instanceOf(
        Fault,
      )
    })

    it('changes documents together with their entries, or none of them', async () => {
      const put = (id: string, version: number | undefined, body: object | undefined) => ({
        ...{ kind: 'campaign' as const, id, body },
        ...(version === undefined ? {} : { version }),
      })
      expect(await store.put([put('a', 0, { n: 1 }), put('b', 0, { n: 2 })], [intent()])).to.equal(
        true,
      )
      expect(await store.put([put('a', 1, { n: 3 }), put('b', 0, { n: 4 })], [intent()])).to.equal(
        false,
      )
      expect(await store.record('campaign', 'a')).to.deep.equal({
        id: 'a',
        version: 1,
        body: { n: 1 },
      })
      expect(await store.put([put('a', 1, { n: 5 })], [])).to.equal(true)
      expect(await store.put([put('b', undefined, undefined)], [])).to.equal(true)
      expect(
        await store.put([put('a/2', 0, {}), put('a/1', 0, {}), put('b/1', 0, {})], []),
      ).to.equal(true)
      const ids = async (filter: RecordFilter): Promise<string[]> =>
        (await store.records('campaign', filter, 9)).map(({ id }) => id)
      expect(await ids({})).to.deep.equal(['a', 'a/1', 'a/2', 'b/1'])
      expect(await ids({ prefix: 'a/' })).to.deep.equal(['a/1', 'a/2'])
      expect(await ids({ prefix: 'a/', after: 'a/1' })).to.deep.equal(['a/2'])
      expect(await ids({ before: 'b' })).to.deep.equal(['a/2', 'a/1', 'a'])
      expect(await ids({ prefix: 'a/', before: 'a/2' })).to.deep.equal(['a/1'])
      expect(await store.record('cluster', 'a')).to.equal(undefined)
      expect((await store.head()).size).to.equal(1)
      expect((await store.record('campaign', 'a'))?.version).to.equal(2)
    })

    it('keeps a payload beside its entry', async () => {
      const content = Buffer.from('{"a":1}')
      await store.append([intent()], [{ sha256: 'ab', content }])
      expect(Buffer.from((await store.payload('ab')) ?? [])).to.deep.equal(content)
      expect(await store.payload('cd')).to.equal(undefined)
    })

    it('removes the oldest entries in whole ranges, and every proof stays what it was', async () => {
      const many = 2 * RANGE_ENTRIES + 3000
      const content = Buffer.from('x')
      await store.append([intent({ agent: 'early' })], [{ sha256: 'early', content }])
      while ((await store.head()).size < many)
        await Promise.all(
          Array.from({ length: 32 }, () => store.append(Array.from({ length: 128 }, () => SMALL))),
        )
      const before = await store.head()
      const entry = ({ from, to }: { from: number; to: number }) =>
        ({ kind: 'system', event: 'ledger_pruned', actor: 'broker', detail: { from, to } }) as const
      expect(await store.prune(RANGE_ENTRIES - 1, entry)).to.equal(0)
      expect(await store.prune(2 * RANGE_ENTRIES - 1, entry)).to.equal(RANGE_ENTRIES)
      const { size, firstSeq } = await store.head()
      expect([size, firstSeq]).to.deep.equal([before.size + 1, RANGE_ENTRIES])
      expect((await store.leaves(0, 1)).map(({ seq }) => seq)).to.deep.equal([RANGE_ENTRIES])
      expect(await store.events({ agent: 'early' }, 9)).to.deep.equal([])
      expect(await store.payload('early')).to.equal(undefined)
      const [pruned] = await store.events({ event: 'ledger_pruned' }, 9)
      expect(pruned?.entry['detail']).to.deep.equal({ from: 0, to: RANGE_ENTRIES })
      const read = tileHashReader(before.size, async (level, index, width) => {
        const bytes = await store.tile(level, index, width)
        return bytes ?? new Uint8Array()
      })
      for (const seq of [0, 77, RANGE_ENTRIES - 1, RANGE_ENTRIES, before.size - 1]) {
        const proof = await makeInclusionProof(seq, before.size, read)
        const leaf = await read(0, seq)
        expect(verifyInclusion(seq, before.size, leaf, proof, before.root)).to.equal(true)
      }
      await store.close()
      store = await database.open(() => nowMs)
      expect(await store.append([intent()])).to.equal(size)
    }).timeout(120_000)

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
