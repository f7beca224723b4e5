/** The store as the broker sees it, over either database: entries become bytes here, and rows become values again. */
import { randomBytes } from 'node:crypto'
import { Fault } from '../../shared/errors.ts'
import type { AuditEvent } from '../../shared/wire.ts'
import type { Entry } from '../ledger/entry.ts'
import {
  createPseudonyms,
  hidePersonal,
  personalValue,
  pseudonymsIn,
  showPersonal,
} from '../ledger/personal.ts'
import type { PersonalRow } from '../ledger/personal.ts'
import type { Evidence, LeafPayload, QuickCall, ReadCall, WriteCall } from './calls.ts'
import { RANGE_ENTRIES } from './logic/prune.ts'
import {
  fromApprovalRow,
  fromCheckpointRow,
  fromHeadRow,
  fromLeafRow,
  fromPayloadRow,
  fromPersonalRow,
  fromRecordRow,
  fromRows,
  toChange,
  toEvent,
  toLeaf,
  toNewApproval,
  toNewRecord,
  toSameQuery,
} from './rows.ts'
import type { Store } from './store.ts'

/** A database that takes calls; see calls.ts. Rejections are Faults `store_failed`, `store_closed` or `ledger_rolled_back`. */
export interface Database {
  /** In a transaction, with the calls that come meanwhile. */
  readonly write: (call: WriteCall) => Promise<unknown>
  readonly quick: (call: QuickCall) => Promise<unknown>
  readonly read: (call: ReadCall) => Promise<unknown>
  readonly onChange: Store['onChange']
  /** Lets everything accepted finish. */
  readonly close: () => Promise<void>
}

/** Microseconds in a millisecond. */
const US_PER_MS = 1000

/** How often an erasure looks: what was under way at the first look is committed before the first writes, and found by the second. */
const ERASE_TURNS = 2

/** @param now - milliseconds since the epoch; fractions become the entries' microseconds */
export function createStore(database: Database, now: () => number): Store {
  let closing: Promise<void> | undefined
  const pseudonyms = createPseudonyms({ random: (bytes) => randomBytes(bytes) })
  const write = async (call: WriteCall): Promise<unknown> => {
    const rows = 'evidence' in call ? call.evidence.pseudonyms : []
    let stored = false
    try {
      if (closing !== undefined) throw new Fault('store_closed', 'the store is closed')
      const value = await database.write(call)
      // a compare-and-set that missed wrote nothing
      stored = value !== undefined && value !== null && value !== false
      return value
    } finally {
      pseudonyms.settle(rows, stored)
    }
  }
  const evidence = (entries: readonly Entry[], payloads: readonly LeafPayload[] = []): Evidence => {
    const timeUs = Math.floor(now() * US_PER_MS)
    const rows = new Map<string, PersonalRow>()
    const hide = (value: string): string => {
      const { pseudonym, row } = pseudonyms.of(value)
      if (row !== undefined) rows.set(pseudonym, row)
      return pseudonym
    }
    const leaves = entries.map((entry) => toLeaf(hidePersonal(entry, hide), timeUs))
    return { leaves, payloads, pseudonyms: [...rows.values()] }
  }
  return {
    ...writes(write, evidence),
    ...reads(database),
    async prune(seq, entry) {
      let { firstSeq } = fromHeadRow(await database.read({ op: 'head' }))
      for (;;) {
        const range = { from: firstSeq, to: firstSeq + RANGE_ENTRIES }
        const call = { op: 'prune', from: firstSeq, below: seq } as const
        const next = await write({ ...call, evidence: evidence([entry(range)]) })
        if (typeof next !== 'number') return firstSeq
        firstSeq = next
      }
    },
    async erase(name, entry) {
      const value = personalValue(name)
      let count = 0
      for (let turn = 1; turn <= ERASE_TURNS; turn += 1) {
        // first: what is written from now on gets another pseudonym, which is none of those that are removed
        pseudonyms.forget(value)
        const found = fromRows(await database.quick({ op: 'pseudonyms', value }), String)
        if (turn > 1 && found.length === 0) break
        await write({ op: 'erase', pseudonyms: found, evidence: evidence([entry(found)]) })
        count += found.length
      }
      return count
    },
    onChange: (tell) => database.onChange(tell),
    close() {
      closing ??= database.close()
      return closing
    },
  }
}

type Writes = Pick<Store, 'append' | 'hold' | 'transition' | 'put' | 'putCheckpoint'>

function writes(
  write: (call: WriteCall) => Promise<unknown>,
  evidence: (entries: readonly Entry[], payloads?: readonly LeafPayload[]) => Evidence,
): Writes {
  return {
    async append(entries, payloads) {
      const first = await write({ op: 'append', evidence: evidence(entries, payloads) })
      if (typeof first !== 'number') throw new Fault('store_failed', 'expected a sequence number')
      return first
    },
    async hold(approval, entries, payloads) {
      const call = { op: 'hold', approval: toNewApproval(approval) } as const
      return (await write({ ...call, evidence: evidence(entries, payloads) })) === true
    },
    async transition(change) {
      const entries = evidence([change.entry, ...(change.also ?? [])])
      const row = await write({ op: 'transition', change: toChange(change), evidence: entries })
      return row === undefined ? undefined : fromApprovalRow(row)
    },
    async put(changes, entries) {
      const call = { op: 'put', changes: changes.map(toNewRecord) } as const
      return (await write({ ...call, evidence: evidence(entries) })) === true
    },
    async putCheckpoint(checkpoint) {
      await write({ op: 'checkpoint', checkpoint })
    },
  }
}

type Reads = Omit<Store, keyof Writes | 'prune' | 'erase' | 'onChange' | 'close'>

function reads({ read, quick }: Database): Reads {
  return {
    async approval(id) {
      return optional(await quick({ op: 'approval', id }), fromApprovalRow)
    },
    async approvals(filter, limit) {
      return fromRows(await read({ op: 'approvals', filter, limit }), fromApprovalRow)
    },
    async same(request) {
      return fromRows(await quick({ op: 'same', query: toSameQuery(request) }), fromApprovalRow)
    },
    async record(kind, id) {
      return optional(await quick({ op: 'record', kind, id }), fromRecordRow)
    },
    async records(kind, filter, limit) {
      return fromRows(await read({ op: 'records', kind, filter, limit }), fromRecordRow)
    },
    async events(filter, limit, before) {
      const rows = await read({ op: 'events', filter, limit, before })
      return shown(read, fromRows(rows, fromLeafRow).map(toEvent))
    },
    async leaves(from, limit) {
      return fromRows(await read({ op: 'leaves', from, limit }), fromLeafRow)
    },
    async head() {
      return fromHeadRow(await read({ op: 'head' }))
    },
    async tile(level, index, width) {
      const bytes = await read({ op: 'tile', level, index, width })
      return bytes instanceof Uint8Array ? bytes : undefined
    },
    async checkpoint(size) {
      return optional(await read({ op: 'lastCheckpoint', size }), fromCheckpointRow)
    },
    async checkpoints(above, limit) {
      return fromRows(await read({ op: 'checkpoints', above, limit }), fromCheckpointRow)
    },
    async payload(sha256) {
      return optional(await read({ op: 'payload', sha256 }), fromPayloadRow)
    },
  }
}

function optional<T>(row: unknown, from: (row: unknown) => T): T | undefined {
  return row === undefined || row === null ? undefined : from(row)
}

/** Entries with the names of people in them, as far as these are not erased. */
async function shown(
  read: Database['read'],
  events: readonly AuditEvent[],
): Promise<readonly AuditEvent[]> {
  const pseudonyms = [...new Set(events.flatMap(({ entry }) => pseudonymsIn(entry)))]
  if (pseudonyms.length === 0) return events
  const values = new Map(fromRows(await read({ op: 'personal', pseudonyms }), fromPersonalRow))
  return events.map((event) => ({
    ...event,
    entry: showPersonal(event.entry, (pseudonym) => values.get(pseudonym)),
  }))
}
