/**
 * Which form of sidecar the cluster can run, learnt from the API server's `/version`. The server is
 * authenticated by its CA; the token needs no rights. Until the version is known no pod is reviewed:
 * a guess would hang pods on old nodes, or put the sidecar where other webhooks and people do not expect it on new ones.
 */
import { z } from 'zod'
import { messageOf } from '../shared/errors.ts'
import { createInClusterApi } from '../shared/in-cluster-api.ts'
import type { ApiServer, InClusterApi } from '../shared/in-cluster-api.ts'
import type { Logger } from '../shared/log.ts'
import { modeFor } from '../shared/injection/sidecar-mode.ts'
import type { SidecarMode } from '../shared/injection/sidecar-spec.ts'

/** Time between two attempts, in milliseconds. */
const RETRY_MS = 5_000
/** Time for one attempt, in milliseconds. */
const ATTEMPT_LIMIT_MS = 5_000
/** Largest answer that is read, in bytes; the real one has some 300. */
const MAX_ANSWER_BYTES = 16_384

/** Managed clusters write `29+`. */
const number = z.string().regex(/^\d{1,5}\+?$/)
const versionSchema = z.object({ major: number, minor: number })

/**
 * Asks until the API server answers.
 *
 * @param deps - `signal` ends the asking; `retryMs` is for tests
 * @returns the mode, or undefined where the signal came first
 */
export async function learnMode(
  api: ApiServer,
  deps: { readonly log: Logger; readonly signal: AbortSignal; readonly retryMs?: number },
): Promise<SidecarMode | undefined> {
  const asked = createInClusterApi(api, {
    signal: deps.signal,
    requestLimitMs: ATTEMPT_LIMIT_MS,
    maxAnswerBytes: MAX_ANSWER_BYTES,
  })
  try {
    return await askUntilKnown(asked, deps)
  } finally {
    await asked.close()
  }
}

async function askUntilKnown(
  api: InClusterApi,
  deps: Parameters<typeof learnMode>[1],
): Promise<SidecarMode | undefined> {
  while (!deps.signal.aborted) {
    try {
      const { major, minor } = versionSchema.parse(await api.get('/version'))
      const mode = modeFor(Number.parseInt(major, 10), Number.parseInt(minor, 10))
      deps.log.info({ version: `${major}.${minor}`, mode }, 'learnt the version of the cluster')
      return mode
    } catch (error) {
      deps.log.warn({ error: messageOf(error) }, 'the version of the cluster is not known yet')
    }
    await pause(deps.retryMs ?? RETRY_MS, deps.signal)
  }
  return undefined
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done)
  })
}
