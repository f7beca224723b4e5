/**
 * PostgreSQL, for several brokers on one ledger: whoever holds the row of the ledger's head is its sequencer until the
 * commit (docs/decisions/0007). One connection writes, a few read, one listens for changes of held requests.
 */
import type { Logger } from '../../../shared/log.ts'
import { Batches } from '../batches.ts'
import type { QuickCall, ReadCall, WriteCall } from '../calls.ts'
import { createStore } from '../client.ts'
import type { Database } from '../client.ts'
import { readQuick, readSlow } from '../logic/read.ts'
import { POSTGRES } from '../steps.ts'
import type { Row } from '../steps.ts'
import type { Store } from '../store.ts'
import { Changes } from './changes.ts'
import type { PostgresSettings } from './connection.ts'
import { QUICK_CONNECTIONS, READ_CONNECTIONS } from './limits.ts'
import { Readers } from './readers.ts'
import { checkHead, Writer } from './writer.ts'

/** What the store needs. */
export interface PostgresStoreDeps extends PostgresSettings {
  readonly log: Logger
  /** Milliseconds since the epoch; fractions become the entries' microseconds. */
  readonly now: () => number
}

/**
 * Opens the store, making its tables where the database has none.
 *
 * @throws Fault `store_failed` when it cannot be reached, would lose what it acknowledges (fsync and its like), or is of
 * a newer program; `ledger_rolled_back` when its end is not what the last checkpoint says
 */
export async function openPostgresStore(deps: PostgresStoreDeps): Promise<Store> {
  const { url, passwordFile, log, now } = deps
  const shared = { settings: { url, passwordFile }, log }
  const opened: { close(): Promise<void> }[] = []
  const keep = <T extends { close(): Promise<void> }>(part: T): T => {
    opened.unshift(part)
    return part
  }
  try {
    const writer = keep(await Writer.open(shared))
    const reading = { ...shared, role: 'reader' }
    const quick = keep(
      await Readers.open<QuickCall>(QUICK_CONNECTIONS, reading, (_, call) =>
        readQuick(POSTGRES, call),
      ),
    )
    const slow = keep(
      await Readers.open<ReadCall>(READ_CONNECTIONS, reading, (tail, call) =>
        readSlow(POSTGRES, tail, call),
      ),
    )
    const read = guarded(writer, slow)
    const isOwn = (processId: number): boolean => processId === writer.processId
    const changes = keep(await Changes.open({ ...shared, isOwn, read }))
    const batches = keep(new Batches<WriteCall>((calls) => writer.run(calls)))
    const database: Database = {
      write: (call) => batches.call(call),
      quick: (call) => quick.ask(call),
      read,
      onChange: (tell) => changes.subscribe(tell),
      close: () => closeAll(opened),
    }
    return createStore(database, now)
  } catch (error) {
    await closeAll(opened)
    throw error
  }
}

/** Questions, with a head that is never behind what was acknowledged: nobody signs what an old copy says. */
function guarded(writer: Writer, slow: Readers<ReadCall>): (call: ReadCall) => Promise<unknown> {
  return async (call) => {
    if (call.op !== 'head') return slow.ask(call)
    // as it was before the question: meanwhile others may write
    const { seen } = writer
    const row = await slow.ask(call)
    try {
      checkHead(isRow(row) ? row : undefined, seen)
      return row
    } catch (error) {
      writer.tell(error)
      throw error
    }
  }
}

/** One after the other: those that ask before those that answer. */
async function closeAll(parts: readonly { close(): Promise<void> }[]): Promise<void> {
  for (const part of parts) await part.close()
}

function isRow(value: unknown): value is Row {
  return typeof value === 'object' && value !== null
}
