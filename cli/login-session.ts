/** The token of a sign-in, made new when it ends soon; and what a sign-in is kept as. */
import { CallError } from './client.ts'
import { claimsOf, connectIssuer, IssuerError, requestTokens } from './login-issuer.ts'
import type { Tokens } from './login-issuer.ts'
import { openLoginStore } from './login-store.ts'
import type { SignIn } from './login-store.ts'
import { readText, UsageError } from './settings.ts'
import type { Environment } from './settings.ts'

/** A token that ends within this time is made new, in seconds: a command, and the clocks of two machines, need some. */
const NEAR_END_S = 60

/** What it needs of its process. */
export interface SessionDeps {
  readonly env: Environment
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/**
 * The token of whoever signed in at a broker.
 *
 * @throws UsageError where nobody did, CallError where their sign-in is over
 */
export async function storedToken(broker: URL, deps: SessionDeps): Promise<string> {
  return (await currentSignIn(broker, deps)).idToken
}

/** The sign-in at a broker, with a token that is good for a while. @throws as {@link storedToken} */
export async function currentSignIn(broker: URL, { env, now }: SessionDeps): Promise<SignIn> {
  const store = openLoginStore(env)
  const kept = store.read(broker)
  if (kept === undefined) {
    throw new UsageError(
      'no token: sign in with nestgate login, or give --token-file, NESTGATE_TOKEN_FILE or NESTGATE_TOKEN',
    )
  }
  if (!endsSoon(kept, now())) return kept
  const fresh = await store.change(broker, async (current) => {
    // another process may have been here first
    if (current === undefined || !endsSoon(current, now())) return current
    return current.refreshToken === undefined ? withoutRefresh(current, now()) : renew(current, now)
  })
  if (fresh === undefined) throw new CallError('nobody is signed in any more: nestgate login')
  return fresh
}

/** What is kept of new tokens; an issuer that sends no new refresh token means the old one. */
export function withTokens(signIn: Omit<SignIn, 'idToken' | 'expiresAt'>, tokens: Tokens): SignIn {
  return { ...signIn, ...tokens }
}

/** Certificates of the issuer of a sign-in. */
export function issuerCa({ issuerCaFile }: Pick<SignIn, 'issuerCaFile'>): string | undefined {
  return issuerCaFile === undefined ? undefined : readText(issuerCaFile)
}

function endsSoon({ expiresAt }: SignIn, nowMs: number): boolean {
  return expiresAt - NEAR_END_S <= nowMs / 1000
}

function withoutRefresh(signIn: SignIn, nowMs: number): SignIn {
  if (signIn.expiresAt * 1000 > nowMs) return signIn
  throw new CallError('your sign-in is over: nestgate login')
}

async function renew(signIn: SignIn, now: () => number): Promise<SignIn> {
  const { refreshToken = '', issuer } = signIn
  const connection = await connectIssuer(issuer, issuerCa(signIn))
  try {
    const form = { grant_type: 'refresh_token', refresh_token: refreshToken }
    const tokens = await requestTokens(connection, signIn, form, { now: now() })
    // OpenID Connect Core 1.0, 12.2
    if (claimsOf(tokens.idToken)?.['sub'] !== claimsOf(signIn.idToken)?.['sub'])
      throw new CallError('the issuer’s new token is somebody else’s: nestgate login')
    return withTokens(signIn, tokens)
  } catch (error) {
    if (error instanceof IssuerError && error.error === 'invalid_grant')
      throw new CallError('your sign-in is over: nestgate login')
    throw error
  } finally {
    await connection.close()
  }
}
