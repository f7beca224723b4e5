/**
 * `nestgate export`: entries of the ledger as a file, of any size. Only what came whole gets the file's name: a ledger export that breaks off is
 * gone on with; any other, and one without its last line, ends with an error and leaves `FILE.part`.
 */
import { existsSync } from 'node:fs'
import { open, rename } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { Option } from 'commander'
import type { Command } from 'commander'
import { z } from 'zod'
import { EXPORT_FORMATS } from '../shared/audit-filters.ts'
import type { ExportFormat } from '../shared/audit-filters.ts'
import { messageOf } from '../shared/errors.ts'
import { addFilters, filterQuery, wholeNumber } from './audit-options.ts'
import type { OptionValues } from './audit-options.ts'
import { CallError } from './client.ts'
import type { BrokerClient } from './client.ts'
import type { Runner } from './program.ts'
import { UsageError } from './settings.ts'

/** Name of a file that is not whole yet. */
const PART = '.part'
/** Only its owner may read an export. */
const FILE_MODE = 0o600
/** Longest line that is looked at, in bytes: an entry of 64 KiB in base64. */
const MAX_LINE = 128 * 1024
/** How often in a row an export that broke off is gone on with where nothing new came. */
const MAX_RESUMED = 5
/** How long is waited before that, in milliseconds. */
const RESUME_MS = 1_000

const manifestSchema = z.object({
  nestgate: z.literal('ledger-export'),
  from: z.int(),
  to: z.int(),
})
const lastLineSchema = z.object({ end: z.literal(true), count: z.int() })

interface ExportOptions {
  readonly format: ExportFormat
  readonly file: string
}

/** Adds the command. `--output` is every command's, for the form of what is printed; so the file is `--file`. */
export function addExport(program: Command, runner: Runner): void {
  const command = program
    .command('export')
    .description('export entries of the ledger, oldest first; exporting is itself recorded')
    .addOption(
      new Option('--format <format>', 'jsonl is the one that is evidence; the others are views')
        .choices(EXPORT_FORMATS)
        .default('jsonl'),
    )
    .requiredOption('--file <path>', 'where to; a file that is there is not replaced')
    .option('--from <number>', 'first entry; jsonl begins at the checkpoint below')
    .option('--to <number>', 'the entry after the last one; jsonl ends at the checkpoint above')
  addFilters(command)
  command.action(() => {
    const options = command.opts<ExportOptions & OptionValues>()
    const query = filterQuery(options)
    query.set('format', options.format)
    for (const name of ['from', 'to']) {
      const value = wholeNumber(options, name)
      if (value !== undefined) query.set(name, value)
    }
    return runner.call(async (client, format) => {
      const bytes = await save(client, query, options)
      if (format === 'json') return JSON.stringify({ file: options.file, bytes })
      return `${bytes} bytes written`
    })
  })
}

/** @returns how many bytes were written */
async function save(
  client: BrokerClient,
  query: URLSearchParams,
  { file, format }: ExportOptions,
): Promise<number> {
  if (existsSync(file)) throw new UsageError('the file is there already')
  const path = file + PART
  const part = await open(path, 'w', FILE_MODE).catch((error: unknown) => {
    throw new UsageError(`cannot write: ${messageOf(error)}`)
  })
  const progress = new Progress(format === 'jsonl')
  try {
    await receive(client, query, part, progress, format === 'jsonl' ? MAX_RESUMED : 0)
    await part.sync()
  } catch (error) {
    throw incomplete(path, progress.bytes, messageOf(error))
  } finally {
    await part.close()
  }
  if (format === 'jsonl' && !progress.hasEnded())
    throw incomplete(path, progress.bytes, 'no last line came')
  await rename(path, file)
  return progress.bytes
}

/** Writes what comes; where that breaks off, the broker is asked to go on behind the last whole entry, so many times in a row without a new one. */
async function receive(
  client: BrokerClient,
  query: URLSearchParams,
  part: FileHandle,
  progress: Progress,
  tries: number,
): Promise<void> {
  for (let left = tries; ; left -= 1) {
    const before = progress.entry
    try {
      for await (const chunk of client.download('v1/audit/export', query)) {
        await part.write(chunk, 0, chunk.length, progress.bytes)
        progress.take(chunk)
      }
      return
    } catch (error) {
      if (progress.entry !== before) left = tries
      const next = progress.goOn()
      if (left <= 0 || next === undefined) throw error
      for (const [name, value] of Object.entries(next)) query.set(name, String(value))
      await part.truncate(progress.bytes)
      await sleep(RESUME_MS)
    }
  }
}

function incomplete(path: string, bytes: number, cause: string): CallError {
  return new CallError(
    bytes === 0 ? cause : `the export is not whole, what came is in ${path}: ${cause}`,
  )
}

/** How far a ledger export has come, line by line. Of other formats only the bytes are counted. */
class Progress {
  bytes = 0
  /** The last whole entry. */
  entry: number | undefined
  /** Where its line ends. */
  #entryEnd = 0
  #range: z.infer<typeof manifestSchema> | undefined
  readonly #hasEntries: boolean
  /** The line that has begun. */
  #open = ''
  #last = ''
  #ended = 0

  constructor(hasEntries: boolean) {
    this.#hasEntries = hasEntries
  }

  take(chunk: Buffer): void {
    this.bytes += chunk.length
    if (!this.#hasEntries) return
    const lines = (this.#open + chunk.toString('latin1')).split('\n')
    this.#open = lines.pop() ?? ''
    if (this.#open.length > MAX_LINE) throw new CallError('a line of the export is too long')
    for (const line of lines) {
      this.#ended += line.length + 1
      this.#takeLine(line)
    }
  }

  /** What to ask for to go on, from the end of the last whole entry. Undefined where none has come. */
  goOn(): { readonly from: number; readonly to: number; readonly after: number } | undefined {
    if (this.#range === undefined || this.entry === undefined) return undefined
    this.bytes = this.#entryEnd
    this.#ended = this.#entryEnd
    this.#open = ''
    const { from, to } = this.#range
    return { from, to, after: this.entry }
  }

  /** Whether the last line says itself that it is the last one. */
  hasEnded(): boolean {
    return this.#open === '' && parsed(lastLineSchema, this.#last) !== undefined
  }

  #takeLine(line: string): void {
    this.#range ??= parsed(manifestSchema, line)
    this.#last = line
    const [, seq] = /^\{"seq":(\d+),/.exec(line) ?? []
    if (seq === undefined) return
    this.entry = Number(seq)
    this.#entryEnd = this.#ended
  }
}

function parsed<T>(schema: z.ZodType<T>, line: string): T | undefined {
  try {
    return schema.safeParse(JSON.parse(line)).data
  } catch {
    return undefined
  }
}
