/**
 * What the broker asks a cluster about a held request, or one whose placeholders it puts back: always as the caller, never as itself, so that no
 * reviewer and no check sees more than the caller could (CVE class "synthetic reads", gateways.md 4). Each question has
 * a request id of its own, and stands in `asked` for the ledger.
 */
import { codeOf } from '../../shared/errors.ts'
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import type { Masking } from '../../shared/policy/masking.ts'
import { newRequestId } from '../../shared/request-id.ts'
import type { ClusterConnection } from '../credentials/connection.ts'
import type { CredentialHeaders, RequestCredential } from '../credentials/credential.ts'
import { readJson } from './json-tree.ts'
import type { Json } from './json-tree.ts'

/** Largest answer that is read, in bytes: twice what etcd stores of one object by default. */
export const MAX_ANSWER_BYTES = 3 * 1024 * 1024
/** Longest wait for the whole answer to a read, in milliseconds. */
export const READ_TIMEOUT_MS = 5_000

/** Makes the credential of one question in the caller's name. Rejects when the identity is empty. */
export type CallerCredential = (
  requestId: string,
  question: Pick<Question, 'method' | 'path' | 'contentType'>,
) => Promise<RequestCredential>

/** A held request, as far as looking at what it does needs it. */
export interface CallerRequest {
  readonly connection: Pick<ClusterConnection, 'requests'>
  readonly credential: CallerCredential
  readonly method: string
  /** Raw query, as forwarded. */
  readonly query: string
  /** As the client sent it; empty where there is none. */
  readonly contentType: string
  readonly body: Buffer
  readonly attributes: RequestAttributes
  /** As policy has it: fields of its profiles are hidden from reviewers, too. */
  readonly masking?: Masking | undefined
}

/** Why something was asked. */
export type Purpose = 'snapshot' | 'recheck' | 'preview' | 'restore'

/** A question that went to the API server. */
export interface Asked {
  readonly requestId: string
  readonly purpose: Purpose
  readonly method: string
  /** Path with query. */
  readonly path: string
  /** HTTP status of the answer; 0 when none came. */
  readonly status: number
  readonly durationMs: number
}

/** An answer, or why there is none to work with. */
export type Said =
  | {
      readonly status: number
      /** Undefined where the body is none. */
      readonly json: Json | undefined
      /** The body as it came: nothing in it is masked. */
      readonly bytes: Buffer
    }
  | { readonly silent: string }

/** A question. */
export interface Question {
  readonly purpose: Purpose
  readonly method: string
  /** Path with query. */
  readonly path: string
  readonly accept?: string
  readonly contentType?: string
  readonly body?: Buffer
  readonly timeoutMs?: number
}

/** Asks as one caller, and remembers what was asked. */
export interface Asker {
  readonly asked: readonly Asked[]
  /** Rejects with a Fault when the identity is empty. */
  ask(question: Question): Promise<Said>
}

/** An asker for one held request. @param now - milliseconds since the epoch */
export function createAsker(
  { connection, credential }: Pick<CallerRequest, 'connection' | 'credential'>,
  now: () => number,
): Asker {
  const asked: Asked[] = []
  return {
    asked,
    async ask(question): Promise<Said> {
      const startedMs = now()
      const requestId = newRequestId(startedMs)
      const { purpose, method, path } = question
      const made = await credential(requestId, question)
      const said = await send(connection, question, made.headers).finally(made.over)
      const status = 'silent' in said ? 0 : said.status
      asked.push({ requestId, purpose, method, path, status, durationMs: now() - startedMs })
      return said
    },
  }
}

async function send(
  { requests }: CallerRequest['connection'],
  question: Question,
  identity: CredentialHeaders,
): Promise<Said> {
  const { method, path, accept = 'application/json', contentType, body } = question
  const signal = AbortSignal.timeout(question.timeoutMs ?? READ_TIMEOUT_MS)
  try {
    const answer = await requests.request({
      method,
      path,
      headers: {
        accept,
        ...(contentType === undefined ? {} : { 'content-type': contentType }),
        ...identity,
      },
      body: body ?? null,
      signal,
    })
    const { statusCode: status } = answer
    // a body that is given up reports that as an error of its own
    answer.body.on('error', () => undefined)
    if (status < 200 || (status >= 300 && status < 400)) {
      answer.body.destroy()
      return { silent: `status ${status}` }
    }
    const bytes = await bounded(answer.body)
    return bytes === undefined
      ? { silent: `an answer of more than ${MAX_ANSWER_BYTES} bytes` }
      : { status, json: readJson(bytes.toString()), bytes }
  } catch (error) {
    if (signal.aborted) return { silent: 'no answer in time' }
    return { silent: codeOf(error) ?? 'the connection broke' }
  }
}

async function bounded(body: AsyncIterable<Buffer>): Promise<Buffer | undefined> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.length
    if (bytes > MAX_ANSWER_BYTES) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks, bytes)
}
