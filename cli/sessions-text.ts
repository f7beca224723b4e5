/** Sessions as text for people. Everything in it was chosen by somebody else, and is made safe by output.ts. */
import { labelOf } from '../shared/recording/asciicast.ts'
import type { EventView } from '../shared/recording/payloads.ts'
import { connectionClosedSchema, fileSchema, markerSchema } from '../shared/recording/payloads.ts'
import type { Session } from '../shared/recording/session-wire.ts'
import { plain, toDetails, toTable } from './output.ts'
import type { Details } from './sessions-answers.ts'

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
export function toText(session: Session, details: Details | undefined): string {
  const parts = [
    facts(session),
    heading('Who', who(session)),
    heading('Allowed by', allowed(session)),
    heading('Result', result(session)),
    heading('Recording', recording(session)),
  ]
  const lines = details === undefined ? [] : detailParts(details)
  return [...parts, ...lines].filter((part) => part !== '').join('\n')
}

type Lines = readonly (readonly [string, string | undefined])[]

function heading(name: string, lines: Lines): string {
  const shown = lines.filter(([, value]) => value !== undefined && value !== '')
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

/** Files and connections as tables, the rest line by line. */
function detailParts({ items, more }: Details): readonly string[] {
  const files = items.flatMap(({ type, value }) =>
    type === 'file' ? (fileSchema.safeParse(value).data ?? []) : [],
  )
  const connections = items.flatMap(({ type, value }) =>
    type === 'connectionClosed' ? (connectionClosedSchema.safeParse(value).data ?? []) : [],
  )
  const markers = items.flatMap(({ type, atUs, value }) => {
    const marker = type === 'marker' ? markerSchema.safeParse(value).data : undefined
    return marker === undefined ? [] : [{ name: 'marker' as const, atUs, value: marker }]
  })
  return [
    table(
      'Files',
      ['DIRECTION', 'NAME', 'TYPE', 'SIZE', 'SHA-256'],
      files.map((file) => [
        file.direction,
        file.name,
        file.type,
        String(file.size),
        file.sha256 ?? '',
      ]),
    ),
    table(
      'Connections',
      ['NUMBER', 'UP', 'DOWN', 'SHA-256 UP', 'SHA-256 DOWN', 'ERROR'],
      connections.map((one) => [
        String(one.connection),
        String(one.bytesUp),
        String(one.bytesDown),
        one.sha256Up,
        one.sha256Down,
        one.error ?? '',
      ]),
    ),
    markers.length === 0
      ? ''
      : ['Markers', ...markers.map((view) => `  ${timed(view)}`)].join('\n'),
    more.length === 0 ? '' : plain(`There are more of: ${more.join(', ')}`),
  ]
}

function table(
  name: string,
  headings: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  return rows.length === 0 ? '' : `${name}\n${toTable(headings, rows).replaceAll(/^/gm, '  ')}`
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
