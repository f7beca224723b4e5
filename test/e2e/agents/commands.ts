/**
 * An agent that runs commands, a few at a time, in a folder of its own: `node commands.ts JSON` (see Batch), inside a pod or on a machine.
 * Prints `{NAME: Came}` as one line of JSON.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** One command. */
export interface Command {
  readonly name: string
  readonly command: readonly string[]
  readonly input?: string
  readonly env?: Readonly<Record<string, string>>
  /** A command that would go on for ever is over when its output matches. */
  readonly until?: string
}

/** What to do. */
export interface Batch {
  /** Files to work on, by name. */
  readonly files?: Readonly<Record<string, string>>
  readonly commands: readonly Command[]
  /** One after the other, and not some at once. */
  readonly inOrder?: boolean
}

/** What came of a command. */
export interface Came {
  /** Exit code; -1 after a signal. */
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

const LIMIT_MS = 60_000
const AT_ONCE = 3

function run({ command, input, env, until }: Command, cwd: string): Promise<Came> {
  const [program = '', ...args] = command
  const child = spawn(program, args, { cwd, env: { ...process.env, ...env } })
  const timer = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS)
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
    if (until !== undefined && new RegExp(until).test(stdout)) child.kill('SIGTERM')
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  child.stdin.on('error', () => undefined)
  child.stdin.end(input ?? '')
  return new Promise((resolve) => {
    child.on('error', (error) => (stderr += String(error)))
    child.on('close', (code) => {
      clearTimeout(timer)
      resolve({ code: code ?? -1, stdout, stderr })
    })
  })
}

async function main({ files = {}, commands, inOrder = false }: Batch): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'commands-'))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  const results = new Map<string, Came>()
  const queue = [...commands]
  const worker = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift())
      results.set(next.name, await run(next, folder))
  }
  await Promise.all(Array.from({ length: inOrder ? 1 : AT_ONCE }, worker))
  rmSync(folder, { recursive: true })
  console.log(JSON.stringify(Object.fromEntries(results)))
}

await main(JSON.parse(process.argv[2] ?? '{}') as Batch)
