/**
 * How the store's work is written: as generators that yield one statement after the other and receive its rows. What
 * is done is written once; sqlite/execute.ts runs it in a thread, postgres/execute.ts over a connection. Statements
 * are built by Kysely, which never connects to anything here.
 */
import {
  DummyDriver,
  Kysely,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from 'kysely'
import type { CompiledQuery, QueryCompiler } from 'kysely'
import { Fault } from '../../shared/errors.ts'
import type { Tables } from './tables.ts'

/** What a column can hold. */
export type Value = string | number | Uint8Array | null

/** A row as the database gave it; read it with {@link numberOf} and its like. */
export type Row = Readonly<Record<string, unknown>>

/** One thing to ask of the database. */
export type Step =
  | {
      readonly step: 'query'
      readonly sql: string
      readonly values: readonly Value[]
      /** Nobody looks at its rows: what follows may be asked before it is answered. */
      readonly blind?: boolean
    }
  /** Many rows of one table, each with a value for each of `columns`. */
  | {
      readonly step: 'insert'
      readonly table: keyof Tables
      readonly columns: readonly string[]
      readonly rows: readonly (readonly Value[])[]
      /** Rows that are there already stay as they are. */
      readonly keep?: boolean
    }

/** Work on the database; it must run in one transaction if it writes. */
export type Work<T> = Generator<Step, T, readonly Row[]>

/** A kind of database. */
export interface Dialect {
  readonly name: 'sqlite' | 'postgres'
  readonly db: Kysely<Tables>
}

export const SQLITE: Dialect = {
  name: 'sqlite',
  db: builder(new SqliteQueryCompiler()),
}

export const POSTGRES: Dialect = {
  name: 'postgres',
  db: builder(new PostgresQueryCompiler()),
}

function builder(compiler: QueryCompiler): Kysely<Tables> {
  const isSqlite = compiler instanceof SqliteQueryCompiler
  return new Kysely<Tables>({
    dialect: {
      createAdapter: () => (isSqlite ? new SqliteAdapter() : new PostgresAdapter()),
      createDriver: () => new DummyDriver(),
      createIntrospector: (db) =>
        isSqlite ? new SqliteIntrospector(db) : new PostgresIntrospector(db),
      createQueryCompiler: () => compiler,
    },
  })
}

/** Runs one statement. @returns its rows */
export function* query(statement: { compile(): CompiledQuery }): Work<readonly Row[]> {
  const { sql, parameters } = statement.compile()
  return yield { step: 'query', sql, values: parameters.map(valueOf) }
}

/** Runs one statement that has at most one row. */
export function* queryOne(statement: { compile(): CompiledQuery }): Work<Row | undefined> {
  const [row] = yield* query(statement)
  return row
}

/** Runs one statement whose rows nobody looks at; where it fails, the transaction does, at its commit at the latest. */
export function* tell(statement: { compile(): CompiledQuery }): Work<void> {
  const { sql, parameters } = statement.compile()
  yield { step: 'query', sql, values: parameters.map(valueOf), blind: true }
}

/** Inserts rows of one table, if there are any; as {@link tell}. */
export function* insert(
  table: keyof Tables,
  columns: readonly string[],
  rows: readonly (readonly Value[])[],
  { keep = false }: { keep?: boolean } = {},
): Work<void> {
  if (rows.length > 0) yield { step: 'insert', table, columns, rows, keep }
}

/** A whole number of a row. @throws {@link Fault} `store_failed` where there is something else */
export function numberOf(row: Row | undefined, column: string): number {
  const value = row?.[column]
  if (typeof value === 'number') return value
  throw new Fault('store_failed', `no number in column ${column}`)
}

/** A text of a row. @throws as {@link numberOf} */
export function textOf(row: Row | undefined, column: string): string {
  const value = row?.[column]
  if (typeof value === 'string') return value
  throw new Fault('store_failed', `no text in column ${column}`)
}

/** Bytes of a row. @throws as {@link numberOf} */
export function bytesOf(row: Row | undefined, column: string): Uint8Array {
  const value = row?.[column]
  if (value instanceof Uint8Array) return value
  throw new Fault('store_failed', `no bytes in column ${column}`)
}

function valueOf(value: unknown): Value {
  if (typeof value === 'string' || typeof value === 'number' || value instanceof Uint8Array)
    return value
  if (value === null) return null
  throw new Fault('store_failed', `a statement binds a ${typeof value}`)
}
