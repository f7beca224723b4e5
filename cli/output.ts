/**
 * Printing. Nearly everything printed was chosen by somebody else (paths, commands, names, reasons): control
 * characters, escape sequences and characters that reorder or hide text are shown as escapes, so that an
 * agent cannot repaint the terminal of the person who decides on it.
 */

/**
 * C0 and C1 controls, DEL, soft hyphen, joiners and other format characters, line and paragraph separators,
 * bidirectional controls, tags, unpaired surrogates. Unicode's own categories decide: Cc, Cf, Zl, Zp, Cs.
 */
const HOSTILE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu
/** The same, but for what separates JSON's own lines. */
const HOSTILE_IN_JSON = /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu
/** Longest cell of a table, in characters. */
const MAX_CELL = 60

/** Text with everything that could act on a terminal shown as an escape. The result is one line. */
export function plain(text: string): string {
  return text.replace(HOSTILE, escapeOf)
}

/** JSON that a program reads back unchanged and a terminal shows safely. */
export function toJson(value: unknown): string {
  return JSON.stringify(value, undefined, 2).replace(HOSTILE_IN_JSON, jsonEscapeOf)
}

/** Columns under headings, two spaces apart; long cells are cut with an ellipsis. */
export function toTable(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = [headings, ...rows.map((row) => row.map(cell))]
  const widths = headings.map((_, column) =>
    Math.max(...cells.map((row) => (row[column] ?? '').length)),
  )
  return cells
    .map((row) =>
      row
        .map((text, column) => text.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** Lines `name:  value`, aligned; pairs without a value are left out. */
export function toDetails(pairs: readonly (readonly [string, string | undefined])[]): string {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== '')
  const width = Math.max(...shown.map(([name]) => name.length)) + 1
  return shown
    .map(([name, value = '']) => `${`${name}:`.padEnd(width)}  ${plain(value)}`)
    .join('\n')
}

function cell(text: string): string {
  const shown = plain(text)
  return shown.length <= MAX_CELL ? shown : `${shown.slice(0, MAX_CELL - 1).toWellFormed()}…`
}

function escapeOf(character: string): string {
  const code = character.codePointAt(0) ?? 0
  if (code <= 0xff) return `\\x${code.toString(16).padStart(2, '0')}`
  return `\\u{${code.toString(16)}}`
}

/** As UTF-16 units: JSON knows no other escape. */
function jsonEscapeOf(character: string): string {
  let escaped = ''
  for (let i = 0; i < character.length; i += 1) {
    escaped += `\\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`
  }
  return escaped
}
