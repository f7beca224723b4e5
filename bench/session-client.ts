/**
 * The client of the sessions benchmark, a process of its own: `node bench/session-client.ts JSON`. Speaks `v4` or `v5.channel.k8s.io` over a bare
 * WebSocket, so that what it measures has no kubectl in it; or types into a program (kubectl) for the protocols that only that speaks. Prints
 * a SessionResult as JSON. Bounded in samples and in sessions.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import WebSocket from 'ws'
import { percentile } from './load.ts'

/** A program that answers each byte with itself, and how it is reached. */
export type Echo =
  | {
      readonly by: 'websocket'
      /** `wss:` or `ws:`, with path and query. */
      readonly url: string
      readonly protocol: string
      /** PEM, for `wss:`. */
      readonly tls?: { readonly ca: string; readonly cert?: string; readonly key?: string }
    }
  | { readonly by: 'program'; readonly command: readonly string[] }

/** What to do. */
export interface SessionPlan {
  readonly echo: Echo
  /** Sessions that are open at once. */
  readonly sessions: number
  /** Keystrokes of each, one after the other, behind `warmup` that do not count. */
  readonly keystrokes: number
  readonly warmup: number
  /** Longest rest before each, in milliseconds; drawn evenly. */
  readonly restMs: number
  /** How long all stay open before the first keystroke, in milliseconds. */
  readonly openMs: number
}

/** What came of it. */
export interface SessionResult {
  readonly keystrokes: number
  readonly failures: number
  readonly firstFailure?: string
  /** Milliseconds from a byte sent to its echo. */
  readonly p50: number
  readonly p99: number
  /** Milliseconds from the first connection to the last session's first echo. */
  readonly openedMs: number
}

const STDIN = 0
const STDOUT = 1
const STATUS = 3
const BYTE = Buffer.from('x')
const ECHO_LIMIT_MS = 30_000

/** An open session. */
interface Typed {
  /** Sends a byte and settles when it is back. */
  key(): Promise<void>
  close(): void
}

function waiting(send: () => void): {
  key: () => Promise<void>
  echoed: () => void
  fail: (why: string) => void
} {
  let pending: { resolve: () => void; reject: (error: Error) => void } | undefined
  let broken: string | undefined
  return {
    key: () =>
      new Promise((resolve, reject) => {
        if (broken !== undefined) {
          reject(new Error(broken))
          return
        }
        const timer = setTimeout(() => {
          reject(new Error('no echo in time'))
        }, ECHO_LIMIT_MS)
        pending = {
          resolve: () => {
            clearTimeout(timer)
            resolve()
          },
          reject: (error) => {
            clearTimeout(timer)
            reject(error)
          },
        }
        send()
      }),
    echoed: () => {
      pending?.resolve()
      pending = undefined
    },
    fail: (why) => {
      broken = why
      pending?.reject(new Error(why))
    },
  }
}

async function overWebSocket({
  url,
  protocol,
  tls,
}: Extract<Echo, { by: 'websocket' }>): Promise<Typed> {
  const socket = new WebSocket(url, [protocol], { perMessageDeflate: false, ...tls })
  const frame = Buffer.concat([Buffer.from([STDIN]), BYTE])
  const typed = waiting(() => {
    socket.send(frame)
  })
  socket.on('message', (data: Buffer) => {
    if (data[0] === STDOUT && data.length > 1) typed.echoed()
    if (data[0] === STATUS && data.length > 1) typed.fail(data.subarray(1).toString())
  })
  socket.on('close', (code) => {
    typed.fail(`closed with ${code}`)
  })
  socket.on('unexpected-response', (_request, answer) => {
    let body = ''
    answer.setEncoding('utf8').on('data', (text: string) => (body += text))
    answer.on('end', () => socket.emit('error', new Error(`${answer.statusCode ?? 0}: ${body}`)))
  })
  await once(socket, 'open')
  return {
    key: typed.key,
    close: () => {
      socket.terminate()
    },
  }
}

function byProgram({ command }: Extract<Echo, { by: 'program' }>): Typed {
  const [program = '', ...args] = command
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] })
  const { stdin, stdout, stderr }: { stdin: Writable; stdout: Readable; stderr: Readable } = child
  const typed = waiting(() => {
    stdin.write(BYTE)
  })
  let said = ''
  stdin.on('error', () => undefined)
  stdout.on('data', typed.echoed)
  stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
  child.on('close', (code) => {
    typed.fail(`ended with ${code ?? 'a signal'}: ${said}`)
  })
  return {
    key: typed.key,
    close: () => {
      stdin.end()
    },
  }
}

async function runPlan(plan: SessionPlan): Promise<SessionResult> {
  const { echo, sessions, keystrokes, warmup, restMs, openMs } = plan
  const latencies: number[] = []
  const failures: string[] = []
  const began = performance.now()
  const open = await Promise.all(
    Array.from({ length: sessions }, async () => {
      const session = echo.by === 'websocket' ? await overWebSocket(echo) : byProgram(echo)
      await session.key()
      return session
    }),
  )
  const openedMs = performance.now() - began
  await sleep(openMs)
  const type = async (session: Typed): Promise<void> => {
    for (let count = -warmup; count < keystrokes; count += 1) {
      if (restMs > 0) await sleep(Math.random() * restMs)
      const sent = performance.now()
      await session.key()
      if (count >= 0) latencies.push(performance.now() - sent)
    }
  }
  await Promise.all(
    open.map((session) =>
      type(session).catch((error: unknown) => {
        failures.push(String(error))
      }),
    ),
  )
  for (const session of open) session.close()
  const sorted = Float64Array.from(latencies).sort()
  return {
    keystrokes: sorted.length,
    failures: failures.length,
    ...(failures[0] === undefined ? {} : { firstFailure: failures[0] }),
    p50: percentile(sorted, 0.5),
    p99: percentile(sorted, 0.99),
    openedMs,
  }
}

console.log(JSON.stringify(await runPlan(JSON.parse(process.argv[2] ?? '{}') as SessionPlan)))
