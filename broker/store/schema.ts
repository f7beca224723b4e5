/**
 * Makes the tables of tables.ts, in either database. Versions go forward only. 1 to 4 were SQLite's own
 * (sqlite/legacy.ts brings such a file here); from 5 on both databases have the same.
 *
 * Triggers forbid to change or delete what is evidence. They stop mistakes, not somebody who owns the database.
 */
import { sql } from 'kysely'
import type { CreateTableBuilder, RawBuilder } from 'kysely'
import type { Dialect } from './steps.ts'

/** Version of the tables that this program makes and knows. */
export const SCHEMA_VERSION = 5
/** Last version that only SQLite had. */
export const LEGACY_VERSION = 4

interface Types {
  readonly int: 'integer' | 'bigint'
  readonly bytes: 'blob' | 'bytea'
  /** Compared by bytes; SQLite does so by itself. */
  readonly text: 'text' | RawBuilder<unknown>
}

const TYPES: Readonly<Record<Dialect['name'], Types>> = {
  sqlite: { int: 'integer', bytes: 'blob', text: 'text' },
  postgres: { int: 'bigint', bytes: 'bytea', text: sql`text collate "C"` },
}

/** The ledger without entries. */
const HEAD_ROW: Readonly<Record<Dialect['name'], string>> = {
  sqlite: "insert into ledger_head (id, size, edge, first_seq) values (1, 0, x'', 0)",
  postgres: "insert into ledger_head (id, size, edge, first_seq) values (1, 0, ''::bytea, 0)",
}

interface TableOptions {
  /** Columns of the primary key, where it is more than one. */
  readonly key?: readonly string[]
}

/** The statements that make version 5 in an empty database. */
export function createStatements(dialect: Dialect): readonly string[] {
  return [...tables(dialect), ...indexes(dialect), ...guards(dialect), HEAD_ROW[dialect.name]]
}

function tables(dialect: Dialect): string[] {
  const { int, bytes, text } = TYPES[dialect.name]
  const table = (
    name: string,
    columns: Readonly<Record<string, Types[keyof Types]>>,
    { key }: TableOptions = {},
  ): string => {
    let made: CreateTableBuilder<string, string> = dialect.db.schema.createTable(name)
    for (const [column, type] of Object.entries(columns)) {
      const isOptional = column.endsWith('?')
      const isKey = key === undefined && column === Object.keys(columns)[0]
      made = made.addColumn(isOptional ? column.slice(0, -1) : column, type, (definition) => {
        if (isKey) return definition.primaryKey()
        return isOptional ? definition : definition.notNull()
      })
    }
    if (key !== undefined) made = made.addPrimaryKeyConstraint(`${name}_key`, [...key])
    if (dialect.name === 'sqlite')
      made = made.modifyEnd(key === undefined ? sql`strict` : sql`strict, without rowid`)
    return made.compile().sql
  }
  return [
    table('ledger', { seq: int, time_us: int, hash: bytes, leaf: bytes }),
    table('ledger_head', { id: int, size: int, edge: bytes, first_seq: int }),
    table(
      'ledger_tile',
      { level: int, idx: int, hashes: bytes, root: bytes },
      { key: ['level', 'idx'] },
    ),
    table('ledger_block', { block: int, min_us: int, max_us: int, peak_us: int }),
    table(
      'ledger_posting',
      { field: text, value: text, block: int, entries: bytes },
      { key: ['field', 'value', 'block'] },
    ),
    table('ledger_checkpoint', { size: int, time_us: int, root: bytes, note: text }),
    table('ledger_personal', { pseudonym: text, value: text, salt: bytes }),
    table('ledger_payload', { sha256: text, seq: int, content: bytes }),
    table('approvals', {
      ...{ id: text, version: int, state: text, created_at: text, expires_at: text },
      ...{ 'decided_at?': text, 'granted_at?': text, cluster: text, 'fold_key?': text },
      ...{ 'review?': text, 'reviewer?': text, 'reason?': text, progress: text, facts: text },
    }),
    table('records', { kind: text, id: text, version: int, body: text }, { key: ['kind', 'id'] }),
  ]
}

function indexes({ db, name }: Dialect): string[] {
  const { schema } = db
  const personal = schema.createIndex('ledger_personal_value').on('ledger_personal').column('value')
  const byTime = ['created_at', 'id']
  return [
    // a name may be longer than an entry of PostgreSQL's B-trees
    name === 'postgres' ? personal.using('hash') : personal,
    schema.createIndex('ledger_payload_seq').on('ledger_payload').column('seq'),
    schema.createIndex('ledger_block_peak').on('ledger_block').columns(['peak_us', 'block']),
    schema.createIndex('approvals_created').on('approvals').columns(byTime),
    schema
      .createIndex('approvals_state')
      .on('approvals')
      .columns(['state', ...byTime]),
    schema
      .createIndex('approvals_pending_fold')
      .unique()
      .on('approvals')
      .column('fold_key')
      .where(sql<boolean>`state = 'PENDING'`),
    schema
      .createIndex('approvals_fold')
      .on('approvals')
      .columns(['fold_key', ...byTime])
      .where(sql<boolean>`fold_key is not null`),
    schema
      .createIndex('approvals_review')
      .on('approvals')
      .columns(['review', ...byTime])
      .where(sql<boolean>`review is not null`),
  ].map((index) => index.compile().sql)
}

/** Entries may go only where the head says that they went; tiles and checkpoints never. */
function guards({ name }: Dialect): string[] {
  return name === 'sqlite' ? SQLITE_GUARDS : POSTGRES_GUARDS
}

const FIXED_TABLES = ['ledger', 'ledger_tile', 'ledger_block', 'ledger_checkpoint'] as const
const KEPT_TABLES = ['ledger_tile', 'ledger_checkpoint'] as const

const SQLITE_GUARDS: string[] = [
  ...FIXED_TABLES.map(
    (table) =>
      `create trigger ${table}_no_update before update on ${table}
        begin select raise(abort, 'what is evidence is never changed'); end`,
  ),
  ...KEPT_TABLES.map(
    (table) =>
      `create trigger ${table}_no_delete before delete on ${table}
        begin select raise(abort, 'what is evidence is never deleted'); end`,
  ),
  `create trigger ledger_no_delete before delete on ledger
    when old.seq >= (select first_seq from ledger_head)
    begin select raise(abort, 'entries are deleted in ranges that the head says are gone'); end`,
  `create trigger ledger_no_replace before insert on ledger
    when exists (select 1 from ledger where seq = new.seq)
    begin select raise(abort, 'entries are never replaced'); end`,
]

const POSTGRES_GUARDS: string[] = [
  `create function nestgate_forbid() returns trigger language plpgsql as $$
    begin raise exception 'what is evidence is never changed'; end $$`,
  `create function nestgate_forbid_kept() returns trigger language plpgsql as $$
    begin
      if old.seq >= (select first_seq from ledger_head) then
        raise exception 'entries are deleted in ranges that the head says are gone';
      end if;
      return old;
    end $$`,
  ...FIXED_TABLES.map(
    (table) =>
      `create trigger ${table}_no_update before update on ${table}
        for each row execute function nestgate_forbid()`,
  ),
  ...KEPT_TABLES.map(
    (table) =>
      `create trigger ${table}_no_delete before delete on ${table}
        for each row execute function nestgate_forbid()`,
  ),
  `create trigger ledger_no_delete before delete on ledger
    for each row execute function nestgate_forbid_kept()`,
]
