/** `nestgate reconcile`: the cluster's own audit log and the ledger, request by request. */
import { readFileSync } from 'node:fs'
import { Option } from 'commander'
import type { Command } from 'commander'
import { messageOf } from '../shared/errors.ts'
import { CallError } from './client.ts'
import { BROKER_ACCOUNT, BROKER_NAMESPACE } from './connect/impersonation.ts'
import type { Runner } from './program.ts'
import { brokerNames } from './reconcile/audit-event.ts'
import { auditCalls, newReading } from './reconcile/audit-files.ts'
import type { Reading } from './reconcile/audit-files.ts'
import { readAuditPolicy } from './reconcile/audit-policy.ts'
import type { Call } from './reconcile/facts.ts'
import { Join } from './reconcile/join.ts'
import type { JoinOptions, Period } from './reconcile/join.ts'
import { brokerFacts } from './reconcile/ledger-broker.ts'
import type { Clusters, LedgerFact } from './reconcile/ledger-entry.ts'
import { exportFacts } from './reconcile/ledger-files.ts'
import type { ExportRange } from './reconcile/ledger-files.ts'
import { byTime } from './reconcile/lines.ts'
import { fits, REPORT_FORMATS, reportText } from './reconcile/report.ts'
import type { Report, ReportFormat } from './reconcile/report.ts'
import { UsageError } from './settings.ts'

/** The broker's account where `nestgate connect` made it. */
const DEFAULT_USER = `system:serviceaccount:${BROKER_NAMESPACE}:${BROKER_ACCOUNT}`
const US_PER_MS = 1000
const US_PER_S = 1_000_000
const SKEW = /^\d{1,5}(\.\d{1,3})?$/

interface ReconcileOptions {
  readonly auditLog: string[]
  readonly export?: string
  readonly cluster: string[]
  readonly user: string[]
  readonly auditPolicy?: string
  readonly since?: string
  readonly until?: string
  readonly skew: string
  readonly format?: ReportFormat
}

/** Adds the command. */
export function addReconcile(program: Command, runner: Runner): void {
  const command = program
    .command('reconcile')
    .description(
      'compare the cluster’s own audit log with the ledger: calls that the ledger lacks, entries that the cluster never saw',
    )
    .requiredOption(
      '--audit-log <file...>',
      'files of the log: JSON lines or EventLists, also gzip, in any order',
    )
    .requiredOption(
      '--cluster <name...>',
      'name of the cluster in the ledger; all where it has had several',
    )
    .option('--export <file>', 'the ledger as nestgate export wrote it; else the broker is asked')
    .option('--since <time>', 'from this time on (RFC 3339); needed where the broker is asked')
    .option('--until <time>', 'before this time')
    .option(
      '--user <pattern...>',
      'Kubernetes user of the broker in mode impersonation; * stands for any text',
      [DEFAULT_USER],
    )
    .option(
      '--audit-policy <file>',
      'the API server’s audit policy: what it leaves out is no fault',
    )
    .option('--skew <seconds>', 'how far the clocks of broker and cluster may differ', '5')
    .addOption(new Option('--format <format>', 'how to print').choices(REPORT_FORMATS))
  command.action(async () => {
    const options = command.opts<ReconcileOptions>()
    const report = await orUnreadable(makeReport(options, runner))
    runner.print(reportText(report, options.format ?? runner.format()))
    if (report.unreadable.count > 0) {
      const { count, places } = report.unreadable
      throw new UsageError(`${count} could not be read: ${places.join(', ')}`)
    }
    if (!fits(report)) runner.fail()
  })
}

/** What cannot be read is another ending than what does not fit. */
async function orUnreadable<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    if (error instanceof UsageError) throw error
    throw new UsageError(
      error instanceof CallError ? error.message : `cannot read: ${messageOf(error)}`,
    )
  }
}

interface Times {
  readonly sinceUs: number | undefined
  readonly untilUs: number | undefined
}

async function makeReport(options: ReconcileOptions, runner: Runner): Promise<Report> {
  const times = { sinceUs: timeOf(options, 'since'), untilUs: timeOf(options, 'until') }
  const [ofLog, ofLedger] = [newReading(), newReading()]
  const isBroker = brokerNames(options.user)
  const calls = byTime(options.auditLog.map((file) => auditCalls(file, isBroker, ofLog)))
  const join = joinOptions(options)
  const clusters = new Set(options.cluster)
  if (options.export !== undefined) {
    const range: ExportRange = { isFromStart: false }
    const facts = exportFacts(options.export, clusters, ofLedger, range)
    return joined({ clusters, facts, calls, join, times, range, ofLog, ofLedger })
  }
  const { sinceUs, untilUs = runner.now() * US_PER_MS } = times
  if (sinceUs === undefined) throw new UsageError('--since is needed where the broker is asked')
  const period = { sinceMs: sinceUs / US_PER_MS, untilMs: untilUs / US_PER_MS }
  let report: Report | undefined
  await runner.follow(async (client) => {
    const facts = brokerFacts(client, clusters, period, ofLedger)
    const asked = { sinceUs, untilUs }
    report = await joined({ clusters, facts, calls, join, times: asked, ofLog, ofLedger })
  })
  if (report === undefined) throw new UsageError('the broker was not asked')
  return report
}

function joinOptions({ skew, auditPolicy }: ReconcileOptions): JoinOptions {
  if (!SKEW.test(skew)) throw new UsageError('--skew must be a number of seconds')
  const isAudited =
    auditPolicy === undefined
      ? (): boolean => true
      : readAuditPolicy(readFileSync(auditPolicy, 'utf8'))
  if (isAudited === undefined) throw new UsageError('--audit-policy: not an audit policy')
  return { skewUs: Number(skew) * US_PER_S, isAudited }
}

function timeOf(options: ReconcileOptions, name: 'since' | 'until'): number | undefined {
  const text = options[name]
  if (text === undefined) return undefined
  const ms = Date.parse(text)
  if (Number.isNaN(ms)) throw new UsageError(`--${name} must be a time (RFC 3339)`)
  return ms * US_PER_MS
}

/** Reads whichever side is behind, to the end of both. */
async function joined(work: {
  readonly clusters: Clusters
  readonly facts: AsyncGenerator<LedgerFact>
  readonly calls: AsyncGenerator<Call>
  readonly join: JoinOptions
  readonly times: Times
  readonly range?: ExportRange
  readonly ofLog: Reading
  readonly ofLedger: Reading
}): Promise<Report> {
  const { clusters, facts, calls, times, range, ofLog, ofLedger } = work
  const join = new Join(work.join)
  const [ledger, log] = [new Reach(), new Reach()]
  const both = byTime<{ readonly atUs: number; readonly take: () => void }>([
    mapped(facts, (fact) => {
      ledger.add(fact.atUs)
      join.entry(fact)
    }),
    mapped(calls, (call) => {
      log.add(call.atUs)
      join.call(call)
    }),
  ])
  for await (const { take } of both) take()
  if (log.count === 0) throw new UsageError('there is no event in the audit log')
  const { sinceUs = range?.isFromStart === true ? -Infinity : ledger.fromUs } = times
  const { untilUs = ledger.toUs } = times
  if (ledger.count === 0 && range !== undefined)
    throw new UsageError('there is no entry in the export')
  const ofTheLedger: Period = { fromUs: sinceUs, toUs: untilUs }
  return {
    ...join.finish(ofTheLedger, log),
    clusters: [...clusters],
    ledger: { ...ofTheLedger, entries: ledger.count },
    log: { fromUs: log.fromUs, toUs: log.toUs, events: log.count, halfLines: ofLog.halfLines },
    unreadable: {
      count: ofLog.unreadable + ofLedger.unreadable,
      places: [...ofLog.places, ...ofLedger.places],
    },
  }
}

async function* mapped<T extends { readonly atUs: number }>(
  source: AsyncIterable<T>,
  take: (item: T) => void,
): AsyncGenerator<{ readonly atUs: number; readonly take: () => void }> {
  for await (const item of source) {
    yield {
      atUs: item.atUs,
      take: () => {
        take(item)
      },
    }
  }
}

/** From when to when something goes; times need not ascend. */
class Reach {
  count = 0
  fromUs = Infinity
  toUs = -Infinity

  add(atUs: number): void {
    this.count += 1
    this.fromUs = Math.min(this.fromUs, atUs)
    this.toUs = Math.max(this.toUs, atUs)
  }
}
