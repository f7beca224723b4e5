/**
 * `nestgate verify`: what a ledger gave out is verified without asking any broker. Exit code 1 when anything is not
 * as it was signed. `scripts/verify-ledger.mjs` does the same in one file without packages.
 */
import { createHash } from 'node:crypto'
import { createReadStream, readFileSync } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { Command } from 'commander'
import { messageOf } from '../shared/errors.ts'
import { decodeHash, encodeBase64 } from '../shared/transparency/base64.ts'
import type { SignedCheckpoint } from '../shared/transparency/checkpoint.ts'
import { parseProof, verifyProof } from '../shared/transparency/proof-file.ts'
import { leafHash, sameHash, verifyConsistency } from '../shared/transparency/tree.ts'
import { plain, toJson } from './output.ts'
import type { Runner } from './program.ts'
import { readText, UsageError } from './settings.ts'
import { isExport, verifyExport, type ExportProblem } from './verify-export.ts'
import { headOf } from './verify-lines.ts'
import { readTrust, trustedCheckpoint, type Trust, type TrustOptions } from './verify-trust.ts'
import { exportText } from './verify-text.ts'

interface Options extends TrustOptions {
  readonly entry?: string
  readonly checkpoint?: readonly string[]
  readonly consistency?: string
}

/** What was found of a file. */
interface Finding {
  readonly file: string
  readonly kind: 'export' | 'proof' | 'checkpoint' | 'files' | 'consistency'
  readonly problem?: ExportProblem | { readonly code: string; readonly detail: string }
  /** One line for people. */
  readonly text: string
}

/** A checkpoint among what is verified. */
interface ReadCheckpoint {
  readonly file: string
  readonly checkpoint: SignedCheckpoint
}

/** Adds the command. */
export function addVerify(program: Command, runner: Runner): void {
  program
    .command('verify')
    .description(
      'verify exports, proofs (.tlog-proof) and checkpoints of a ledger, and folders of recordings and payloads',
    )
    .argument('<file...>', 'files, or folders of files that are named by their SHA-256')
    .option('--vkey <key>', 'key of a ledger or a witness, NAME+ID+KEY (repeatable)', collect)
    .option('--policy <file>', 'logs, witnesses and quorum that are trusted (C2SP tlog-policy)')
    .option('--quorum <number>', 'how many of the witnesses with a --vkey must have signed')
    .option('--entry <file>', 'the bytes of the entry that a proof is about')
    .option(
      '--checkpoint <file>',
      'a checkpoint known from elsewhere, which an export must reach and have (repeatable)',
      collect,
    )
    .option('--consistency <file>', 'proof between two checkpoints: one hash a line, base64')
    .action(async (files: string[], options: Options) => {
      const findings = await verifyFiles(files, options)
      if (findings.some(({ problem }) => problem !== undefined)) runner.fail()
      runner.print(
        runner.format() === 'json'
          ? toJson({ items: findings.map(toItem) })
          : findings.map(({ file, text }) => plain(`${file}: ${text}`)).join('\n'),
      )
    })
}

function toItem(finding: Finding): object {
  const shown = Object.entries(finding).filter(([name]) => name !== 'text')
  return { ok: finding.problem === undefined, ...Object.fromEntries(shown) }
}

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value]
}

async function verifyFiles(files: readonly string[], options: Options): Promise<Finding[]> {
  const findings: Finding[] = []
  const read: ReadCheckpoint[] = []
  let trust: Trust | undefined
  for (const file of files) {
    if (await isFolder(file)) {
      findings.push(await verifyFolder(file))
      continue
    }
    trust ??= readTrust(options)
    const head = await headOf(file)
    if (isExport(head)) findings.push(await exportFinding(file, trust, options))
    else if (head.startsWith('c2sp.org/tlog-proof'))
      findings.push(proofFinding(file, trust, options))
    else findings.push(checkpointFinding(file, trust, read))
  }
  return [...findings, ...compared(read, options.consistency)]
}

async function isFolder(file: string): Promise<boolean> {
  try {
    return (await stat(file)).isDirectory()
  } catch (error) {
    throw new UsageError(`cannot read a file: ${messageOf(error)}`)
  }
}

async function exportFinding(file: string, trust: Trust, options: Options): Promise<Finding> {
  const known = (options.checkpoint ?? []).map((name) => {
    const checked = trustedCheckpoint(readText(name), trust)
    if (checked.problem === undefined) return checked.value
    throw new UsageError(`--checkpoint ${name}: ${checked.problem}`)
  })
  const verdict = await verifyExport(file, trust, known)
  return { file, kind: 'export', ...verdict, text: exportText(verdict) }
}

function proofFinding(file: string, trust: Trust, options: Options): Finding {
  const text = readText(file)
  const bad = (code: string, detail: string): Finding => {
    return { file, kind: 'proof', problem: { code, detail }, text: `NOT VERIFIED: ${detail}` }
  }
  const parsed = parseProof(text)
  if (parsed.problem !== undefined) return bad('malformed', parsed.problem)
  const entry = options.entry === undefined ? parsed.value.extra : readBytes(options.entry)
  if (entry === undefined) throw new UsageError(`${file} does not bring its entry: give --entry`)
  const trusted = trustedCheckpoint(parsed.value.checkpoint, trust)
  if (trusted.problem !== undefined) return bad('checkpoint_invalid', trusted.problem)
  const proven = verifyProof(text, leafHash(entry), trust.keys)
  if (proven.problem !== undefined) return bad('root_differs', proven.problem)
  const { index, checkpoint } = proven.value
  const shown = { seq: index, ...describe(checkpoint) }
  const said = `verified: entry ${index} is in the ledger ${checkpoint.origin} of size ${checkpoint.size}`
  return { file, kind: 'proof', ...shown, text: said }
}

function readBytes(file: string): Uint8Array {
  try {
    return readFileSync(file)
  } catch (error) {
    throw new UsageError(`cannot read a file: ${messageOf(error)}`)
  }
}

function checkpointFinding(file: string, trust: Trust, read: ReadCheckpoint[]): Finding {
  const checked = trustedCheckpoint(readText(file), trust)
  if (checked.problem !== undefined) {
    const problem = { code: 'checkpoint_invalid', detail: checked.problem }
    return { file, kind: 'checkpoint', problem, text: `NOT VERIFIED: ${checked.problem}` }
  }
  const { origin, size, signedBy } = checked.value
  read.push({ file, checkpoint: checked.value })
  const names = signedBy.map(({ key }) => key.name).join(', ')
  const text = `verified: checkpoint of ${origin} at size ${size}, signed by ${names}`
  return { file, kind: 'checkpoint', ...describe(checked.value), text }
}

function describe({ origin, size, root, signedBy }: SignedCheckpoint): object {
  return {
    origin,
    size,
    root: encodeBase64(root),
    signedBy: signedBy.map(({ key, time }) => ({
      name: key.name,
      ...(time === undefined ? {} : { time }),
    })),
  }
}

/** What the checkpoints say about each other: two of one size must have one root, and a proof must fit the two it is for. */
function compared(read: readonly ReadCheckpoint[], proofFile: string | undefined): Finding[] {
  if (proofFile === undefined) return forks(read)
  const [older, newer, ...more] = [...read].sort((a, b) => a.checkpoint.size - b.checkpoint.size)
  if (older === undefined || newer === undefined || more.length > 0) {
    throw new UsageError('--consistency needs exactly two checkpoints that are verified')
  }
  // the hashes alone, or as the broker answers: `old SIZE`, the hashes, an empty line, the checkpoint
  const [head = ''] = readText(proofFile).split('\n\n')
  const lines = head.split('\n').filter((line) => line !== '' && !line.startsWith('old '))
  const hashes = lines.map(decodeHash).filter((hash) => hash !== undefined)
  const [a, b] = [older.checkpoint, newer.checkpoint]
  const fits =
    a.origin === b.origin &&
    hashes.length === lines.length &&
    verifyConsistency(a.size, b.size, hashes, a.root, b.root)
  return [consistencyFinding(older, newer, fits)]
}

function forks(read: readonly ReadCheckpoint[]): Finding[] {
  return read.flatMap((one, at) =>
    read
      .slice(at + 1)
      .filter(({ checkpoint: { origin, size, root } }) => {
        const { checkpoint } = one
        const isSame = checkpoint.origin === origin && checkpoint.size === size
        return isSame && !sameHash(checkpoint.root, root)
      })
      .map((other) => consistencyFinding(one, other, false)),
  )
}

function consistencyFinding(one: ReadCheckpoint, other: ReadCheckpoint, fits: boolean): Finding {
  const sizes = [one.checkpoint.size, other.checkpoint.size]
  const detail = `it does not go on from ${basename(one.file)}: not one ledger`
  return {
    file: other.file,
    kind: 'consistency',
    ...{ with: one.file, sizes },
    ...(fits ? {} : { problem: { code: 'root_differs', detail } }),
    text: fits
      ? `verified: the ledger of size ${sizes.join(' grew to size ')} and kept what it had`
      : `NOT VERIFIED: ${detail}`,
  }
}

/** Files of a folder whose name begins with their SHA-256; others are not looked at. */
async function verifyFolder(folder: string): Promise<Finding> {
  const names = (await readdir(folder)).filter((name) => /^[0-9a-f]{64}(\.|$)/.test(name)).sort()
  if (names.length === 0) throw new UsageError(`${folder} has no file that is named by its SHA-256`)
  for (const name of names) {
    const hash = createHash('sha256')
    await pipeline(createReadStream(join(folder, name)), hash)
    if (hash.digest('hex') !== name.slice(0, 64)) {
      const detail = `${name} does not have the SHA-256 of its name`
      const problem = { code: 'bytes_changed', detail }
      return { file: folder, kind: 'files', problem, text: `NOT VERIFIED: ${detail}` }
    }
  }
  const text = `verified: ${names.length} files have the SHA-256 of their names`
  return { file: folder, kind: 'files', ...{ files: names.length }, text }
}
