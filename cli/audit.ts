/** `nestgate audit`: ledger entries by what they say, newest first. */
import type { Command } from 'commander'
import { isRecord } from '../shared/config.ts'
import { auditPageSchema } from '../shared/wire.ts'
import type { AuditEvent } from '../shared/wire.ts'
import type { BrokerClient } from './client.ts'
import type { Runner } from './program.ts'
import { toJson, toTable } from './output.ts'
import { UsageError } from './settings.ts'

/** Option, the query parameter it becomes, what it says. */
const FILTERS: readonly (readonly [string, string, string])[] = [
  ['since', 'since', 'not before this time (RFC 3339)'],
  ['until', 'until', 'before this time (RFC 3339)'],
  ['kind', 'kind', 'intent, outcome, refusal, approval or system'],
  ['cluster', 'cluster', 'name of the cluster'],
  ['request', 'requestId', 'id of the request: all that is known of it'],
  ['subject', 'subject', 'Kubernetes user or person'],
  ['agent', 'agent', 'name of the process itself'],
  ['ancestor', 'ancestor', 'name of any process above it'],
  ['pod-uid', 'podUid', 'uid of the pod'],
  ['exe', 'exe', 'path of the executable'],
  ['verb', 'verb', 'Kubernetes verb'],
  ['resource', 'resource', 'resource, with subresource: pods/exec'],
  ['namespace', 'namespace', 'namespace of the object'],
  ['name', 'name', 'name of the object'],
  ['effect', 'effect', 'allow, hold or deny'],
  ['rule', 'rule', 'id of a rule that decided'],
  ['reviewer', 'reviewer', 'person who decided'],
  ['status', 'status', 'HTTP status of the answer'],
]
const HEADINGS = ['TIME', 'KIND', 'WHO', 'WHAT', 'RESULT', 'REQUEST']
/** Entries of one page at most; the broker's limit. */
const MAX_PAGE = 1000

/** Adds the command. */
export function addAudit(program: Command, runner: Runner): void {
  const command = program
    .command('audit')
    .description('read the ledger, newest entries first; reading is itself recorded')
  for (const [option, , text] of FILTERS) command.option(`--${option} <value>`, text)
  command.option('--limit <number>', 'at most this many entries', '100')
  command.action(() =>
    runner.call(async (client, format) => {
      const options: Readonly<Record<string, unknown>> = command.opts()
      const events = await collect(client, options)
      if (format === 'json') return toJson({ items: events })
      return events.length === 0 ? 'No entries.' : toTable(HEADINGS, events.map(toRow))
    }),
  )
}

async function collect(
  client: BrokerClient,
  options: Readonly<Record<string, unknown>>,
): Promise<readonly AuditEvent[]> {
  const query = new URLSearchParams()
  for (const [option, parameter] of FILTERS) {
    const value = options[option === 'pod-uid' ? 'podUid' : option]
    if (typeof value === 'string') query.set(parameter, value)
  }
  const limit = text(options['limit'])
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

function toRow({ time, kind, requestId, entry }: AuditEvent): readonly string[] {
  const [who, what, result] = columnsOf(kind, entry)
  return [time, kind, who, what, result, requestId ?? '']
}

type Columns = readonly [who: string, what: string, result: string]

/** Who, what and with which result; an entry of a newer broker shows what it has. */
function columnsOf(kind: string, entry: Readonly<Record<string, unknown>>): Columns {
  switch (kind) {
    case 'intent':
      return intentColumns(entry)
    case 'outcome':
      return ['', '', join([text(entry['status']), text(entry['reason'])])]
    case 'refusal':
      return [text(part(entry, 'subject')['name']), text(entry['detail']), text(entry['reason'])]
    case 'approval': {
      const result = join([`${text(entry['from'])} -> ${text(entry['to'])}`, text(entry['reason'])])
      return [text(entry['actor']), '', result]
    }
    default:
      return [text(entry['actor']), text(entry['event']), '']
  }
}

function intentColumns(entry: Readonly<Record<string, unknown>>): Columns {
  const request = part(entry, 'request')
  const decision = part(entry, 'decision')
  const resource = join([text(request['resource']), text(request['subresource'])], '/')
  const object = join([text(request['namespace']), text(request['name'])], '/')
  const reviewer = text(part(entry, 'approval')['reviewer'])
  return [
    text(entry['agent']),
    join([text(request['verb']), resource === '' ? text(request['path']) : resource, object]),
    join([
      text(decision['effect']),
      text(decision['reason']),
      reviewer === '' ? '' : `approved by ${reviewer}`,
    ]),
  ]
}

function part(
  entry: Readonly<Record<string, unknown>>,
  key: string,
): Readonly<Record<string, unknown>> {
  const value = entry[key]
  return isRecord(value) ? value : {}
}

function text(value: unknown): string {
  if (typeof value === 'string') return value
  return typeof value === 'number' ? String(value) : ''
}

function join(parts: readonly string[], separator = ' '): string {
  return parts.filter((piece) => piece !== '').join(separator)
}
