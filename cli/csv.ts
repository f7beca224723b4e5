/** CSV (RFC 4180) of texts that others chose: one record a line, and no cell that a spreadsheet takes for a formula. */
import { plain } from './output.ts'

/** What a spreadsheet may begin a formula with; some take the full-width forms, and some pass over spaces. */
const FORMULA = /^\s*[=+\-@|%＝＋－＠]/u

/** The text of a CSV file, without a line break at its end. */
export function toCsv(
  headings: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string {
  return [headings, ...rows].map((row) => row.map(cell).join(',')).join('\r\n')
}

function cell(value: string | number): string {
  if (typeof value === 'number') return String(value)
  const shown = plain(value)
  return `"${(FORMULA.test(shown) ? `'${shown}` : shown).replaceAll('"', '""')}"`
}
