/** Runs the store's work on one SQLite connection, one statement after the other, in the calling thread. */
import type { DatabaseSync, StatementSync } from 'node:sqlite'
import type { Row, Step, Value, Work } from '../steps.ts'

/** Statements kept prepared; those of searches differ by what is asked for. */
const MAX_PREPARED = 256

/** Runs work to its end. @returns what it came to; throws what it or the database throws */
export type Execute = <T>(work: Work<T>) => T

/** Makes it. @param db - open */
export function createExecute(db: DatabaseSync): Execute {
  const prepared = new Map<string, StatementSync>()
  const prepare = (sql: string): StatementSync => {
    const known = prepared.get(sql)
    if (known !== undefined) return known
    if (prepared.size >= MAX_PREPARED) prepared.clear()
    const statement = db.prepare(sql)
    prepared.set(sql, statement)
    return statement
  }
  const run = (step: Step): readonly Row[] => {
    if (step.step === 'query') return prepare(step.sql).all(...step.values)
    const statement = prepare(insertText(step))
    for (const row of step.rows) statement.run(...row)
    return []
  }
  return (work) => {
    let next = work.next()
    while (next.done !== true) next = work.next(run(next.value))
    return next.value
  }
}

function insertText({ table, columns, keep }: Extract<Step, { step: 'insert' }>): string {
  const places = columns.map((): Value => '?').join(', ')
  const end = keep === true ? ' on conflict do nothing' : ''
  return `insert into ${table} (${columns.join(', ')}) values (${places})${end}`
}
