/**
 * The SQLite database: its tables, its migrations and how a connection to it is opened. Migrations go
 * forward only; a file of a newer program or of another one is refused rather than guessed at.
 *
 * Triggers forbid to change or delete a ledger row. They stop mistakes, not somebody who owns the file.
 */
import { DatabaseSync } from 'node:sqlite'
import { Fault, messageOf } from '../../../shared/errors.ts'

/** `application_id` of our files: "NSTG". */
const APPLICATION_ID = 0x4e535447
/** WAL size at which it is copied into the database file, in pages of 4 KiB: rarely enough not to slow every few commits. */
const CHECKPOINT_PAGES = 4000

/**
 * `peak_us` is the highest `time_us` up to and including the row: it never falls, even where the clock was
 * set back, so "not before" becomes a bound on `seq`. The leaf comes last: SQLite then finds every other
 * column without touching its pages.
 *
 * Every index is paid by every request (measured: indexing all that can be asked for cut appends to a third),
 * so the selective columns have one, and of `kind`, `effect`, `verb` and `status` the rare values; frequent
 * ones are found at once by walking back from the newest row. events-query.ts repeats the conditions of
 * these partial indexes word by word, as SQLite demands.
 */
const FIRST = `
CREATE TABLE ledger (
  seq INTEGER PRIMARY KEY,
  time_us INTEGER NOT NULL,
  peak_us INTEGER NOT NULL,
  kind TEXT NOT NULL,
  request_id TEXT,
  cluster TEXT,
  subject TEXT,
  agent TEXT,
  pod_uid TEXT,
  exe TEXT,
  verb TEXT,
  resource TEXT,
  namespace TEXT,
  name TEXT,
  effect TEXT,
  reviewer TEXT,
  status INTEGER,
  leaf BLOB NOT NULL
) STRICT;
CREATE INDEX ledger_request_id ON ledger (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX ledger_agent ON ledger (agent) WHERE agent IS NOT NULL;
CREATE INDEX ledger_pod_uid ON ledger (pod_uid) WHERE pod_uid IS NOT NULL;
CREATE INDEX ledger_name ON ledger (name) WHERE name IS NOT NULL;
CREATE INDEX ledger_reviewer ON ledger (reviewer) WHERE reviewer IS NOT NULL;
CREATE INDEX ledger_kind ON ledger (kind) WHERE kind NOT IN ('intent', 'outcome');
CREATE INDEX ledger_effect ON ledger (effect) WHERE effect <> 'allow';
CREATE INDEX ledger_verb ON ledger (verb) WHERE verb NOT IN ('get', 'list', 'watch');
CREATE INDEX ledger_status ON ledger (status) WHERE status >= 400;
CREATE TABLE ledger_rule (
  rule TEXT NOT NULL,
  seq INTEGER NOT NULL REFERENCES ledger (seq),
  PRIMARY KEY (rule, seq)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger
  BEGIN SELECT RAISE(ABORT, 'ledger rows are never changed'); END;
CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger
  BEGIN SELECT RAISE(ABORT, 'ledger rows are never deleted'); END;
CREATE TRIGGER ledger_no_replace BEFORE INSERT ON ledger
  WHEN EXISTS (SELECT 1 FROM ledger WHERE seq = NEW.seq)
  BEGIN SELECT RAISE(ABORT, 'ledger rows are never replaced'); END;
CREATE TABLE approvals (
  id TEXT PRIMARY KEY,
  version INTEGER NOT NULL,
  state TEXT NOT NULL,
  created_at TEXT NOT NULL,
  expires_at TEXT NOT NULL,
  decided_at TEXT,
  reviewer TEXT,
  reason TEXT,
  facts TEXT NOT NULL
) STRICT;
CREATE INDEX approvals_created ON approvals (created_at, id);
CREATE INDEX approvals_state ON approvals (state, created_at, id);
`

/**
 * Ancestors by name. Earlier entries have no `chain`; their ancestors get the names that the broker of their time
 * would have given them, `unregistered/CONTAINER/EXECUTABLE`, so that a question about a link finds them too.
 * A leaf that is not JSON, and items that mark a cut list, are passed over. `rtrim` cuts an executable back to
 * its last slash.
 */
const SECOND = `
CREATE TABLE ledger_ancestor (
  agent TEXT NOT NULL,
  seq INTEGER NOT NULL REFERENCES ledger (seq),
  PRIMARY KEY (agent, seq)
) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO ledger_ancestor (agent, seq)
  SELECT 'unregistered/' || coalesce(substr(a.value ->> '$.containerId', 1, 13), 'no-container') || '/' ||
    coalesce(replace(a.value ->> '$.exe',
      rtrim(a.value ->> '$.exe', replace(a.value ->> '$.exe', '/', '')), ''), 'unknown'), l.seq
  FROM ledger AS l, json_each(
    CASE WHEN json_valid(CAST(l.leaf AS TEXT)) THEN CAST(l.leaf AS TEXT) ELSE '{}' END,
    '$.tag.verified.ancestors') AS a
  WHERE l.kind = 'intent' AND a.type = 'object';
`

/**
 * Terms, reviews and repeats of held requests. Those of earlier brokers were held on one reviewer's word for 15
 * minutes; they get no fold key, because several of the same request may be pending, so repeats do not join
 * them. Facts that are not JSON stay as they are, and are told of when they are read.
 */
const THIRD = `
ALTER TABLE approvals ADD COLUMN cluster TEXT NOT NULL DEFAULT '';
ALTER TABLE approvals ADD COLUMN fold_key TEXT;
ALTER TABLE approvals ADD COLUMN granted_at TEXT;
ALTER TABLE approvals ADD COLUMN review TEXT;
ALTER TABLE approvals ADD COLUMN progress TEXT NOT NULL DEFAULT '{"reviews":[],"clientWaits":true}';
UPDATE approvals SET cluster = coalesce(facts ->> '$.cluster', ''), facts = json_set(facts,
  '$.terms', json('{"quorums":[],"pendingSeconds":900,"approvedSeconds":900,"holdSeconds":900,'
    || '"reuseSeconds":0,"onLeave":"cancel","mode":"hold"}'),
  '$.requesters', json_array(facts ->> '$.subject'), '$.owners', json('[]'),
  '$.explanation', '', '$.ancestors', json('[]'), '$.callerKey', facts ->> '$.podUid',
  '$.streaming', json('false'), '$.breakGlass', json('false'))
  WHERE json_valid(facts);
CREATE UNIQUE INDEX approvals_pending_fold ON approvals (fold_key) WHERE state = 'PENDING';
CREATE INDEX approvals_fold ON approvals (fold_key, created_at, id) WHERE fold_key IS NOT NULL;
CREATE INDEX approvals_review ON approvals (review, created_at, id) WHERE review IS NOT NULL;
`

/** Clusters that were registered by the API; their settings as JSON, without any secret. */
const FOURTH = `
CREATE TABLE clusters (
  name TEXT PRIMARY KEY,
  settings TEXT NOT NULL
) STRICT;
`

/** Each brings the database from the version that is its index to the next. */
const MIGRATIONS: readonly string[] = [FIRST, SECOND, THIRD, FOURTH]

/**
 * Opens the file for writing, creating and migrating it as needed. The caller must own the file (see
 * `acquireOwnership`). Every commit is synced to disk before it returns.
 *
 * @throws {@link Fault} `store_failed` for a file that is not ours, newer than this program, or unusable
 */
export function openForWriting(file: string): DatabaseSync {
  return opened(file, () => new DatabaseSync(file, { timeout: 0 }), prepareForWriting)
}

/** Opens the file for reading; {@link openForWriting} must have succeeded before. */
export function openForReading(file: string): DatabaseSync {
  return opened(
    file,
    () => new DatabaseSync(file, { readOnly: true, timeout: 0 }),
    () => undefined,
  )
}

/** A whole number out of a one-column row; faults where the database holds something else. */
export function numberIn(row: Record<string, unknown> | undefined, column: string): number {
  const value = row?.[column]
  if (typeof value !== 'number') throw new Fault('store_failed', `no number in column ${column}`)
  return value
}

function opened(
  file: string,
  open: () => DatabaseSync,
  prepare: (db: DatabaseSync) => void,
): DatabaseSync {
  let db: DatabaseSync | undefined
  try {
    db = open()
    prepare(db)
    return db
  } catch (error) {
    db?.close()
    if (error instanceof Fault) throw error
    throw new Fault('store_failed', `cannot open ${file}: ${messageOf(error)}`, { cause: error })
  }
}

function prepareForWriting(db: DatabaseSync): void {
  // Looked at before anything is written, so that somebody else's file stays as it is.
  const version = versionOf(db)
  const mode = db.prepare('PRAGMA journal_mode = WAL').get()?.['journal_mode']
  if (mode !== 'wal')
    throw new Fault('store_failed', 'the file system cannot hold a write-ahead log')
  db.exec(`PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
    PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`)
  for (let next = version; next < MIGRATIONS.length; next += 1) {
    db.exec(`BEGIN IMMEDIATE; ${MIGRATIONS[next] ?? ''};
      PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${next + 1}; COMMIT`)
  }
}

function versionOf(db: DatabaseSync): number {
  const owner = numberIn(db.prepare('PRAGMA application_id').get(), 'application_id')
  const version = numberIn(db.prepare('PRAGMA user_version').get(), 'user_version')
  const objects = numberIn(db.prepare('SELECT count(*) AS n FROM sqlite_schema').get(), 'n')
  if (objects === 0 && owner === 0) return 0
  if (owner !== APPLICATION_ID)
    throw new Fault('store_failed', 'the file is another program’s database')
  if (version > MIGRATIONS.length) {
    throw new Fault(
      'store_failed',
      `the database has version ${version}, this program knows up to ${MIGRATIONS.length}`,
    )
  }
  return version
}
