/** `nestgate approvals`: held requests, listed, shown, watched and decided. */
import { Option } from 'commander'
import type { Command } from 'commander'
import { isRequestId } from '../shared/request-id.ts'
import {
  approvalListSchema,
  approvalSchema,
  contextSchema,
  REVIEW_VERDICTS,
} from '../shared/wire.ts'
import type { Approval } from '../shared/wire.ts'
import { toRow, toText, whatOf } from './approval-text.ts'
import { addWatch } from './approvals-watch.ts'
import type { Runner } from './program.ts'
import { plain, toJson, toTable } from './output.ts'
import { UsageError } from './settings.ts'

const HEADINGS = ['ID', 'STATE', 'AGE', 'AGENT', 'SUBJECT', 'CLUSTER', 'WHAT', 'RULES']

interface ListOptions {
  readonly state?: string
  readonly review?: string
  readonly cluster?: string
  readonly limit: string
}

/** Adds the commands. */
export function addApprovals(program: Command, runner: Runner): void {
  const approvals = program.command('approvals').description('requests that wait for a person')
  approvals
    .command('list')
    .description('list held requests, newest first')
    .option(
      '--state <states>',
      'only these states, separated by commas (all: "")  (default: PENDING, or all with --review)',
    )
    .option('--review <state>', 'only break-glass requests whose review is open, or closed')
    .option('--cluster <name>', 'only requests to this cluster')
    .option('--limit <number>', 'at most this many (1 to 1000)', '100')
    .action((options: ListOptions) =>
      runner.call(async (client, format) => {
        const { items } = await client.get(approvalListSchema, 'v1/approvals', listQuery(options))
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
    .description('show who asks for what, and what else they did')
    .argument('<id>', 'id of the request')
    .action((id: string) =>
      runner.call(async (client, format) => {
        const path = `v1/approvals/${requestId(id)}`
        const [approval, context] = await Promise.all([
          client.get(approvalSchema, path),
          client.get(contextSchema, `${path}/context`),
        ])
        return format === 'json'
          ? toJson({ ...approval, context: context.items })
          : toText(approval, context)
      }),
    )
  addDecision(approvals, runner, 'approve', 'let the request through, once')
  addDecision(approvals, runner, 'deny', 'refuse the request')
  addDecision(approvals, runner, 'revoke', 'take an approval back, and cut what runs on it')
  const review = addDecision(
    approvals,
    runner,
    'review',
    'close the review of a break-glass request',
  )
  const verdict = new Option('--verdict <verdict>', 'what it was').choices(REVIEW_VERDICTS)
  review.addOption(verdict.makeOptionMandatory())
  addWatch(approvals, runner)
}

function listQuery({ state, review, cluster, limit }: ListOptions): URLSearchParams {
  const query = new URLSearchParams({ limit })
  const states = state ?? (review === undefined ? 'PENDING' : '')
  if (states !== '') query.set('state', states.toUpperCase())
  if (review !== undefined) query.set('review', review)
  if (cluster !== undefined) query.set('cluster', cluster)
  return query
}

function addDecision(parent: Command, runner: Runner, verb: string, description: string): Command {
  return parent
    .command(verb)
    .description(description)
    .argument('<id>', 'id of the request')
    .requiredOption('--reason <text>', 'why; the ledger keeps it, and the agent sees it')
    .action((id: string, options: { reason: string; verdict?: string }) =>
      runner.call(async (client, format) => {
        const path = `v1/approvals/${requestId(id)}/${verb}`
        const approval = await client.post(approvalSchema, path, options)
        return format === 'json' ? toJson(approval) : plain(resultText(approval))
      }),
    )
}

/** What the request came to by a decision, in one line. */
function resultText(approval: Approval): string {
  const { id, state, closing, revocation, missing, reviewer = 'somebody' } = approval
  const what = whatOf(approval)
  if (closing !== undefined) return `${id}  ${closing.verdict}, says ${closing.reviewer}: ${what}`
  if (state === 'PENDING') {
    const open = missing.map(({ group, count }) => `${count} of ${group}`).join(', ')
    return `${id}  PENDING, still needs ${open}: ${what}`
  }
  if (revocation === undefined) return `${id}  ${state} by ${reviewer}: ${what}`
  const change = state === 'REVOKED' ? 'REVOKED' : `${state}, not to be used again,`
  return `${id}  ${change} by ${revocation.reviewer}: ${what}`
}

function requestId(text: string): string {
  const id = text.toLowerCase()
  if (!isRequestId(id)) throw new UsageError('the id is not one of a request')
  return id
}
