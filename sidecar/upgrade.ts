/**
 * Protocol upgrades to the broker: WebSocket by GET and SPDY/3.1 by POST or GET. They do not go through
 * http-proxy-middleware, for the reasons in docs/decisions/0001-upgrades-without-http-proxy-middleware.md. Bytes flow
 * only after the broker's 101; what a client sends before that is kept for it, up to a limit.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { codeOf } from '../shared/errors.ts'
import { isHopByHop } from '../shared/headers.ts'
import { endSocket, responseHead, splice, switchingHead } from '../shared/upgrade.ts'
import type { BrokerConnections } from './broker-connections.ts'
import { isBrokersWord } from './outcome.ts'
import type { Outcome } from './outcome.ts'

/** What a client may send before the broker has switched, in bytes; reading stops there. */
const MAX_EARLY_BYTES = 65_536
/** How much of the broker's own answers is kept, in bytes. */
const MAX_WORD_BYTES = 65_536

/** A client that asked to switch protocols: its socket, watched while it waits. */
export interface UpgradeClient {
  readonly socket: Duplex
  /** Aborted when the client leaves before the broker has switched. */
  readonly left: AbortSignal
  /** Ends the watching; early bytes go back to the front of the socket. */
  release(): void
}

/** What is asked of the broker. */
export interface UpgradeTarget {
  readonly method: string
  readonly target: string
  readonly headers: Record<string, string>
  /** Value of `Upgrade`. */
  readonly protocol: string
}

/** Watches a client's socket from the upgrade on: a client that waits through a hold must be seen leaving. */
export function watchClient(socket: Duplex): UpgradeClient {
  const gone = new AbortController()
  const early: Buffer[] = []
  let size = 0
  const leave = (): void => {
    gone.abort()
  }
  const keep = (chunk: Buffer): void => {
    early.push(chunk)
    size += chunk.length
    if (size > MAX_EARLY_BYTES) socket.pause()
  }
  socket.on('error', leave)
  socket.on('close', leave)
  socket.on('end', leave)
  socket.on('data', keep)
  return {
    socket,
    left: gone.signal,
    release(): void {
      socket.off('data', keep)
      socket.off('end', leave)
      socket.off('close', leave)
      socket.pause()
      if (early.length > 0 && !socket.destroyed) socket.unshift(Buffer.concat(early))
      early.length = 0
    },
  }
}

/**
 * One attempt to switch. Settles when the session is over, when the client has the broker's refusal, when the answer
 * is the broker's own word, or when it failed. Never rejects.
 */
export async function sendUpgrade(
  connections: Pick<BrokerConnections, 'upgrade'>,
  client: UpgradeClient,
  { method, target, headers, protocol }: UpgradeTarget,
): Promise<Outcome> {
  try {
    const answer = await connections.upgrade({
      method,
      path: target,
      headers,
      protocol,
      signal: client.left,
    })
    if (answer.kind === 'answered') {
      const { status, headers: answered, body } = answer
      if (isBrokersWord(status, answered))
        return { kind: 'word', status, headers: answered, body: await readWord(body) }
      await writeAnswer(client.socket, status, answered, body)
      return { kind: 'done' }
    }
    client.release()
    if (client.left.aborted) {
      answer.socket.destroy()
      return { kind: 'left' }
    }
    client.socket.write(switchingHead(answer.headers), 'latin1')
    await splice(client.socket, answer.socket)
    return { kind: 'done' }
  } catch (error) {
    if (client.left.aborted) return { kind: 'left' }
    const code = codeOf(error)
    return { kind: 'failed', sent: code !== 'broker_unreachable', code }
  }
}

/** An ordinary answer on a raw socket, which is closed after it: its end is the end of the body. */
async function writeAnswer(
  socket: Duplex,
  status: number,
  headers: IncomingHttpHeaders,
  body: Readable,
): Promise<void> {
  const kept = Object.entries(headers).filter(([name]) => !isHopByHop(name))
  const head: IncomingHttpHeaders = { ...Object.fromEntries(kept), connection: 'close' }
  socket.write(responseHead(status, 'Answered', head), 'latin1')
  try {
    await pipeline(body, socket)
    endSocket(socket)
  } catch {
    socket.destroy()
  }
}

async function readWord(body: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of body) {
    if (!Buffer.isBuffer(chunk)) continue
    size += chunk.length
    if (size <= MAX_WORD_BYTES) chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}
