/**
 * A stand-in for the broker, as sidecars see it: a real HTTPS server that checks registrations and tags the way the
 * broker does, records every request, and answers by the test's own script. It can be stopped and started again on
 * the same port, with or without its memory of keys.
 */
import { createServer } from 'node:https'
import type { Server } from 'node:https'
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { EmbeddedJWK, importJWK, jwtVerify } from 'jose'
import type { CryptoKey } from 'jose'
import {
  BROKER_AUDIENCE,
  PROOF_TYPE,
  TAG_MAX_AGE_S,
  TAG_TYPE,
  agentTagSchema,
} from '../../shared/agent-tag.ts'
import type { AgentTag } from '../../shared/agent-tag.ts'
import {
  AGENT_HEADER,
  CLUSTER_HEADER,
  HELD_HEADER,
  REQUEST_HEADER,
  REFUSED_HEADER,
  REQUEST_ID_HEADER,
  bearerToken,
} from '../../shared/headers.ts'
import { refuse } from '../../shared/reasons.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { statusAnswer } from '../../shared/status.ts'
import type { ApprovalState, NeighbourState } from '../../shared/wire.ts'
import { makeCertificates } from './certificates.ts'

/** The only token it takes. */
export const POD_TOKEN = 'header.projected-token.signature'

/** A request to the cluster, as it arrived. */
export interface BrokerSeen {
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
  readonly body: Buffer
  readonly tag: AgentTag
}

/** A held request. */
export interface FakeHold {
  readonly id: string
  state: ApprovalState
  reason?: string
  reviewer?: string
}

/** See the head of the file. */
export interface FakeBroker {
  readonly url: string
  readonly ca: string
  readonly seen: BrokerSeen[]
  readonly holds: FakeHold[]
  /** What it says of the containers beside the sidecar, and how often it was asked. */
  neighbours: NeighbourState
  neighbourQuestions: number
  registrations: number
  polls: number
  /** Ids that were withdrawn. */
  readonly cancelled: string[]
  /** Ids whose clients were told to come back. */
  readonly parked: string[]
  /** Answers a request that was authenticated; the default echoes it as JSON. */
  onRequest: (seen: BrokerSeen, response: ServerResponse, request: IncomingMessage) => void
  /** Takes an upgrade that was authenticated; the default switches and echoes bytes. */
  onUpgrade: (seen: BrokerSeen, socket: Duplex, head: Buffer) => void
  /** Answers `Nestgate-Held` and remembers the hold. */
  hold(response: ServerResponse, holdSeconds?: number): FakeHold
  decide(hold: FakeHold, state: ApprovalState, reason?: string): void
  forgetKeys(): void
  stop(): Promise<void>
  start(): Promise<void>
}

const certificates = makeCertificates({ hosts: ['127.0.0.1', 'localhost'] })

/** Starts one on a free port. */
export async function startFakeBroker(): Promise<FakeBroker> {
  const broker = new Fake()
  await broker.start()
  return broker
}

class Fake implements FakeBroker {
  readonly ca = certificates.ca
  readonly seen: BrokerSeen[] = []
  readonly holds: FakeHold[] = []
  readonly cancelled: string[] = []
  readonly parked: string[] = []
  neighbours: NeighbourState = 'permanent'
  neighbourQuestions = 0
  registrations = 0
  polls = 0
  #port = 0
  #key: CryptoKey | Uint8Array | undefined
  #server: Server | undefined
  readonly #sockets = new Set<Duplex>()
  #waiting: (() => void)[] = []

  get url(): string {
    return `https://127.0.0.1:${this.#port}`
  }

  onRequest: FakeBroker['onRequest'] = (seen, response) => {
    const { method, url, headers, tag, body } = seen
    response.writeHead(200, {
      'content-type': 'application/json',
      [REQUEST_ID_HEADER]: newRequestId(Date.now()),
    })
    response.end(JSON.stringify({ method, url, headers, tag, body: body.toString('latin1') }))
  }

  onUpgrade: FakeBroker['onUpgrade'] = (seen, socket, head) => {
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${seen.headers.upgrade}\r\n\r\n`,
    )
    if (head.length > 0) socket.write(head)
    socket.pipe(socket)
  }

  hold(response: ServerResponse, holdSeconds?: number): FakeHold {
    const hold: FakeHold = { id: newRequestId(Date.now()), state: 'PENDING' }
    this.holds.push(hold)
    response.writeHead(202, {
      'content-type': 'application/json',
      [HELD_HEADER]: hold.id,
      [REQUEST_ID_HEADER]: hold.id,
    })
    response.end(JSON.stringify({ ...heldBody(hold), holdSeconds }))
    return hold
  }

  decide(hold: FakeHold, state: ApprovalState, reason?: string): void {
    hold.state = state
    if (reason !== undefined) Object.assign(hold, { reason, reviewer: 'bob' })
    for (const wake of this.#waiting.splice(0)) wake()
  }

  forgetKeys(): void {
    this.#key = undefined
  }

  async start(): Promise<void> {
    const server = createServer({ cert: certificates.cert, key: certificates.key })
    server.on('connection', (socket) => {
      this.#sockets.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => this.#sockets.delete(socket))
    })
    server.on('request', (request, response) => {
      this.#serve(request, response).catch(() => response.writeHead(400).end())
    })
    server.on('upgrade', (request, socket, head) => {
      this.#upgrade(request, socket, head).catch(() => socket.destroy())
    })
    this.#server = server
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(this.#port, '127.0.0.1', resolve)
    })
    const address = server.address()
    if (typeof address === 'object' && address !== null) this.#port = address.port
  }

  async stop(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    for (const wake of this.#waiting.splice(0)) wake()
    if (server === undefined) return
    const closed = new Promise((resolve) => server.close(resolve))
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await readAll(request)
    const url = request.url ?? ''
    if (bearerToken(request.headers) !== POD_TOKEN) {
      response.writeHead(401).end()
    } else if (url.startsWith('/v1/')) {
      await this.#api(request, url, body, response)
    } else {
      const seen = await this.#authenticate(request, body)
      if (seen === undefined) {
        const answer = statusAnswer(refuse('sidecar_key_unknown'), newRequestId(Date.now()))
        response.writeHead(answer.status, {
          'content-type': answer.contentType,
          [REQUEST_ID_HEADER]: newRequestId(Date.now()),
          [REFUSED_HEADER]: 'sidecar_key_unknown',
        })
        response.end(answer.body)
      } else {
        this.seen.push(seen)
        this.onRequest(seen, response, request)
      }
    }
  }

  async #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    socket.on('error', () => undefined)
    const seen = await this.#authenticate(request, Buffer.alloc(0))
    if (seen === undefined) {
      const answer = statusAnswer(refuse('sidecar_key_unknown'), newRequestId(Date.now()))
      socket.end(
        `HTTP/1.1 401 Unauthorized\r\n${REQUEST_ID_HEADER}: x\r\n${REFUSED_HEADER}: sidecar_key_unknown\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(answer.body)}\r\n\r\n${answer.body}`,
      )
      return
    }
    this.seen.push(seen)
    this.onUpgrade(seen, socket, head)
  }

  async #authenticate(request: IncomingMessage, body: Buffer): Promise<BrokerSeen | undefined> {
    const key = this.#key
    if (key === undefined) return undefined
    const { payload } = await jwtVerify(String(request.headers[AGENT_HEADER]), key, {
      typ: TAG_TYPE,
      audience: BROKER_AUDIENCE,
      algorithms: ['EdDSA'],
      maxTokenAge: TAG_MAX_AGE_S,
      clockTolerance: 5,
    })
    const tag = agentTagSchema.parse(payload['tag'])
    const { method = '', url = '', headers, rawHeaders } = request
    return { method, url, headers, rawHeaders, body, tag }
  }

  async #api(
    request: IncomingMessage,
    url: string,
    body: Buffer,
    response: ServerResponse,
  ): Promise<void> {
    if (request.headers[CLUSTER_HEADER] !== 'test') {
      response.writeHead(404).end()
      return
    }
    if (url === '/v1/sidecars') {
      const { proof } = JSON.parse(body.toString()) as { proof: string }
      const { protectedHeader } = await jwtVerify(proof, EmbeddedJWK, {
        typ: PROOF_TYPE,
        audience: BROKER_AUDIENCE,
        algorithms: ['EdDSA'],
        maxTokenAge: TAG_MAX_AGE_S,
      })
      this.#key = await importJWK(protectedHeader.jwk!, 'EdDSA')
      this.registrations += 1
      json(response, 201, { podUid: 'uid-1', keyId: 'key-1' })
      return
    }
    if (url === '/v1/sidecar/pod') {
      this.neighbourQuestions += 1
      json(response, 200, { neighbours: this.neighbours })
      return
    }
    const match = /^\/v1\/requests\/([^/?]+)(\/cancel|\/park)?(?:\?wait=(\d+))?$/.exec(url)
    const hold = this.holds.find(({ id }) => id === match?.[1])
    if (hold === undefined) {
      json(response, 404, {})
      return
    }
    if (match?.[2] === '/park') this.parked.push(hold.id)
    else if (match?.[2] !== undefined) {
      this.cancelled.push(hold.id)
      this.decide(hold, 'CANCELLED')
    } else {
      this.polls += 1
      if (hold.state === 'PENDING') await this.#wait(Number(match?.[3] ?? 0))
    }
    json(response, 200, heldBody(hold))
  }

  #wait(seconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, seconds * 1000)
      this.#waiting.push(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }
}

/** Whether a request claims an approval. */
export function claimOf(seen: BrokerSeen): string | undefined {
  const claim = seen.headers[REQUEST_HEADER]
  return typeof claim === 'string' ? claim : undefined
}

function heldBody(hold: FakeHold): object {
  return { ...hold, expiresAt: new Date(Date.now() + 600_000).toISOString() }
}

function json(response: ServerResponse, status: number, value: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
}

async function readAll(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}
