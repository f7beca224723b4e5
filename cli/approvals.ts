/** `nestgate approvals`: held requests, listed, shown and decided. */
import type { Command } from 'commander'
import { agentTagSchema } from '../shared/agent-tag.ts'
import type { AgentTag, ProcessRef } from '../shared/agent-tag.ts'
import { isRequestId } from '../shared/request-id.ts'
import { approvalListSchema, approvalSchema } from '../shared/wire.ts'
import type { Approval } from '../shared/wire.ts'
import type { Runner } from './program.ts'
import { plain, toDetails, toJson, toTable } from './output.ts'
import { UsageError } from './settings.ts'

const HEADINGS = ['ID', 'STATE', 'AGE', 'AGENT', 'SUBJECT', 'CLUSTER', 'WHAT', 'RULES']
/** Digits of a container id that are shown, as `crictl` shows them. */
const CONTAINER_PREFIX = 13

/** Adds the commands. */
export function addApprovals(program: Command, runner: Runner): void {
  const approvals = program.command('approvals').description('requests that wait for a person')
  approvals
    .command('list')
    .description('list held requests, newest first')
    .option('--state <states>', 'only these states, separated by commas (all: "")', 'PENDING')
    .option('--limit <number>', 'at most this many (1 to 1000)', '100')
    .action((options: { state: string; limit: string }) =>
      runner.call(async (client, format) => {
        const query = new URLSearchParams({ limit: options.limit })
        if (options.state !== '') query.set('state', options.state.toUpperCase())
        const { items } = await client.get(approvalListSchema, 'v1/approvals', query)
        if (format === 'json') return toJson({ items })
        if (items.length === 0) return 'No held requests.'
        return toTable(
          HEADINGS,
          items.map((item) => toRow(item, runner.now())),
        )
      }),
    )
  approvals
    .command('show')
    .description('show who asks for what')
    .argument('<id>', 'id of the request')
    .action((id: string) =>
      runner.call(async (client, format) => {
        const approval = await client.get(approvalSchema, `v1/approvals/${requestId(id)}`)
        return format === 'json' ? toJson(approval) : toText(approval)
      }),
    )
  addDecision(approvals, runner, 'approve', 'let the request through, once')
  addDecision(approvals, runner, 'deny', 'refuse the request')
}

function addDecision(parent: Command, runner: Runner, verb: string, description: string): void {
  parent
    .command(verb)
    .description(description)
    .argument('<id>', 'id of the request')
    .requiredOption('--reason <text>', 'why; the ledger keeps it, and the agent sees it')
    .action((id: string, options: { reason: string }) =>
      runner.call(async (client, format) => {
        const path = `v1/approvals/${requestId(id)}/${verb}`
        const approval = await client.post(approvalSchema, path, { reason: options.reason })
        if (format === 'json') return toJson(approval)
        const by = approval.reviewer ?? 'somebody'
        return plain(`${approval.id}  ${approval.state} by ${by}: ${whatOf(approval)}`)
      }),
    )
}

function requestId(text: string): string {
  const id = text.toLowerCase()
  if (!isRequestId(id)) throw new UsageError('the id is not one of a request')
  return id
}

function toRow(approval: Approval, nowMs: number): readonly string[] {
  return [
    approval.id,
    approval.state,
    age(nowMs - Date.parse(approval.createdAt)),
    approval.agent,
    approval.subject,
    approval.cluster,
    whatOf(approval),
    approval.rules.join(','),
  ]
}

function whatOf({ verb, resource, namespace, name, path }: Approval): string {
  if (resource === '') return `${verb} ${path}`
  const object = [namespace, name].filter((part) => part !== '').join('/')
  return object === '' ? `${verb} ${resource}` : `${verb} ${resource} ${object}`
}

function toText(approval: Approval): string {
  const { query, path } = approval
  const tag = agentTagSchema.safeParse(approval.tag)
  return [
    toDetails([
      ['Request', approval.id],
      ['State', approval.state],
      ['Cluster', approval.cluster],
    ]),
    'Who',
    indent([
      ['Subject', approval.subject],
      ['Agent', approval.agent],
      ...(tag.success ? processLines(tag.data) : []),
    ]),
    'What',
    indent([
      ['Action', whatOf(approval)],
      ['Request', `${approval.method} ${query === '' ? path : `${path}?${query}`}`],
      ['Body', `${approval.bodyBytes} bytes, sha256 ${approval.bodySha256}`],
      ['Held by', approval.rules.join(', ')],
      ['Digest', approval.digest],
    ]),
    'When',
    indent([
      ['Asked', approval.createdAt],
      ['Decided', approval.decidedAt],
      ['Reviewer', approval.reviewer],
      ['Reason', approval.reason],
      ['Expires', approval.expiresAt],
    ]),
  ].join('\n')
}

/** Verified and declared facts never look alike: a process may claim any command line it likes. */
function processLines({ verdict, reason, verified, declared }: AgentTag): [string, string][] {
  const lines: [string, string][] = [
    ['Verdict', reason === undefined ? verdict : `${verdict} (${reason})`],
  ]
  if (verified !== undefined) {
    lines.push(['Process', processText(verified)])
    lines.push(['User id', `${verified.uid}, group ${verified.gid}`])
    for (const ancestor of verified.ancestors) lines.push(['  started by', processText(ancestor)])
  }
  if (declared?.command !== undefined) lines.push(['Says it runs', declared.command])
  if (declared?.agentName !== undefined) lines.push(['Says it is', declared.agentName])
  return lines
}

function processText({ pid, exe, containerId }: ProcessRef): string {
  const where =
    containerId === undefined ? '' : ` in container ${containerId.slice(0, CONTAINER_PREFIX)}`
  return `${exe ?? 'unreadable executable'} (pid ${pid})${where}`
}

function indent(pairs: readonly (readonly [string, string | undefined])[]): string {
  return toDetails(pairs)
    .split('\n')
    .map((line) => `  ${line}`)
    .join('\n')
}

const SECOND_MS = 1000
const MINUTE_MS = 60 * SECOND_MS
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS

function age(ms: number): string {
  if (ms < MINUTE_MS) return `${Math.max(0, Math.floor(ms / SECOND_MS))}s`
  if (ms < HOUR_MS) return `${Math.floor(ms / MINUTE_MS)}m`
  if (ms < DAY_MS) return `${Math.floor(ms / HOUR_MS)}h`
  return `${Math.floor(ms / DAY_MS)}d`
}
