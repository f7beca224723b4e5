/**
 * Which form of sidecar the cluster can run, learnt from the API server's `/version`. The server is
 * authenticated by its CA; the token needs no rights. Until the version is known no pod is reviewed:
 * a guess would either hang pods on old nodes or let Jobs run for ever on new ones.
 */
import { readFile } from 'node:fs/promises'
import { Agent, request } from 'undici'
import { z } from 'zod'
import { messageOf } from '../shared/errors.ts'
import type { Logger } from '../shared/log.ts'
import { readPrivateFile } from '../shared/private-file.ts'
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

/** How to reach the API server; see `kubernetes` in config.ts. */
export interface ApiServer {
  readonly server: string
  readonly caFile: string
  readonly tokenFile: string
}

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
  while (!deps.signal.aborted) {
    try {
      const { major, minor } = await fetchVersion(api, deps.signal)
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

async function fetchVersion(
  api: ApiServer,
  signal: AbortSignal,
): Promise<z.infer<typeof versionSchema>> {
  const [ca, token] = await Promise.all([
    readFile(api.caFile, 'utf8'),
    readPrivateFile(api.tokenFile),
  ])
  const dispatcher = new Agent({ connect: { ca }, maxResponseSize: MAX_ANSWER_BYTES })
  try {
    const answer = await request(new URL('/version', api.server), {
      dispatcher,
      headers: { authorization: `Bearer ${token.trim()}` },
      signal: AbortSignal.any([signal, AbortSignal.timeout(ATTEMPT_LIMIT_MS)]),
    })
    const text = await answer.body.text()
    if (answer.statusCode !== 200) throw new Error(`/version answered ${answer.statusCode}`)
    return versionSchema.parse(JSON.parse(text))
  } finally {
    await dispatcher.destroy()
  }
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
