/** The documents of sessions: read, checked, and changed together with the ledger entries that say so. */
import { z } from 'zod'
import { Fault } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/log.ts'
import { sessionSchema } from '../../../shared/recording/session-wire.ts'
import type { Session } from '../../../shared/recording/session-wire.ts'
import type { SessionEntry } from '../../ledger/entry.ts'
import type { RecordChange, Store } from '../../store/store.ts'

/** Attempts to change a document that others change too. */
const MAX_ATTEMPTS = 10
/** Sorts behind every id of a session. */
export const BEHIND_ALL_IDS = 'g'
/** Before the id, of the mark that somebody ended a session; behind all sessions. */
const KILL_PREFIX = 'kill/'
/** Marks that are looked at in one turn. */
const MAX_MARKS = 1_000

const count = z.int().min(0)

/** What only the broker needs. */
const keptSchema = z.strictObject({
  /** Spool that it was written to. */
  spool: z.string(),
  /** Wrapped; absent once the recording was removed. */
  key: z.string().optional(),
  retainDays: z.int().optional(),
  segments: z.array(z.strictObject({ chunks: count, bytes: count })),
  /** All segments are in the archive. */
  archived: z.boolean(),
})

/** A document; `kept` is there where it has, or had, a recording. */
const documentSchema = z.strictObject({ session: sessionSchema, kept: keptSchema.optional() })

/** See {@link documentSchema}. */
export type SessionDocument = z.infer<typeof documentSchema>
/** See {@link keptSchema}. */
export type Kept = z.infer<typeof keptSchema>

const markSchema = z.strictObject({ actor: z.string(), reason: z.string() })

/** Somebody ended a session. */
export interface KillMark extends z.infer<typeof markSchema> {
  readonly id: string
}

/** See the head of the file. All reject with Fault `store_failed` as the store does. */
export interface Documents {
  /** @returns rejects with Fault `store_failed` where there is one of this id already */
  create(document: SessionDocument, entries: readonly SessionEntry[]): Promise<void>
  read(id: string): Promise<SessionDocument | undefined>
  /**
   * Changes one. The change is asked again where another broker was faster; undefined leaves all as it is.
   *
   * @returns what is stored then; undefined where nothing was changed
   */
  change(
    id: string,
    change: (
      document: SessionDocument,
    ) =>
      { readonly document: SessionDocument; readonly entries: readonly SessionEntry[] } | undefined,
    also?: readonly RecordChange[],
  ): Promise<SessionDocument | undefined>
  /** By id; documents that cannot be read are left out, with a line in the log. `last`: id of the last one looked at. */
  page(
    where: { readonly after: string } | { readonly before: string },
    prefix: string,
    limit: number,
  ): Promise<{ readonly documents: readonly SessionDocument[]; readonly last: string | undefined }>
  /** @returns false where there is a mark already */
  mark(mark: KillMark, entry: SessionEntry): Promise<boolean>
  marks(): Promise<readonly KillMark[]>
  /** Removes one that is of no use. */
  removeMark(id: string): Promise<void>
}

/** Makes them. */
export function createDocuments(
  store: Pick<Store, 'put' | 'record' | 'records'>,
  log: Logger,
): Documents {
  const parse = (id: string, body: unknown): SessionDocument | undefined => {
    const parsed = documentSchema.safeParse(body)
    if (parsed.success) return parsed.data
    log.error(
      { requestId: id, problem: z.prettifyError(parsed.error) },
      'a session’s document cannot be read',
    )
    return undefined
  }
  return {
    async create(document, entries) {
      const { id } = document.session
      if (!(await store.put([{ ...recordOf(id), version: 0, body: document }], entries)))
        throw new Fault('store_failed', `there is a session ${id} already`)
    },
    async read(id) {
      const record = await store.record('session', id)
      return record === undefined ? undefined : parse(id, record.body)
    },
    async change(id, change, also = []) {
      for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) {
        const record = await store.record('session', id)
        const document = record === undefined ? undefined : parse(id, record.body)
        const changed = document === undefined ? undefined : change(document)
        if (record === undefined || changed === undefined) return undefined
        const { version } = record
        const own = { ...recordOf(id), version, body: changed.document }
        if (await store.put([own, ...also], changed.entries)) return changed.document
      }
      throw new Fault('store_failed', `the document of session ${id} changes all the time`)
    },
    async page(where, prefix, limit) {
      const records = await store.records('session', { ...where, prefix }, limit)
      const documents = records.flatMap(({ id, body }) => {
        const document = id < BEHIND_ALL_IDS ? parse(id, body) : undefined
        return document === undefined ? [] : [document]
      })
      return { documents, last: records.length < limit ? undefined : records.at(-1)?.id }
    },
    mark: ({ id, actor, reason }, entry) =>
      store.put([{ ...recordOf(KILL_PREFIX + id), version: 0, body: { actor, reason } }], [entry]),
    async marks() {
      const records = await store.records('session', { prefix: KILL_PREFIX }, MAX_MARKS)
      return records.flatMap(({ id, body }) => {
        const parsed = markSchema.safeParse(body)
        return parsed.success ? [{ id: id.slice(KILL_PREFIX.length), ...parsed.data }] : []
      })
    },
    async removeMark(id) {
      await store.put([unmark(id)], [])
    },
  }
}

/** Removes the mark of a session that is over. */
export function unmark(id: string): RecordChange {
  return { ...recordOf(KILL_PREFIX + id), body: undefined }
}

function recordOf(id: string): { kind: 'session'; id: string } {
  return { kind: 'session', id }
}

/** An entry about a session. @param actor - `broker` when left out */
export function sessionEntry(
  { id, cluster }: Pick<Session, 'id' | 'cluster'>,
  event: SessionEntry['event'],
  detail: SessionEntry['detail'],
  actor = 'broker',
): SessionEntry {
  return { kind: 'session', event, requestId: id, cluster, actor, detail }
}
