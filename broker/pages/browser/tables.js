/** Files, connections and marks of a session, as tables. */
import { element, shown, size } from './facts.js'

/** Rows that are shown of one table. */
const MAX_ROWS = 1000

/** @typedef {{type: string, atUs: number, value: Record<string, any>}} Detail */
/** @typedef {[name: string, cell: (detail: Detail) => unknown, className?: string]} Column */

/** @param {number} us */
function clock(us) {
  const seconds = Math.floor(us / 1e6)
  const two = (/** @type {number} */ part) => String(part).padStart(2, '0')
  return `${two(Math.floor(seconds / 60))}:${two(seconds % 60)}`
}

/** @param {string} title @param {Detail[]} rows @param {Column[]} columns */
function table(title, rows, columns) {
  if (rows.length === 0) return []
  const made = element('table')
  const head = element('tr')
  for (const [name] of columns) {
    const cell = element('th', name)
    cell.setAttribute('scope', 'col')
    head.append(cell)
  }
  const top = element('thead')
  top.append(head)
  const body = element('tbody')
  for (const detail of rows.slice(0, MAX_ROWS)) {
    const row = element('tr')
    for (const [, cell, className] of columns) {
      const value = cell(detail)
      const made = element('td', value instanceof Node ? undefined : value, className)
      if (value instanceof Node) made.append(value)
      row.append(made)
    }
    body.append(row)
  }
  made.append(top, body)
  const frame = element('div', undefined, 'scroll')
  frame.tabIndex = 0
  frame.setAttribute('role', 'region')
  frame.setAttribute('aria-label', title)
  frame.append(made)
  const left = rows.length - MAX_ROWS
  return [
    element('h2', title),
    frame,
    ...(left > 0 ? [element('p', `${left} more are in the recording`, 'note')] : []),
  ]
}

/** @param {Detail[]} items @returns {Detail[]} one for each connection, as it is at last */
function connectionsOf(items) {
  /** @type {Map<number, Detail>} */
  const found = new Map()
  for (const { type, atUs, value } of items) {
    const at = Number(value.connection)
    const known = found.get(at)
    if (type === 'connectionOpened') found.set(at, { type, atUs, value })
    else if (type === 'connectionClosed')
      found.set(at, {
        ...{ type, atUs: known?.atUs ?? atUs },
        value: { ...known?.value, ...value, lastedUs: atUs - (known?.atUs ?? atUs) },
      })
  }
  return [...found.values()]
}

/** @param {unknown} value */
const bytes = (value) => (typeof value === 'number' ? size(value) : '')

/**
 * @param {HTMLElement} place
 * @param {Detail[]} items
 * @param {string[]} more - types of which there are more
 * @param {((seconds: number) => void) | undefined} seek - goes to a time of the recording
 */
export function showTables(place, items, more, seek) {
  const of = (/** @type {string} */ type) => items.filter((one) => one.type === type)
  /** @param {Detail} detail */
  const at = ({ atUs }) => {
    if (seek === undefined) return clock(atUs)
    const button = element('button', clock(atUs))
    button.setAttribute('type', 'button')
    button.setAttribute('aria-label', `Go to ${clock(atUs)}`)
    button.addEventListener('click', () => {
      seek(atUs / 1e6)
    })
    return button
  }
  place.replaceChildren(
    ...table('Marks', of('marker'), [
      ['At', at, 'number'],
      ['What', ({ value }) => value.kind],
      ['Text', ({ value }) => value.text],
      ['Stream', ({ value }) => value.stream ?? ''],
    ]),
    ...table('Files', of('file'), [
      ['At', ({ atUs }) => clock(atUs), 'number'],
      ['Direction', ({ value }) => (value.direction === 'toPod' ? 'to the pod' : 'from the pod')],
      ['Name', ({ value }) => value.name, 'code'],
      ['Type', ({ value }) => value.type],
      ['Size', ({ value }) => bytes(value.size), 'number'],
      ['SHA-256', ({ value }) => value.sha256 ?? '', 'code'],
    ]),
    ...table('Connections', connectionsOf(items), [
      ['At', ({ atUs }) => clock(atUs), 'number'],
      ['Port', ({ value }) => value.port ?? '', 'number'],
      ['Up', ({ value }) => bytes(value.bytesUp), 'number'],
      ['Down', ({ value }) => bytes(value.bytesDown), 'number'],
      [
        'Lasted',
        ({ value }) =>
          value.lastedUs === undefined ? 'open' : `${(value.lastedUs / 1e6).toFixed(3)} s`,
        'number',
      ],
      ['Error', ({ value }) => value.error ?? ''],
      ['SHA-256 up', ({ value }) => value.sha256Up ?? '', 'code'],
      ['SHA-256 down', ({ value }) => value.sha256Down ?? '', 'code'],
    ]),
    ...(more.length === 0
      ? []
      : [element('p', `Not all are shown: ${more.map(shown).join(', ')}`, 'note')]),
  )
}
