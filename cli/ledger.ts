/** `nestgate proof` and `nestgate checkpoint`: what the broker's ledger shows of itself, to be kept and verified elsewhere. */
import { writeFileSync } from 'node:fs'
import { InvalidArgumentError, type Command } from 'commander'
import { encodeBase64 } from '../shared/transparency/base64.ts'
import { parseCheckpoint, parseDecimal } from '../shared/transparency/checkpoint.ts'
import { parseNote } from '../shared/transparency/note.ts'
import type { Checked } from '../shared/transparency/note.ts'
import { parseProof } from '../shared/transparency/proof-file.ts'
import { messageOf } from '../shared/errors.ts'
import { CallError } from './client.ts'
import { plain, toJson } from './output.ts'
import type { Runner } from './program.ts'

/** Adds the commands. */
export function addLedger(program: Command, runner: Runner): void {
  program
    .command('proof')
    .description('fetch the proof that an entry is in the ledger; nestgate verify verifies it')
    .argument('<seq>', 'number of the entry', readSeq)
    .option('--out <file>', 'write it to this file (name it .tlog-proof)')
    .action((seq: number, { out }: { out?: string }) =>
      runner.call(async (client, format) => {
        const text = await client.text(`v1/ledger/proof/${seq}`)
        const { index, checkpoint } = expected(parseProof(text), text)
        expected(parseNote(checkpoint), text)
        if (index !== seq) throw new CallError('the broker’s answer is not what was expected')
        if (out !== undefined) return saved(out, text)
        return format === 'json' ? toJson({ seq, proof: text }) : withoutLastNewline(text)
      }),
    )
  program
    .command('checkpoint')
    .description('fetch the newest signed checkpoint of the ledger')
    .option('--out <file>', 'write it to this file')
    .action(({ out }: { out?: string }) =>
      runner.call(async (client, format) => {
        const note = await client.text('v1/ledger/checkpoint')
        const { text } = expected(parseNote(note), note)
        const { origin, size, root } = expected(parseCheckpoint(text), note)
        if (out !== undefined) return saved(out, note)
        return format === 'json'
          ? toJson({ origin, size, root: encodeBase64(root), note })
          : withoutLastNewline(note)
      }),
    )
}

function readSeq(text: string): number {
  const seq = parseDecimal(text)
  if (seq === undefined) throw new InvalidArgumentError('expected the number of an entry')
  return seq
}

/** What the text says; it is printed as it stands, so it may hold nothing that acts on a terminal. */
function expected<T>(checked: Checked<T>, text: string): T {
  if (checked.problem !== undefined || text.split('\n').some((line) => plain(line) !== line)) {
    throw new CallError('the broker’s answer is not what was expected')
  }
  return checked.value
}

function saved(file: string, text: string): string {
  try {
    writeFileSync(file, text)
  } catch (error) {
    throw new CallError(`cannot write a file: ${messageOf(error)}`)
  }
  return `Written to ${plain(file)}; nestgate verify verifies it.`
}

function withoutLastNewline(text: string): string {
  return text.endsWith('\n') ? text.slice(0, -1) : text
}
