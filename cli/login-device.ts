/** Signing in with a code that is typed into a browser anywhere (RFC 8628). */
import { z } from 'zod'
import { CallError } from './client.ts'
import { IssuerError, requestTokens, UnreachableError } from './login-issuer.ts'
import type { IssuerClient, IssuerConnection, Tokens } from './login-issuer.ts'

/** Between two questions where the issuer says nothing, and what is added when it says `slow_down`, in seconds (3.2, 3.5). */
const DEFAULT_INTERVAL_S = 5
const SLOWER_S = 5
/** Longest pause, and longest life of a code that is believed, in seconds. */
const MAX_INTERVAL_S = 300
const MAX_LIFE_S = 3600
const GRANT = 'urn:ietf:params:oauth:grant-type:device_code'

const startedSchema = z.object({
  device_code: z.string(),
  user_code: z.string(),
  verification_uri: z.url({ protocol: /^https$/ }),
  verification_uri_complete: z.url({ protocol: /^https$/ }).optional(),
  expires_in: z.number().positive(),
  interval: z.number().positive().default(DEFAULT_INTERVAL_S),
})

/** What the person is told; all of it is the issuer's text. */
export interface DeviceCode {
  readonly userCode: string
  readonly verificationUri: string
  readonly verificationUriComplete?: string | undefined
}

/** What it needs of its process. */
export interface DeviceDeps {
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly sleep: (ms: number) => Promise<unknown>
  readonly tell: (code: DeviceCode) => void
}

/** Signs in. @throws CallError when the person refuses or the time is over */
export async function signInByDevice(
  connection: IssuerConnection,
  client: IssuerClient & { readonly scopes: readonly string[] },
  { now, sleep, tell }: DeviceDeps,
): Promise<Tokens> {
  const endpoint = connection.metadata.device_authorization_endpoint
  if (endpoint === undefined) throw new CallError('the issuer has no sign-in by code')
  const started = await connection.post(startedSchema, endpoint, {
    client_id: client.clientId,
    scope: client.scopes.join(' '),
  })
  const endMs = now() + Math.min(started.expires_in, MAX_LIFE_S) * 1000
  tell({
    userCode: started.user_code,
    verificationUri: started.verification_uri,
    verificationUriComplete: started.verification_uri_complete,
  })
  const form = { grant_type: GRANT, device_code: started.device_code }
  let intervalS = Math.min(started.interval, MAX_INTERVAL_S)
  for (;;) {
    await sleep(intervalS * 1000)
    if (now() >= endMs) throw new CallError('nobody confirmed the code in time')
    try {
      return await requestTokens(connection, client, form, { now: now() })
    } catch (error) {
      intervalS = nextInterval(error, intervalS)
    }
  }
}

/** The pause before the next question, in seconds. @throws what ends the sign-in */
function nextInterval(error: unknown, intervalS: number): number {
  // twice as long where there was no answer (3.5)
  if (error instanceof UnreachableError) return Math.min(intervalS * 2, MAX_INTERVAL_S)
  if (!(error instanceof IssuerError)) throw error
  switch (error.error) {
    case 'authorization_pending':
      return intervalS
    case 'slow_down':
      return Math.min(intervalS + SLOWER_S, MAX_INTERVAL_S)
    case 'expired_token':
      throw new CallError('nobody confirmed the code in time')
    case 'access_denied':
      throw new CallError('the sign-in was refused')
    default:
      throw error
  }
}
