/**
 * The ledger: `npm run bench -- ledger [--rounds N --seconds N --entries N]`. Appends with so many callers waiting, on SQLite and on
 * PostgreSQL, beside plain inserts of the same rows; questions of each kind to a ledger of N entries; start with a small and a large
 * one; and the offline verification of an export. PostgreSQL is Debian's, started here.
 */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { createWriteStream, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import pg from 'pg'
import { openCheckpoints } from '../broker/ledger/checkpoints.ts'
import type { Entry, IntentEntry } from '../broker/ledger/entry.ts'
import { serializeEntry } from '../broker/ledger/serialize.ts'
import { openSqliteStore } from '../broker/store/sqlite/client.ts'
import type { EventFilter, Store } from '../broker/store/store.ts'
import { ROOT } from '../scripts/image.ts'
import { createLog } from '../shared/log.ts'
import { newRequestId } from '../shared/request-id.ts'
import { leafHash } from '../shared/transparency/tree.ts'
import { intent, outcome } from '../test/support/entries.ts'
import { newIdentity } from '../test/support/ledger.ts'
import { makeServer, newDatabase, openPostgres } from '../test/support/postgres.ts'
import type { Server } from '../test/support/postgres.ts'
import { median, spread, table } from './report.ts'

const CALLERS = [1, 16, 64, 256] as const
const WARMUP_MS = 500
/** Rows of a plain insert's transaction; as many as the store takes together at most. */
const PLAIN_BATCH = 256
const QUESTIONS_EACH = 60
const VERIFIED_ENTRIES = 1_000_000
const log = createLog('bench', 'silent')
const now = Date.now

const pick = (count: number): number => Math.floor(Math.random() * count)

/** Requests as a busy cluster has them: few agents, many objects, rare refusals. */
function requestEntry(): IntentEntry {
  const agent = `team-${pick(20)}/worker-${pick(4)}`
  const isRare = pick(5000) === 0
  return intent({
    requestId: newRequestId(now()),
    cluster: `cluster-${pick(5)}`,
    agent,
    chain: [`team-${pick(20)}/planner`, 'unregistered/agents/sh'],
    subject: {
      type: 'serviceAccount',
      name: `system:serviceaccount:team-${pick(20)}:agents`,
      namespace: 'agents',
      podUid: `pod-${pick(2000)}`,
    },
    request: {
      verb: ['get', 'list', 'watch', 'patch', 'delete'][pick(5)]!,
      namespace: `ns-${pick(50)}`,
      name: `object-${pick(20_000)}`,
      attributes: {
        ...{ policyVerb: 'get', equivalents: [], parameters: {}, objectName: '' },
        actions: isRare ? ['exec'] : [],
      } as never,
    },
    decision: {
      effect: isRare ? 'deny' : 'allow',
      rules: [`rule-${pick(30)}`],
      ...(isRare ? { reason: 'policy_denied' as const } : {}),
    },
    ...(isRare ? { approval: { id: 'x', reviewer: `reviewer-${pick(9)}`, reason: 'r' } } : {}),
  })
}

/** One caller's next entries: an intent, and the outcome of it. */
function nextEntry(open: { id?: string }): Entry {
  if (open.id !== undefined) {
    const { id } = open
    delete open.id
    return outcome(id, pick(100) === 0 ? 404 : 200)
  }
  const entry = requestEntry()
  open.id = entry.requestId
  return entry
}

interface Rate {
  readonly perSecond: number
  readonly p50: number
  readonly p99: number
}

async function appends(store: Store, callers: number, seconds: number): Promise<Rate> {
  const begin = performance.now() + WARMUP_MS
  const end = begin + seconds * 1000
  const times: number[] = []
  const caller = async (): Promise<void> => {
    const open: { id?: string } = {}
    for (;;) {
      const startMs = performance.now()
      if (startMs > end) return
      await store.append([nextEntry(open)])
      if (startMs > begin) times.push(performance.now() - startMs)
    }
  }
  await Promise.all(Array.from({ length: callers }, caller))
  times.sort((a, b) => a - b)
  const at = (share: number): number => times[Math.floor(times.length * share)] ?? 0
  return { perSecond: times.length / seconds, p50: at(0.5), p99: at(0.99) }
}

/** The same bytes into a table without tree, terms or tiles, from the calling thread. */
function plainSqlite(dir: string, batch: number, seconds: number): number {
  const db = new DatabaseSync(join(dir, `plain-${randomBytes(4).toString('hex')}.db`))
  db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
  db.exec('CREATE TABLE plain (seq INTEGER PRIMARY KEY, time_us INTEGER, leaf BLOB) STRICT')
  const insert = db.prepare('INSERT INTO plain (time_us, leaf) VALUES (?, ?)')
  const leaves = Array.from({ length: 1000 }, () => serializeEntry(requestEntry(), now() * 1000))
  let rows = 0
  const startMs = performance.now()
  while (performance.now() - startMs < seconds * 1000) {
    db.exec('BEGIN')
    for (let i = 0; i < batch; i += 1) insert.run(rows, leaves[rows++ % leaves.length]!)
    db.exec('COMMIT')
  }
  const perSecond = rows / ((performance.now() - startMs) / 1000)
  db.close()
  return perSecond
}

async function plainPostgres(url: string, batch: number, seconds: number): Promise<number> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(
    'CREATE TABLE IF NOT EXISTS plain (seq bigserial primary key, time_us bigint, leaf bytea)',
  )
  const leaves = Array.from({ length: 1000 }, () =>
    Buffer.from(serializeEntry(requestEntry(), now() * 1000)),
  )
  let rows = 0
  const startMs = performance.now()
  while (performance.now() - startMs < seconds * 1000) {
    const some = Array.from({ length: batch }, () => leaves[rows++ % leaves.length]!)
    await client.query('INSERT INTO plain (time_us, leaf) SELECT 1, unnest($1::bytea[])', [some])
  }
  const perSecond = rows / ((performance.now() - startMs) / 1000)
  await client.end()
  return perSecond
}

const QUESTIONS: readonly (readonly [string, () => EventFilter])[] = [
  ['none', () => ({})],
  ['last minute', () => ({ sinceMs: now() - 60_000 })],
  ['until the first tenth', () => ({ untilMs: tenthMs })],
  ['agent', () => ({ agent: `team-${pick(20)}/worker-${pick(4)}` })],
  ['process, any link', () => ({ process: `team-${pick(20)}/planner` })],
  ['subject', () => ({ subject: `system:serviceaccount:team-${pick(20)}:agents` })],
  ['cluster', () => ({ cluster: `cluster-${pick(5)}` })],
  ['namespace', () => ({ namespace: `ns-${pick(50)}` })],
  ['verb', () => ({ verb: 'delete' })],
  ['effective action', () => ({ action: 'exec' })],
  ['resource', () => ({ resource: 'pods' })],
  ['name', () => ({ name: `object-${pick(20_000)}` })],
  ['decision', () => ({ effect: 'deny' })],
  ['rule', () => ({ rule: `rule-${pick(30)}` })],
  ['approver', () => ({ reviewer: `reviewer-${pick(9)}` })],
  ['request id', () => ({ requestId: someIds[pick(someIds.length)] ?? '' })],
  ['status', () => ({ status: 404 })],
  ['rare and frequent together', () => ({ effect: 'deny', namespace: `ns-${pick(50)}` })],
  [
    'five, of which none fits',
    () => ({
      agent: 'team-1/worker-1',
      cluster: 'cluster-1',
      namespace: 'ns-1',
      verb: 'delete',
      reviewer: 'nobody',
    }),
  ],
  ['two frequent, none fits', () => ({ kind: 'outcome', verb: 'get' })],
]
let tenthMs = 0
const someIds: string[] = []

async function fill(store: Store, entries: number): Promise<void> {
  let filled = 0
  const caller = async (): Promise<void> => {
    while (filled < entries) {
      filled += 64
      const some: Entry[] = []
      for (let i = 0; i < 32; i += 1) {
        const entry = requestEntry()
        if (pick(5000) === 0) someIds.push(entry.requestId)
        some.push(entry, outcome(entry.requestId, pick(100) === 0 ? 404 : 200))
      }
      if (filled > entries / 10 && tenthMs === 0) tenthMs = now()
      await store.append(some)
    }
  }
  await Promise.all(Array.from({ length: 16 }, caller))
}

async function questions(store: Store): Promise<readonly (readonly string[])[]> {
  const rows: string[][] = []
  for (const [name, filter] of QUESTIONS) {
    const times: number[] = []
    let found = 0
    for (let i = 0; i < QUESTIONS_EACH; i += 1) {
      const startMs = performance.now()
      found += (await store.events(filter(), 100)).length
      times.push(performance.now() - startMs)
    }
    times.sort((a, b) => a - b)
    const at = (share: number): string => (times[Math.floor(times.length * share)] ?? 0).toFixed(1)
    rows.push([name, (found / QUESTIONS_EACH).toFixed(0), at(0.5), at(0.99)])
    console.error(`question ${name}: ${at(0.5)} ms, p99 ${at(0.99)} ms`)
  }
  return rows
}

/** Time until the store is open, in milliseconds. */
async function startOf(open: () => Promise<Store>): Promise<number> {
  const startMs = performance.now()
  const store = await open()
  const took = performance.now() - startMs
  await store.close()
  return took
}

/** Writes an export of the first entries and has `nestgate verify` read it. @returns seconds, and MiB of the verifier at most */
async function verified(
  store: Store,
  dir: string,
): Promise<{ seconds: number; mib: number; entries: number }> {
  const identity = newIdentity('bench.nestgate/ledger')
  const checkpoints = await openCheckpoints({ store, identity, everyMs: 3_600_000, log, now })
  const { size, note } = await checkpoints.current()
  checkpoints.close()
  const file = join(dir, 'export.jsonl')
  const out = createWriteStream(file)
  const [vkey = ''] = identity.signers.map((signer) => signer.vkey)
  const write = async (line: object): Promise<void> => {
    if (!out.write(`${JSON.stringify(line)}\n`)) await once(out, 'drain')
  }
  const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
  await write({
    nestgate: 'ledger-export',
    version: 1,
    origin: identity.origin,
    vkeys: [vkey],
    from: 0,
    to: size,
    exporter: 'bench',
    time: new Date().toISOString(),
  })
  for (let from = 0; from < size; from += 1024)
    for (const { seq, bytes } of await store.leaves(from, Math.min(1024, size - from)))
      await write({ seq, hash: base64(leafHash(bytes)), leaf: base64(bytes) })
  await write({ end: true, count: size, checkpoint: note })
  out.end()
  await once(out, 'close')
  const startMs = performance.now()
  const child = spawn(process.execPath, ['cli/main.ts', 'verify', file, '--vkey', vkey], {
    cwd: ROOT,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  let kib = 0
  const timer = setInterval(() => {
    const status = readFileSync(`/proc/${child.pid}/status`, 'utf8')
    kib = Math.max(kib, Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0))
  }, 100)
  const [code] = (await once(child, 'exit')) as [number]
  clearInterval(timer)
  const seconds = (performance.now() - startMs) / 1000
  if (code !== 0) throw new Error(`nestgate verify ended with ${code}`)
  rmSync(file)
  return { seconds, mib: kib / 1024, entries: size }
}

interface Engine {
  readonly name: string
  readonly open: () => Promise<Store>
  readonly plain: (batch: number, seconds: number) => Promise<number> | number
}

async function engines(dir: string, server: Server): Promise<readonly Engine[]> {
  const url = await newDatabase(server)
  const fresh = (): string => join(dir, `${randomBytes(4).toString('hex')}.db`)
  return [
    {
      name: 'SQLite',
      open: () => openSqliteStore({ file: fresh(), log, now }),
      plain: (batch, seconds) => plainSqlite(dir, batch, seconds),
    },
    {
      name: 'PostgreSQL',
      open: async () => openPostgres(await newDatabase(server)),
      plain: (batch, seconds) => plainPostgres(url, batch, seconds),
    },
  ]
}

/** @param entries - size of the ledger that is asked */
export async function ledgerSection({
  rounds,
  seconds,
  entries,
}: {
  readonly rounds: number
  readonly seconds: number
  readonly entries: number
}): Promise<string> {
  const dir = mkdtempSync(join(tmpdir(), 'nestgate-bench-ledger-'))
  const server = await makeServer()
  try {
    await server.start()
    const appended = await appendTable(await engines(dir, server), rounds, seconds)
    const file = join(dir, 'large.db')
    const open = (): Promise<Store> => openSqliteStore({ file, log, now })
    const small = join(dir, 'small.db')
    const openSmall = (): Promise<Store> => openSqliteStore({ file: small, log, now })
    const part = join(dir, 'part.db')
    const first = await openSmall()
    await fill(first, 1000)
    await first.close()
    const third = await openSqliteStore({ file: part, log, now })
    await fill(third, Math.min(VERIFIED_ENTRIES, entries))
    const { seconds: verifySeconds, mib, entries: verifiedEntries } = await verified(third, dir)
    await third.close()
    tenthMs = 0
    let large = await open()
    await fill(large, entries)
    await large.close()
    const starts = { small: await startOf(openSmall), large: await startOf(open) }
    large = await open()
    const before = process.memoryUsage.rss()
    const asked = await questions(large)
    const grown = (process.memoryUsage.rss() - before) / 2 ** 20
    const gib = statSync(file).size / 2 ** 30
    await large.close()
    return sectionText({
      rounds,
      seconds,
      entries,
      appended,
      asked,
      starts,
      grown,
      gib,
      verifySeconds,
      mib,
      verifiedEntries,
    })
  } finally {
    await server.remove()
    rmSync(dir, { recursive: true, force: true })
  }
}

async function appendTable(
  all: readonly Engine[],
  rounds: number,
  seconds: number,
): Promise<readonly (readonly string[])[]> {
  const rates = new Map<string, Rate[]>()
  const plain = new Map<string, number[]>()
  const add = <T>(map: Map<string, T[]>, key: string, value: T): void => {
    map.set(key, [...(map.get(key) ?? []), value])
  }
  for (let round = 0; round < rounds; round += 1) {
    for (const { name, open, plain: plainRate } of all) {
      for (const callers of CALLERS) {
        const store = await open()
        const rate = await appends(store, callers, seconds)
        await store.close()
        add(rates, `${name} ${callers}`, rate)
        console.error(
          `${name}, ${callers} callers: ${rate.perSecond.toFixed(0)}/s, p99 ${rate.p99.toFixed(1)} ms`,
        )
      }
      for (const batch of [1, PLAIN_BATCH])
        add(plain, `${name} ${batch}`, await plainRate(batch, seconds))
    }
  }
  return all.flatMap(({ name }) => [
    ...CALLERS.map((callers) => {
      const some = rates.get(`${name} ${callers}`) ?? []
      const full = median(plain.get(`${name} ${callers === 1 ? 1 : PLAIN_BATCH}`) ?? [])
      return [
        name,
        `ledger, ${callers} waiting`,
        spread(
          some.map(({ perSecond }) => perSecond),
          0,
        ),
        spread(
          some.map(({ p50 }) => p50),
          1,
        ),
        spread(
          some.map(({ p99 }) => p99),
          1,
        ),
        (median(some.map(({ perSecond }) => perSecond)) / full).toFixed(2),
      ]
    }),
    ...[1, PLAIN_BATCH].map((batch) => [
      name,
      `plain inserts, ${batch} a transaction`,
      spread(plain.get(`${name} ${batch}`) ?? [], 0),
      ...['', '', '1.00'],
    ]),
  ])
}

function sectionText(of: {
  readonly rounds: number
  readonly seconds: number
  readonly entries: number
  readonly appended: readonly (readonly string[])[]
  readonly asked: readonly (readonly string[])[]
  readonly starts: { readonly small: number; readonly large: number }
  readonly grown: number
  readonly gib: number
  readonly verifySeconds: number
  readonly mib: number
  readonly verifiedEntries: number
}): string {
  const millions = (of.entries / 1e6).toFixed(1)
  return `## The ledger

\`npm run bench -- ledger\`: durable appends (an intent, then its outcome, from each caller in turn), synced to disk before they are acknowledged, with tree, tiles, terms and head in the same transaction;
${of.rounds} rounds of ${of.seconds} s, median (lowest–highest). *plain inserts*: the same bytes into a table with nothing else, by one caller, so that batches are always full; of SQLite in the calling thread.
*÷ plain*: to plain inserts one by one for 1 caller, else to those in batches.

${table(['store', 'what', 'entries/s', 'p50 ms', 'p99 ms', '÷ plain'], of.appended)}

Questions to a ledger of ${millions} million entries on SQLite (${of.gib.toFixed(1)} GiB), 100 entries a page, ${QUESTIONS_EACH} questions of each kind with values drawn anew:

${table(['conditions', 'found', 'p50 ms', 'p99 ms'], of.asked)}

The broker's memory grew by ${of.grown.toFixed(0)} MiB over all of them. Opening the store took ${of.starts.small.toFixed(0)} ms with 1,000 entries and ${of.starts.large.toFixed(0)} ms with ${millions} million.
\`nestgate verify\` read an export of ${(of.verifiedEntries / 1e6).toFixed(1)} million entries in ${of.verifySeconds.toFixed(1)} s, in ${of.mib.toFixed(0)} MiB.
`
}
