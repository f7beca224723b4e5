/** Answers to upgrades that are no switch: as an ordinary answer, behind which the connection is closed. */
import type { Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { endSocket, responseHead } from '../../shared/upgrade.ts'
import type { Answered } from '../../shared/upgrade.ts'
import type { OutcomeEntry } from '../ledger/entry.ts'
import type { AnswerMasking } from '../masking/answers/answer.ts'
import { isGzip } from '../masking/answers/unpack.ts'
import { unmaskable } from './forward.ts'
import type { ForwardOutcome, NotAnswered, Outgoing } from './forward.ts'
import { isRedirect, passedOn } from './headers.ts'

/** Longest answer that is masked, in bytes: these say why there is no session. */
export const MAX_REFUSAL_BYTES = 1024 * 1024

const unpack = promisify(gunzip)

/** Passes an answer on. Nothing was written to the client where it is not answered. */
export async function passAnswer(
  outgoing: Outgoing,
  client: Duplex,
  answered: Answered,
): Promise<ForwardOutcome | NotAnswered> {
  const { status, headers, body } = answered
  if (status < 200 || isRedirect(status)) {
    body.destroy()
    const refusal = refuse('upstream_invalid', `status ${status} to an upgrade`)
    return { notAnswered: refusal, bytesToServer: 0 }
  }
  if (outgoing.mask !== undefined) return passMasked(outgoing, outgoing.mask, client, answered)
  const passed = passedOn(headers, outgoing)
  // its end is the end of the connection, whatever the API server announced
  delete passed['content-length']
  client.write(responseHead(status, '', { ...passed, connection: 'close' }))
  let bytesToClient = 0
  body.on('data', (chunk: Buffer) => (bytesToClient += chunk.length))
  const reason = await passBody(body, client)
  endSocket(client)
  return { status, bytesToClient, bytesToServer: 0, ...(reason === undefined ? {} : { reason }) }
}

async function passMasked(
  { requestId, warnings = [] }: Outgoing,
  mask: AnswerMasking,
  client: Duplex,
  { status, headers, body }: Answered,
): Promise<ForwardOutcome | NotAnswered> {
  const compressed = isGzip(headers['content-encoding'])
  const bytes = await readAll(body, client, compressed)
  if (client.destroyed) return { status, bytesToClient: 0, bytesToServer: 0, reason: 'client_left' }
  if (isRefusal(bytes)) return { notAnswered: bytes, bytesToServer: 0 }
  try {
    const plain = compressed ? { ...headers, 'content-encoding': 'identity' } : headers
    const masked = mask.begin(status, plain)
    const pieces = [...masked.push(bytes), ...masked.end()]
    const warning = masked.warning(true)
    const all = warning === undefined ? warnings : [...warnings, warning]
    const passed = passedOn(masked.headers, { requestId, warnings: all })
    const head = responseHead(status, '', { ...passed, connection: 'close' })
    endSocket(client, Buffer.concat([Buffer.from(head, 'latin1'), ...pieces]))
    const bytesToClient = pieces.reduce((sum, { length }) => sum + length, 0)
    const record = masked.record()
    return {
      ...{ status, bytesToClient, bytesToServer: 0 },
      ...(record === undefined ? {} : { masked: record }),
    }
  } catch (error) {
    return { notAnswered: unmaskable(error, status), bytesToServer: 0 }
  }
}

/** The whole of a short answer, unpacked. */
async function readAll(
  body: Readable,
  client: Duplex,
  compressed: boolean,
): Promise<Buffer | Refusal> {
  client.once('close', () => body.destroy())
  const chunks: Buffer[] = []
  let size = 0
  try {
    const stream: AsyncIterable<Buffer> = body
    for await (const chunk of stream) {
      size += chunk.length
      if (size > MAX_REFUSAL_BYTES) return refuse('answer_unmaskable', 'it is too long')
      chunks.push(chunk)
    }
  } catch {
    return refuse('upstream_unavailable')
  }
  const whole = Buffer.concat(chunks)
  if (!compressed || whole.length === 0) return whole
  try {
    return await unpack(whole, { maxOutputLength: MAX_REFUSAL_BYTES })
  } catch {
    return refuse('answer_unmaskable', 'it is not compressed as it says')
  }
}

/** Why the body did not reach the client whole, or undefined when it did. */
function passBody(body: Readable, client: Duplex): Promise<OutcomeEntry['reason'] | undefined> {
  return new Promise((resolve) => {
    // the first to break is the cause: the pipeline destroys the other one only afterwards
    body.once('error', () => {
      resolve('stream_broken')
    })
    pipeline(body, client).then(
      () => {
        resolve(undefined)
      },
      () => {
        resolve('client_left')
      },
    )
  })
}
