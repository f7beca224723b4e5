/** Runs the programs that scripts are made of: no shell, so an argument is an argument; a failure throws with what was said. */
import { spawn } from 'node:child_process'

/** How much of a failed program's output its error carries, in characters. */
const SAID_LIMIT = 4000

/** How to run a program. */
export interface RunOptions {
  readonly cwd?: string
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>
  /** Written to its standard input. */
  readonly input?: string
  /** Shows its output as it comes; it is collected all the same. */
  readonly show?: boolean
  /** Ends it after so many milliseconds. */
  readonly timeoutMs?: number
}

/** What a program did. */
export interface Ran {
  /** Exit code; -1 when a signal ended it. */
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/**
 * Runs a program to its end, whatever that is.
 *
 * @throws the system's error when it cannot be started
 */
export async function attempt(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Ran> {
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: options.timeoutMs,
    killSignal: 'SIGKILL',
  })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
    if (options.show === true) process.stdout.write(text)
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
    if (options.show === true) process.stderr.write(text)
  })
  child.stdin.on('error', () => undefined) // it may end without reading what it is given
  child.stdin.end(options.input ?? '')
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => {
      resolve({ code: code ?? -1, stdout, stderr })
    })
  })
}

/**
 * Runs a program that must succeed.
 *
 * @returns its standard output
 * @throws an error with the end of what it said, when it fails
 */
export async function run(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const { code, stdout, stderr } = await attempt(program, args, options)
  if (code === 0) return stdout
  const said = `${stdout}\n${stderr}`.trim().slice(-SAID_LIMIT)
  throw new Error(`${program} ${args.join(' ')} failed with code ${code}:\n${said}`)
}

/** Whether a program of this name is on the PATH. */
export async function onPath(program: string): Promise<boolean> {
  return (await attempt('sh', ['-c', 'command -v "$1"', 'sh', program])).code === 0
}

/** Waits. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

/**
 * Tries until `probe` gives something, or throws with the last error's message after `limitMs`.
 *
 * @param what - named in the error
 */
export async function eventually<T>(
  what: string,
  limitMs: number,
  probe: () => Promise<T | undefined> | T | undefined,
  pauseMs = 300,
): Promise<T> {
  const end = Date.now() + limitMs
  let last = 'nothing'
  while (Date.now() < end) {
    try {
      const value = await probe()
      if (value !== undefined) return value
    } catch (error) {
      last = error instanceof Error ? error.message : String(error)
    }
    await sleep(pauseMs)
  }
  throw new Error(`${what}: not within ${limitMs / 1000} s; last: ${last}`)
}
