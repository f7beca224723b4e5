/**
 * Files of brokers before the tree: versions 1 to 4 were SQLite's own tables. Such a file is brought to version 4 by the
 * statements of its time, and from there into the tables of schema.ts: the entries keep their bytes, numbers and times,
 * and become the first leaves of the tree.
 */
import type { DatabaseSync } from 'node:sqlite'
import { Fault } from '../../../shared/errors.ts'
import { Growth, lockEnd, storedTerms } from '../logic/end.ts'
import { bytesOf, numberOf, SQLITE } from '../steps.ts'
import { createStatements, LEGACY_VERSION } from '../schema.ts'
import { createExecute } from './execute.ts'
import type { Execute } from './execute.ts'

/** Entries that are copied at once. */
const COPIED_AT_ONCE = 4096

/**
 * `peak_us` is the highest `time_us` up to and including the row: it never falls, even where the clock was
 * set back, so "not before" becomes a bound on `seq`. The leaf comes last: SQLite then finds every other
 * column without touching its pages.
 *
 * Every index is paid by every request (measured: indexing all that can be asked for cut appends to a third),
 * so the selective columns have one, and of `kind`, `effect`, `verb` and `status` the rare values; frequent
 * ones are found at once by walking back from the newest row. (These indexes are gone since version 5.)
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

/** Each brings the file from the version that is its index to the next. */
const STEPS: readonly string[] = [FIRST, SECOND, THIRD, FOURTH]

/** Takes out of the way what has a name of a new table, index or trigger. */
const SET_ASIDE = `
DROP TRIGGER ledger_no_update;
DROP TRIGGER ledger_no_delete;
DROP TRIGGER ledger_no_replace;
DROP TABLE ledger_rule;
DROP TABLE ledger_ancestor;
DROP INDEX approvals_created;
DROP INDEX approvals_state;
DROP INDEX approvals_pending_fold;
DROP INDEX approvals_fold;
DROP INDEX approvals_review;
ALTER TABLE ledger RENAME TO legacy_ledger;
ALTER TABLE approvals RENAME TO legacy_approvals;
ALTER TABLE clusters RENAME TO legacy_clusters;
`
const APPROVAL_COLUMNS = `id, version, state, created_at, expires_at, decided_at, granted_at, cluster, fold_key,
  review, reviewer, reason, progress, facts`
const MOVE_REST = `
INSERT INTO approvals (${APPROVAL_COLUMNS}) SELECT ${APPROVAL_COLUMNS} FROM legacy_approvals;
INSERT INTO records (kind, id, version, body) SELECT 'cluster', name, 1, settings FROM legacy_clusters;
DROP TABLE legacy_ledger;
DROP TABLE legacy_approvals;
DROP TABLE legacy_clusters;
`

/** The statements that bring a file of an earlier version to {@link LEGACY_VERSION}, for tests as well. */
export function legacyStatements(version: number): readonly string[] {
  return STEPS.slice(version, LEGACY_VERSION)
}

/**
 * Brings a file of version 1 to 4 into the new tables, in the transaction that the caller has begun.
 *
 * @throws {@link Fault} `store_failed` where its entries are not numbered from 0 without gaps
 */
export function convertLegacy(db: DatabaseSync, version: number): void {
  for (const step of legacyStatements(version)) db.exec(step)
  db.exec(SET_ASIDE)
  for (const statement of createStatements(SQLITE)) db.exec(statement)
  const execute = createExecute(db)
  copyEntries(db, execute)
  db.exec(MOVE_REST)
}

function copyEntries(db: DatabaseSync, execute: Execute): void {
  const select = db.prepare(
    'SELECT seq, time_us, leaf FROM legacy_ledger WHERE seq >= ? ORDER BY seq LIMIT ?',
  )
  let end = execute(lockEnd(SQLITE, undefined, undefined))
  for (;;) {
    const rows = select.all(end.size, COPIED_AT_ONCE)
    if (rows.length === 0) return
    const growth = new Growth(end)
    for (const row of rows) {
      if (numberOf(row, 'seq') !== growth.end.size)
        throw new Fault('store_failed', `entry ${growth.end.size} of the old ledger is missing`)
      const bytes = bytesOf(row, 'leaf')
      growth.add([{ timeUs: numberOf(row, 'time_us'), bytes, terms: storedTerms(bytes) }])
    }
    execute(growth.flush(SQLITE))
    ;({ end } = growth)
  }
}
