/**
 * The broker's own token in a cluster (mode `impersonation`): a file that somebody else keeps fresh, as kubelet does; or, for
 * a broker outside the cluster, one that the broker renews itself by the TokenRequest API and writes back, so that what lies
 * there is never good for longer than ten minutes.
 */
import { chmod, rename, writeFile } from 'node:fs/promises'
import { decodeJwt } from 'jose'
import { z } from 'zod'
import { Fault, messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { readPrivateFile } from '../../shared/private-file.ts'
import { watchFile } from '../../shared/watched-file.ts'
import { clusterJson } from './cluster-json.ts'
import type { AskedConnection } from './cluster-json.ts'

/** Life of a renewed token, in seconds: the shortest that the API server makes (apiserver, registry/core/serviceaccount). */
const LIFE_S = 600
/** How often the token's age is looked at, in milliseconds. */
export const LOOK_MS = 30_000
const TOKEN_MODE = 0o600
/** Compact form of a JWS (RFC 7515, section 7.1). */
const JWT = /^[\w-]+\.[\w-]+\.[\w-]+$/

const tokenRequestSchema = z.object({ status: z.object({ token: z.string().min(1).max(16_384) }) })

/** The service account that the token is of. */
export interface OwnAccount {
  readonly namespace: string
  readonly serviceAccount: string
}

/** Keeps a token. */
export interface OwnToken {
  /** Rejects with a Fault `credential_unavailable` when the file cannot be read. */
  read(): Promise<string>
  close(): void
}

/** A file that others keep fresh. @param now - milliseconds since the epoch */
export function fileToken(file: string, now: () => number): OwnToken {
  const watched = watchFile(file, now, readPrivateFile)
  return {
    async read() {
      try {
        return (await watched.read()).trim()
      } catch (cause) {
        throw new Fault('credential_unavailable', messageOf(cause), { cause })
      }
    },
    close: () => undefined,
  }
}

/**
 * A file that the broker keeps fresh itself. What is there first must be good for long enough to be renewed once.
 *
 * @param connection - the way to the cluster; asked with the token that is to be renewed
 */
export function renewedToken(
  file: string,
  { namespace, serviceAccount }: OwnAccount,
  connection: AskedConnection,
  {
    log,
    now,
    lookMs = LOOK_MS,
  }: { readonly log: Logger; readonly now: () => number; readonly lookMs?: number },
): OwnToken {
  const kept = fileToken(file, now)
  const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/serviceaccounts/${encodeURIComponent(serviceAccount)}/token`
  const renew = async (): Promise<void> => {
    const token = await kept.read()
    if (!isHalfOver(token, now())) return
    const request = {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: { expirationSeconds: LIFE_S },
    }
    const answer = await clusterJson(connection, 'POST', path, request)
    if ('problem' in answer) throw new Error(answer.problem)
    const parsed = tokenRequestSchema.safeParse(answer.json)
    if (!parsed.success) throw new Error('the answer is no TokenRequest')
    const renewed = parsed.data.status.token
    // what is no token, or has ended, would take the place of one by which another can be asked for
    if (!isGood(renewed, now())) throw new Error('the answer has no token that is good')
    await writeFile(`${file}.new`, renewed, { mode: TOKEN_MODE })
    await rename(`${file}.new`, file)
  }
  let working = false
  const look = async (): Promise<void> => {
    // the file is the broker's own; a volume with `fsGroup` gives the group rights again at each mount
    await chmod(file, TOKEN_MODE).catch(() => undefined)
    await renew()
  }
  const tick = (): void => {
    if (working) return
    working = true
    look()
      .catch((error: unknown) => {
        const cluster = connection.name
        log.error({ cluster, problem: messageOf(error) }, 'the own token could not be renewed')
      })
      .finally(() => {
        working = false
      })
  }
  const timer = setInterval(tick, lookMs)
  timer.unref()
  // not at once: the way to the cluster is not complete yet
  setImmediate(tick)
  return {
    read: () => kept.read(),
    close: () => {
      clearInterval(timer)
    },
  }
}

/** Whether a token has the form of one, and has not ended; its signature is the cluster's to check. */
function isGood(token: string, nowMs: number): boolean {
  return JWT.test(token) && (decodeJwt(token).exp ?? 0) * 1000 > nowMs
}

/** Whether half of a token's life is over, or it lives longer than one that we would make; its signature is the cluster's to check. */
function isHalfOver(token: string, nowMs: number): boolean {
  const { iat = 0, exp = 0 } = decodeJwt(token)
  return exp - nowMs / 1000 < LIFE_S / 2 || exp - iat > 2 * LIFE_S
}
