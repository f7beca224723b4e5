/** What is known of the session, beside its terminal. Everything goes in as text, never as markup. */

/** Longest text that is shown, in characters. */
const MAX_SHOWN = 2000
/** Controls, and what is there without being seen, or turns the direction of what is around it. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu

/** A text as it is safe to look at: what cannot be seen is shown by its number. @param {unknown} text */
export function shown(text) {
  const whole = String(text)
  const cut = whole.length > MAX_SHOWN ? `${whole.slice(0, MAX_SHOWN)}…` : whole
  return cut.replace(UNSEEN, (one) => `\\u{${one.codePointAt(0)?.toString(16) ?? ''}}`)
}

/** @param {string} name @param {unknown} [text] @param {string} [className] */
export function element(name, text, className) {
  const made = document.createElement(name)
  if (text !== undefined) made.textContent = shown(text)
  if (className !== undefined) made.className = className
  return made
}

/** @param {number} bytes */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`
  const units = ['KiB', 'MiB', 'GiB', 'TiB']
  let value = bytes / 1024
  let unit = 0
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024
  return `${value.toFixed(1)} ${units[unit] ?? ''}`
}

/** A time of the broker, without what nobody reads. @param {string | undefined} iso */
function time(iso) {
  return iso?.replace('T', ' ').replace(/(\.\d+)?Z$/u, ' UTC')
}

/** A word as a shell would be given it. @param {string} word */
function quoted(word) {
  return /^[\w@%+=:,./-]+$/u.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`
}

/** @typedef {[name: string, value: unknown, className?: string]} Row */

/** @param {string} title @param {Row[]} rows - those without a value are left out @param {string} [note] */
function section(title, rows, note) {
  const kept = rows.filter(([, value]) => value !== undefined && value !== '')
  if (kept.length === 0) return []
  const list = element('dl')
  for (const [name, value, className] of kept)
    list.append(element('dt', name), element('dd', value, className))
  return [element('h2', title), list, ...(note === undefined ? [] : [element('p', note, 'note')])]
}

/** @param {any} session */
function who({ agent, chain, subject, cluster, protocol }) {
  return section('Who', [
    ['Process', agent],
    ['Started by', chain?.join(' ← ')],
    ['Acts as', subject],
    ['Cluster', cluster],
    ['Protocol', protocol],
  ])
}

/** @param {any} session */
function what({ kind, command, namespace, name, container, startedAt, endedAt, tty }) {
  return section('What', [
    ['Kind', `${kind}${tty ? ', with a terminal' : ''}`],
    ['Command', command?.map(quoted).join(' '), 'code'],
    ['Pod', `${namespace}/${name}`],
    ['Container', container],
    ['Started', time(startedAt)],
    ['Ended', time(endedAt)],
  ])
}

/** @param {any} session */
function approved({ approval, rules, policyDigest }) {
  const rows = section('Approval', [
    ['By', approval?.approvers.join(', ')],
    ['Because', approval?.reason],
    ['Request', approval?.id],
    [
      'Break-glass',
      approval?.breakGlass ? 'yes: it went ahead without approval' : undefined,
      'bad',
    ],
  ])
  return [
    ...(approval === undefined ? section('Approval', [['By', 'none was needed']]) : rows),
    ...section('Policy', [
      ['Rules', rules.length === 0 ? 'none' : rules.join(', ')],
      ['Digest', policyDigest.slice(0, 16)],
    ]),
  ]
}

/** @param {any} session */
function result({ state, result: how, ending }) {
  const ok = how?.status === 'Success'
  return section('Result', [
    ['State', state],
    ['Exit code', how?.exitCode ?? (ok ? 0 : undefined), ok ? 'good' : 'bad'],
    ['Status', how?.status, ok ? 'good' : 'bad'],
    ['Reason', how?.reason],
    ['Message', how?.message],
    ['Ended by', ending, 'bad'],
  ])
}

/** @param {any} session */
function totals({ totals: sums }) {
  if (sums === undefined) return []
  const bytes = (/** @type {number} */ count) => (count === 0 ? undefined : size(count))
  return section('Totals', [
    ['stdout', bytes(sums.stdoutBytes)],
    ['stderr', bytes(sums.stderrBytes)],
    ['stdin', bytes(sums.stdinBytes)],
    ['Connections', sums.connections || undefined],
    ['Up', bytes(sums.bytesUp)],
    ['Down', bytes(sums.bytesDown)],
    ['Files', sums.files || undefined],
    ['Masked', sums.masked === 0 ? undefined : `${sums.masked} regions`],
    ['Truncated', sums.truncated ? 'yes: a bound was reached' : undefined, 'bad'],
  ])
}

/** @param {any} session */
function recording({ id, recording: kept }) {
  if (kept === undefined) return section('Recording', [['Kept', 'nothing was recorded']])
  return section(
    'Recording',
    [
      ['Mode', kept.mode],
      ['Left out', kept.stdin ? undefined : 'what was typed'],
      ['Not masked', kept.masked ? undefined : 'secrets in it are shown', 'bad'],
      ['Size', `${size(kept.bytes)} in ${kept.chunks} chunks`],
      ['Kept until', time(kept.expiresAt)],
      ['Running hash', kept.runningSha256, 'code'],
    ],
    `This hash is over every sealed chunk, and the ledger has it too. To check that nothing was changed: nestgate sessions verify ${id}`,
  )
}

/** @param {HTMLElement} place @param {any} session */
export function showFacts(place, session) {
  place.replaceChildren(
    ...who(session),
    ...what(session),
    ...result(session),
    ...approved(session),
    ...totals(session),
    ...recording(session),
  )
}
