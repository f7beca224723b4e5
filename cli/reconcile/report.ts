/** What the join found, for people (table), for programs (JSON) and for spreadsheets (CSV). */
import { toDetails, toJson, toTable } from '../output.ts'
import { timeText } from './facts.ts'
import type { CalledFacts } from './facts.ts'
import { MAX_SHOWN } from './join.ts'
import type { Counts, Finding, FindingKind, Joined, Period } from './join.ts'

/** Forms of a report. */
export const REPORT_FORMATS = ['table', 'json', 'csv'] as const
export type ReportFormat = (typeof REPORT_FORMATS)[number]

/** A report. */
export interface Report extends Joined {
  readonly clusters: readonly string[]
  readonly ledger: Period & { readonly entries: number }
  readonly log: Period & { readonly events: number; readonly halfLines: number }
  readonly unreadable: { readonly count: number; readonly places: readonly string[] }
}

/** Whether ledger and cluster say the same. */
export function fits({ found }: Pick<Report, 'found'>): boolean {
  return Object.keys(found).length === 0
}

/** The report as text, safe for a terminal. */
export function reportText(report: Report, format: ReportFormat): string {
  if (format === 'json') return toJson(jsonOf(report))
  return format === 'csv' ? csvOf(report) : tableOf(report)
}

const SAID: Readonly<Record<FindingKind, string>> = {
  missing_in_ledger: 'calls of ours that the ledger does not know',
  missing_in_cluster: 'entries that the cluster never saw',
  differs: 'requests of which they do not say the same',
  second_call: 'second calls under an id that was used',
  foreign_user: 'calls of others under an id of ours',
  own_account: 'calls of the broker’s own account that the broker does not make',
  second_intent: 'second intents of one request',
}
const COUNTED: Readonly<Record<keyof Counts, string>> = {
  fits: 'fit',
  unfinished: 'of them without an end on one side',
  hidden: 'whose user the ledger hides',
  repeated: 'reads sent once more',
  doubled: 'events that are there twice',
  own: 'calls of the broker for itself',
  notSent: 'not sent, by their outcome',
  running: 'without an outcome',
  notAudited: 'not audited, by the policy',
  outsideLog: 'entries outside the log’s period',
  outsideLedger: 'calls outside the ledger’s period',
  probes: 'refused attempts of nestgate doctor',
}
const US_PER_MS = 1000

function tableOf(report: Report): string {
  const { ledger, log, counts, found, findings, clockUs, unreadable } = report
  const parts = [
    toDetails([
      ['cluster', report.clusters.join(', ')],
      ['ledger', `${ledger.entries} entries, ${periodText(ledger)}`],
      ['log', `${log.events} events, ${periodText(log)}`],
      ...counted(counts, COUNTED),
      ['half last lines', log.halfLines === 0 ? undefined : String(log.halfLines)],
      ['could not be read', unreadable.count === 0 ? undefined : String(unreadable.count)],
      [
        'cluster’s clock after the broker’s',
        clockUs === undefined ? undefined : clockText(clockUs),
      ],
    ]),
  ]
  if (fits(report)) return [...parts, 'Ledger and cluster say the same.'].join('\n\n')
  parts.push(toDetails(counted(found, SAID)))
  const rows = findings.flatMap(rowsOf)
  parts.push(
    toTable(
      HEADINGS,
      rows.map(({ kind, time, user, what, where, id, difference }) => [
        ...[kind, time, user, what, where, difference, id],
      ]),
    ),
  )
  return parts.join('\n\n')
}

const HEADINGS = ['FINDING', 'TIME', 'USER', 'WHAT', 'WHERE', 'LEDGER / CLUSTER', 'REQUEST']

function counted<Key extends string>(
  counts: Readonly<Partial<Record<Key, number>>>,
  words: Readonly<Record<Key, string>>,
): [string, string | undefined][] {
  return Object.entries<string>(words).map(([key, text]) => {
    const count =
      Object.entries<number | undefined>(counts).find(([name]) => name === key)?.[1] ?? 0
    return [text, count === 0 && key !== 'fits' ? undefined : String(count)]
  })
}

function periodText({ fromUs, toUs }: Period): string {
  return `${timeText(fromUs) || 'its beginning'} to ${timeText(toUs)}`
}

function clockText({ least, most }: { readonly least: number; readonly most: number }): string {
  return `${(least / US_PER_MS).toFixed(1)} to ${(most / US_PER_MS).toFixed(1)} ms`
}

interface Row {
  readonly kind: string
  readonly time: string
  readonly user: string
  readonly what: string
  readonly where: string
  readonly id: string
  readonly difference: string
}

/** One for each difference, one where there is none. */
function rowsOf(finding: Finding): readonly Row[] {
  const { kind, id, differences } = finding
  const facts = factsOf(finding)
  const row = {
    ...{ kind, id, user: facts.user },
    time: startOf(finding),
    what: `${facts.verb} ${kindText(facts)}`.trim(),
    where: [facts.namespace, facts.name].filter((text) => text !== '').join('/'),
  }
  if (differences.length === 0) return [{ ...row, difference: '' }]
  return differences.map(({ field, ledger, cluster }) => ({
    ...row,
    difference: `${field}: ${ledger} / ${cluster}`,
  }))
}

const NONE: CalledFacts = {
  ...{ verb: '', apiGroup: '', resource: '', subresource: '', namespace: '', name: '' },
  ...{ path: '', user: '' },
}

/** As the cluster saw them, else as the ledger says. */
function factsOf({ intent, call }: Finding): CalledFacts {
  return { ...NONE, ...intent?.facts, ...call?.facts }
}

function kindText({ apiGroup, resource, subresource, path }: CalledFacts): string {
  if (resource === '') return path
  const group = apiGroup === '' ? '' : `.${apiGroup}`
  return `${resource}${group}${subresource === '' ? '' : `/${subresource}`}`
}

function jsonOf(report: Report): object {
  const { clusters, ledger, log, counts, found, findings, clockUs, unreadable } = report
  return {
    clusters,
    fits: fits(report) && unreadable.count === 0,
    ledger: { entries: ledger.entries, ...period(ledger) },
    log: { events: log.events, halfLines: log.halfLines, ...period(log) },
    counts,
    found,
    unreadable,
    clockUs,
    shownAtMost: MAX_SHOWN,
    findings: findings.map((finding) => {
      const { kind, id, intent, call, differences } = finding
      return {
        ...{ kind, requestId: id, differences, ...factsOf(finding) },
        ...(intent === undefined
          ? {}
          : { entry: { seq: intent.seq, time: timeText(intent.atUs), uri: intent.uri } }),
        ...(call === undefined ? {} : { event: eventOf(call) }),
      }
    }),
  }
}

function eventOf({
  auditId,
  receivedUs,
  stage,
  status,
  uri,
}: NonNullable<Finding['call']>): object {
  return { auditId, received: timeText(receivedUs), stage, status, uri }
}

function period({ fromUs, toUs }: Period): object {
  const from = timeText(fromUs)
  return { ...(from === '' ? {} : { from }), to: timeText(toUs) }
}

const COLUMNS = [
  ...['finding', 'requestId', 'time', 'user', 'verb', 'apiGroup', 'resource', 'subresource'],
  ...['namespace', 'name', 'uri', 'seq', 'status', 'field', 'ledger', 'cluster'],
]

function csvOf({ findings }: Report): string {
  const rows = findings.flatMap((finding) => {
    const first = cellsOf(finding)
    if (finding.differences.length === 0) return [[...first, '', '', '']]
    return finding.differences.map(({ field, ledger, cluster }) => {
      return [...first, field, ledger, cluster]
    })
  })
  return [COLUMNS, ...rows].map((row) => row.map(csvCell).join(',')).join('\r\n')
}

function cellsOf(finding: Finding): readonly string[] {
  const { kind, id, intent, call } = finding
  const { user, verb, apiGroup, resource, subresource, namespace, name } = factsOf(finding)
  return [
    ...[kind, id, startOf(finding), user, verb, apiGroup, resource, subresource, namespace, name],
    call?.uri ?? intent?.uri ?? '',
    ...[String(intent?.seq ?? ''), String(call?.status ?? '')],
  ]
}

function startOf({ intent, call }: Finding): string {
  return timeText(call?.receivedUs ?? intent?.atUs ?? NaN)
}

/** What a spreadsheet would take for a formula begins with an apostrophe (RFC 4180 says nothing of it). */
const FORMULA = /^[=+\-@\t\r]/
/** Controls, and what hides or reorders text. */
const HOSTILE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu

function csvCell(text: string): string {
  const safe = text.replace(HOSTILE, (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`)
  const cell = FORMULA.test(text) ? `'${safe}` : safe
  return /[",]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell
}
