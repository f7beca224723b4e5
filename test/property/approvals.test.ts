import { randomBytes } from 'node:crypto'
import { expect } from 'chai'
import fc from 'fast-check'
import { after, before, describe, it } from 'mocha'
import { createApprovals } from '../../broker/approvals/approvals.ts'
import type { Approvals } from '../../broker/approvals/types.ts'
import { requestDigest } from '../../broker/approvals/digest.ts'
import { missingQuorums } from '../../broker/approvals/reviewers.ts'
import { mayBecome, TRANSITIONS } from '../../broker/approvals/states.ts'
import type { StoredApproval, Store } from '../../broker/store/store.ts'
import { Fault } from '../../shared/errors.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { APPROVAL_STATES } from '../../shared/wire.ts'
import type { ApprovalState } from '../../shared/wire.ts'
import { facts, intent, TERMS } from '../support/entries.ts'
import { newFile, open, SILENT } from '../support/sqlite-store.ts'

const RUNS = process.env['SLOW'] === '1' ? 1000 : 80
const STEPS = [
  ...[
    'ask',
    'ask',
    'ann',
    'ann',
    'bob',
    'eve',
    'stranger',
    'deny',
    'revoke',
    'claim',
    'claim',
    'thief',
  ],
  ...['succeed', 'fail', 'leave', 'park', 'late', 'get', 'crash'],
] as const
const QUORUMS = [
  { group: 'sre', count: 1 },
  { group: 'security', count: 1 },
]
/** Requester and a person without a group are tried too: they must never count. */
const PEOPLE = {
  ann: ['sre', 'security'],
  bob: ['sre'],
  eve: ['security'],
  stranger: [],
  carol: ['sre', 'security'],
}

/** Steps of one round run at the same time, rounds one after another. */
const plans = fc.record({
  rounds: fc.array(
    fc.array(
      fc.record({
        step: fc.constantFrom(...STEPS),
        pick: fc.constantFrom(0, 0, 0, 1, 2),
        process: fc.nat(1),
      }),
      {
        minLength: 1,
        maxLength: 6,
      },
    ),
    { minLength: 4, maxLength: 10 },
  ),
  reuseSeconds: fc.constantFrom(0, 120),
  onLeave: fc.constantFrom('cancel', 'keep'),
  streaming: fc.boolean(),
  quorums: fc.constantFrom([], QUORUMS),
})

describe('held requests under any interleaving', () => {
  let file: string
  let store: Store
  let remove: () => void
  before(async () => {
    const made = newFile()
    ;({ remove, file } = made)
    store = await open(file)
  })
  after(async () => {
    await store.close()
    remove()
  })

  it('are released once each, only on what their quorums allow, and none is lost, through crashes too', async () => {
    await fc.assert(
      fc.asyncProperty(plans, async ({ rounds, ...terms }) => {
        let nowMs = Date.now()
        const make = (): Approvals => createApprovals({ store, log: SILENT, now: () => nowMs })
        let approvals = make()
        const digest = randomBytes(32).toString('hex')
        const callerKey = digest.slice(0, 8)
        const { streaming, ...ofTerms } = terms
        /** Ids that an ask was answered with: none of them may get lost. */
        const asked: string[] = []
        const claims = new Map<string, number>()
        const cuts: AbortSignal[] = []
        let crashed = false
        const idOf = (pick: number): string => asked[pick % Math.max(1, asked.length)] ?? 'none'

        const act = async (step: string, pick: number, process: number): Promise<unknown> => {
          const id = idOf(pick)
          const instanceId = `instance-${process}`
          if (step in PEOPLE || step === 'deny') {
            const approve = step !== 'deny'
            const reviewer = approve ? step : 'carol'
            const groups = PEOPLE[reviewer as keyof typeof PEOPLE]
            return approvals.decide({ id, reviewer, groups, approve, reason: 'x' })
          }
          switch (step) {
            case 'ask': {
              const held = facts({ digest, callerKey, instanceId, streaming, terms: ofTerms })
              const entry = intent({ requestId: held.id })
              const answer = await approvals.ask(held, [entry])
              if (!isRefusal(answer)) asked.push(answer.approval.id)
              return answer
            }
            case 'revoke':
              return approvals.revoke({ id, reviewer: 'root', reason: 'x' })
            case 'claim':
            case 'thief': {
              const own = step === 'claim' ? digest : 'f'.repeat(64)
              const claimed = await approvals.claim({ id, digest: own, callerKey, instanceId })
              if (isRefusal(claimed)) return claimed
              claims.set(id, (claims.get(id) ?? 0) + (step === 'thief' ? 100 : 1))
              cuts.push(claimed.revoked)
              return claimed
            }
            case 'succeed':
              return approvals.finish(id, 'SUCCEEDED')
            case 'fail':
              return approvals.finish(id, 'FAILED')
            case 'leave':
              return approvals.leave(id, { callerKey })
            case 'park':
              return approvals.parked(id, { callerKey })
            case 'late':
              nowMs += TERMS.pendingSeconds * 1000
              return undefined
            case 'crash': {
              if (crashed) return undefined
              crashed = true
              approvals.close()
              await store.close()
              store = await open(file)
              approvals = make()
              await approvals.recover()
              crashed = false
              return undefined
            }
            default:
              return approvals.get(id)
          }
        }
        /** What was under way when the broker crashed has an unknown end, for the caller too. */
        const tolerant = async (...args: Parameters<typeof act>): Promise<void> => {
          try {
            await act(...args)
          } catch (error) {
            if (!(error instanceof Fault)) throw error
          }
        }
        for (const round of rounds) {
          const crashes = round.some(({ step }) => step === 'crash')
          await Promise.all(
            round.map(({ step, pick, process }) =>
              crashes ? tolerant(step, pick, process) : act(step, pick, process),
            ),
          )
          const open = await store.same({
            ...{ digest, callerKey, grantedSinceMs: 1e15, deniedSinceMs: 1e15 },
          })
          expect(open.filter(({ state }) => state === 'PENDING').length).to.be.at.most(1)
        }
        approvals.close()
        for (const id of new Set(asked)) {
          const stored = await store.approval(id)
          expect(stored, 'an asked request').to.not.equal(undefined)
          if (stored !== undefined)
            await check(store, stored, claims.get(id) ?? 0, crashesIn(rounds))
        }
        const revoked = [...new Set(asked)].map(async (id) => (await store.approval(id))?.state)
        const isCut = (await Promise.all(revoked)).includes('REVOKED')
        if (!isCut) expect(cuts.some(({ aborted }) => aborted)).to.equal(false)
      }),
      { numRuns: RUNS },
    )
  }).timeout(120_000)

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

function crashesIn(rounds: readonly (readonly { readonly step: string }[])[]): boolean {
  return rounds.some((round) => round.some(({ step }) => step === 'crash'))
}

/** The ledger tells one way along the table, as often as the record changed, and the claims that were won. */
async function check(
  store: Store,
  stored: StoredApproval,
  claims: number,
  crashes: boolean,
): Promise<void> {
  const { id, terms, progress } = stored
  const events = (await store.events({ requestId: id, kind: 'approval' }, 200)).toReversed()
  const path = events.map(({ entry }) => [String(entry['from']), String(entry['to'])] as const)
  expect(path[0]?.[0]).to.equal('RECEIVED')
  expect(path[0]?.[1]).to.equal(stored.reusedFrom === undefined ? 'PENDING' : 'APPROVED')
  path.slice(1).forEach(([from, to], i) => {
    expect(from).to.equal(path[i]?.[1])
    expect(from === to || mayBecome(from as ApprovalState, to as ApprovalState)).to.equal(true)
  })
  expect(stored.state).to.equal(path.at(-1)?.[1])
  expect(stored.version).to.equal(path.length)
  const times = (state: string): number =>
    path.filter(([from, to]) => from !== to && to === state).length
  const executed = times('EXECUTING')
  expect(executed).to.be.at.most(1)
  // a claim that a crash interrupted may have been won without anybody learning of it
  if (crashes) expect(claims).to.be.at.most(executed)
  else expect(claims).to.equal(executed)
  if (executed === 1) expect(times('APPROVED')).to.equal(1)
  const spoken = events.filter(({ entry }) => (entry['review'] as Verdict)?.verdict === 'approve')
  const approvals = progress.reviews.filter(({ approve }) => approve)
  expect(approvals.length).to.equal(spoken.length)
  expect(new Set(approvals.map(({ reviewer }) => reviewer)).size).to.equal(approvals.length)
  if (times('APPROVED') === 1 && stored.reusedFrom === undefined) {
    expect(missingQuorums(terms.quorums, progress.reviews)).to.deep.equal([])
    expect(approvals.length).to.equal(Math.max(1, terms.quorums.length))
  }
  const ended = ['SUCCEEDED', 'FAILED', 'UNKNOWN'].includes(stored.state)
  if (ended) expect(executed).to.equal(1)
}

type Verdict = { readonly verdict: string } | undefined

describe('quorums', () => {
  const groups = fc.subarray(['a', 'b', 'c'])
  const people = fc.array(groups, { maxLength: 5 })
  const quorums = fc.uniqueArray(
    fc.record({ group: fc.constantFrom('a', 'b', 'c'), count: fc.integer({ min: 1, max: 2 }) }),
    { selector: ({ group }) => group, maxLength: 3 },
  )
  /** Tries every way to give people to places. */
  const fewestOpen = (places: readonly string[], free: readonly string[][]): number => {
    const [place, ...others] = places
    if (place === undefined) return 0
    const filled = free.flatMap((one, i) =>
      one.includes(place) ? [fewestOpen(others, free.toSpliced(i, 1))] : [],
    )
    return Math.min(1 + fewestOpen(others, free), ...filled)
  }

  it('miss exactly as many people as the best seating leaves places open', () => {
    fc.assert(
      fc.property(quorums, people, (wanted, present) => {
        const reviews = present.map((own) => ({ approve: true, groups: own }))
        const missing = missingQuorums(wanted, reviews)
        const places = wanted.flatMap(({ group, count }) => Array<string>(count).fill(group))
        const open = missing.reduce((sum, { count }) => sum + count, 0)
        expect(open).to.equal(fewestOpen(places, present))
      }),
      { numRuns: RUNS * 5 },
    )
  })
})

describe('the digest of any request', () => {
  const text = fc.string({ unit: 'binary', maxLength: 8 })
  const input = fc.record({
    ...{ cluster: text, method: text, path: text, contentType: text, bodySha256: text },
    connect: fc.boolean(),
    session: fc.boolean(),
    grantGroups: fc.subarray(['deployers', 'admins'], { minLength: 0 }),
    query: fc.array(fc.tuple(fc.oneof(text, fc.constant('timeout')), text), { maxLength: 4 }),
    identity: fc.record(
      {
        ...{ podUid: text, containerId: text, uid: fc.nat(), exe: text },
        subject: fc.record({ issuer: text, sub: text }),
      },
      { requiredKeys: ['podUid', 'containerId', 'uid', 'exe'] },
    ),
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
      one.session ? 'CONNECT' : one.method,
      one.path,
      query,
      one.contentType,
      one.bodySha256,
      { ...one.identity, subject: one.identity.subject ?? null },
      [...one.grantGroups].sort(),
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
