/** Small questions that the broker asks a cluster for itself: keys, token reviews, pods. */
import { codeOf, messageOf } from '../../shared/errors.ts'
import type { ClusterConnection } from './connection.ts'

/** Longest wait for an answer, in milliseconds. */
const ANSWER_TIMEOUT_MS = 5_000
/** Longest answer, in bytes; what answers may be an aggregated API, whose author is not ours to trust. */
export const MAX_ANSWER_BYTES = 16 * 1024 * 1024

/** What a cluster said to the broker itself, or why that is nothing to work with. */
export type ClusterAnswer =
  | { readonly json: unknown }
  /** `status` where there was an answer at all. */
  | { readonly problem: string; readonly status?: number }

/** The way to a cluster, for questions. */
export type AskedConnection = Pick<ClusterConnection, 'name' | 'own' | 'credential'>

/** Asks a cluster in the broker's own name; for what the broker itself needs to know, never for a client. Does not reject. */
export async function clusterJson(
  connection: AskedConnection,
  method: 'GET' | 'POST',
  path: string,
  body?: object,
): Promise<ClusterAnswer> {
  try {
    const answer = await connection.own.request({
      method,
      path,
      headers: {
        ...(await connection.credential.own()),
        accept: 'application/json, */*',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      body: body === undefined ? null : JSON.stringify(body),
      headersTimeout: ANSWER_TIMEOUT_MS,
      bodyTimeout: ANSWER_TIMEOUT_MS,
      // the limits above are for each pause; this one is for all of it
      signal: AbortSignal.timeout(2 * ANSWER_TIMEOUT_MS),
    })
    if (answer.statusCode >= 200 && answer.statusCode < 300) return await readJson(answer.body)
    await answer.body.dump()
    return { problem: `status ${answer.statusCode}`, status: answer.statusCode }
  } catch (error) {
    return { problem: codeOf(error) ?? messageOf(error) }
  }
}

/** Reads an answer up to its bound; what it says is never repeated. */
async function readJson(body: AsyncIterable<Uint8Array>): Promise<ClusterAnswer> {
  const chunks: Uint8Array[] = []
  let size = 0
  // leaving the loop early ends the answer
  for await (const chunk of body) {
    size += chunk.length
    if (size > MAX_ANSWER_BYTES) return { problem: `longer than ${MAX_ANSWER_BYTES} bytes` }
    chunks.push(chunk)
  }
  try {
    return { json: JSON.parse(Buffer.concat(chunks).toString('utf8')) }
  } catch {
    return { problem: 'not JSON' }
  }
}
