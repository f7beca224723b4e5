/**
 * What must be true of a server and its database before they hold evidence: looked at for every connection that
 * writes, as settings change while a server runs; and how the tables are made.
 */
import { sql } from 'kysely'
import { Fault } from '../../../shared/errors.ts'
import { createStatements, SCHEMA_VERSION } from '../schema.ts'
import { numberOf, POSTGRES, queryOne, textOf } from '../steps.ts'
import type { Row, Work } from '../steps.ts'
import type { Session } from './execute.ts'
import { LOCK_TIMEOUT_MS } from './limits.ts'

/** PostgreSQL 13, as the server writes its version. */
const MIN_SERVER_VERSION = 130_000
/** Key of the advisory lock under which the tables are made: "NSTG". */
const TABLES_LOCK = 0x4e535447
/** How long a broker waits for another one that makes them, in milliseconds. */
const TABLES_LOCK_MS = 30_000

const VERSION_TABLE =
  'create table nestgate_schema (id bigint primary key check (id = 1), version bigint not null)'

/** Without one of these, what is acknowledged may be gone after a crash. */
const DURABLE = ['fsync', 'full_page_writes', 'synchronous_commit'] as const

/** @throws Fault `store_failed` for a server that would lose entries, or cannot take them */
export async function checkServer(session: Session): Promise<void> {
  const row = await session.run(settings())
  const version = Number(textOf(row, 'version'))
  if (version < MIN_SERVER_VERSION)
    throw new Fault('store_failed', `the server has version ${version}, PostgreSQL 13 is needed`)
  for (const name of DURABLE) {
    if (textOf(row, name) === 'off')
      throw new Fault('store_failed', `${name} is off: the server would lose what it acknowledged`)
  }
  if (textOf(row, 'recovery') === 'on')
    throw new Fault('store_failed', 'the server is a standby: it takes no entries')
}

function* settings(): Work<Row | undefined> {
  const { db } = POSTGRES
  const statement = sql`select current_setting('server_version_num') as version,
    current_setting('fsync') as fsync, current_setting('full_page_writes') as full_page_writes,
    current_setting('synchronous_commit') as synchronous_commit,
    case when pg_is_in_recovery() then 'on' else 'off' end as recovery`
  return yield* queryOne({ compile: () => statement.compile(db) })
}

/**
 * Makes the tables where there are none; of several brokers that start together one does.
 *
 * @throws Fault `store_failed` for tables of a newer program
 */
export async function makeTables(session: Session): Promise<void> {
  if ((await session.run(versionOf())) === SCHEMA_VERSION) return
  // of the session: a transaction that began before it would not see the tables that another one made meanwhile
  await session.command(`set lock_timeout = ${TABLES_LOCK_MS}`)
  await session.command(`select pg_advisory_lock(${TABLES_LOCK})`)
  await session.command('begin')
  try {
    const version = await session.run(versionOf())
    if (version === undefined) {
      await session.command(VERSION_TABLE)
      for (const statement of createStatements(POSTGRES)) await session.command(statement)
      await session.command(`insert into nestgate_schema values (1, ${SCHEMA_VERSION})`)
    } else if (version !== SCHEMA_VERSION) {
      throw new Fault(
        'store_failed',
        `the database has version ${version}, this program knows ${SCHEMA_VERSION}`,
      )
    }
    await session.command('commit')
  } catch (error) {
    // the lock ends with the session: a broker that cannot make the tables does not start
    await session.command('rollback')
    throw error
  }
  await session.command(`select pg_advisory_unlock(${TABLES_LOCK})`)
  await session.command(`set lock_timeout = ${LOCK_TIMEOUT_MS}`)
}

/** Undefined where there are no tables of ours. */
function* versionOf(): Work<number | undefined> {
  const { db } = POSTGRES
  const exists = sql`select to_regclass('nestgate_schema')::text as name`
  const found = yield* queryOne({ compile: () => exists.compile(db) })
  if (found?.['name'] === null) return undefined
  const statement = sql`select version from nestgate_schema where id = 1`
  return numberOf(yield* queryOne({ compile: () => statement.compile(db) }), 'version')
}
