/**
 * Removes recordings whose time is over: segments first, then key and state, so that what fails half-way is done again. What is known of the
 * session stays, with the running hash. A recording that is not wholly in the archive yet is left alone: its spool's broker has it.
 */
import { messageOf } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/log.ts'
import type { Archive } from './archive.ts'
import { sessionEntry } from './documents.ts'
import type { Documents, Kept, SessionDocument } from './documents.ts'
import { archiveName } from './segments.ts'
import { segmentName } from './spool.ts'

/** Documents that are read at a time. */
const READ_AT_ONCE = 200

/** What is needed. */
export interface RetentionDeps {
  readonly documents: Pick<Documents, 'page' | 'change'>
  readonly archive: Pick<Archive, 'remove'>
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** Goes along all documents once; the next time it begins where something is left to do. */
export class Retention {
  readonly #deps: RetentionDeps
  /** Nothing up to this id will ever have to be removed. */
  #settled = ''

  constructor(deps: RetentionDeps) {
    this.#deps = deps
  }

  /** Never rejects. @returns how many were removed */
  async look(): Promise<number> {
    try {
      return await this.#look()
    } catch (error) {
      this.#deps.log.error({ error: messageOf(error) }, 'old recordings could not be removed')
      return 0
    }
  }

  async #look(): Promise<number> {
    let [removed, cursor, isSettled] = [0, this.#settled, true]
    for (;;) {
      const page = await this.#deps.documents.page({ after: cursor }, '', READ_AT_ONCE)
      for (const document of page.documents) {
        const isRemoved = this.#isDue(document) && (await this.#remove(document))
        if (isRemoved) removed += 1
        isSettled &&= isRemoved || willStay(document)
        if (isSettled) this.#settled = document.session.id
      }
      if (page.last === undefined) return removed
      cursor = page.last
    }
  }

  #isDue({ session, kept }: SessionDocument): boolean {
    const expiresAt = session.recording?.expiresAt
    return expiresAt !== undefined && kept?.archived === true && kept.key !== undefined
      ? session.state !== 'running' && Date.parse(expiresAt) <= this.#deps.now()
      : false
  }

  /** Never rejects. */
  async #remove({ session: { id }, kept }: SessionDocument): Promise<boolean> {
    const { documents, archive, log } = this.#deps
    try {
      for (const number of kept?.segments.keys() ?? [])
        await archive.remove(archiveName(id, segmentName(number)))
      await documents.change(id, (document) => {
        const { session, kept: now } = document
        // another broker was faster
        if (session.state === 'expired' || now === undefined) return undefined
        const { recording } = session
        const detail = {
          ...{ chunks: recording?.chunks ?? 0, bytes: recording?.bytes ?? 0 },
          ...{ runningSha256: recording?.runningSha256 ?? '' },
        }
        return {
          document: { session: { ...session, state: 'expired' }, kept: withoutKey(now) },
          entries: [sessionEntry(session, 'expired', detail)],
        }
      })
      return true
    } catch (error) {
      log.error({ requestId: id, error: messageOf(error) }, 'a recording could not be removed')
      return false
    }
  }
}

/** What nobody can read any more, wherever a copy of it may be. */
function withoutKey({ spool, retainDays, segments, archived }: Kept): Kept {
  return { spool, segments, archived, ...(retainDays === undefined ? {} : { retainDays }) }
}

/** Whether nothing of it will ever have to be removed. */
function willStay({ session, kept }: SessionDocument): boolean {
  if (session.state === 'running') return false
  return (
    session.state === 'expired' || kept === undefined || session.recording?.expiresAt === undefined
  )
}
