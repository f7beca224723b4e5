/**
 * The writing side of the database, used by one thread. All calls of a batch that write go into one
 * transaction: one sync to disk for all of them. If it fails, none of them was written as far as this side
 * knows, and each is told so; a commit that failed after the disk took it shows at the next read of the head.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { Fault, messageOf } from '../../../shared/errors.ts'
import type { CallResult, Change, Leaf, NewApproval, WriteCall } from './messages.ts'
import { numberIn } from './schema.ts'

/** Runs batches of calls. */
export interface Writer {
  /** One result per call, in order. Never throws. */
  run(calls: readonly WriteCall[]): readonly CallResult[]
}

/** Where the ledger ends. */
interface Head {
  /** Sequence number of the next entry. */
  next: number
  /** Highest time so far. */
  peakUs: number
}

const INSERT_LEAF = `INSERT INTO ledger (seq, time_us, peak_us, kind, request_id, cluster, subject, agent,
  pod_uid, exe, verb, resource, namespace, name, effect, reviewer, status, leaf)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
const INSERT_RULE = 'INSERT INTO ledger_rule (rule, seq) VALUES (?, ?)'
const INSERT_ANCESTOR = 'INSERT INTO ledger_ancestor (agent, seq) VALUES (?, ?)'
const PUT_CLUSTER = `INSERT INTO clusters (name, settings) VALUES (?, ?)
  ON CONFLICT (name) DO UPDATE SET settings = excluded.settings`
const INSERT_APPROVAL = `INSERT INTO approvals
  (id, version, state, created_at, expires_at, cluster, fold_key, review, progress, facts)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`
const COMPARE_AND_SET = `UPDATE approvals SET version = version + 1, state = ?,
  reviewer = coalesce(?, reviewer), reason = coalesce(?, reason),
  decided_at = coalesce(?, decided_at), expires_at = coalesce(?, expires_at),
  granted_at = coalesce(?, granted_at), review = coalesce(?, review),
  progress = coalesce(?, progress)
  WHERE id = ? AND version = ? RETURNING *`
/** Repeats of a request: fold key, granted since, denied since. */
export const SAME = `SELECT * FROM approvals WHERE fold_key = ? AND (state IN ('PENDING', 'APPROVED')
  OR granted_at > ? OR (state = 'DENIED' AND decided_at > ?))
  ORDER BY created_at DESC, id DESC LIMIT 100`

/**
 * Prepares to write.
 *
 * @param db - from `openForWriting`; nobody else may write to it
 */
export function createWriter(db: DatabaseSync): Writer {
  const statements = {
    leaf: db.prepare(INSERT_LEAF),
    rule: db.prepare(INSERT_RULE),
    ancestor: db.prepare(INSERT_ANCESTOR),
    hold: db.prepare(INSERT_APPROVAL),
    set: db.prepare(COMPARE_AND_SET),
    get: db.prepare('SELECT * FROM approvals WHERE id = ?'),
    same: db.prepare(SAME),
    putCluster: db.prepare(PUT_CLUSTER),
    removeCluster: db.prepare('DELETE FROM clusters WHERE name = ?'),
    begin: db.prepare('BEGIN IMMEDIATE'),
    commit: db.prepare('COMMIT'),
    rollback: db.prepare('ROLLBACK'),
  }
  // Undefined after a failure: what the disk holds is then to be read, not assumed.
  let head: Head | undefined = readHead(db)

  function transaction(calls: readonly WriteCall[]): readonly CallResult[] {
    let current: Head | undefined
    try {
      current = { ...(head ?? readHead(db)) }
      statements.begin.run()
      const at = current
      const results = calls.map((call) => write(statements, call, at))
      statements.commit.run()
      head = current
      return results
    } catch (error) {
      head = undefined
      rollBack(db, statements.rollback)
      const message = messageOf(error)
      return calls.map(() => ({ ok: false, message }))
    }
  }

  return {
    run(calls) {
      const writes = calls.filter((call) => call.op !== 'approval' && call.op !== 'same')
      const written = writes.length === 0 ? [] : transaction(writes)
      let index = 0
      return calls.map((call) => {
        if (call.op === 'approval') return attempt(() => statements.get.get(call.id))
        if (call.op === 'same') {
          const { foldKey, grantedSince, deniedSince } = call.query
          return attempt(() => statements.same.all(foldKey, grantedSince, deniedSince))
        }
        const result = written[index]
        index += 1
        return result ?? { ok: false, message: 'no result' }
      })
    },
  }
}

interface Statements {
  readonly leaf: StatementSync
  readonly rule: StatementSync
  readonly ancestor: StatementSync
  readonly hold: StatementSync
  readonly set: StatementSync
  readonly get: StatementSync
  readonly putCluster: StatementSync
  readonly removeCluster: StatementSync
}

function write(statements: Statements, call: WriteCall, head: Head): CallResult {
  switch (call.op) {
    case 'append':
      return { ok: true, value: insertLeaves(statements, call.leaves, head) }
    case 'hold':
      // Decided before any of its entries is written: a used id must not spoil the batch of others.
      if (!insertApproval(statements, call.approval)) {
        return statements.get.get(call.approval.id) === undefined
          ? { ok: true, value: false }
          : { ok: false, message: 'a held request with this id is stored already' }
      }
      insertLeaves(statements, call.leaves, head)
      return { ok: true, value: true }
    case 'transition': {
      const row = compareAndSet(statements, call.change)
      if (row !== undefined) insertLeaves(statements, call.leaves, head)
      return { ok: true, value: row }
    }
    case 'cluster': {
      const { name, settings } = call
      if (settings === null) statements.removeCluster.run(name)
      else statements.putCluster.run(name, settings)
      return { ok: true, value: insertLeaves(statements, call.leaves, head) }
    }
    case 'approval':
    case 'same':
      throw new Fault('store_failed', 'a read is no part of a transaction')
  }
}

function insertApproval(statements: Statements, row: NewApproval): boolean {
  const { id, version, state, createdAt, expiresAt, cluster, foldKey } = row
  const { review, progress, facts } = row
  const place = [id, version, state, createdAt, expiresAt, cluster, foldKey]
  return statements.hold.run(...place, review, progress, facts).changes === 1
}

function compareAndSet(statements: Statements, change: Change): unknown {
  const { to, reviewer, reason, decidedAt, expiresAt, grantedAt, review, progress } = change
  const values = [to, reviewer, reason, decidedAt, expiresAt, grantedAt, review, progress]
  return statements.set.get(...values, change.id, change.version)
}

/** Returns the sequence number of the first; moves the head on. */
function insertLeaves(statements: Statements, leaves: readonly Leaf[], head: Head): number {
  const first = head.next
  for (const { timeUs, kind, columns: c, bytes } of leaves) {
    const seq = head.next
    head.next += 1
    head.peakUs = Math.max(head.peakUs, timeUs)
    statements.leaf.run(
      ...[seq, timeUs, head.peakUs, kind, c.requestId, c.cluster, c.subject, c.agent, c.podUid],
      ...[c.exe, c.verb, c.resource, c.namespace, c.name, c.effect, c.reviewer, c.status, bytes],
    )
    for (const rule of c.rules) statements.rule.run(rule, seq)
    for (const agent of c.ancestors) statements.ancestor.run(agent, seq)
  }
  return first
}

function readHead(db: DatabaseSync): Head {
  const row = db.prepare('SELECT seq, peak_us FROM ledger ORDER BY seq DESC LIMIT 1').get()
  if (row === undefined) return { next: 0, peakUs: 0 }
  return { next: numberIn(row, 'seq') + 1, peakUs: numberIn(row, 'peak_us') }
}

/** Some errors have ended the transaction already. */
function rollBack(db: DatabaseSync, rollback: StatementSync): void {
  if (!db.isTransaction) return
  try {
    rollback.run()
  } catch {
    // The next BEGIN fails and says so to its callers.
  }
}

function attempt(read: () => unknown): CallResult {
  try {
    return { ok: true, value: read() }
  } catch (error) {
    return { ok: false, message: messageOf(error) }
  }
}
