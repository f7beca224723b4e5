/**
 * The broker is killed (SIGKILL) again and again while clients ask, on a real API server whose audit log is the witness: no effect without
 * its intent, no answered read without it, nothing that was acknowledged lost or doubled, and a tree that fits.
 *
 * NESTGATE_KILLS: how often (200, which takes 4 to 6 minutes on two cores, most of them for starts). NESTGATE_KILL_SEED: repeats the choices of a run; when processes are at which point is not repeated.
 */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { openSqliteStore } from '../../broker/store/sqlite/client.ts'
import type { Store } from '../../broker/store/store.ts'
import { createLog } from '../../shared/log.ts'
import { startModes } from '../modes/running.ts'
import type { RunningModes } from '../modes/running.ts'
import { startBroker } from './broker.ts'
import { checkCluster, checkSeen, readLedger } from './check.ts'
import type { ClusterEvent, ReadLedger } from './check.ts'
import { clients } from './clients.ts'
import type { Seen } from './clients.ts'
import { randomFrom } from './random.ts'

const KILLS = Number(process.env['NESTGATE_KILLS'] ?? '200')
const SEED = Number(process.env['NESTGATE_KILL_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const CLIENTS = 12
/** A broker lives so long after it is ready, in milliseconds; */
const LIFE_MS = { least: 50, most: 500 }
/** one of so many is killed while it starts, within this time. */
const KILLED_AT_START = 5
const START_MS = 900
/** The API server's log is complete when it has not grown for this time, in milliseconds; it is waited for no longer than the other. */
const QUIET_MS = 2_000
const QUIET_LIMIT_MS = 30_000

const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
  - { id: look, match: { verbs: [get, list, watch], resources: ['*'] }, effect: allow }
  - { id: session, match: { verbs: [connect], resources: [pods/proxy, pods/portforward] }, effect: allow }
  - { id: write, match: { verbs: [create, update, patch, delete], resources: [configmaps] }, effect: allow }
  - { id: ask, match: { verbs: [delete], resources: [configmaps], resourceNames: ['held-*'] }, effect: hold }
`

describe(`a broker that is killed ${KILLS} times under load (NESTGATE_KILL_SEED=${SEED})`, function () {
  this.timeout(KILLS * 10_000 + 300_000)
  let modes: RunningModes
  let cache: string
  let store: Store | undefined
  let [seen, ledger, log]: [Seen?, ReadLedger?, ClusterEvent[]?] = []

  before(async () => {
    cache = mkdtempSync(join(tmpdir(), 'nestgate-kill-'))
    modes = await startModes(POLICY)
    await modes.stopBroker()
    // writes the compiled code as it ends
    const first = startBroker(modes.configFile, cache)
    expect(await first.ready, first.said()).to.equal(true)
    await first.end('SIGTERM')
    const started = Date.now()
    seen = await killed(modes, cache)
    const tookMs = Date.now() - started
    log = await quietLog(modes)
    const file = join(modes.dir, 'data', 'nestgate.db')
    store = await openSqliteStore({ file, log: createLog('test', 'silent'), now: Date.now })
    ledger = await readLedger(store)
    tell(`${KILLS} kills in ${Math.round(tookMs / 1000)} s`, seen, ledger, log)
  })
  after(async () => {
    await store?.close()
    await modes.close()
    rmSync(cache, { recursive: true, force: true })
  })

  it('has each write and each connect of the cluster’s audit log as an intent, made before it', () => {
    const { problems, effects } = checkCluster(need(ledger), need(log))
    expect(problems).to.deep.equal([])
    expect(effects).to.be.at.least(KILLS)
  })

  it('has whatever a client was answered, and the auditor was shown', () => {
    const { answered, shown } = need(seen)
    expect(checkSeen(need(ledger), need(seen))).to.deep.equal([])
    const reads = answered.filter(({ deed, status }) => deed === 'list' && status === 200)
    expect(reads.length).to.be.at.least(KILLS / 20)
    expect(answered.filter(({ status }) => status < 300).length).to.be.at.least(KILLS)
    expect(shown.size).to.be.at.least(KILLS)
  })

  it('has no entry twice, none left out, and a tree over all of them', () => {
    expect(need(ledger).problems).to.deep.equal([])
  })

  it('has each request that it said to hold, once', async () => {
    const held = need(seen).answered.filter(({ reason }) => reason === 'approval_pending')
    expect(held.length).to.be.at.least(KILLS / 20)
    const all = await need(store).approvals({}, 1_000_000)
    expect(new Set(all.map(({ id }) => id)).size).to.equal(all.length)
    const ids = new Set(all.map(({ id }) => id))
    expect(held.filter(({ requestId }) => !ids.has(requestId))).to.deep.equal([])
    expect(new Set(all.map(({ digest }) => digest)).size, 'digests').to.equal(all.length)
  })
})

function need<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('nothing was measured')
  return value
}

/** Kills and starts, while clients ask; ends with a kill. */
async function killed(modes: RunningModes, cache: string): Promise<Seen> {
  const random = randomFrom(SEED)
  const between = ({ least, most }: typeof LIFE_MS): number => least + random() * (most - least)
  let isOver = false
  const asking = clients(modes, randomFrom(SEED + 1), CLIENTS, () => isOver)
  try {
    for (let kill = 1; kill <= KILLS; kill += 1) {
      const broker = startBroker(modes.configFile, cache)
      const isEarly = Math.floor(random() * KILLED_AT_START) === 0
      if (isEarly) await sleep(random() * START_MS)
      else {
        if (!(await broker.ready)) throw new Error(`it did not start: ${broker.said()}`)
        await sleep(between(LIFE_MS))
      }
      await broker.end('SIGKILL')
    }
  } finally {
    isOver = true
  }
  return asking
}

/** The cluster's audit log when nothing more comes. */
async function quietLog(modes: RunningModes): Promise<ClusterEvent[]> {
  let [length, sinceMs] = [-1, Date.now()]
  const untilMs = Date.now() + QUIET_LIMIT_MS
  for (;;) {
    const log = modes.auditLog().filter(({ requestURI }) => requestURI.includes('/modes-work/'))
    if (log.length !== length) [length, sinceMs] = [log.length, Date.now()]
    if (Date.now() - sinceMs >= QUIET_MS || Date.now() > untilMs) return log as ClusterEvent[]
    await sleep(QUIET_MS / 4)
  }
}

function tell(
  how: string,
  { asked, answered, shown }: Seen,
  ledger: ReadLedger,
  log: readonly ClusterEvent[],
): void {
  const { calls, effects } = checkCluster(ledger, log)
  const byStatus = new Map<string, number>()
  for (const { deed, status, reason = '' } of answered) {
    const what = `${deed} ${status} ${reason}`.trim()
    byStatus.set(what, (byStatus.get(what) ?? 0) + 1)
  }
  console.log(
    `    ${how}: ${asked} requests, ${answered.length} answered; ${calls} calls in the cluster's audit log, of them ${effects} writes and connects;`,
  )
  console.log(
    `    ${ledger.size} entries, ${ledger.intents.size} forwarded intents, ${shown.size} entries shown to the auditor meanwhile`,
  )
  console.log(
    `    ${[...byStatus]
      .sort()
      .map(([what, count]) => `${what}: ${count}`)
      .join(', ')}`,
  )
}
