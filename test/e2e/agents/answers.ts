/**
 * An agent that speaks HTTP by hand, one request after the other: `node answers.ts JSON` (see Asking), inside a pod or on a machine. Prints
 * `{NAME: Answer}` as one line of JSON.
 */
import { readFileSync } from 'node:fs'
import { request as plainRequest } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { request as tlsRequest } from 'node:https'

/** One request. */
export interface Ask {
  readonly name: string
  readonly method?: string
  /** With query. */
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
}

/** What to ask, and where. */
export interface Asking {
  /** With the path that comes before those of the requests, if any. */
  readonly origin: string
  /** File of the authority. */
  readonly caFile?: string
  readonly token?: string
  readonly asks: readonly Ask[]
}

/** What came back. */
export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>
  /** Base64. */
  readonly body: string
}

const { origin, caFile, token, asks } = JSON.parse(process.argv[2] ?? '{}') as Asking
const LIMIT_MS = 60_000
/** How long an upgraded connection is listened to. */
const UPGRADED_MS = 2000

function ask({ method = 'GET', path, headers = {}, body }: Ask): Promise<Answer> {
  const send = origin.startsWith('https:') ? tlsRequest : plainRequest
  const own = token === undefined ? {} : { authorization: `Bearer ${token}` }
  const trust = caFile === undefined ? {} : { ca: readFileSync(caFile) }
  const options = { method, headers: { ...own, ...headers }, timeout: LIMIT_MS, ...trust }
  return new Promise((resolve, reject) => {
    const outgoing = send(`${origin}${path}`, options, (response: IncomingMessage) => {
      const pieces: Buffer[] = []
      response.on('data', (piece: Buffer) => pieces.push(piece))
      response.on('error', reject)
      response.on('close', () => {
        const { statusCode: status = 0, headers: came } = response
        resolve({ status, headers: came, body: Buffer.concat(pieces).toString('base64') })
      })
    })
    outgoing.on('upgrade', ({ statusCode: status = 0, headers: came }, socket, first) => {
      const pieces: Buffer[] = [first]
      socket.on('data', (piece: Buffer) => pieces.push(piece))
      socket.on('close', () => {
        resolve({ status, headers: came, body: Buffer.concat(pieces).toString('base64') })
      })
      setTimeout(() => socket.destroy(), UPGRADED_MS)
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

const answers: Record<string, Answer> = {}
for (const one of asks) answers[one.name] = await ask(one)
console.log(JSON.stringify(answers))
