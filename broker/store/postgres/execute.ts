/** Runs the store's work over one connection to PostgreSQL, one statement after the other. */
import { Buffer } from 'node:buffer'
import type { Client, CustomTypesConfig } from 'pg'
import { Fault } from '../../../shared/errors.ts'
import type { Row, Step, Value, Work } from '../steps.ts'
import { encodeArray, toText } from './arrays.ts'
import type { ColumnType } from './arrays.ts'
import { MAX_PREPARED, MAX_PREPARED_VALUES } from './limits.ts'

/** Types of the columns that rows are inserted into by the many; each name has one type. */
const COLUMNS: Readonly<Record<string, ColumnType>> = {
  ...{ seq: 'bigint', time_us: 'bigint', hash: 'bytea', leaf: 'bytea' },
  ...{ level: 'bigint', idx: 'bigint', hashes: 'bytea', root: 'bytea' },
  ...{ block: 'bigint', min_us: 'bigint', max_us: 'bigint', peak_us: 'bigint' },
  ...{ field: 'text', value: 'text', entries: 'bytea', size: 'bigint', note: 'text' },
  ...{ pseudonym: 'text', salt: 'bytea', sha256: 'text', content: 'bytea' },
}

/** Runs work on an open connection. */
export interface Session {
  /** Rejects with what the work or the database throws. */
  run<T>(work: Work<T>): Promise<T>
  /** One statement without values. @returns what the server says that it did: `COMMIT` */
  command(sql: string): Promise<string>
  /** The server's number of the session. */
  readonly processId: number
}

/** @param client - connected */
export function createSession(client: Client): Session {
  const names = new Map<string, string>()
  const nameOf = (sql: string, values: readonly unknown[]): { name?: string } => {
    const known = names.get(sql)
    if (known !== undefined) return { name: known }
    if (names.size >= MAX_PREPARED || values.length > MAX_PREPARED_VALUES) return {}
    const name = `nestgate_${names.size}`
    names.set(sql, name)
    return { name }
  }
  const ask = async (step: Step): Promise<readonly Row[]> => {
    const text = step.step === 'query' ? step.sql : insertText(step)
    const values = step.step === 'query' ? step.values.map(bound) : columnsOf(step)
    const result = await client.query<Record<string, unknown>>({
      ...nameOf(text, values),
      ...{ text, values },
    })
    return result.rows
  }
  return {
    async run(work) {
      let next = work.next()
      while (next.done !== true) next = work.next(await ask(next.value))
      return next.value
    },
    async command(sql) {
      const { command } = await client.query(sql)
      return command
    },
    get processId() {
      return 'processID' in client && typeof client.processID === 'number' ? client.processID : 0
    },
  }
}

type Insert = Extract<Step, { step: 'insert' }>

function insertText({ table, columns, keep }: Insert): string {
  const arrays = columns.map((column, index) => `$${index + 1}::${typeOf(column)}[]`)
  const end = keep === true ? ' on conflict do nothing' : ''
  return `insert into ${table} (${columns.join(', ')}) select * from unnest(${arrays.join(', ')})${end}`
}

function columnsOf({ columns, rows }: Insert): readonly Buffer[] {
  return columns.map((column, index) =>
    encodeArray(
      typeOf(column),
      rows.map((row) => row[index] ?? null),
    ),
  )
}

function typeOf(column: string): ColumnType {
  const type = COLUMNS[column]
  if (type === undefined) throw new Fault('store_failed', `the type of column ${column} is unknown`)
  return type
}

/** Bytes are bound in binary, all else as text. */
function bound(value: Value): unknown {
  if (typeof value === 'string') return toText(value)
  return value instanceof Uint8Array
    ? Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    : value
}

const INT8 = 20
const BYTEA = 17
/** What a value in hexadecimal begins with. */
const HEX_PREFIX = String.raw`\x`

/** How values of rows are read: whole numbers as numbers (all stay below 2^53), bytes as bytes, all else as text. */
export const TYPES: CustomTypesConfig = {
  getTypeParser(oid: number) {
    return (text: string): unknown => {
      if (oid === INT8) return Number(text)
      if (oid !== BYTEA) return text
      if (!text.startsWith(HEX_PREFIX))
        throw new Fault('store_failed', 'bytes are not in hexadecimal')
      return new Uint8Array(Buffer.from(text.slice(HEX_PREFIX.length), 'hex'))
    }
  },
}
