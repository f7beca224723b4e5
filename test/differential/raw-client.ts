/**
 * Requests as raw bytes on a TLS connection that is kept alive: nothing between the test and the API server tidies them up.
 */
import { readFileSync } from 'node:fs'
import { connect } from 'node:tls'
import type { TLSSocket } from 'node:tls'
import { parse } from 'yaml'

/** Where requests go, and as whom. */
export interface Server {
  readonly host: string
  readonly port: number
  readonly ca: Buffer
  readonly cert: Buffer
  readonly key: Buffer
}

/** What came back; `cut` where the answer had no end, or none in time, and the connection was closed instead. */
export interface Answer {
  readonly status: number
  readonly body: string
  readonly cut: boolean
}

/** Longest wait for an answer, in milliseconds. */
const ANSWER_LIMIT_MS = 5000

interface Kubeconfig {
  readonly clusters: readonly [
    {
      readonly cluster: { readonly server: string; readonly 'certificate-authority-data': string }
    },
  ]
  readonly users: readonly [
    {
      readonly user: {
        readonly 'client-certificate-data': string
        readonly 'client-key-data': string
      }
    },
  ]
}

/** Reads the only cluster and user of a kubeconfig. */
export function serverOf(kubeconfig: string): Server {
  const { clusters, users } = parse(readFileSync(kubeconfig, 'utf8')) as Kubeconfig
  const { cluster } = clusters[0]
  const { user } = users[0]
  const url = new URL(cluster.server)
  const bytes = (text: string): Buffer => Buffer.from(text, 'base64')
  return {
    host: url.hostname,
    port: Number(url.port),
    ca: bytes(cluster['certificate-authority-data']),
    cert: bytes(user['client-certificate-data']),
    key: bytes(user['client-key-data']),
  }
}

/** One connection at a time, opened anew where the last one ended. */
export class RawClient {
  readonly #server: Server
  #socket: TLSSocket | undefined

  constructor(server: Server) {
    this.#server = server
  }

  /** Sends a whole request and reads its answer. @param request - head and body, as they are to stand on the wire */
  async send(request: Buffer, method: string): Promise<Answer> {
    const socket = await this.#open()
    return new Promise((resolve) => {
      let received = Buffer.alloc(0)
      const end = (answer: Answer, keep: boolean): void => {
        clearTimeout(timer)
        socket.off('data', onData).off('close', onClose)
        if (!keep) this.close()
        resolve(answer)
      }
      const onData = (chunk: Buffer): void => {
        received = Buffer.concat([received, chunk])
        const read = readAnswer(received, method)
        if (read !== undefined) end(read.answer, read.keep)
      }
      const onClose = (): void => {
        const read = readAnswer(received, method)
        end(read?.answer ?? { status: 0, body: '', cut: true }, false)
      }
      const timer = setTimeout(onClose, ANSWER_LIMIT_MS)
      socket.on('data', onData).on('close', onClose)
      socket.write(request)
    })
  }

  close(): void {
    this.#socket?.destroy()
    this.#socket = undefined
  }

  async #open(): Promise<TLSSocket> {
    if (this.#socket !== undefined && !this.#socket.destroyed) return this.#socket
    const { host, ...rest } = this.#server
    return new Promise((resolve, reject) => {
      const socket = connect({ host, ...rest }, () => {
        socket.off('error', reject)
        // whoever sends sees the close that follows
        socket.on('error', () => undefined)
        this.#socket = socket
        resolve(socket)
      })
      socket.once('error', reject)
    })
  }
}

/** The answer in what was received so far; undefined while it is not all there. */
function readAnswer(
  received: Buffer,
  method: string,
): { readonly answer: Answer; readonly keep: boolean } | undefined {
  const text = received.toString('latin1')
  const headEnd = text.indexOf('\r\n\r\n')
  if (headEnd === -1) return undefined
  const head = text.slice(0, headEnd).toLowerCase()
  const rest = text.slice(headEnd + 4)
  const status = Number(head.split(' ')[1])
  const keep = !head.includes('\r\nconnection: close')
  if (method === 'HEAD' || status === 204 || status === 304)
    return { answer: { status, body: '', cut: false }, keep }
  const length = /\r\ncontent-length: *(\d+)/.exec(head)?.[1]
  if (length !== undefined) {
    if (rest.length < Number(length)) return undefined
    return { answer: { status, body: utf8(rest.slice(0, Number(length))), cut: false }, keep }
  }
  if (!head.includes('\r\ntransfer-encoding: chunked'))
    return { answer: { status, body: utf8(rest), cut: true }, keep: false }
  const body = unchunk(rest)
  return body === undefined ? undefined : { answer: { status, body: utf8(body), cut: false }, keep }
}

/** The content of a chunked body; undefined while its end is not there. */
function unchunk(text: string): string | undefined {
  let content = ''
  let at = 0
  for (;;) {
    const lineEnd = text.indexOf('\r\n', at)
    if (lineEnd === -1) return undefined
    const size = Number.parseInt(text.slice(at, lineEnd), 16)
    if (size === 0) return text.startsWith('\r\n', lineEnd + 2) ? content : undefined
    const end = lineEnd + 2 + size
    if (text.length < end + 2) return undefined
    content += text.slice(lineEnd + 2, end)
    at = end + 2
  }
}

function utf8(latin1: string): string {
  return Buffer.from(latin1, 'latin1').toString('utf8')
}
