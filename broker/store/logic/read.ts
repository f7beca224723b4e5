/** Questions: what each call reads. */
import { rangeRoot, sameHash, TILE_WIDTH } from '../../../shared/transparency/tree.ts'
import type { CompiledQuery } from 'kysely'
import { Fault } from '../../../shared/errors.ts'
import type { QuickCall, ReadCall } from '../calls.ts'
import { bytesOf, numberOf, query, queryOne } from '../steps.ts'
import type { Dialect, Row, Work } from '../steps.ts'
import { rangeAt, tileHashes } from './end.ts'
import { pseudonymsOf, search } from './search.ts'
import type { Tail } from './search.ts'

/** Repeats of a request that are looked at. */
const MAX_SAME = 100

/** What a quick question comes to: rows, or a row or undefined. */
export function* readQuick({ db }: Dialect, call: QuickCall): Work<unknown> {
  switch (call.op) {
    case 'approval':
      return yield* queryOne(db.selectFrom('approvals').selectAll().where('id', '=', call.id))
    case 'same':
      return yield* query(sameStatement(db, call.query))
    case 'record':
      return yield* queryOne(
        db
          .selectFrom('records')
          .selectAll()
          .where('kind', '=', call.kind)
          .where('id', '=', call.id),
      )
    case 'pseudonyms':
      return yield* pseudonymsOf(db, call.value)
  }
}

/** What a question comes to. @param tail - the reader's own */
export function* readSlow(dialect: Dialect, tail: Tail, call: ReadCall): Work<unknown> {
  const { db } = dialect
  switch (call.op) {
    case 'approvals':
      return yield* query(approvalsStatement(db, call))
    case 'records':
      return yield* query(recordsStatement(db, call))
    case 'events':
      return yield* search(dialect, tail, call)
    case 'leaves':
      return yield* query(
        db
          .selectFrom('ledger')
          .select(['seq', 'time_us', 'leaf'])
          .where('seq', '>=', call.from)
          .orderBy('seq')
          .limit(call.limit),
      )
    case 'payload':
      return yield* queryOne(
        db.selectFrom('ledger_payload').select('content').where('sha256', '=', call.sha256),
      )
    case 'personal':
      return yield* query(
        db
          .selectFrom('ledger_personal')
          .select(['pseudonym', 'value'])
          .where('pseudonym', 'in', call.pseudonyms),
      )
    default:
      return yield* readTree(db, call)
  }
}

type TreeCall = Extract<
  ReadCall,
  { readonly op: 'head' | 'tile' | 'lastCheckpoint' | 'checkpoints' }
>

function* readTree(db: Dialect['db'], call: TreeCall): Work<unknown> {
  switch (call.op) {
    case 'head':
      return yield* queryOne(db.selectFrom('ledger_head').selectAll().where('id', '=', 1))
    case 'tile':
      return yield* tile(db, call)
    case 'lastCheckpoint': {
      const statement = db
        .selectFrom('ledger_checkpoint')
        .selectAll()
        .orderBy('size', 'desc')
        .limit(1)
      const { size } = call
      return yield* queryOne(size === undefined ? statement : statement.where('size', '<=', size))
    }
    case 'checkpoints':
      return yield* query(
        db
          .selectFrom('ledger_checkpoint')
          .selectAll()
          .where('size', '>', call.above)
          .orderBy('size')
          .limit(call.limit),
      )
  }
}

/** @returns undefined where the tree is not that large */
function* tile(
  db: Dialect['db'],
  { level, index, width }: ReadCall & { op: 'tile' },
): Work<Uint8Array | undefined> {
  const head = yield* queryOne(db.selectFrom('ledger_head').select('size').where('id', '=', 1))
  const count = Math.floor(numberOf(head, 'size') / TILE_WIDTH ** level)
  if (index * TILE_WIDTH + width > count) return undefined
  return Buffer.concat(yield* tileHashes(db, level, index, width))
}

/**
 * That the end of the ledger is what the last checkpoint signs: looked at before the first entry is added.
 *
 * @throws Fault `ledger_rolled_back` where it is not
 */
export function* checkEnd({ db }: Dialect): Work<void> {
  const last = yield* readTree(db, { op: 'lastCheckpoint', size: undefined })
  if (!isRow(last)) return
  const head = yield* queryOne(db.selectFrom('ledger_head').select('size').where('id', '=', 1))
  const size = numberOf(last, 'size')
  const [have, root] = [numberOf(head, 'size'), bytesOf(last, 'root')]
  if (size > have)
    throw new Fault(
      'ledger_rolled_back',
      `the ledger has ${have} entries, its last checkpoint is of ${size}`,
    )
  const range = yield* rangeAt(db, size)
  if (!sameHash(rangeRoot(range), root))
    throw new Fault(
      'ledger_rolled_back',
      `the first ${size} entries are not those that the last checkpoint is of`,
    )
}

function isRow(value: unknown): value is Row {
  return typeof value === 'object' && value !== null
}

/** Repeats of a request: what waits or is approved, and what people decided on lately. */
export function sameStatement(
  db: Dialect['db'],
  { foldKey, grantedSince, deniedSince }: (QuickCall & { op: 'same' })['query'],
): { compile(): CompiledQuery } {
  return db
    .selectFrom('approvals')
    .selectAll()
    .where('fold_key', '=', foldKey)
    .where((is) =>
      is.or([
        is('state', 'in', ['PENDING', 'APPROVED']),
        is('granted_at', '>', grantedSince),
        is.and([is('state', '=', 'DENIED'), is('decided_at', '>', deniedSince)]),
      ]),
    )
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .limit(MAX_SAME)
}

function approvalsStatement(
  db: Dialect['db'],
  { filter: { states = [], review, cluster }, limit }: ReadCall & { op: 'approvals' },
): { compile(): CompiledQuery } {
  let statement = db.selectFrom('approvals').selectAll()
  if (states.length > 0) statement = statement.where('state', 'in', states)
  if (review !== undefined) statement = statement.where('review', '=', review)
  if (cluster !== undefined) statement = statement.where('cluster', '=', cluster)
  return statement.orderBy('created_at', 'desc').orderBy('id', 'desc').limit(limit)
}

function recordsStatement(
  db: Dialect['db'],
  { kind, filter: { prefix = '', after, before }, limit }: ReadCall & { op: 'records' },
): { compile(): CompiledQuery } {
  let statement = db.selectFrom('records').selectAll().where('kind', '=', kind)
  if (prefix !== '')
    statement = statement.where('id', '>=', prefix).where('id', '<', `${prefix}${LAST_CHARACTER}`)
  if (after !== undefined) statement = statement.where('id', '>', after)
  if (before !== undefined) statement = statement.where('id', '<', before)
  return statement.orderBy('id', before === undefined ? 'asc' : 'desc').limit(limit)
}

/** Sorts behind every character that an id has, by its bytes. */
const LAST_CHARACTER = '\u{10ffff}'
