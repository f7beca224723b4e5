/**
 * Talks to an OIDC issuer for `nestgate login`: its discovery document, and its token endpoint. TLS is always verified, redirects are
 * never followed, answers are short and checked. ID tokens come straight from the issuer by TLS, so their claims are checked and
 * their signature is left to the broker (OpenID Connect Core 1.0, 3.1.3.7, 6).
 */
import { decodeJwt } from 'jose'
import { Agent, request } from 'undici'
import { z } from 'zod'
import { codeOf, messageOf } from '../shared/errors.ts'
import { CallError } from './client.ts'

/** Longest wait for an answer, in milliseconds, and longest answer, in bytes. */
const ANSWER_MS = 15_000
const MAX_ANSWER_BYTES = 256 * 1024
/** How far the issuer's clock may be ahead or behind, in seconds. */
const TOLERANCE_S = 60

const https = z.url({ protocol: /^https$/ })
const metadataSchema = z.object({
  issuer: z.string(),
  authorization_endpoint: https.optional(),
  token_endpoint: https,
  device_authorization_endpoint: https.optional(),
  revocation_endpoint: https.optional(),
  authorization_response_iss_parameter_supported: z.boolean().default(false),
})
const tokensSchema = z.object({
  id_token: z.string().optional(),
  refresh_token: z.string().optional(),
})
const errorSchema = z.object({ error: z.string(), error_description: z.string().optional() })

/** What an issuer says of itself; only what is used. */
export type IssuerMetadata = z.infer<typeof metadataSchema>

/** Whom to sign in with, and as which client. */
export interface IssuerClient {
  readonly issuer: string
  readonly clientId: string
}

/** Tokens of a sign-in. */
export interface Tokens {
  readonly idToken: string
  /** Seconds since the epoch. */
  readonly expiresAt: number
  readonly refreshToken?: string
}

/** The issuer refused, with one of the codes of OAuth 2.0; its texts are untrusted. */
export class IssuerError extends CallError {
  readonly error: string
  constructor(error: string, description?: string) {
    super(`the issuer refused: ${error}${description === undefined ? '' : ` (${description})`}`)
    this.error = error
  }
}

/** The issuer could not be asked: another try may help. */
export class UnreachableError extends CallError {}

/** A way to one issuer. */
export interface IssuerConnection {
  readonly metadata: IssuerMetadata
  /** Sends a form. @throws IssuerError, or CallError where there is no usable answer */
  post<T>(schema: z.ZodType<T>, endpoint: string, form: Record<string, string>): Promise<T>
  close(): Promise<void>
}

/** Connects, and reads the discovery document. @param ca - certificates to trust instead of the system's, PEM */
export async function connectIssuer(
  issuer: string,
  ca: string | undefined,
): Promise<IssuerConnection> {
  const dispatcher = new Agent({
    connect: {
      timeout: ANSWER_MS,
      rejectUnauthorized: true,
      ...(ca === undefined ? {} : { ca }),
    },
    maxResponseSize: MAX_ANSWER_BYTES,
  })
  try {
    const base = issuer.endsWith('/') ? issuer.slice(0, -1) : issuer
    const url = `${base}/.well-known/openid-configuration`
    const { status, value } = await ask(url, dispatcher)
    const metadata = metadataSchema.safeParse(value)
    if (status !== 200 || !metadata.success)
      throw new CallError('the issuer’s discovery document is not what was expected')
    if (metadata.data.issuer !== issuer)
      throw new CallError('the issuer’s discovery document is another issuer’s')
    return {
      metadata: metadata.data,
      async post(schema, endpoint, form) {
        const answer = await ask(endpoint, dispatcher, new URLSearchParams(form).toString())
        if (answer.status !== 200) throw refusalOf(answer)
        const parsed = schema.safeParse(answer.value)
        if (!parsed.success) throw new CallError('the issuer’s answer is not what was expected')
        return parsed.data
      },
      close: () => dispatcher.destroy(),
    }
  } catch (error) {
    await dispatcher.destroy()
    throw error
  }
}

/**
 * Asks for tokens.
 *
 * @param nonce - that the ID token must have
 * @param now - milliseconds since the epoch
 */
export async function requestTokens(
  connection: IssuerConnection,
  client: IssuerClient,
  form: Record<string, string>,
  { nonce, now }: { readonly nonce?: string; readonly now: number },
): Promise<Tokens> {
  const { id_token: idToken, refresh_token: refreshToken } = await connection.post(
    tokensSchema,
    connection.metadata.token_endpoint,
    { client_id: client.clientId, ...form },
  )
  if (idToken === undefined) throw new CallError('the issuer sent no ID token')
  const expiresAt = checkIdToken(idToken, client, nonce, now / 1000)
  return { idToken, expiresAt, ...(refreshToken === undefined ? {} : { refreshToken }) }
}

const claimsSchema = z.object({
  iss: z.string(),
  aud: z.union([z.string(), z.array(z.string())]),
  exp: z.number(),
  nonce: z.string().optional(),
})

/** @returns when the token ends, in seconds since the epoch */
function checkIdToken(
  token: string,
  { issuer, clientId }: IssuerClient,
  nonce: string | undefined,
  nowS: number,
): number {
  const claims = claimsSchema.safeParse(claimsOf(token))
  if (!claims.success) throw new CallError('the ID token is not what was expected')
  const { iss, aud, exp, nonce: given } = claims.data
  if (iss !== issuer) throw new CallError('the ID token is by another issuer')
  if (![aud].flat().includes(clientId)) throw new CallError('the ID token is for another client')
  if (exp + TOLERANCE_S <= nowS) throw new CallError('the ID token is over already')
  if (nonce !== undefined && given !== nonce)
    throw new CallError('the ID token is of another sign-in: its nonce is wrong')
  return exp
}

/** Claims of a token, unverified; undefined where it is none. */
export function claimsOf(token: string): Readonly<Record<string, unknown>> | undefined {
  try {
    return decodeJwt(token)
  } catch {
    return undefined
  }
}

interface Answer {
  readonly status: number
  readonly value: unknown
}

async function ask(url: string, dispatcher: Agent, form?: string): Promise<Answer> {
  const options =
    form === undefined
      ? { method: 'GET' as const, headers: { accept: 'application/json' } }
      : {
          method: 'POST' as const,
          headers: {
            accept: 'application/json',
            'content-type': 'application/x-www-form-urlencoded',
          },
          body: form,
        }
  try {
    const signal = AbortSignal.timeout(ANSWER_MS)
    const { statusCode, body } = await request(url, { ...options, dispatcher, signal })
    return { status: statusCode, value: parseJson(await body.text()) }
  } catch (error) {
    throw new UnreachableError(`cannot reach the issuer: ${codeOf(error) ?? messageOf(error)}`)
  }
}

function refusalOf({ status, value }: Answer): CallError {
  const parsed = errorSchema.safeParse(value)
  if (parsed.success) return new IssuerError(parsed.data.error, parsed.data.error_description)
  const text = `the issuer answered with status ${status}`
  return status >= 500 ? new UnreachableError(text) : new CallError(text)
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
