/**
 * A gateway with an API server behind it that answers in whatever bytes a test likes: heads and bodies are written to the socket as they
 * are, so that they can lie about length, encoding, type and form.
 */
import { request } from 'node:https'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import type { OutcomeEntry } from '../../broker/ledger/entry.ts'
import { makeCertificates } from './certificates.ts'
import { startGateway } from './running-gateway.ts'
import type { RunningGateway } from './running-gateway.ts'
import { makeSidecarKey, TAG } from './sidecar-keys.ts'
import type { SidecarKey } from './sidecar-keys.ts'
import { startUpstream } from './upstream.ts'
import type { Seen, Upstream } from './upstream.ts'

/** What a client got. */
export interface Reply {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
  readonly trailers: NodeJS.Dict<string>
  readonly body: Buffer
  /** The connection broke before the answer was whole. */
  readonly broken: boolean
}

/** See the head of the file. */
export interface LyingServer {
  readonly gateway: RunningGateway
  readonly upstream: Upstream
  /** Answers all requests with these pieces, one by one. @param end - closes the connection behind them */
  answer(pieces: readonly (Buffer | string)[], end?: boolean): void
  ask(
    method: string,
    path: string,
    headers?: Readonly<Record<string, string>>,
    body?: string | Buffer,
  ): Promise<Reply>
  /** Requests that reached the API server since the last answer was set. */
  readonly seen: readonly Seen[]
  /** The outcome of the request that was asked last. */
  outcome(): Promise<OutcomeEntry>
  close(): Promise<void>
}

const WAIT_MS = 10
const MAX_WAITS = 500

/** Starts both. @param policy - text of a policy file */
export async function startLyingServer(policy: string): Promise<LyingServer> {
  const certificates = makeCertificates({ hosts: ['127.0.0.1'] })
  const upstream = await startUpstream()
  const key: SidecarKey = await makeSidecarKey()
  const token = await upstream.token()
  const gateway = await startGateway({ upstream, certificates, key, token, policy })

  const ask: LyingServer['ask'] = async (method, path, more = {}, body) => {
    const tag = await key.tag(TAG)
    return new Promise((resolve, reject) => {
      const client = request(
        {
          ...{ host: '127.0.0.1', port: gateway.port, ca: certificates.ca, method, agent: false },
          path: `/clusters/test${path}`,
          headers: { authorization: `Bearer ${token}`, 'nestgate-agent': tag, ...more },
        },
        (response) => {
          void collect(response).then(resolve)
        },
      )
      client.on('error', reject)
      client.end(body)
    })
  }

  return {
    ...{ gateway, upstream, ask },
    get seen() {
      return upstream.seen
    },
    answer(pieces, end = false) {
      upstream.seen.length = 0
      upstream.onRequest = ({ socket }) => {
        void (async () => {
          for (const piece of pieces) {
            if (socket.destroyed) return
            if (!socket.write(piece))
              await new Promise((resolve) => socket.once('drain', resolve).once('close', resolve))
          }
          if (end) socket.end()
        })()
      }
    },
    async outcome() {
      for (let waits = 0; waits < MAX_WAITS; waits++) {
        const [outcome] = await gateway.store.events({ kind: 'outcome' }, 1)
        const [intent] = await gateway.store.events({ kind: 'intent' }, 1)
        const found = outcome?.entry as unknown as OutcomeEntry | undefined
        if (found !== undefined && found.requestId === intent?.entry['requestId']) return found
        await sleep(WAIT_MS)
      }
      throw new Error('no outcome')
    },
    async close() {
      await gateway.close()
      await upstream.close()
    },
  }
}

async function collect(response: IncomingMessage): Promise<Reply> {
  const chunks: Buffer[] = []
  await new Promise<void>((resolve) => {
    response.on('data', (chunk: Buffer) => chunks.push(chunk))
    // `complete` says whether it was.
    response.on('error', () => undefined)
    response.on('close', resolve)
  })
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    rawHeaders: response.rawHeaders,
    trailers: response.trailers,
    body: Buffer.concat(chunks),
    broken: !response.complete,
  }
}
