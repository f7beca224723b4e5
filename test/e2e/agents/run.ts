/**
 * An agent that uses a tool: runs one command as a child process and prints what happened as one line of
 * JSON (see Report). Runs inside the injected pod: `node run.ts JSON`.
 */
import { spawn } from 'node:child_process'
import { get } from 'node:http'

/** What to do. */
export interface Task {
  readonly command: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Standard input of the command. */
  readonly input?: string
  /** A command that would go on for ever is over when its output matches. */
  readonly until?: string
  /** Once its output matches `until`, fetch this before ending it. */
  readonly fetch?: string
  /** Give up after so many milliseconds. */
  readonly limitMs?: number
}

/** What came of it. */
export interface Report {
  /** Of this script, the command's parent. */
  readonly agentPid: number
  /** Of the command itself. */
  readonly pid: number
  /** Exit code; -1 after a signal. */
  readonly code: number
  readonly stdout: string
  readonly stderr: string
  readonly fetched?: string
  readonly timedOut: boolean
}

const DEFAULT_LIMIT_MS = 60_000

function fetchText(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    get(url, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (part: string) => (text += part))
      answer.on('end', () => {
        resolve(text)
      })
    }).on('error', reject)
  })
}

function main(task: Task): void {
  const [program = '', ...args] = task.command
  const child = spawn(program, args, { env: { ...process.env, ...task.env } })
  let stdout = ''
  let stderr = ''
  let fetched: string | undefined
  let timedOut = false
  let ending = false
  const timer = setTimeout(() => {
    timedOut = true
    child.kill('SIGKILL')
  }, task.limitMs ?? DEFAULT_LIMIT_MS)
  const watch = (): void => {
    if (ending || task.until === undefined || !new RegExp(task.until).test(stdout)) return
    ending = true
    const last = task.fetch === undefined ? Promise.resolve(undefined) : fetchText(task.fetch)
    last
      .catch((error: unknown) => `failed: ${String(error)}`)
      .then((text) => {
        fetched = text
        child.kill('SIGTERM')
      })
      .catch(() => undefined)
  }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
    watch()
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  child.stdin.on('error', () => undefined)
  child.stdin.end(task.input ?? '')
  child.on('error', (error) => (stderr += String(error)))
  child.on('close', (code) => {
    clearTimeout(timer)
    const report: Report = {
      agentPid: process.pid,
      pid: child.pid ?? 0,
      code: code ?? -1,
      stdout,
      stderr,
      ...(fetched === undefined ? {} : { fetched }),
      timedOut,
    }
    console.log(JSON.stringify(report))
  })
}

main(JSON.parse(process.argv[2] ?? '{}') as Task)
