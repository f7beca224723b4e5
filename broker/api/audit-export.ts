/**
 * `GET /v1/audit/export`: entries as a file of any size. What is exported is an entry before the first byte. The client's pace is the pace; where anything
 * fails in the middle the connection is cut, so that no part passes for the whole.
 */
import type { Response } from 'express'
import type { ExportFormat } from '../../shared/audit-filters.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { CSV_HEAD, csvRow } from '../audit/export/csv.ts'
import { jsonlLines } from '../audit/export/jsonl.ts'
import { kubernetesEvent } from '../audit/export/kubernetes.ts'
import { ocsfEvent } from '../audit/export/ocsf.ts'
import { plainRange, provedRange } from '../audit/export/range.ts'
import type { CheckpointSource, Range } from '../audit/export/range.ts'
import { happenings } from '../audit/export/requests.ts'
import type { Happening } from '../audit/export/requests.ts'
import type { ExportQuery } from '../audit/query.ts'
import { ascending } from '../audit/windows.ts'
import type { Person } from '../identity/people.ts'
import type { Store } from '../store/store.ts'
import { answer } from './answers.ts'
import { createPlaces, hasLeft, sender } from './sending.ts'

/** Exports at once. */
export const MAX_EXPORTS = 4

const CONTENT_TYPES: Readonly<Record<ExportFormat, string>> = {
  jsonl: 'application/jsonl',
  csv: 'text/csv; charset=utf-8; header=present',
  kubernetes: 'application/jsonl',
  ocsf: 'application/jsonl',
}
const EXTENSIONS: Readonly<Record<ExportFormat, string>> = {
  jsonl: 'jsonl',
  csv: 'csv',
  kubernetes: 'audit.jsonl',
  ocsf: 'ocsf.jsonl',
}

/** What exporting needs. */
export interface AuditExportDeps {
  readonly store: Store
  readonly checkpoints: CheckpointSource
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** Sends an export to a person who may have it. */
export type AuditExport = (person: Person, query: ExportQuery, response: Response) => Promise<void>

/** A range, and the texts that it is exported as. */
interface Prepared {
  readonly range: Range
  readonly texts: AsyncGenerator<string>
}

/** Makes the handler; the person has been authorised. It rejects only before the answer has begun. */
export function createAuditExport(deps: AuditExportDeps): AuditExport {
  const places = createPlaces(MAX_EXPORTS)
  return async (person, query, response) => {
    if (hasLeft(response)) return
    if (!places.take(response)) {
      answer(response, refuse('broker_busy', `${MAX_EXPORTS} exports are under way already`))
      return
    }
    const prepared = await prepare(deps, person, query)
    if (isRefusal(prepared)) {
      answer(response, prepared)
      return
    }
    const { range, texts } = prepared
    await record(deps.store, person, query, range)
    if (hasLeft(response)) return
    const name = `nestgate-${range.from}-${range.to}.${EXTENSIONS[query.format]}`
    response.writeHead(200, {
      'Content-Type': CONTENT_TYPES[query.format],
      'Content-Disposition': `attachment; filename="${name}"`,
      'X-Accel-Buffering': 'no',
    })
    // the first event may be far away
    response.flushHeaders()
    await sendAll(deps.log, response, texts)
  }
}

async function prepare(
  { store, checkpoints, now }: AuditExportDeps,
  person: Person,
  query: ExportQuery,
): Promise<Prepared | Refusal> {
  const { format, filter, asked } = query
  if (format === 'jsonl') {
    const range = await provedRange(store, checkpoints, query)
    if (isRefusal(range)) return range
    const time = new Date(now()).toISOString()
    const manifest = { exporter: person.name, time, asked, filter, after: query.after }
    return { range, texts: jsonlLines(store, checkpoints, range, manifest) }
  }
  const range = await plainRange(store, query)
  if (isRefusal(range)) return range
  return { range, texts: TEXTS[format](store, query, range) }
}

const TEXTS: Readonly<
  Record<
    Exclude<ExportFormat, 'jsonl'>,
    (store: Store, query: ExportQuery, range: Range) => AsyncGenerator<string>
  >
> = {
  csv: csvTexts,
  kubernetes: (store, query, range) => jsonTexts(store, query, range, kubernetesEvent),
  ocsf: (store, query, range) => jsonTexts(store, query, range, ocsfEvent),
}

async function* csvTexts(
  store: Store,
  { filter }: ExportQuery,
  range: Range,
): AsyncGenerator<string> {
  yield CSV_HEAD
  for await (const batch of ascending(store, filter, range)) yield batch.map(csvRow).join('')
}

async function* jsonTexts(
  store: Store,
  { filter }: ExportQuery,
  range: Range,
  toEvent: (happening: Happening) => object | undefined,
): AsyncGenerator<string> {
  for await (const batch of happenings(store, filter, range)) {
    const events = batch.map(toEvent).filter((event) => event !== undefined)
    if (events.length > 0) yield events.map((event) => `${JSON.stringify(event)}\n`).join('')
  }
}

/** Durable before anything is shown: what was taken away, of which range, by which conditions. */
async function record(
  store: Store,
  person: Person,
  { format, asked, after }: ExportQuery,
  { from, to }: Range,
): Promise<void> {
  // under this name people's names in it are hidden (broker/ledger/personal.ts)
  const query = JSON.stringify(asked)
  const more = after === undefined ? {} : { after }
  await store.append([
    {
      ...{ kind: 'system', event: 'audit_exported', actor: person.name },
      detail: { format, from, to, query, ...more },
    },
  ])
}

async function sendAll(
  log: Logger,
  response: Response,
  texts: AsyncGenerator<string>,
): Promise<void> {
  const send = sender(response)
  try {
    for await (const text of texts) if (!(await send(text))) return
    response.end()
  } catch (error) {
    log.error({ error: messageOf(error) }, 'an export could not be finished')
    response.destroy()
  }
}
