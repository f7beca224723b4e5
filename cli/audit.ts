/** `nestgate audit`: ledger entries by what they say, newest first; or as they come. */
import { Option } from 'commander'
import type { Command } from 'commander'
import { entryColumns } from '../shared/audit-text.ts'
import { auditEventSchema, auditPageSchema } from '../shared/wire.ts'
import type { AuditEvent } from '../shared/wire.ts'
import { addFilters, filterQuery, wholeNumber } from './audit-options.ts'
import type { OptionValues } from './audit-options.ts'
import { CallError } from './client.ts'
import type { BrokerClient } from './client.ts'
import { addExport } from './export.ts'
import type { Runner } from './program.ts'
import { plain, toJson, toTable } from './output.ts'
import { UsageError } from './settings.ts'

const HEADINGS = ['TIME', 'KIND', 'WHO', 'WHAT', 'RESULT', 'REQUEST']
/** Entries of one page at most; the broker's limit. */
const MAX_PAGE = 1000
const DEFAULT_LIMIT = '100'

/** Adds the commands that ask for entries. */
export function addAudit(program: Command, runner: Runner): void {
  addExport(program, runner)
  const command = program
    .command('audit')
    .description('read the ledger, newest entries first; reading is itself recorded')
  addFilters(command)
  const limit = new Option('--limit <number>', 'at most this many entries').default(DEFAULT_LIMIT)
  command
    .addOption(limit)
    .addOption(
      new Option('--follow', 'print entries as they come, until interrupted').conflicts('limit'),
    )
    .option('--after <number>', 'with --follow: begin after the entry of this number')
  command.action(() => {
    const options: OptionValues = command.opts()
    if (options['follow'] === true) return follow(runner, options)
    if (options['after'] !== undefined) throw new UsageError('--after goes with --follow only')
    return runner.call(async (client, format) => {
      const events = await collect(client, options)
      if (format === 'json') return toJson({ items: events })
      return events.length === 0 ? 'No entries.' : toTable(HEADINGS, events.map(toRow))
    })
  })
}

async function collect(
  client: BrokerClient,
  options: OptionValues,
): Promise<readonly AuditEvent[]> {
  const query = filterQuery(options)
  const limit = String(options['limit'])
  if (!/^[1-9]\d{0,6}$/.test(limit)) throw new UsageError('--limit must be a number from 1 on')
  const events: AuditEvent[] = []
  for (;;) {
    query.set('limit', String(Math.min(Number(limit) - events.length, MAX_PAGE)))
    const { items, next } = await client.get(auditPageSchema, 'v1/audit/events', query)
    events.push(...items)
    if (next === undefined || events.length >= Number(limit)) return events
    query.set('cursor', next)
  }
}

/** One line each, so that a program can read them one by one. */
function follow(runner: Runner, options: OptionValues): Promise<void> {
  const query = filterQuery(options)
  const after = wholeNumber(options, 'after')
  if (after !== undefined) query.set('after', after)
  return runner.follow(async (client, format) => {
    for await (const { name, data } of client.events(`v1/audit/watch?${query.toString()}`)) {
      if (name !== 'entry') continue
      const event = auditEventSchema.safeParse(data)
      if (!event.success) throw new CallError('the broker’s answer is not what was expected')
      runner.print(
        format === 'json'
          ? toJson(event.data).replaceAll(/\n\s*/g, '')
          : plain(toRow(event.data).join('  ')),
      )
    }
    throw new CallError('the broker ended the watch')
  })
}

function toRow({ time, kind, requestId, entry }: AuditEvent): readonly string[] {
  return [time, kind, ...entryColumns(kind, entry), requestId ?? '']
}
