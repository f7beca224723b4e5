/** Real programs as clients: what they print, and how to talk to those that stay. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'

/** How a program ended. */
export interface Finished {
  readonly pid: number
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end. */
export function run(
  command: string,
  args: readonly string[],
  options: { env?: Record<string, string>; cwd?: string } = {},
): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
      cwd: options.cwd,
    })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
    child.on('error', reject)
    child.on('close', (code) => {
      resolve({ pid: child.pid ?? 0, code, stdout, stderr })
    })
  })
}

/** A program that reads commands from its standard input, one a line, and answers each with one line. */
export interface Dialog {
  readonly pid: number
  readonly child: ChildProcess
  ask(line: string): Promise<string>
  end(): Promise<void>
}

/** Starts such a program. */
export function dialog(
  command: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Dialog {
  const child = spawn(command, [...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  })
  let text = ''
  const waiting: ((line: string) => void)[] = []
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString()
    for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n')) {
      waiting.shift()?.(text.slice(0, at))
      text = text.slice(at + 1)
    }
  })
  const closed = new Promise<void>((resolve) => {
    child.on('close', () => {
      for (const answer of waiting.splice(0)) answer('')
      resolve()
    })
  })
  return {
    pid: child.pid ?? 0,
    child,
    ask: (line) =>
      new Promise((resolve) => {
        waiting.push(resolve)
        child.stdin.write(`${line}\n`)
      }),
    async end(): Promise<void> {
      child.stdin.end()
      child.kill('SIGKILL')
      await closed
    },
  }
}
