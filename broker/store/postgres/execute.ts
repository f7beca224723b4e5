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
  /**
   * Rejects with what the work or the database throws. What nobody looks at need not be answered yet when it settles:
   * {@link commit} waits for it.
   */
  run<T>(work: Work<T>): Promise<T>
  /** One statement without values. */
  command(sql: string): Promise<void>
  /** Begins a transaction; not waited for. */
  begin(sql: string): void
  /** Rejects where a statement of the transaction failed, whether or not its answer was waited for. */
  commit(): Promise<void>
  rollBack(): Promise<void>
  /** The server's number of the session. */
  readonly processId: number
}

/** @param client - connected, or to be connected before the first use; in pipeline mode, if it is to write */
export function createSession(client: Client): Session {
  return new OpenSession(client)
}

class OpenSession implements Session {
  readonly #client: Client
  readonly #names = new Map<string, string>()
  /** Statements that were sent and not waited for. */
  #sent: Promise<unknown>[] = []

  constructor(client: Client) {
    this.#client = client
  }

  get processId(): number {
    const client = this.#client
    return 'processID' in client && typeof client.processID === 'number' ? client.processID : 0
  }

  async run<T>(work: Work<T>): Promise<T> {
    let next = work.next()
    while (next.done !== true) next = work.next(await this.#step(next.value))
    return next.value
  }

  async command(sql: string): Promise<void> {
    await this.#client.query(sql)
  }

  begin(sql: string): void {
    this.#sent = []
    this.#send(this.#client.query(sql))
  }

  async commit(): Promise<void> {
    const sent = this.#sent
    this.#sent = []
    const answer = this.#client.query('commit')
    // waited for below, after those whose failure is its cause
    answer.catch(() => undefined)
    await Promise.all(sent)
    const { command } = await answer
    if (command !== 'COMMIT') throw new Fault('store_failed', `the commit became a ${command}`)
  }

  async rollBack(): Promise<void> {
    this.#sent = []
    await this.#client.query('rollback')
  }

  #step(step: Step): Promise<readonly Row[]> {
    const isQuery = step.step === 'query'
    const text = isQuery ? step.sql : insertText(step)
    const values = isQuery ? step.values.map(bound) : columnsOf(step)
    const named = this.#nameOf(text, values)
    const answer = this.#client.query<Record<string, unknown>>({ ...named, text, values })
    if (isQuery && step.blind !== true) return answer.then(({ rows }) => rows)
    this.#send(answer)
    return Promise.resolve([])
  }

  #send(answer: Promise<unknown>): void {
    answer.catch(() => undefined)
    this.#sent.push(answer)
  }

  #nameOf(text: string, values: readonly unknown[]): { name?: string } {
    const known = this.#names.get(text)
    if (known !== undefined) return { name: known }
    if (this.#names.size >= MAX_PREPARED || values.length > MAX_PREPARED_VALUES) return {}
    const name = `nestgate_${this.#names.size}`
    this.#names.set(text, name)
    return { name }
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
