/**
 * A kubelet behind the stand-in for an API server (upstream.ts): sessions over SPDY/3.1 as kubelets have them, with programs that a test
 * scripts. It shares no code with the broker (remote-spdy.ts), and keeps what it was asked, what came, and what it sent.
 */
import { createHash } from 'node:crypto'
import type { Hash } from 'node:crypto'
import { connect } from 'node:net'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { SpdyPeer, words } from './remote-spdy.ts'
import type { SpdyStream } from './remote-spdy.ts'
import { sendJson } from './kubectl.ts'
import type { Upstream } from './upstream.ts'

/** What went one way. */
export class Tally {
  bytes = 0
  /** All of it, unless it is too much to keep. */
  readonly parts: Buffer[] = []
  readonly #hash: Hash = createHash('sha256')
  readonly #keep: boolean

  constructor(keep = true) {
    this.#keep = keep
  }

  add(bytes: Uint8Array): void {
    this.bytes += bytes.length
    this.#hash.update(bytes)
    if (this.#keep) this.parts.push(Buffer.from(bytes))
  }

  get all(): Buffer {
    return Buffer.concat(this.parts)
  }

  get sha256(): string {
    return this.#hash.copy().digest('hex')
  }
}

/** How a session's streams are ended after its program: `kubelet` resets them and says GOAWAY, as kubelets do. */
export type Closing = 'kubelet' | 'fin' | 'goaway' | 'close' | 'cut'

/** A session as the kubelet saw it. */
export interface RemoteSession {
  readonly kind: 'exec' | 'attach' | 'portforward' | 'proxy'
  readonly method: string
  readonly url: string
  readonly query: URLSearchParams
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
  readonly socket: Duplex
  /** Absent for `proxy`. */
  readonly peer: SpdyPeer | undefined
  /** What of each stream came (`stdin`, `resize`) and was sent (`stdout`, `stderr`, `error`). */
  readonly sent: Readonly<Record<'stdout' | 'stderr' | 'error', Tally>>
  readonly stdin: Tally
  stdinEnded: boolean
  /** As they came, one JSON document each. */
  readonly resizes: { readonly Width: number; readonly Height: number }[]
  /** Set when the connection to the kubelet is over. */
  readonly over: Promise<void>
}

/** What a program has to do with. */
export interface ProgramIo {
  readonly session: RemoteSession
  readonly argv: readonly string[]
  stdout(bytes: Uint8Array | string, pieceBytes?: number): Promise<void>
  stderr(bytes: Uint8Array | string, pieceBytes?: number): Promise<void>
  /** Settles when stdin has ended. */
  readonly stdinEnd: Promise<void>
  /** Bytes of stdin as they come; what came before is given at once. */
  onStdin(take: (bytes: Buffer) => void): void
  stream(name: string): SpdyStream | undefined
}

/** How a program ended: its exit code; a whole Status; or nothing at all. */
export type ProgramEnd = number | object | undefined
export type Program = (io: ProgramIo) => Promise<ProgramEnd> | ProgramEnd

/** See the head of the file. Everything may be changed before it is asked. */
export interface FakeKubelet {
  /** All connections that were to be switched. */
  readonly sockets: Set<Duplex>
  readonly sessions: RemoteSession[]
  /** By the first word of their command. */
  readonly programs: Map<string, Program>
  /** What runs in the container that is attached to. */
  attached: Program
  closing: Closing
  /** Where ports of the pod lead to; others refuse. */
  readonly ports: Map<number, number>
  /** Answers an upgrade in another way. @returns true where it did */
  answer: ((request: IncomingMessage, socket: Duplex) => boolean) | undefined
  /** Whether bytes that are sent are kept: not for floods. */
  keep: boolean
  /** Upgrades that are not sessions of a kubelet: `proxy` subresources. */
  onProxy: (session: RemoteSession) => void
  last(): RemoteSession
}

const SUCCESS = { metadata: {}, status: 'Success' }

/** The Status that a kubelet sends for an exit code. */
export function exitStatus(code: number): object {
  if (code === 0) return SUCCESS
  return {
    metadata: {},
    status: 'Failure',
    message: `command terminated with non-zero exit code: exit status ${code}`,
    reason: 'NonZeroExitCode',
    details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
  }
}

/** Bytes that look like nothing, the same ones each time. */
export function noise(length: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  let state = seed >>> 0 || 1
  for (let at = 0; at < length; at += 1) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[at] = state & 0xff
  }
  return bytes
}

/** How long a program that tears its connection waits for what it wrote to leave, in milliseconds. */
const TORN_AFTER_MS = 50

const PROGRAMS: Readonly<Record<string, Program>> = {
  true: () => 0,
  exit: ({ argv }) => Number(argv[1]),
  echo: async (io) => {
    await io.stdout(`${io.argv.slice(1).join(' ')}\n`)
    return 0
  },
  warn: async (io) => {
    await io.stderr(`${io.argv.slice(1).join(' ')}\n`)
    return 1
  },
  cat: async (io) => {
    let tail = Promise.resolve()
    io.onStdin((bytes) => {
      const copy = Buffer.from(bytes)
      tail = tail.then(() => io.stdout(copy))
    })
    await io.stdinEnd
    await tail
    return 0
  },
  /** `bytes COUNT [PIECE] [SEED]` */
  bytes: async (io) => {
    const [, count, piece = '32768', seed = '1'] = io.argv
    await io.stdout(noise(Number(count), Number(seed)), Number(piece))
    return 0
  },
  sleep: () => new Promise<undefined>(() => undefined),
  /** Says something, and ends in the middle of its next frame. */
  torn: async (io) => {
    await io.stdout('before the end')
    const stream = io.stream('stdout')
    const head = Buffer.alloc(8)
    head.writeUInt32BE(stream?.id ?? 1, 0)
    head.writeUIntBE(1000, 5, 3)
    await io.session.peer?.send(Buffer.concat([head, Buffer.from('half a frame')]))
    // what was written would go with it, were it destroyed at once
    await sleep(TORN_AFTER_MS)
    io.session.socket.destroy()
    return undefined
  },
  garbage: async (io) => {
    await io.stdout('before the garbage')
    await io.session.peer?.send(Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc'))
    return undefined
  },
  goaway: async (io) => {
    await io.stdout('before going')
    await io.session.peer?.goAway()
    return undefined
  },
}

/** Puts a kubelet behind an upstream, and pods that are there for whoever asks. */
export function startKubelet(upstream: Upstream): FakeKubelet {
  const kubelet: FakeKubelet = {
    sockets: new Set(),
    sessions: [],
    programs: new Map(Object.entries(PROGRAMS)),
    attached: PROGRAMS['cat']!,
    closing: 'kubelet',
    ports: new Map(),
    answer: undefined,
    keep: true,
    onProxy: ({ socket }) => socket.pipe(socket),
    last() {
      const session = kubelet.sessions.at(-1)
      if (session === undefined) throw new Error('nothing was dialled')
      return session
    },
  }
  upstream.onUpgrade = (request, socket) => {
    socket.on('error', () => undefined)
    kubelet.sockets.add(socket)
    socket.once('close', () => kubelet.sockets.delete(socket))
    if (kubelet.answer?.(request, socket) === true) return
    upgrade(kubelet, request, socket)
  }
  upstream.onRequest = (request, response) => {
    const [path = ''] = (request.url ?? '').split('?')
    const found = DOCUMENTS[path] ?? podOf(path)
    if (found !== undefined) {
      sendJson(response, found)
      return
    }
    response.writeHead(404, { 'content-type': 'application/json' })
    response.end(JSON.stringify({ kind: 'Status', apiVersion: 'v1', status: 'Failure', code: 404 }))
  }
  return kubelet
}

const resource = (name: string, kind: string, verbs: readonly string[]): object => ({
  ...{ name, singularName: name.split('/')[0]?.replace(/s$/, '') ?? name, namespaced: true },
  ...{ kind, verbs },
})

/** As much of a cluster as kubectl asks for before exec, attach and port-forward. */
const DOCUMENTS: Readonly<Record<string, object>> = {
  '/version': { major: '1', minor: '34', gitVersion: 'v1.34.1' },
  '/api': { kind: 'APIVersions', versions: ['v1'] },
  '/apis': { kind: 'APIGroupList', apiVersion: 'v1', groups: [] },
  '/api/v1': {
    ...{ kind: 'APIResourceList', groupVersion: 'v1' },
    resources: [
      resource('pods', 'Pod', ['get', 'list', 'watch', 'patch']),
      resource('pods/exec', 'PodExecOptions', ['create', 'get']),
      resource('pods/attach', 'PodAttachOptions', ['create', 'get']),
      resource('pods/portforward', 'PodPortForwardOptions', ['create', 'get']),
    ],
  },
}

/** A running pod by any name, with a container `main` that has a terminal and stdin. */
function podOf(path: string): object | undefined {
  const match = /^\/api\/v1\/namespaces\/([^/]+)\/pods\/([^/]+)$/.exec(path)
  if (match === null) return undefined
  const [, namespace, name] = match
  const image = 'registry.example/app:1'
  return {
    ...{ kind: 'Pod', apiVersion: 'v1' },
    metadata: { name, namespace, uid: `uid-${name}`, creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: { nodeName: 'n', containers: [{ name: 'main', image, stdin: true, tty: true }] },
    status: {
      phase: 'Running',
      conditions: [{ type: 'Ready', status: 'True' }],
      containerStatuses: [
        { name: 'main', image, ready: true, containerID: `containerd://${'d'.repeat(64)}` },
      ],
    },
  }
}

const SESSION_PATH = /\/pods\/[^/]+\/(exec|attach|portforward)$/

function upgrade(kubelet: FakeKubelet, request: IncomingMessage, socket: Duplex): void {
  const { method = '', url = '', headers, rawHeaders } = request
  const [path = '', search = ''] = url.split('?')
  const kind = (SESSION_PATH.exec(path)?.[1] ?? 'proxy') as RemoteSession['kind']
  const query = new URLSearchParams(search)
  const wanted = String(headers['x-stream-protocol-version'] ?? '')
    .split(',')
    .map((one) => one.trim())
  const protocol = kind === 'portforward' ? 'portforward.k8s.io' : 'v4.channel.k8s.io'
  const isSpdy = headers.upgrade?.toLowerCase() === 'spdy/3.1'
  if (kind !== 'proxy' && (!isSpdy || !wanted.includes(protocol))) {
    socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
    return
  }
  const lines = ['HTTP/1.1 101 Switching Protocols', 'Connection: Upgrade']
  lines.push(`Upgrade: ${kind === 'proxy' ? (headers.upgrade ?? '') : 'SPDY/3.1'}`)
  if (kind !== 'proxy') lines.push(`X-Stream-Protocol-Version: ${protocol}`)
  socket.write(`${lines.join('\r\n')}\r\n\r\n`)
  const peer = kind === 'proxy' ? undefined : new SpdyPeer(socket, 'server')
  const keep = kubelet.keep
  const session: RemoteSession = {
    ...{ kind, method, url, query, headers, rawHeaders, socket, peer },
    sent: { stdout: new Tally(keep), stderr: new Tally(keep), error: new Tally() },
    ...{ stdin: new Tally(keep), stdinEnded: false, resizes: [] },
    over: peer?.over ?? new Promise((resolve) => socket.once('close', resolve)),
  }
  kubelet.sessions.push(session)
  if (peer === undefined) kubelet.onProxy(session)
  else if (kind === 'portforward') forward(kubelet, peer)
  else runProgram(kubelet, session, peer)
}

/** Which streams a kubelet waits for before it runs anything. */
function expectedStreams(query: URLSearchParams): number {
  // apimachinery, Convert_Slice_string_To_bool: the first value counts, and only these two are false
  const has = (name: string): boolean =>
    !['0', 'false'].includes((query.get(name) ?? '0').toLowerCase())
  const tty = has('tty')
  const both = has('stderr') && !tty
  return [true, has('stdin'), has('stdout'), both, tty].filter(Boolean).length
}

function runProgram(kubelet: FakeKubelet, session: RemoteSession, peer: SpdyPeer): void {
  const streams = new Map<string, SpdyStream>()
  let started = false
  peer.onStream = (stream) => {
    const name = stream.headers['streamtype'] ?? ''
    streams.set(name, stream)
    if (name === 'stdin') takeStdin(session, stream)
    if (name === 'resize') takeResizes(session, stream)
    void peer.sendHeaders(2, 0, words(stream.id), Buffer.alloc(4))
    if (started || streams.size < expectedStreams(session.query)) return
    started = true
    void run(kubelet, session, streams)
  }
}

function takeStdin(session: RemoteSession, stream: SpdyStream): void {
  stream.onData = (bytes) => {
    session.stdin.add(bytes)
  }
  void stream.ended.then(() => {
    session.stdinEnded = stream.remoteEnded
  })
}

function takeResizes(session: RemoteSession, stream: SpdyStream): void {
  let text = ''
  stream.onData = (bytes) => {
    text += bytes.toString()
    // a decoder of JSON takes documents that follow each other without anything between
    for (let end = text.indexOf('}'); end !== -1; end = text.indexOf('}')) {
      session.resizes.push(JSON.parse(text.slice(0, end + 1)) as { Width: number; Height: number })
      text = text.slice(end + 1).trimStart()
    }
  }
}

async function run(
  kubelet: FakeKubelet,
  session: RemoteSession,
  streams: ReadonlyMap<string, SpdyStream>,
): Promise<void> {
  const argv = session.query.getAll('command')
  const program = session.kind === 'attach' ? kubelet.attached : kubelet.programs.get(argv[0] ?? '')
  const end = await (program ?? notFound)(ioOf(session, argv, streams))
  if (end === undefined) return
  const status = Buffer.from(JSON.stringify(typeof end === 'number' ? exitStatus(end) : end))
  session.sent.error.add(status)
  await streams.get('error')?.write(status)
  await close(kubelet.closing, session, streams)
}

const notFound: Program = ({ argv }) => ({
  ...{ metadata: {}, status: 'Failure', reason: 'InternalError', code: 500 },
  message: `exec: "${argv[0] ?? ''}": executable file not found in $PATH: unknown`,
})

function ioOf(
  session: RemoteSession,
  argv: readonly string[],
  streams: ReadonlyMap<string, SpdyStream>,
): ProgramIo {
  const put =
    (name: 'stdout' | 'stderr') =>
    async (given: Uint8Array | string, pieceBytes?: number): Promise<void> => {
      const bytes = Buffer.from(given)
      session.sent[name].add(bytes)
      await streams.get(name)?.write(bytes, pieceBytes)
    }
  const stdin = streams.get('stdin')
  return {
    ...{ session, argv, stdout: put('stdout'), stderr: put('stderr') },
    stdinEnd: stdin?.ended ?? Promise.resolve(),
    onStdin(take) {
      if (stdin === undefined) return
      if (session.stdin.bytes > 0) take(session.stdin.all)
      stdin.onData = (bytes) => {
        session.stdin.add(bytes)
        take(bytes)
      }
    },
    stream: (name) => streams.get(name),
  }
}

async function close(
  closing: Closing,
  { peer, socket }: RemoteSession,
  streams: ReadonlyMap<string, SpdyStream>,
): Promise<void> {
  const each = [...streams.values()]
  if (closing === 'fin') for (const stream of each) await stream.end()
  if (closing === 'kubelet') for (const stream of each) await stream.rst()
  if (closing === 'cut') {
    await peer?.send(Buffer.alloc(0))
    socket.destroy()
    return
  }
  if (closing !== 'close') await peer?.goAway()
  await peer?.end()
}

/** Pairs of streams by their `requestid`, in any order, each joined to a local server, as `portforward.go` of kubelets does. */
function forward(kubelet: FakeKubelet, peer: SpdyPeer): void {
  const waiting = new Map<string, SpdyStream>()
  peer.onStream = (stream) => {
    void peer.sendHeaders(2, 0, words(stream.id), Buffer.alloc(4))
    const { requestid = '', port } = stream.headers
    const other = waiting.get(requestid)
    if (other === undefined || other.headers['streamtype'] === stream.headers['streamtype']) {
      waiting.set(requestid, stream)
      return
    }
    waiting.delete(requestid)
    const isData = stream.headers['streamtype'] === 'data'
    const [data, error] = isData ? [stream, other] : [other, stream]
    join(kubelet.ports.get(Number(port)), Number(port), data, error)
  }
}

function join(target: number | undefined, port: number, data: SpdyStream, error: SpdyStream): void {
  const finish = async (problem?: string): Promise<void> => {
    if (problem !== undefined) await error.write(Buffer.from(problem))
    await data.end()
    await error.end()
  }
  const refused = `error forwarding port ${port} to pod fake, uid : failed to connect to localhost:${port} inside namespace "fake": connection refused`
  if (target === undefined) {
    void finish(refused)
    return
  }
  const socket = connect({ host: '127.0.0.1', port: target, allowHalfOpen: true })
  const waiting = data.received.splice(0)
  for (const bytes of waiting) socket.write(bytes)
  data.onData = (bytes) => {
    if (!socket.destroyed) socket.write(Buffer.from(bytes))
  }
  void data.ended.then(() => socket.end())
  void (async (): Promise<void> => {
    try {
      for await (const bytes of socket) await data.write(bytes as Buffer)
      await finish()
    } catch {
      await finish(refused)
    }
  })()
}
