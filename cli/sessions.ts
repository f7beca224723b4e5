/** `nestgate sessions`: what ran through the broker, listed, shown, searched, ended; played, exported and verified in files beside this one. */
import { Option } from 'commander'
import type { Command } from 'commander'
import { z } from 'zod'
import {
  SESSION_KINDS,
  SESSION_STATES,
  grepEndSchema,
  grepMatchSchema,
  sessionDetailsSchema,
  sessionPageSchema,
  sessionSchema,
  sessionViewSchema,
} from '../shared/recording/session-wire.ts'
import type {
  GrepEnd,
  GrepMatch,
  Session,
  SessionDetails,
} from '../shared/recording/session-wire.ts'
import type { OptionValues } from './audit-options.ts'
import { CallError } from './client.ts'
import type { BrokerClient } from './client.ts'
import type { Runner } from './program.ts'
import { plain, toJson, toTable } from './output.ts'
import { sessionPath } from './sessions-answers.ts'
import { addSessionExport } from './sessions-export.ts'
import type { StandardOutput } from './sessions-output.ts'
import { addPlay } from './sessions-play.ts'
import { HEADINGS, resultOf, toRow, toText } from './sessions-text.ts'
import { addSessionVerify } from './sessions-verify.ts'
import { UsageError } from './settings.ts'

/** Sessions of one page at most; the broker's limit. */
const MAX_PAGE = 500
/** Longest line of an answer that is looked at, in characters. */
const MAX_LINE = 1024 * 1024
const US_PER_S = 1_000_000

/** What these commands need of their process. */
export interface SessionsDeps {
  /** Undefined where bytes cannot be written: then export needs a file. */
  readonly stdout?: StandardOutput
  /** Calls back when the user interrupts; @returns ends that. Undefined: the process just ends. */
  readonly onInterrupt?: (listener: () => void) => () => void
}

/** Adds the commands. */
export function addSessions(program: Command, runner: Runner, deps: SessionsDeps): void {
  const sessions = program
    .command('sessions')
    .description('sessions and their recordings; reading them is itself recorded')
  addList(sessions, runner)
  addShow(sessions, runner)
  addPlay(sessions, runner, deps)
  addSessionExport(sessions, runner, deps)
  addGrep(sessions, runner)
  addKill(sessions, runner)
  addSessionVerify(sessions, runner)
  addView(sessions, runner)
}

const FILTERS = [
  'cluster',
  'namespace',
  'name',
  'kind',
  'subject',
  'agent',
  'state',
  'since',
  'until',
] as const

function addFilters(command: Command): Command {
  return command
    .option('--cluster <name>', 'name of the cluster')
    .option('--namespace <name>', 'namespace of the pod')
    .option('--name <name>', 'name of the pod')
    .addOption(new Option('--kind <kind>', 'what kind of session').choices(SESSION_KINDS))
    .option('--subject <name>', 'Kubernetes user who asked')
    .option('--agent <name>', 'name of the process')
    .addOption(new Option('--state <state>', 'how it is').choices(SESSION_STATES))
    .option('--since <time>', 'began not before this time (RFC 3339)')
    .option('--until <time>', 'began before this time (RFC 3339)')
}

function filterQuery(options: OptionValues): URLSearchParams {
  const query = new URLSearchParams()
  for (const name of FILTERS) {
    const value = options[name]
    if (typeof value === 'string') query.set(name, value)
  }
  return query
}

function addList(sessions: Command, runner: Runner): void {
  const command = addFilters(sessions.command('list'))
    .description('list sessions, newest first')
    .option('--limit <number>', 'at most this many', '50')
  command.action((options: OptionValues) => {
    const limit = String(options['limit'])
    if (!/^[1-9]\d{0,6}$/.test(limit)) throw new UsageError('--limit must be a number from 1 on')
    return runner.call(async (client, format) => {
      const found = await collect(client, filterQuery(options), Number(limit))
      if (format === 'json') return toJson({ sessions: found })
      return found.length === 0 ? 'No sessions.' : toTable(HEADINGS, found.map(toRow))
    })
  })
}

async function collect(
  client: BrokerClient,
  query: URLSearchParams,
  limit: number,
): Promise<readonly Session[]> {
  const found: Session[] = []
  for (;;) {
    query.set('limit', String(Math.min(limit - found.length, MAX_PAGE)))
    // a page may be short, or empty, and others still follow
    const { sessions, next } = await client.get(sessionPageSchema, 'v1/sessions', query)
    found.push(...sessions)
    if (next === undefined || found.length >= limit) return found
    query.set('cursor', next)
  }
}

function addShow(sessions: Command, runner: Runner): void {
  sessions
    .command('show')
    .description('show who ran what, by which rule and approval, and what came of it')
    .argument('<id>', 'id of the session')
    .action((id: string) => {
      const path = sessionPath(id)
      return runner.call(async (client, format) => {
        const session = await client.get(sessionSchema, path)
        const details = await detailsOf(client, path, session, runner)
        return format === 'json' ? toJson({ ...session, details }) : toText(session, details)
      })
    })
}

/** Who may list sessions may not always read their recordings: what is known beside them is shown all the same. */
async function detailsOf(
  client: BrokerClient,
  path: string,
  { recording }: Session,
  runner: Runner,
): Promise<SessionDetails | undefined> {
  if (recording === undefined) return undefined
  try {
    return await client.get(sessionDetailsSchema, `${path}/details`)
  } catch (error) {
    if (!(error instanceof CallError)) throw error
    runner.note(`what is in the recording cannot be shown: ${error.message}`)
    return undefined
  }
}

function addKill(sessions: Command, runner: Runner): void {
  sessions
    .command('kill')
    .description('end a running session at once (role reviewer)')
    .argument('<id>', 'id of the session')
    .requiredOption('--reason <text>', 'why; the ledger and the recording keep it')
    .action((id: string, { reason }: { reason: string }) => {
      const path = `${sessionPath(id)}/kill`
      return runner.call(async (client, format) => {
        const session = await client.post(sessionSchema, path, { reason })
        if (format === 'json') return toJson(session)
        return plain(`${session.id}  ${[session.state, resultOf(session)].join('  ').trim()}`)
      })
    })
}

function addView(sessions: Command, runner: Runner): void {
  sessions
    .command('view')
    .description('make a link that plays the session in a browser, for a short time')
    .argument('<id>', 'id of the session')
    .action((id: string) => {
      const path = `${sessionPath(id)}/view`
      return runner.call(async (client, format) => {
        const view = await client.post(sessionViewSchema, path, {})
        if (format === 'json') return toJson(view)
        runner.note(`whoever has the link sees the session, until ${view.expiresAt}`)
        return plain(view.url)
      })
    })
}

function addGrep(sessions: Command, runner: Runner): void {
  const command = addFilters(sessions.command('grep'))
    .description('search the lines of recordings for a text, newest sessions first (role auditor)')
    .argument('<text>', 'the text itself, no pattern')
    .option('--ignore-case', 'take capital and small letters as the same')
  command.action((text: string, options: OptionValues) => {
    const query = filterQuery(options)
    query.set('text', text)
    if (options['ignoreCase'] === true) query.set('ignoreCase', 'true')
    return runner.follow(async (client, format) => {
      let searched = 0
      for (;;) {
        const end = await grepOnce(client, query, (match) => {
          runner.print(format === 'json' ? jsonLine(match) : matchText(match))
        })
        searched += end.searched
        for (const id of end.cut ?? []) runner.note(`${id} has more matches than are shown`)
        for (const id of end.unread ?? []) runner.note(`${id} could not be read`)
        if (end.more === undefined) break
        query.set('cursor', end.more)
      }
      runner.note(`${searched} sessions searched`)
    })
  })
}

const grepLineSchema = z.union([grepMatchSchema, grepEndSchema])

async function grepOnce(
  client: BrokerClient,
  query: URLSearchParams,
  onMatch: (match: GrepMatch) => void,
): Promise<GrepEnd> {
  let end: GrepEnd | undefined
  for await (const line of linesOf(client.download('v1/sessions/grep', query))) {
    const read = grepLineSchema.safeParse(parseJson(line))
    if (!read.success) throw new CallError('the broker’s answer is not what was expected')
    if ('searched' in read.data) end = read.data
    else onMatch(read.data)
  }
  if (end === undefined) throw new CallError('the search broke off')
  return end
}

async function* linesOf(pieces: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let open = ''
  for await (const piece of pieces) {
    const lines = (open + decoder.decode(piece, { stream: true })).split('\n')
    open = lines.pop() ?? ''
    if (open.length > MAX_LINE) throw new CallError('a line of the broker is too long')
    yield* lines
  }
  if (open !== '') yield open
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}

function jsonLine(value: object): string {
  return toJson(value).replaceAll(/\n\s*/g, '')
}

function matchText({ id, startedAt, atUs, stream, line, text }: GrepMatch): string {
  return plain(`${id}  ${startedAt} +${(atUs / US_PER_S).toFixed(3)} s  ${stream}:${line}: ${text}`)
}
