/**
 * Attempts on a cluster, each of which must come out in one way: what a thief, or a mistake of ours, would try. They are
 * made against nothing that exists, with `dryRun` where they would write, so that one that gets through does no harm.
 */
import { z } from 'zod'
import type { ProbeResult } from '../../shared/wire.ts'
import { codeOf, messageOf } from '../../shared/errors.ts'
import type { AskedConnection } from '../credentials/cluster-json.ts'
import type { CredentialHeaders } from '../credentials/credential.ts'

/** Longest wait for one answer, in milliseconds. */
const ANSWER_MS = 10_000
/** Of an answer's message, in characters. */
const MAX_SAID = 300
/** Of an answer, in bytes. */
const MAX_ANSWER_BYTES = 256 * 1024

const statusSchema = z.object({ message: z.string() })

/** What is tried. */
export interface Attempt {
  /** What it is, in a few words: `the same token again`. */
  readonly name: string
  readonly method?: string
  readonly path: string
  readonly headers: CredentialHeaders
  readonly body?: object
  readonly judge: Judge
}

/** What came back. */
export interface Came {
  /** 0 where there was no answer. */
  readonly status: number
  /** The message of a Status, or why there is no answer. */
  readonly said: string
}

/** Whether what came back is what must. */
export type Judge = (came: Came) => ProbeResult['outcome']

/** Must be refused, by whomever. */
export const refused: Judge = ({ status }) => {
  if (status === 0 || status >= 500) return 'unclear'
  return status === 401 || status === 403 ? 'ok' : 'failed'
}

/** Must be refused as no token at all. */
export const notAuthenticated: Judge = ({ status }) => {
  if (status === 0 || status >= 500) return 'unclear'
  return status === 401 ? 'ok' : 'failed'
}

/** Must be let through. */
export const accepted: Judge = ({ status }) => {
  if (status === 0) return 'unclear'
  return status >= 200 && status < 300 ? 'ok' : 'failed'
}

/** Makes an attempt. Does not reject. */
export async function probe(
  { own }: Pick<AskedConnection, 'own'>,
  { name, method = 'GET', path, headers, body, judge }: Attempt,
): Promise<ProbeResult> {
  const came = await send(own, { method, path, headers, body })
  const outcome = judge(came)
  return { name, outcome, status: came.status, said: came.said }
}

async function send(
  own: AskedConnection['own'],
  request: {
    readonly method: string
    readonly path: string
    readonly headers: CredentialHeaders
    readonly body: object | undefined
  },
): Promise<Came> {
  const { method, path, headers, body } = request
  try {
    const answer = await own.request({
      ...{ method, path },
      headers: {
        ...{ accept: 'application/json', ...headers },
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_MS),
    })
    const said = answer.statusCode >= 400 ? await messageIn(answer.body) : ''
    if (answer.statusCode < 400) await answer.body.dump()
    return { status: answer.statusCode, said }
  } catch (error) {
    return { status: 0, said: codeOf(error) ?? messageOf(error) }
  }
}

async function messageIn(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of body) {
    size += chunk.length
    if (size > MAX_ANSWER_BYTES) return ''
    chunks.push(chunk)
  }
  try {
    const parsed = statusSchema.safeParse(JSON.parse(Buffer.concat(chunks).toString('utf8')))
    return parsed.success ? parsed.data.message.slice(0, MAX_SAID) : ''
  } catch {
    return ''
  }
}
