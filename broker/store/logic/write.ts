/**
 * One transaction: the calls that came together, in their order, each with its evidence. Whether a call changes
 * anything is decided before its evidence is added: a compare-and-set that fails leaves no entry.
 */
import { Fault } from '../../../shared/errors.ts'
import type { CallResult, Change, Evidence, NewApproval, NewRecord, WriteCall } from '../calls.ts'
import { insert, numberOf, query, queryOne, tell } from '../steps.ts'
import type { Dialect, Row, Value, Work } from '../steps.ts'
import { Growth, lockEnd } from './end.ts'
import type { LedgerEnd, SeenEnd } from './end.ts'
import { pruneRange } from './prune.ts'

/** What a transaction came to; of use only once it is committed. */
export interface Written {
  readonly results: readonly CallResult[]
  readonly end: LedgerEnd
}

/** What is collected of all calls and written at the end. */
interface Batch {
  readonly dialect: Dialect
  readonly growth: Growth
  readonly payloads: Map<string, { readonly seq: number; readonly content: Uint8Array }>
  readonly pseudonyms: Map<string, Value[]>
}

/**
 * The statements of one transaction.
 *
 * @param known - see `lockEnd`
 * @param seen - see `lockEnd`
 */
export function* writeBatch(
  dialect: Dialect,
  calls: readonly WriteCall[],
  known: LedgerEnd | undefined,
  seen: SeenEnd | undefined,
): Work<Written> {
  const growth = new Growth(yield* lockEnd(dialect, known, seen))
  const batch: Batch = { dialect, growth, payloads: new Map(), pseudonyms: new Map() }
  const results: CallResult[] = []
  for (const call of calls) results.push(yield* write(batch, call))
  yield* growth.flush(dialect)
  yield* insert('ledger_personal', ['pseudonym', 'value', 'salt'], [...batch.pseudonyms.values()], {
    keep: true,
  })
  yield* putPayloads(batch)
  return { results, end: growth.end }
}

function* write(batch: Batch, call: WriteCall): Work<CallResult> {
  const { dialect } = batch
  switch (call.op) {
    case 'append':
      return { ok: true, value: add(batch, call.evidence) }
    case 'hold':
      return yield* hold(batch, call.approval, call.evidence)
    case 'transition': {
      const row = yield* compareAndSet(dialect, call.change)
      if (row !== undefined) add(batch, call.evidence)
      return { ok: true, value: row }
    }
    case 'put': {
      const done = yield* putRecords(dialect, call.changes)
      if (done) add(batch, call.evidence)
      return { ok: true, value: done }
    }
    case 'checkpoint':
      return yield* putCheckpoint(batch, call)
    case 'prune': {
      const firstSeq = yield* pruneRange(dialect, call)
      if (firstSeq !== undefined) add(batch, call.evidence)
      return { ok: true, value: firstSeq }
    }
    case 'erase': {
      const { db } = dialect
      if (call.pseudonyms.length > 0)
        yield* query(db.deleteFrom('ledger_personal').where('pseudonym', 'in', call.pseudonyms))
      add(batch, call.evidence)
      return { ok: true, value: call.pseudonyms.length }
    }
  }
}

/** @returns sequence number of the first */
function add({ growth, payloads, pseudonyms }: Batch, evidence: Evidence): number {
  const first = growth.add(evidence.leaves)
  for (const { sha256, content } of evidence.payloads)
    payloads.set(sha256, { seq: growth.end.size - 1, content })
  for (const { pseudonym, value, salt } of evidence.pseudonyms)
    pseudonyms.set(pseudonym, [pseudonym, value, salt])
  return first
}

function* putPayloads({ dialect: { db }, payloads }: Batch): Work<void> {
  for (const [sha256, { seq, content }] of payloads) {
    const row = { sha256, seq, content }
    const statement = db
      .insertInto('ledger_payload')
      .values(row)
      .onConflict((conflict) => conflict.column('sha256').doUpdateSet({ seq }))
    yield* tell(statement)
  }
}

function* hold(batch: Batch, approval: NewApproval, evidence: Evidence): Work<CallResult> {
  const { db } = batch.dialect
  const { createdAt, expiresAt, foldKey, ...rest } = approval
  const values = {
    ...rest,
    ...{ created_at: createdAt, expires_at: expiresAt, fold_key: foldKey },
    ...{ decided_at: null, granted_at: null, reviewer: null, reason: null },
  }
  const statement = db
    .insertInto('approvals')
    .values(values)
    .onConflict((conflict) => conflict.doNothing())
    .returning('id')
  if ((yield* queryOne(statement)) !== undefined) {
    add(batch, evidence)
    return { ok: true, value: true }
  }
  const own = yield* queryOne(db.selectFrom('approvals').select('id').where('id', '=', approval.id))
  return own === undefined
    ? { ok: true, value: false }
    : { ok: false, message: 'a held request with this id is stored already' }
}

function* compareAndSet({ db }: Dialect, change: Change): Work<Row | undefined> {
  const { id, version, to, decidedAt, expiresAt, grantedAt, ...rest } = change
  const all = { ...rest, decided_at: decidedAt, expires_at: expiresAt, granted_at: grantedAt }
  const set = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null))
  return yield* queryOne(
    db
      .updateTable('approvals')
      .set({ ...set, version: version + 1, state: to })
      .where('id', '=', id)
      .where('version', '=', version)
      .returningAll(),
  )
}

/** All of them, or none: their versions are looked at before the first is changed. */
function* putRecords(dialect: Dialect, changes: readonly NewRecord[]): Work<boolean> {
  const found: { readonly change: NewRecord; readonly version: number }[] = []
  for (const change of changes) {
    const version = yield* versionOf(dialect, change)
    if (change.version !== null && change.version !== version) return false
    found.push({ change, version })
  }
  for (const { change, version } of found) yield* putRecord(dialect, change, version)
  return true
}

/** 0 where there is none. */
function* versionOf({ db }: Dialect, { kind, id }: NewRecord): Work<number> {
  const row = yield* queryOne(
    db.selectFrom('records').select('version').where('kind', '=', kind).where('id', '=', id),
  )
  return row === undefined ? 0 : numberOf(row, 'version')
}

function* putRecord({ db }: Dialect, change: NewRecord, version: number): Work<void> {
  const { kind, id, body } = change
  if (body === null) {
    yield* tell(db.deleteFrom('records').where('kind', '=', kind).where('id', '=', id))
    return
  }
  const row = { kind, id, body, version: version + 1 }
  const statement = db
    .insertInto('records')
    .values(row)
    .onConflict((conflict) =>
      conflict.columns(['kind', 'id']).doUpdateSet({ body, version: version + 1 }),
    )
  yield* tell(statement)
}

/** Never of more than is committed before this transaction ends: its size is at most the head's. */
function* putCheckpoint(
  { growth }: Batch,
  { checkpoint }: WriteCall & { op: 'checkpoint' },
): Work<CallResult> {
  const { size, timeUs, root, note } = checkpoint
  if (size > growth.end.size)
    throw new Fault('store_failed', `a checkpoint of ${size} entries, of a ledger that has fewer`)
  yield* insert(
    'ledger_checkpoint',
    ['size', 'time_us', 'root', 'note'],
    [[size, timeUs, root, note]],
    { keep: true },
  )
  return { ok: true, value: true }
}
