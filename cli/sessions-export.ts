/** `nestgate sessions export`: a recording as a file. Only `asciicast` without `--raw` is safe to show; the others are the session's own bytes. */
import { Option } from 'commander'
import type { Command } from 'commander'
import { createAsciicast } from '../shared/recording/asciicast.ts'
import type { EventView } from '../shared/recording/payloads.ts'
import type { BrokerClient } from './client.ts'
import type { Runner } from './program.ts'
import type { SessionsDeps } from './sessions.ts'
import { sessionPath, viewsOf } from './sessions-answers.ts'
import { streamOutput, writeFile } from './sessions-output.ts'
import type { Output } from './sessions-output.ts'
import { UsageError } from './settings.ts'

/** `raw` is stdout and stderr as they came; `events` is the recording itself (docs/sessions.md). */
const FORMATS = ['asciicast', 'ndjson', 'raw', 'stdout', 'stderr', 'events'] as const
type Format = (typeof FORMATS)[number]

interface Options {
  readonly format: Format
  readonly file?: string
  readonly raw?: true
  readonly idleTimeLimit?: string
}

/** Adds the command. */
export function addSessionExport(
  sessions: Command,
  runner: Runner,
  { stdout }: SessionsDeps,
): void {
  sessions
    .command('export')
    .description('write a recording to a file, or a pipe (role auditor)')
    .argument('<id>', 'id of the session')
    .addOption(
      new Option('--format <format>', 'raw, stdout and stderr are the exact bytes')
        .choices(FORMATS)
        .default('asciicast'),
    )
    .option('-o, --file <path>', 'where to; a file that is there is not replaced')
    .option(
      '--raw',
      'asciicast: leave control sequences as they are; never show that on a terminal',
    )
    .option('--idle-time-limit <seconds>', 'asciicast: longest pause that players should make')
    .action((id: string, options: Options) => {
      const path = sessionPath(id)
      const write = writerOf(options)
      const { file } = options
      if (file !== undefined)
        return runner.call(async (client, format) => {
          const bytes = await writeFile(file, (output) => write(client, path, output))
          return format === 'json' ? JSON.stringify({ file, bytes }) : `${bytes} bytes written`
        })
      if (stdout === undefined || stdout.isTTY === true)
        throw new UsageError('a recording is not written to a terminal: give -o, or a pipe')
      return runner.follow((client) => write(client, path, streamOutput(stdout)))
    })
}

type Write = (client: BrokerClient, path: string, output: Output) => Promise<void>

function writerOf({ format, raw, idleTimeLimit }: Options): Write {
  if (format !== 'asciicast' && (raw === true || idleTimeLimit !== undefined))
    throw new UsageError('--raw and --idle-time-limit go with asciicast only')
  if (format === 'events') return writeEvents
  if (format === 'asciicast') return writeCast(raw === true, secondsOf(idleTimeLimit))
  const pieceOf = format === 'ndjson' ? jsonLine : bytesOf(format)
  return async (client, path, output) => {
    for await (const view of viewsOf(client, path)) {
      const piece = pieceOf(view)
      if (piece !== undefined) await output.write(piece)
    }
  }
}

/** As the broker has them: it is no matter here whether they are readable. */
async function writeEvents(client: BrokerClient, path: string, output: Output): Promise<void> {
  for await (const bytes of client.download(`${path}/events`, new URLSearchParams()))
    await output.write(bytes)
}

function writeCast(raw: boolean, idleTimeLimit: number | undefined): Write {
  return async (client, path, output) => {
    const cast = createAsciicast({ raw, ...(idleTimeLimit === undefined ? {} : { idleTimeLimit }) })
    for await (const view of viewsOf(client, path))
      for (const line of cast.event(view)) await output.write(line)
    for (const line of cast.end()) await output.write(line)
  }
}

function secondsOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (!/^\d{1,6}(\.\d{1,3})?$/.test(text))
    throw new UsageError('--idle-time-limit must be a number of seconds')
  return Number(text)
}

function bytesOf(format: 'raw' | 'stdout' | 'stderr'): (view: EventView) => Uint8Array | undefined {
  return (view) => {
    const isOutput = view.name === 'stdout' || view.name === 'stderr'
    return isOutput && (format === 'raw' || format === view.name) ? view.bytes : undefined
  }
}

/** One event: its name, its time in microseconds, and its payload; bytes in base64. */
function jsonLine(view: EventView): string {
  const { name, atUs, ...payload } = view
  const data = 'bytes' in payload ? { ...payload, bytes: base64(payload.bytes) } : payload
  return `${JSON.stringify({ type: name, atUs, ...data })}\n`
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64')
}
