/** Small questions that the broker asks a cluster for itself: keys, token reviews, pods. */
import { codeOf, messageOf } from '../../shared/errors.ts'
import type { ClusterConnection } from './connection.ts'

/** Longest wait for an answer, in milliseconds. */
const ANSWER_TIMEOUT_MS = 5_000

/** What a cluster said to the broker itself, or why that is nothing to work with. */
export type ClusterAnswer =
  | { readonly json: unknown }
  /** `status` where there was an answer at all. */
  | { readonly problem: string; readonly status?: number }

/** Asks a cluster in the broker's own name; for what the broker itself needs to know, never for a client. Does not reject. */
export async function clusterJson(
  connection: ClusterConnection,
  method: 'GET' | 'POST',
  path: string,
  body?: object,
): Promise<ClusterAnswer> {
  try {
    const answer = await connection.requests.request({
      method,
      path,
      headers: {
        ...(await connection.authenticate()),
        accept: 'application/json, */*',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      body: body === undefined ? null : JSON.stringify(body),
      headersTimeout: ANSWER_TIMEOUT_MS,
      bodyTimeout: ANSWER_TIMEOUT_MS,
    })
    if (answer.statusCode >= 200 && answer.statusCode < 300)
      return { json: await answer.body.json() }
    await answer.body.dump()
    return { problem: `status ${answer.statusCode}`, status: answer.statusCode }
  } catch (error) {
    return { problem: codeOf(error) ?? messageOf(error) }
  }
}
