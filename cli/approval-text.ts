/** Held requests as text for people. Everything in it was chosen by somebody else, and is made safe by output.ts. */
import { agentTagSchema } from '../shared/agent-tag.ts'
import type { AgentTag, ProcessRef } from '../shared/agent-tag.ts'
import type { Approval, Context } from '../shared/wire.ts'
import { plain, toDetails, toTable } from './output.ts'

/** Digits of a container id that are shown, as `crictl` shows them. */
const CONTAINER_PREFIX = 13

type Lines = readonly (readonly [string, string | undefined])[]

/** A held request as a line of a table. */
export function toRow(approval: Approval, nowMs: number): readonly string[] {
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

/** What is asked for, in short. */
export function whatOf({ verb, resource, namespace, name, path }: Approval): string {
  if (resource === '') return `${verb} ${path}`
  const object = [namespace, name].filter((part) => part !== '').join('/')
  return object === '' ? `${verb} ${resource}` : `${verb} ${resource} ${object}`
}

/** Everything that a reviewer needs for a decision. */
export function toText(approval: Approval, { items }: Context): string {
  const { query, path, preview } = approval
  const tag = agentTagSchema.safeParse(approval.tag)
  const what: Lines = [
    ['Action', whatOf(approval)],
    ['Request', `${approval.method} ${query === '' ? path : `${path}?${query}`}`],
    ['Body', `${approval.bodyBytes} bytes, sha256 ${approval.bodySha256}`],
    ['Target', targetText(approval)],
    ['Digest', approval.digest],
  ]
  return [
    toDetails([
      ['Request', approval.id],
      ['State', approval.state],
      ['Cluster', approval.cluster],
      ['Break-glass', approval.breakGlass ? `yes, review ${approval.review ?? 'none'}` : undefined],
    ]),
    'Who',
    indent([
      ['Subject', approval.subject],
      ['Requesters', approval.requesters.join(', ')],
      ['Owners', approval.owners.join(', ')],
      ['Agent', approval.agent],
      ['Above it', approval.ancestors.join(' < ')],
      ...(tag.success ? processLines(tag.data) : []),
    ]),
    'What',
    indent(what),
    ...(preview === undefined ? [] : ['Change', previewText(preview)]),
    'Policy',
    indent(policyLines(approval)),
    'When',
    indent(timeLines(approval)),
    'Did before',
    items.length === 0 ? '  nothing that is known' : indentText(contextText(items)),
  ].join('\n')
}

function targetText({ target }: Approval): string | undefined {
  if (target === undefined) return undefined
  if ('absent' in target) return 'does not exist yet'
  if ('unreadable' in target) return `could not be read: ${target.unreadable}`
  return `uid ${target.uid}, version ${target.resourceVersion}`
}

/** The lines of a diff stay lines; each is made safe by itself. */
function previewText({ kind, text, note }: NonNullable<Approval['preview']>): string {
  const head = note === undefined ? kind : `${kind}: ${note}`
  const lines = kind === 'none' ? [] : text.split('\n')
  return [head, ...lines].map((line) => `  ${plain(line.replaceAll('\t', '    '))}`).join('\n')
}

function policyLines({ rules, explanation, terms, missing, reviews, state }: Approval): Lines {
  const needs = terms.quorums.map(({ group, count }) => `${count} of ${group}`).join(', ')
  const open = missing.map(({ group, count }) => `${count} of ${group}`).join(', ')
  return [
    ['Held by', rules.join(', ')],
    ['Because', explanation],
    ['Needs', needs === '' ? 'one reviewer' : needs],
    ['Missing', state === 'PENDING' ? open : undefined],
    ...reviews.map(({ reviewer, approve, reason, at }): [string, string] => [
      approve ? 'Approved' : 'Denied',
      `by ${reviewer} at ${at}: ${reason}`,
    ]),
    ['Passes again', terms.reuseSeconds > 0 ? `for ${terms.reuseSeconds} s` : undefined],
  ]
}

function timeLines(approval: Approval): Lines {
  const { closing, revocation } = approval
  return [
    ['Asked', approval.createdAt],
    ['Decided', approval.decidedAt],
    ['Reviewer', approval.reviewer],
    ['Reason', approval.reason],
    ['Expires', approval.expiresAt],
    ['Repeats', approval.reusedFrom],
    ['Client', approval.clientWaits ? 'asked to wait' : 'does not wait'],
    [
      'Revoked',
      revocation && `by ${revocation.reviewer} at ${revocation.at}: ${revocation.reason}`,
    ],
    [
      'Reviewed',
      closing && `${closing.verdict}, ${closing.reviewer} at ${closing.at}: ${closing.reason}`,
    ],
  ]
}

function contextText(items: Context['items']): string {
  return toTable(
    ['TIME', 'EFFECT', 'VERB', 'RESOURCE', 'OBJECT'],
    items.map(({ time, effect, verb, resource, namespace, name }) => [
      time,
      effect,
      verb,
      resource,
      [namespace, name].filter((part) => part !== '').join('/'),
    ]),
  )
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

function indent(pairs: Lines): string {
  return indentText(toDetails(pairs))
}

function indentText(text: string): string {
  return text
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
