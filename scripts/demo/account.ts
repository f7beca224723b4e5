/** The account at the end of the demo: the ledger's entries, joined by request, as a table for people. */
import { isRecord } from '../../shared/config.ts'
import { z } from 'zod'
import type { AuditEvent } from '../../shared/wire.ts'
import type { AuditLine } from './cluster.ts'

const intentSchema = z.object({
  requestId: z.string(),
  tag: z.object({
    verified: z.object({ pid: z.number() }).optional(),
    declared: z.object({ command: z.string().optional() }).optional(),
  }),
  request: z.object({ verb: z.string(), resource: z.string(), name: z.string(), path: z.string() }),
  decision: z.object({ effect: z.string(), rules: z.array(z.string()) }),
  approval: z.object({ reviewer: z.string(), reason: z.string() }).optional(),
})
const outcomeSchema = z.object({ requestId: z.string(), status: z.number() })

type Intent = z.infer<typeof intentSchema>

const HEAD = ['process', 'what', 'decision', 'approved by', 'status'] as const

/** Prints the account. @param audit - what the cluster's own audit log says, where it can be read */
export function printAccount(
  say: (text: string) => void,
  events: readonly AuditEvent[],
  audit: readonly AuditLine[] | undefined,
): void {
  const entries = events.toReversed().map(({ kind, entry }) => ({ kind, entry }))
  const outcomes = new Map(
    entries
      .filter(({ kind }) => kind === 'outcome')
      .map(({ entry }) => outcomeSchema.parse(entry))
      .map((o) => [o.requestId, o.status]),
  )
  const intents = new Map<string, Intent>()
  for (const { kind, entry } of entries) {
    // of a held request the later intent is the one that was carried out
    if (kind === 'intent') intents.set(String(entry['requestId']), intentSchema.parse(entry))
  }
  const rows = [...intents.values()].map((intent) => rowOf(intent, outcomes.get(intent.requestId)))
  say(`\nWhat the ledger holds (${events.length} entries):\n`)
  const widths = HEAD.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)),
  )
  for (const row of [HEAD, widths.map((width) => '-'.repeat(width)), ...rows]) {
    say(`  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')}`.trimEnd())
  }
  if (audit === undefined) return
  // what the broker looked at for the reviewer has ids of its own
  const looked = new Set(entries.map(({ entry }) => auditIdOf(entry)))
  const known = audit.filter(({ auditId }) => intents.has(auditId) || looked.has(auditId)).length
  const [first] = audit
  say(
    `\nThe cluster's own audit log has ${audit.length} calls of ${first?.user ?? 'the broker'} as ${first?.impersonatedUser ?? ''};`,
  )
  say(`${known} of ${audit.length} carry a request id that the ledger knows.`)
}

function rowOf(
  { tag, request, decision, approval }: Intent,
  status: number | undefined,
): readonly string[] {
  const { pid } = tag.verified ?? {}
  const command = tag.declared?.command?.replace(/^.*\//, '') ?? ''
  return [
    `${pid ?? '?'} ${command}`,
    `${request.verb} ${request.resource === '' ? request.path : `${request.resource} ${request.name}`}`.trim(),
    `${decision.effect} (${decision.rules.join(', ')})`,
    approval === undefined ? '' : `${approval.reviewer}: ${approval.reason}`,
    String(status ?? 'none'),
  ]
}

function auditIdOf({ detail }: Readonly<Record<string, unknown>>): string | undefined {
  const auditId = isRecord(detail) ? detail['auditId'] : undefined
  return typeof auditId === 'string' ? auditId : undefined
}
