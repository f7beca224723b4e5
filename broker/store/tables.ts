/**
 * The tables, for SQLite and PostgreSQL alike (docs/decisions/0007). Whole numbers stay below 2^53; times are
 * microseconds since the epoch; texts are compared by their bytes.
 */

/** The entries, and the tree over them. */
export interface LedgerTable {
  seq: number
  time_us: number
  /** Leaf hash of `leaf` (RFC 6962, 2.1), 32 bytes. */
  hash: Uint8Array
  /** The serialised entry, byte by byte. */
  leaf: Uint8Array
}

/** One row: where the ledger ends, locked by whoever writes. */
export interface HeadTable {
  id: number
  size: number
  /** The compact range: root of each perfect subtree, largest first, 32 bytes each. */
  edge: Uint8Array
  /** First entry whose bytes are still there. */
  first_seq: number
}

/** Full tiles (C2SP tlog-tiles): 256 hashes, and the hash that stands for them a level higher. */
export interface TileTable {
  level: number
  idx: number
  hashes: Uint8Array
  root: Uint8Array
}

/** Full blocks of entries, for searches. */
export interface BlockTable {
  block: number
  min_us: number
  max_us: number
  /** The highest time up to the end of the block: it never falls, even where the clock was set back. */
  peak_us: number
}

/** Which entries of a full block have a term. */
export interface PostingTable {
  field: string
  value: string
  block: number
  /** See broker/store/logic/postings.ts. */
  entries: Uint8Array
}

/** Signed checkpoints, all of them. */
export interface CheckpointTable {
  size: number
  time_us: number
  root: Uint8Array
  note: string
}

/** Names of people behind the pseudonyms of entries. */
export interface PersonalTable {
  pseudonym: string
  value: string
  salt: Uint8Array
}

/** Bodies beside entries. */
export interface PayloadTable {
  sha256: string
  /** The last entry that names it. */
  seq: number
  content: Uint8Array
}

/** Held requests. */
export interface ApprovalTable {
  id: string
  version: number
  state: string
  created_at: string
  expires_at: string
  decided_at: string | null
  granted_at: string | null
  cluster: string
  fold_key: string | null
  review: string | null
  reviewer: string | null
  reason: string | null
  progress: string
  facts: string
}

/** Small documents, as JSON. */
export interface RecordTable {
  kind: string
  id: string
  version: number
  body: string
}

/** All of them. */
export interface Tables {
  ledger: LedgerTable
  ledger_head: HeadTable
  ledger_tile: TileTable
  ledger_block: BlockTable
  ledger_posting: PostingTable
  ledger_checkpoint: CheckpointTable
  ledger_personal: PersonalTable
  ledger_payload: PayloadTable
  approvals: ApprovalTable
  records: RecordTable
}
