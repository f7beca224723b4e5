/**
 * The writing side: one connection, one transaction after the other, each for all calls that came together. It begins
 * with the lock on the head of the ledger, so brokers take turns, and each sees what the others committed. If it fails
 * anywhere, all its calls are refused, and the end is read anew: a commit whose answer was lost may be there.
 */
import { sql } from 'kysely'
import { Fault } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/log.ts'
import type { CallResult, WriteCall } from '../calls.ts'
import { lockEnd, seenOf } from '../logic/end.ts'
import type { LedgerEnd, SeenEnd } from '../logic/end.ts'
import { checkEnd } from '../logic/read.ts'
import { writeBatch } from '../logic/write.ts'
import { bytesOf, numberOf, POSTGRES, query } from '../steps.ts'
import type { Row, Work } from '../steps.ts'
import { Connection } from './connection.ts'
import type { ConnectionDeps } from './connection.ts'
import type { Session } from './execute.ts'
import { checkServer, makeTables } from './open.ts'

/** Where changes of held requests are told: ids only, and only for changes. */
export const CHANNEL = 'nestgate_approvals'

const BEGIN = 'begin isolation level read committed read write'

/** See the head of the file. */
export class Writer {
  readonly #connection: Connection
  readonly #log: Logger
  /** Undefined after a failure: what the disk holds is then to be read, not assumed. */
  #known: LedgerEnd | undefined
  #seen: SeenEnd | undefined
  #told = false
  #processId = 0

  private constructor(connection: Connection, log: Logger) {
    this.#connection = connection
    this.#log = log
  }

  /**
   * Opens the connection, makes the tables where they are missing, and compares the end with the last checkpoint.
   *
   * @throws Fault `store_failed`, `ledger_rolled_back`
   */
  static async open(deps: Omit<ConnectionDeps, 'role' | 'prepare'>): Promise<Writer> {
    const prepare = checkServer
    const connection = await Connection.open({ ...deps, role: 'writer', prepare })
    try {
      const writer = new Writer(connection, deps.log)
      await connection.use(async (session) => {
        await makeTables(session)
        await session.run(checkEnd(POSTGRES))
        await writer.#transaction(session, function* () {
          return { results: [], end: yield* lockEnd(POSTGRES, undefined, undefined) }
        })
      })
      return writer
    } catch (error) {
      await connection.close()
      throw error
    }
  }

  /** The session that notifications of own changes come from. */
  get processId(): number {
    return this.#processId
  }

  /** The largest end that was seen committed. */
  get seen(): SeenEnd | undefined {
    return this.#seen
  }

  /** One result for each call, in order. Rejects with {@link Fault} where the transaction fails. */
  async run(calls: readonly WriteCall[]): Promise<readonly CallResult[]> {
    try {
      return await this.#connection.use((session) =>
        this.#transaction(session, () => this.#work(calls)),
      )
    } catch (error) {
      this.tell(error)
      throw error
    }
  }

  /** Says aloud, once, that the database lost what it acknowledged. */
  tell(error: unknown): void {
    if (this.#told || !(error instanceof Fault) || error.code !== 'ledger_rolled_back') return
    this.#told = true
    this.#log.fatal({ why: error.message }, 'the ledger was rolled back, every write is refused')
  }

  close(): Promise<void> {
    return this.#connection.close()
  }

  *#work(calls: readonly WriteCall[]): Work<{ results: readonly CallResult[]; end: LedgerEnd }> {
    const written = yield* writeBatch(POSTGRES, calls, this.#known, this.#seen)
    const ids = calls.flatMap((call, index) => changedBy(call, written.results[index]))
    for (const id of new Set(ids)) {
      const statement = sql`select pg_notify(${CHANNEL}, ${id})`
      yield* query({ compile: () => statement.compile(POSTGRES.db) })
    }
    return written
  }

  async #transaction(
    session: Session,
    work: () => Work<{ results: readonly CallResult[]; end: LedgerEnd }>,
  ): Promise<readonly CallResult[]> {
    this.#processId = session.processId
    try {
      await session.command(BEGIN)
      const { results, end } = await session.run(work())
      const done = await session.command('commit')
      if (done !== 'COMMIT') throw new Fault('store_failed', `the commit became a ${done}`)
      this.#known = end
      this.#seen = seenOf(end)
      return results
    } catch (error) {
      this.#known = undefined
      await this.#rollBack(session, error)
      throw error
    }
  }

  async #rollBack(session: Session, why: unknown): Promise<void> {
    try {
      await session.command('rollback')
    } catch {
      // its state is unknown; the server ends the transaction with the session
      this.#connection.drop(why)
    }
  }
}

/** The held request that a call changed, if it did. */
function changedBy(call: WriteCall, result: CallResult | undefined): readonly string[] {
  if (result?.ok !== true) return []
  if (call.op === 'hold') return result.value === true ? [call.approval.id] : []
  return call.op === 'transition' && result.value !== undefined ? [call.change.id] : []
}

/**
 * That a head, as it was read, is not behind what was seen before it was asked for.
 *
 * @throws Fault `ledger_rolled_back`
 */
export function checkHead(row: Row | undefined, seen: SeenEnd | undefined): void {
  if (seen === undefined) return
  const size = numberOf(row, 'size')
  const isOther = size === seen.size && Buffer.compare(bytesOf(row, 'edge'), seen.edge) !== 0
  if (size < seen.size || isOther)
    throw new Fault(
      'ledger_rolled_back',
      `the database has ${size} entries, or others than the ${seen.size} that were acknowledged`,
    )
}
