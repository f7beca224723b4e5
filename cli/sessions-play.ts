/** `nestgate sessions play` and `follow`: a session on the viewer's own terminal. What could harm it is left out, always (shared/recording/neutralise.ts). */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { labelOf, statusOf } from '../shared/recording/asciicast.ts'
import type { EventView } from '../shared/recording/payloads.ts'
import { sessionSchema } from '../shared/recording/session-wire.ts'
import { createTerminalText } from '../shared/recording/terminal-text.ts'
import type { TerminalText } from '../shared/recording/terminal-text.ts'
import { CallError } from './client.ts'
import type { BrokerClient } from './client.ts'
import type { Runner } from './program.ts'
import type { SessionsDeps } from './sessions.ts'
import { createViewReader, sessionPath, viewsOf } from './sessions-answers.ts'
import { streamOutput } from './sessions-output.ts'
import type { Output } from './sessions-output.ts'
import { resultOf, timed } from './sessions-text.ts'
import { UsageError } from './settings.ts'

const US_PER_MS = 1000
const MS_PER_S = 1000
/** Markers that are kept to be shown when the terminal is free again. */
const MAX_NOTES = 100

interface PlayOptions {
  readonly speed: string
  readonly maxIdle: string
}

/** Adds the commands. */
export function addPlay(sessions: Command, runner: Runner, deps: SessionsDeps): void {
  sessions
    .command('play')
    .description('play a recording on this terminal (role auditor)')
    .argument('<id>', 'id of the session')
    .option('--speed <factor>', 'so many times as fast', '1')
    .option('--max-idle <seconds>', 'longest pause', '2')
    .action((id: string, { speed, maxIdle }: PlayOptions) => {
      const path = sessionPath(id)
      const pace = {
        speed: positive('--speed', speed),
        maxIdleMs: positive('--max-idle', maxIdle, 0) * MS_PER_S,
      }
      return show(runner, deps, async (screen, signal, client) => {
        const wait = createPace(pace)
        for await (const view of viewsOf(client, path)) {
          await wait(view.atUs, signal)
          if (signal.aborted) return
          await screen.show(view)
        }
      })
    })
  sessions
    .command('follow')
    .description('watch a session while it runs (role reviewer or auditor)')
    .argument('<id>', 'id of the session')
    .action((id: string) => {
      const path = sessionPath(id)
      return show(runner, deps, (screen, signal, client) => follow(screen, signal, client, path))
    })
}

type Work = (screen: Screen, signal: AbortSignal, client: BrokerClient) => Promise<void>

/** Runs with a screen that is put in order again at the end, also of a session that is interrupted or breaks off. */
function show(runner: Runner, deps: SessionsDeps, work: Work): Promise<void> {
  return runner.follow(async (client) => {
    const interrupt = new AbortController()
    const stop = deps.onInterrupt?.(() => {
      interrupt.abort()
      // ends what is being waited for
      void client.close()
    })
    const output = deps.stdout === undefined ? textOutput(runner) : streamOutput(deps.stdout)
    const screen = new Screen(output, runner, deps.stdout?.isTTY === true)
    try {
      await work(screen, interrupt.signal, client)
    } catch (error) {
      if (!interrupt.signal.aborted) throw error
    } finally {
      await screen.close()
      stop?.()
    }
  })
}

async function follow(
  screen: Screen,
  signal: AbortSignal,
  client: BrokerClient,
  path: string,
): Promise<void> {
  const reader = createViewReader()
  for await (const { name, text } of client.events(`${path}/follow?from=0`)) {
    if (signal.aborted) return
    if (name === 'end') {
      const session = sessionSchema.safeParse(parseJson(text))
      screen.note(`the session is over: ${session.success ? resultOf(session.data) : ''}`)
      return
    }
    if (name !== 'events') continue
    for (const view of reader.read(Buffer.from(text, 'base64'))) await screen.show(view)
  }
  throw new CallError('the broker ended the watch')
}

/** Shows events; what is no output is noted beside it, or behind it where the session has the terminal for itself. */
class Screen {
  readonly #output: Output
  readonly #runner: Runner
  readonly #isTerminal: boolean
  readonly #notes: string[] = []
  #text: TerminalText = createTerminalText(false)
  #isFull = false

  constructor(output: Output, runner: Runner, isTerminal: boolean) {
    this.#output = output
    this.#runner = runner
    this.#isTerminal = isTerminal
  }

  async show(view: EventView): Promise<void> {
    switch (view.name) {
      case 'header':
        this.#text = createTerminalText(view.value.tty)
        this.#isFull = view.value.tty
        return
      case 'stdout':
      case 'stderr':
        await this.#write(this.#text.write(view.name, view.bytes))
        return
      case 'resize':
        this.note(`the terminal of the session has ${view.columns} columns and ${view.rows} rows`)
        return
      case 'result':
        this.note(`ended with status ${statusOf(view.value)}`)
        return
      default:
        if (labelOf(view) !== undefined) this.note(timed(view))
    }
  }

  note(line: string): void {
    if (!this.#isFull) this.#runner.note(line)
    else if (this.#notes.length < MAX_NOTES) this.#notes.push(line)
  }

  async close(): Promise<void> {
    await this.#write(this.#text.end('stdout') + this.#text.end('stderr'))
    if (this.#isTerminal) await this.#write(`${this.#text.reset()}\r\n`)
    for (const note of this.#notes) this.#runner.note(note)
  }

  async #write(text: string): Promise<void> {
    if (text !== '') await this.#output.write(text)
  }
}

/** Waits as long as the session did, within bounds. */
function createPace({ speed, maxIdleMs }: { readonly speed: number; readonly maxIdleMs: number }) {
  let lastUs = 0
  return async (atUs: number, signal: AbortSignal): Promise<void> => {
    const waitMs = Math.min((atUs - lastUs) / US_PER_MS / speed, maxIdleMs)
    lastUs = Math.max(lastUs, atUs)
    // what comes at once is not slowed down by a timer for each event
    if (waitMs >= 1) await sleep(waitMs, undefined, { signal }).catch(() => undefined)
  }
}

function textOutput(runner: Runner): Output {
  return {
    write(piece) {
      runner.write(typeof piece === 'string' ? piece : Buffer.from(piece).toString())
      return Promise.resolve()
    },
  }
}

function positive(option: string, text: string, least = 0.01): number {
  const value = Number(text)
  if (!/^\d{1,6}(\.\d{1,3})?$/.test(text) || value < least)
    throw new UsageError(`${option} must be a number from ${least} on`)
  return value
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
