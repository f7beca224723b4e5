/** Child processes of the demo: started with their output prefixed, ended by their own ids. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'

const POLL_MS = 50
/** A child that has not ended this long after SIGTERM is killed, in milliseconds. */
const END_LIMIT_MS = 5_000

/** A running child. */
export interface Child {
  readonly pid: number
  /** Settles with the exit code. */
  readonly ended: Promise<number>
  stop(): Promise<void>
}

/** Starts a script of this project under the Node that runs the demo. @param onLine - gets each line of its output */
export function startScript(
  script: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  onLine: (line: string) => void,
): Child {
  const child = spawn(process.execPath, [script, ...args], {
    env: { ...cleanEnvironment(), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  for (const stream of [child.stdout, child.stderr])
    createInterface({ input: stream }).on('line', onLine)
  return wrap(child)
}

/** The environment without settings of ours that a developer may have in their shell. */
function cleanEnvironment(): Record<string, string | undefined> {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('NESTGATE_')),
  )
}

function wrap(child: ChildProcess): Child {
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code) => {
      resolve(code ?? 1)
    })
  })
  return {
    pid: child.pid ?? 0,
    ended,
    async stop(): Promise<void> {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), END_LIMIT_MS)
      await ended
      clearTimeout(timer)
    },
  }
}

/** A loopback port that was free a moment ago. */
export function freePort(wanted = 0): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(wanted, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => {
        resolve(typeof address === 'object' ? (address?.port ?? 0) : 0)
      })
    })
  })
}

/** Tries until `ready` is true; what it throws counts as not yet. @throws when the time is over */
export async function waitUntil(
  what: string,
  limitMs: number,
  ready: () => Promise<boolean>,
): Promise<void> {
  const deadline = Date.now() + limitMs
  let last: unknown
  while (Date.now() < deadline) {
    try {
      if (await ready()) return
    } catch (error) {
      last = error
    }
    await sleep(POLL_MS)
  }
  throw new Error(`${what} did not come up in ${limitMs / 1000} s`, { cause: last })
}
