/**
 * Sends one ordinary request to the broker and streams the answer back, through http-proxy-middleware. Everything is
 * settled before it is called: path, headers and body are final, and the library decides nothing. Each attempt gets a
 * request object of its own, so that a repeat sees nothing of the attempt before, late errors included. Redirects are
 * not followed, the path goes out byte for byte, and the broker's certificate must be signed by the pinned authority.
 */
import { IncomingMessage } from 'node:http'
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type { Agent } from 'node:https'
import { Readable } from 'node:stream'
import { createProxyMiddleware } from 'http-proxy-middleware'
import type { Plugin, RequestHandler } from 'http-proxy-middleware'
import { codeOf } from '../shared/errors.ts'
import { superviseConnection } from './broker-connections.ts'
import { answerHeaders } from './headers.ts'
import { isBrokersWord } from './outcome.ts'
import type { Outcome } from './outcome.ts'

/** How much of the broker's own answers (held, refused) is kept, in bytes. */
const MAX_WORD_BYTES = 65_536

/** What is sent. */
export interface ForwardRequest {
  readonly method: string
  /** Target as it goes out. */
  readonly target: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
}

/** Forwards ordinary requests. */
export interface Forwarder {
  /**
   * Sends one attempt. Settles when the client has the whole answer, when the answer is the broker's own word, which
   * is handed back instead, or when it failed. Never rejects.
   */
  send(client: IncomingMessage, response: ServerResponse, request: ForwardRequest): Promise<Outcome>
}

interface Attempt {
  readonly body: Buffer
  /** Whether bytes of the request may have reached the broker. */
  sent: boolean
  /** Whether an answer has come; what breaks after that ends the client's connection, and with it the attempt. */
  answered: boolean
  readonly settle: (outcome: Outcome) => void
}

/** A forwarder to the broker at `origin`. */
export function createForwarder(options: {
  readonly origin: string
  /** Connections to it, kept alive. */
  readonly agent: Agent
}): Forwarder {
  const attempts = new WeakMap<IncomingMessage, Attempt>()
  const proxy = createProxy(options.origin, options.agent, attempts)
  return {
    send(client, response, request): Promise<Outcome> {
      if (response.destroyed) return Promise.resolve({ kind: 'left' })
      // Each attempt of a long hold leaves its listeners on the one response.
      response.setMaxListeners(0)
      return new Promise((resolve) => {
        const outgoing = outgoingMessage(client, request)
        const left = (): void => {
          settle(response.writableFinished ? { kind: 'done' } : { kind: 'left' })
        }
        const settle = (outcome: Outcome): void => {
          response.off('close', left)
          resolve(outcome)
        }
        response.once('close', left)
        const attempt = { body: request.body, sent: false, answered: false, settle }
        attempts.set(outgoing, attempt)
        void proxy(outgoing, response, (error) => {
          fail(attempt, error)
        })
      })
    },
  }
}

/** The library's default plugins are left out: they log every request and answer errors in their own words. */
function createProxy(
  target: string,
  agent: Agent,
  attempts: WeakMap<IncomingMessage, Attempt>,
): RequestHandler {
  const plugin: Plugin = (proxy) => {
    proxy.on('proxyReq', (proxied, outgoing) => {
      const attempt = attempts.get(outgoing)
      if (attempt !== undefined) superviseConnection(proxied, () => (attempt.sent = true))
    })
    proxy.on('proxyRes', (answer, outgoing, response) => {
      const attempt = attempts.get(outgoing)
      if (attempt !== undefined) takeAnswer(answer, response, attempt)
    })
    // The client left; the close of its response settles the attempt.
    proxy.on('econnreset', () => undefined)
    proxy.on('error', (error, outgoing) => {
      const attempt = outgoing === undefined ? undefined : attempts.get(outgoing)
      if (attempt !== undefined) fail(attempt, error)
    })
  }
  return createProxyMiddleware({
    target,
    agent,
    selfHandleResponse: true,
    followRedirects: false,
    ejectPlugins: true,
    plugins: [plugin],
    router(outgoing, _response, perRequest) {
      perRequest.buffer = Readable.from(bodyChunks(attempts.get(outgoing)?.body))
      return target
    },
  })
}

function fail(attempt: Attempt, error: unknown): void {
  if (!attempt.answered) attempt.settle({ kind: 'failed', sent: attempt.sent, code: codeOf(error) })
}

function bodyChunks(body: Buffer | undefined): readonly Buffer[] {
  return body === undefined || body.length === 0 ? [] : [body]
}

/** A request that has nothing of the client's but the socket, which the library looks at for the server's end. */
function outgoingMessage(client: IncomingMessage, request: ForwardRequest): IncomingMessage {
  const outgoing = new IncomingMessage(client.socket)
  const { method, target, headers, body } = request
  outgoing.method = method
  outgoing.url = target
  outgoing.httpVersion = '1.1'
  outgoing.httpVersionMajor = 1
  outgoing.httpVersionMinor = 1
  const length = body.length > 0 ? { 'content-length': String(body.length) } : {}
  outgoing.headers = { ...headers, ...length }
  return outgoing
}

/** Nothing in here may throw: it runs in an event of the library. */
function takeAnswer(answer: IncomingMessage, response: ServerResponse, attempt: Attempt): void {
  const status = answer.statusCode ?? 0
  if (isBrokersWord(status, answer.headers)) {
    collectWord(status, answer.headers, answer, attempt)
    return
  }
  attempt.answered = true
  try {
    response.writeHead(status, answerHeaders(answer.headers))
    response.flushHeaders()
    answer.pipe(response)
  } catch {
    answer.destroy()
    response.destroy()
  }
}

function collectWord(
  status: number,
  headers: IncomingHttpHeaders,
  answer: IncomingMessage,
  attempt: Attempt,
): void {
  const chunks: Buffer[] = []
  let size = 0
  answer.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size <= MAX_WORD_BYTES) chunks.push(chunk)
  })
  answer.once('end', () => {
    attempt.settle({ kind: 'word', status, headers, body: Buffer.concat(chunks) })
  })
}
