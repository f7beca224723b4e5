/** A broker as a process that is killed: nothing of it has a chance to tidy up. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { ROOT } from '../../scripts/image.ts'

/** How long a broker may take to be ready, in milliseconds. */
const READY_LIMIT_MS = 30_000
const SAID_LIMIT = 4000
const READY = '"msg":"listening"'

/** One life of a broker. */
export interface Life {
  /** Settles when it listens: true; or when it ended before: false. Rejects when it does neither. */
  readonly ready: Promise<boolean>
  /** What it said last. */
  readonly said: () => string
  /** Ends it by a signal and waits until it is gone. */
  end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void>
}

/** Starts one. @param cache - folder for compiled code, so that a start costs what it costs an installed broker */
export function startBroker(configFile: string, cache: string): Life {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('NESTGATE_'))
  const child = spawn(process.execPath, [join(ROOT, 'broker', 'main.ts'), '--config', configFile], {
    env: { ...Object.fromEntries(inherited), NODE_COMPILE_CACHE: cache },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const gone = once(child, 'close')
  const hearing = { said: '' }
  const ready = untilReady(child, hearing)
  return {
    ready,
    said: () => hearing.said,
    async end(signal) {
      child.kill(signal)
      await gone
    },
  }
}

function untilReady(child: ChildProcess, hearing: { said: string }): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new Error(`a broker that does not come up: ${hearing.said}`))
    }, READY_LIMIT_MS)
    const settle = (isReady: boolean): void => {
      clearTimeout(timer)
      resolve(isReady)
    }
    const hear = (text: string): void => {
      hearing.said = (hearing.said + text).slice(-SAID_LIMIT)
      if (hearing.said.includes(READY)) settle(true)
    }
    child.stdout?.setEncoding('utf8').on('data', hear)
    child.stderr?.setEncoding('utf8').on('data', hear)
    child.once('error', reject)
    child.once('close', () => {
      settle(false)
    })
  })
}
