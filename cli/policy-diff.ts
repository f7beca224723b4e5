/** `nestgate policy diff`: which requests of the ledger another policy would decide otherwise. */
import type { Command } from 'commander'
import { diffPolicies } from '../shared/policy/analysis.ts'
import type { Change, PastRequest } from '../shared/policy/analysis.ts'
import { describeRequest } from '../shared/policy/decide.ts'
import type { Decision } from '../shared/policy/decision.ts'
import { auditPageSchema } from '../shared/wire.ts'
import type { BrokerClient } from './client.ts'
import { toJson, toTable } from './output.ts'
import { ACCEPT_OPTION, loadSoundPolicy, readVerdicts } from './policy-input.ts'
import { readPastRequest } from './policy-replay.ts'
import type { PastAbout } from './policy-replay.ts'
import type { Runner } from './program.ts'
import { UsageError } from './settings.ts'

/** Entries of one page at most; the broker's limit. */
const MAX_PAGE = 1_000
/** Most requests that are replayed. */
const MAX_REPLAYED = 100_000
const UNITS: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000 }

interface Replayed {
  readonly requests: readonly PastRequest<PastAbout>[]
  /** Entries that could not be read. */
  readonly skipped: number
  /** Whether there are more than were asked for. */
  readonly cut: boolean
}

/** Adds the command. */
export function addPolicyDiff(policy: Command, runner: Runner): void {
  const command = policy
    .command('diff')
    .description('tell which requests of the ledger another policy would decide otherwise')
    .argument('<old>', 'policy file or folder')
    .argument('<new>', 'policy file or folder')
    .option('--since <when>', 'how far back: 90m, 12h, 7d, or a time (RFC 3339)', '7d')
    .option('--cluster <name>', 'only requests to this cluster')
    .option(...ACCEPT_OPTION)
  command.action(async (oldPath: string, newPath: string) => {
    const options = command.opts<{ since: string; cluster?: string }>()
    const acceptVerdicts = readVerdicts(command.opts())
    const since = readSince(options.since, runner.now())
    const [old, fresh] = [await loadSoundPolicy([oldPath]), await loadSoundPolicy([newPath])]
    await runner.call(async (client, format) => {
      const replayed = await replay(client, since, options.cluster)
      const changes = diffPolicies(old, fresh, replayed.requests, { acceptVerdicts })
      return format === 'json' ? toJson(diffJson(replayed, changes)) : diffText(replayed, changes)
    })
  })
}

/** @returns RFC 3339 */
function readSince(text: string, now: number): string {
  const found = /^([1-9]\d{0,4})([mhd])$/.exec(text)
  const unit = UNITS[found?.[2] ?? '']
  const from = unit === undefined ? Date.parse(text) : now - Number(found?.[1]) * unit
  if (Number.isNaN(from))
    throw new UsageError('--since: expected 90m, 12h, 7d or a time (RFC 3339)')
  return new Date(from).toISOString()
}

async function replay(
  client: BrokerClient,
  since: string,
  cluster: string | undefined,
): Promise<Replayed> {
  const query = new URLSearchParams({ kind: 'intent', since })
  if (cluster !== undefined) query.set('cluster', cluster)
  const requests: PastRequest<PastAbout>[] = []
  let skipped = 0
  for (;;) {
    query.set('limit', String(Math.min(MAX_PAGE, MAX_REPLAYED - requests.length - skipped)))
    const { items, next } = await client.get(auditPageSchema, 'v1/audit/events', query)
    for (const event of items) {
      const past = readPastRequest(event)
      if (past === undefined) skipped += 1
      else requests.push(past)
    }
    if (next === undefined) return { requests, skipped, cut: false }
    if (requests.length + skipped >= MAX_REPLAYED) return { requests, skipped, cut: true }
    query.set('cursor', next)
  }
}

type Changes = readonly Change<PastAbout>[]

function diffJson({ requests, skipped, cut }: Replayed, changes: Changes): object {
  return {
    ...{ replayed: requests.length, skipped, cut },
    items: changes.map((change) => ({
      ...change.about,
      cluster: change.facts.cluster,
      who: whoOf(change),
      what: describeRequest(change.facts.request),
      dependsOnBody: change.dependsOnBody,
      old: change.old,
      new: change.new,
    })),
  }
}

/** Requests that are alike but for their time are one line. */
function diffText({ requests, skipped, cut }: Replayed, changes: Changes): string {
  const groups = new Map<string, { row: readonly string[]; count: number; last: string }>()
  for (const change of changes) {
    const row = [
      whoOf(change),
      describeRequest(change.facts.request),
      shortOf(change.old),
      shortOf(change.new),
      change.dependsOnBody ? 'depends on the body' : '',
    ]
    const group = groups.get(JSON.stringify(row))
    if (group === undefined)
      groups.set(JSON.stringify(row), { row, count: 1, last: change.about.requestId })
    else group.count += 1
  }
  const notes = [
    `${requests.length} requests replayed, ${changes.length} would be decided otherwise or may be.`,
    ...(skipped > 0 ? [`${skipped} entries could not be read and were left out.`] : []),
    ...(cut ? [`There are more; these are the newest ${MAX_REPLAYED}.`] : []),
  ]
  if (groups.size === 0) return notes.join('\n')
  const rows = [...groups.values()].map(({ row, count, last }) => [String(count), ...row, last])
  return [toTable(['COUNT', 'WHO', 'WHAT', 'OLD', 'NEW', 'NOTE', 'LAST'], rows), ...notes].join(
    '\n',
  )
}

function whoOf({ facts: { process, subject } }: Change<PastAbout>): string {
  return process?.agent ?? subject?.name ?? ''
}

function shortOf({ effect, rules }: Decision): string {
  return rules.length === 0 ? effect : `${effect} (${rules.join(', ')})`
}
