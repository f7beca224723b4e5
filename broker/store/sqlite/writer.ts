/**
 * The writing side of the database, used by one thread. All calls of a batch that write go into one
 * transaction: one sync to disk for all of them. If it fails, none of them was written as far as this side
 * knows, and each is told so; a commit that failed after the disk took it shows at the next read of the end.
 */
import type { DatabaseSync } from 'node:sqlite'
import { Fault, messageOf } from '../../../shared/errors.ts'
import type { CallResult, QuickCall, WriteCall } from '../calls.ts'
import { lockEnd, seenOf } from '../logic/end.ts'
import type { LedgerEnd, SeenEnd } from '../logic/end.ts'
import { checkEnd, readQuick } from '../logic/read.ts'
import { writeBatch } from '../logic/write.ts'
import { SQLITE } from '../steps.ts'
import { createExecute } from './execute.ts'

/** Runs batches of calls. */
export interface Writer {
  /** One result per call, in order. Never throws. */
  run(calls: readonly (WriteCall | QuickCall)[]): readonly CallResult[]
}

/**
 * Prepares to write, once the end of the ledger was found to be what its last checkpoint says.
 *
 * @param db - from `openForWriting`; nobody else may write to it
 * @throws Fault `ledger_rolled_back`
 */
export function createWriter(db: DatabaseSync): Writer {
  const execute = createExecute(db)
  execute(checkEnd(SQLITE))
  // Undefined after a failure: what the disk holds is then to be read, not assumed.
  let known: LedgerEnd | undefined = execute(lockEnd(SQLITE, undefined, undefined))
  let seen: SeenEnd = seenOf(known)

  function transaction(calls: readonly WriteCall[]): readonly CallResult[] {
    try {
      db.exec(`PRAGMA secure_delete = ${calls.some(isErasure) ? 'ON' : 'FAST'}; BEGIN IMMEDIATE`)
      const { results, end } = execute(writeBatch(SQLITE, calls, known, seen))
      db.exec('COMMIT')
      known = end
      seen = seenOf(end)
      return results
    } catch (error) {
      known = undefined
      rollBack(db)
      return calls.map(() => failed(error))
    }
  }

  return {
    run(calls) {
      const writes = calls.filter(isWrite)
      const written = writes.length === 0 ? [] : transaction(writes)
      let index = 0
      return calls.map((call) => {
        if (!isWrite(call)) return attempt(() => execute(readQuick(SQLITE, call)))
        const result = written[index]
        index += 1
        return result ?? { ok: false, message: 'no result' }
      })
    },
  }
}

/**
 * What is erased must not stay readable in the file: SQLite then writes zeros over it, over whole pages too (`ON`). Else
 * only where the page is written anyway (`FAST`), so that no copies are left where rows were moved; zeros over all that
 * retention removes would hold up the writer.
 */
function isErasure({ op }: WriteCall): boolean {
  return op === 'erase'
}

const QUICK: ReadonlySet<string> = new Set<QuickCall['op']>([
  'approval',
  'same',
  'record',
  'pseudonyms',
])

/** Whether a call is part of a transaction. */
export function isWrite(call: WriteCall | QuickCall): call is WriteCall {
  return !QUICK.has(call.op)
}

/** Some errors have ended the transaction already. */
function rollBack(db: DatabaseSync): void {
  if (!db.isTransaction) return
  try {
    db.exec('ROLLBACK')
  } catch {
    // The next BEGIN fails and says so to its callers.
  }
}

/** A read that fails is told to its caller alone. */
export function attempt(read: () => unknown): CallResult {
  try {
    return { ok: true, value: read() }
  } catch (error) {
    return failed(error)
  }
}

function failed(error: unknown): CallResult {
  const message = messageOf(error)
  return error instanceof Fault ? { ok: false, message, code: error.code } : { ok: false, message }
}
