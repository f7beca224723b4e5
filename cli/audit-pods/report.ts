/** How findings are printed: by owner for people, one by one for programs. */
import { toCsv } from '../csv.ts'
import { plain, toJson } from '../output.ts'
import type { AuditFinding } from './audit.ts'

/** Forms of the report. */
export const FORMS = ['table', 'json', 'csv'] as const
/** See {@link FORMS}. */
export type Form = (typeof FORMS)[number]

const HEAD = ['namespace', 'owner', 'pod', 'code', 'said', 'remedy'] as const

/** What was looked at. */
export interface Audited {
  readonly findings: readonly AuditFinding[]
  readonly namespaces: number
  readonly pods: number
  /** What could not be looked at, and why. */
  readonly unread: readonly string[]
}

/** The report. */
export function auditText(audited: Audited, form: Form): string {
  const { findings } = audited
  if (form === 'json') return toJson(audited)
  if (form === 'csv')
    return toCsv(
      HEAD,
      findings.map((finding) => HEAD.map((column) => finding[column])),
    )
  return [...groups(findings), summary(audited)].join('\n\n')
}

/** Of one owner: its pods, each kind of problem with one example, and the remedy. */
function groups(findings: readonly AuditFinding[]): readonly string[] {
  const byOwner = Map.groupBy(findings, ({ namespace, owner }) => `${namespace} ${owner}`)
  return [...byOwner].map(([owner, own]) => {
    const pods = new Set(own.map(({ pod }) => pod).filter((pod) => pod !== ''))
    const byCode = Map.groupBy(own, ({ code }) => code)
    const lines = [...byCode].map(([code, same]) => `  ${code}: ${plain(same[0]?.said ?? '')}`)
    const count = pods.size === 0 ? '' : ` (${pods.size} pods)`
    const remedies = [...new Set(own.map(({ remedy }) => remedy))]
    return [
      `${plain(owner)}${count}`,
      ...lines,
      ...remedies.map((text) => `  → ${plain(text)}`),
    ].join('\n')
  })
}

function summary({ findings, namespaces, pods, unread }: Audited): string {
  const lines = unread.map((text) => `not looked at: ${plain(text)}`)
  const verdict = findings.length === 0 ? 'nothing found' : `${findings.length} findings`
  return [...lines, `${pods} pods in ${namespaces} namespaces: ${verdict}`].join('\n')
}
