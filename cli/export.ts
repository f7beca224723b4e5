/**
 * `nestgate export`: entries of the ledger as a file, of any size. Only what came whole gets the file's name: a broken connection, and a ledger export
 * without its last line, end with an error and leave `FILE.part`.
 */
import { existsSync } from 'node:fs'
import { open, rename } from 'node:fs/promises'
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
/** Longest last line, in bytes: two signed notes, and 64 hashes at most. */
const MAX_LAST_LINE = 64 * 1024

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
  let bytes = 0
  let end = Buffer.alloc(0)
  try {
    for await (const chunk of client.download('v1/audit/export', query)) {
      await part.writeFile(chunk)
      bytes += chunk.length
      end = Buffer.concat([end, chunk]).subarray(-MAX_LAST_LINE)
    }
    await part.sync()
  } catch (error) {
    throw incomplete(path, bytes, messageOf(error))
  } finally {
    await part.close()
  }
  if (format === 'jsonl' && !hasLastLine(end)) throw incomplete(path, bytes, 'no last line came')
  await rename(path, file)
  return bytes
}

function incomplete(path: string, bytes: number, cause: string): CallError {
  return new CallError(
    bytes === 0 ? cause : `the export is not whole, what came is in ${path}: ${cause}`,
  )
}

/** Whether a ledger export came to its end: its last line says so itself. */
function hasLastLine(end: Buffer): boolean {
  const text = end.toString('utf8')
  const last = text.slice(text.lastIndexOf('\n', text.length - 2) + 1)
  if (!last.endsWith('\n')) return false
  try {
    return lastLineSchema.safeParse(JSON.parse(last)).success
  } catch {
    return false
  }
}
