/** Sessions as text for people. Everything in it was chosen by somebody else, and is made safe by output.ts. */
import { directionText, labelOf } from '../shared/recording/asciicast.ts'
import type { EventView } from '../shared/recording/payloads.ts'
import { connectionClosedSchema, fileSchema, markerSchema } from '../shared/recording/payloads.ts'
import type { Session, SessionDetail, SessionDetails } from '../shared/recording/session-wire.ts'
import { plain, toDetails } from './output.ts'

/** Of {@link toRow}. */
export const HEADINGS = ['ID', 'STATE', 'STARTED', 'KIND', 'WHERE', 'WHO', 'WHAT', 'RESULT']

const US_PER_S = 1_000_000
const MS_PER_S = 1000

/** A session as a line of a table. */
export function toRow(session: Session): readonly string[] {
  const { id, state, startedAt, kind, agent, subject } = session
  return [
    id,
    state,
    startedAt,
    kind,
    whereOf(session),
    agent ?? subject,
    whatOf(session),
    resultOf(session),
  ]
}

/** How it ended, in short; empty while it runs. */
export function resultOf({ result, ending }: Session): string {
  const code = result?.exitCode === undefined ? result?.status : `exit ${result.exitCode}`
  return [code, ending].filter((part) => part !== undefined).join(', ')
}

/** Everything that is known of a session. @param details - of its recording, where they could be had */
export function toText(session: Session, details: SessionDetails | undefined): string {
  const parts = [
    facts(session),
    heading('Who', who(session)),
    heading('Allowed by', allowed(session)),
    heading('Result', result(session)),
    heading('Recording', recording(session)),
  ]
  const more = details === undefined ? [] : detailParts(details)
  return [...parts, ...more].filter((part) => part !== '').join('\n')
}

type Lines = readonly (readonly [string, string | undefined])[]

function heading(name: string, pairs: Lines): string {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== '')
  return shown.length === 0 ? '' : `${name}\n${toDetails(shown).replaceAll(/^/gm, '  ')}`
}

function facts(session: Session): string {
  const { id, state, kind, container, command, tty, stdin, protocol } = session
  return toDetails([
    ['Session', id],
    ['State', state],
    ['Kind', kind],
    ['Where', whereOf(session)],
    ['Container', container],
    ['Command', command === undefined ? undefined : commandText(command)],
    ['Terminal', `${yes(tty)}, input ${yes(stdin)}`],
    ['Protocol', protocol],
    ['Started', session.startedAt],
    [
      'Ended',
      session.endedAt === undefined ? undefined : endedText(session.startedAt, session.endedAt),
    ],
  ])
}

function who({ subject, agent, chain }: Session): Lines {
  return [
    ['Subject', subject],
    ['Agent', agent],
    ['Above it', chain?.join(' < ')],
  ]
}

function allowed({ rules, policyDigest, approval }: Session): Lines {
  const by = approval?.breakGlass === true ? 'break-glass' : approval?.approvers.join(', ')
  return [
    ['Rules', rules.join(', ')],
    ['Policy', policyDigest],
    ['Approval', approval?.id],
    ['Approved by', by],
    ['Reason', approval?.reason],
  ]
}

function result({ result: how, ending, totals }: Session): Lines {
  return [
    ['Status', how?.status],
    ['Exit code', how?.exitCode?.toString()],
    ['Reason', how?.reason],
    ['Message', how?.message],
    ['Ended by', ending],
    ['Output', totals && `${totals.stdoutBytes} bytes, ${totals.stderrBytes} of errors`],
    ['Input', totals && `${totals.stdinBytes} bytes`],
    ['Forwarded', forwarded(totals)],
    ['Files', totals && counted(totals.files, 'copied')],
    ['Masked', totals && counted(totals.masked, 'regions')],
    ['Truncated', totals?.truncated === true ? 'yes: a bound was reached' : undefined],
  ]
}

function recording({ recording: kept }: Session): Lines {
  if (kept === undefined) return [['Kept', 'nothing']]
  return [
    ['Mode', kept.mode],
    ['Input kept', yes(kept.stdin)],
    ['Secrets', kept.masked ? 'masked where they were found' : 'not masked'],
    ['Kept', `${kept.chunks} chunks, ${kept.bytes} bytes`],
    ['Running SHA-256', kept.runningSha256],
    ['Kept until', kept.expiresAt ?? 'for ever'],
  ]
}

/** Files, connections and markers, a line each: hashes are longer than a cell of a table may be. */
function detailParts({ items, more }: SessionDetails): readonly string[] {
  const of = (wanted: SessionDetail['type']): readonly SessionDetail[] =>
    items.filter(({ type }) => type === wanted)
  return [
    lines('Files', of('file').flatMap(fileLine)),
    lines('Connections', of('connectionClosed').flatMap(connectionLine)),
    lines('Markers', of('marker').flatMap(markerLine)),
    more.length === 0 ? '' : plain(`There are more of: ${more.join(', ')}`),
  ]
}

function fileLine({ value }: SessionDetail): string[] {
  const file = fileSchema.safeParse(value).data
  if (file === undefined) return []
  const { direction, name, linkName, type, size, truncated, sha256 = 'no content' } = file
  const link = linkName === undefined ? name : `${name} -> ${linkName}`
  const cut = truncated === true ? ', cut off' : ''
  const way = directionText(direction)
  return [`${sha256}  ${size} bytes${cut}  ${type} ${way}  ${link}`]
}

function connectionLine({ value }: SessionDetail): string[] {
  const one = connectionClosedSchema.safeParse(value).data
  if (one === undefined) return []
  const { connection, port = 'unknown', bytesUp, bytesDown, sha256Up, sha256Down, error } = one
  const how = error === undefined ? '' : `: ${error}`
  return [
    `${connection}, port ${port}${how}`,
    `  up    ${sha256Up}  ${bytesUp} bytes`,
    `  down  ${sha256Down}  ${bytesDown} bytes`,
  ]
}

function markerLine({ atUs, value }: SessionDetail): string[] {
  const marker = markerSchema.safeParse(value).data
  return marker === undefined ? [] : [timed({ name: 'marker', atUs, value: marker })]
}

function lines(name: string, all: readonly string[]): string {
  return all.length === 0 ? '' : [name, ...all.map((line) => `  ${plain(line)}`)].join('\n')
}

/** What an event that no terminal shows says, with its time. */
export function timed(view: EventView): string {
  return plain(`${(view.atUs / US_PER_S).toFixed(3)} s  ${labelOf(view) ?? ''}`)
}

function whereOf({ cluster, namespace, name }: Session): string {
  return `${cluster}/${namespace}/${name}`
}

function whatOf({ command, container }: Session): string {
  return command === undefined ? (container ?? '') : commandText(command)
}

/** Words with anything but plain characters are quoted, so that their borders show. */
function commandText(command: readonly string[]): string {
  return command
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word)))
    .join(' ')
}

function endedText(startedAt: string, endedAt: string): string {
  const seconds = (Date.parse(endedAt) - Date.parse(startedAt)) / MS_PER_S
  return `${endedAt}, after ${seconds.toFixed(1)} s`
}

function counted(count: number, what: string): string | undefined {
  return count === 0 ? undefined : `${count} ${what}`
}

function yes(value: boolean): string {
  return value ? 'yes' : 'no'
}

function forwarded(totals: Session['totals']): string | undefined {
  if (totals === undefined) return undefined
  const { connections, bytesUp, bytesDown } = totals
  return counted(connections, `connections, ${bytesUp} bytes up, ${bytesDown} down`)
}
