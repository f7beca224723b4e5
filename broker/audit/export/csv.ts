/** Entries as a table for people (RFC 4180). Not evidence: texts are changed where a spreadsheet would take them for more than texts. */
import { entryColumns } from '../../../shared/audit-text.ts'
import type { AuditEvent } from '../../../shared/wire.ts'
import { fieldsOf } from './fields.ts'

const FIELDS = [
  'event',
  'cluster',
  'subject',
  'agent',
  'ancestors',
  'podUid',
  'exe',
  'verb',
  'actions',
  'resource',
  'namespace',
  'name',
  'effect',
  'reason',
  'rules',
  'reviewer',
  'status',
] as const

/** Names of the columns. */
export const CSV_COLUMNS = [
  ...(['seq', 'time', 'kind', 'who', 'what', 'result', 'requestId'] as const),
  ...FIELDS,
] as const

/** What spreadsheets take for the beginning of a formula (OWASP, CSV Injection), in its full-width forms, too. */
const FORMULA = /^[\s'"]*[=+\-@\t\r＝＋－＠]/u
/** Controls, and characters that reorder or hide text. */
const HOSTILE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu

/** The first line. */
export const CSV_HEAD = row(CSV_COLUMNS)

/** The line of an entry. */
export function csvRow(event: AuditEvent): string {
  const { seq, time, kind, entry } = event
  const fields = fieldsOf(event)
  return row([
    ...[String(seq), time, kind, ...entryColumns(kind, entry), fields['requestId'] ?? ''],
    ...FIELDS.map((name) => fields[name] ?? ''),
  ])
}

function row(cells: readonly string[]): string {
  return `${cells.map(cell).join(',')}\r\n`
}

function cell(text: string): string {
  const visible = text.replace(HOSTILE, escapeOf)
  // a text that begins with an apostrophe is a text to every spreadsheet
  const safe = FORMULA.test(text) ? `'${visible}` : visible
  return /[",]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
}

function escapeOf(character: string): string {
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`
}
