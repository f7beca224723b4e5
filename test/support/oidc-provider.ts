/**
 * A real OIDC provider (npm `oidc-provider`) for tests: discovery, keys, code flow with PKCE, device flow, refresh tokens.
 * Whoever comes is signed in without a question: the account of `login_hint`, or of the cookie `account`, or alice.
 */
import { randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { exportJWK, generateKeyPair, importJWK, SignJWT } from 'jose'
import type { JWK, JWTPayload } from 'jose'
import { Provider } from 'oidc-provider'

/** The audience of its tokens, and the client that `nestgate login` is. */
export const CLIENT_ID = 'nestgate'
/** Life of what {@link mintToken} makes, in seconds. */
const TOKEN_LIFE_S = 600
const ALGORITHM = 'RS256'
const DEFAULT_ACCOUNTS: Accounts = {
  alice: ['sre', 'reviewers'],
  bob: ['security', 'reviewers'],
  carol: ['auditors'],
  ci: ['pipelines'],
}

/** Groups of each account. */
export type Accounts = Readonly<Record<string, readonly string[]>>

/** Claims of a token; undefined leaves out one that would stand there by itself. */
export type TokenClaims = { readonly [name in keyof JWTPayload]: JWTPayload[name] | undefined }

/** An answer in the making. */
interface Context {
  body: unknown
}

/** A provider that is up. */
export interface OidcProvider {
  readonly issuer: string
  /** The private key of its tokens: as JSON good in other processes. */
  readonly signingJwk: JWK
  /** Requests to its token endpoint that it has had. */
  readonly tokenRequests: number
  /** Makes its token endpoint slow: each request waits so long before it is looked at, in milliseconds. */
  tokenDelayMs: number
  /** See {@link mintToken}. */
  mint(claims: TokenClaims): Promise<string>
  close(): Promise<void>
}

/** How to start it. */
export interface OidcProviderOptions {
  /** Address to listen on, and the issuer's host. */
  readonly host: string
  /** Any, when left out. */
  readonly port?: number
  /** PEM. */
  readonly cert: string
  readonly key: string
  readonly accounts?: Accounts
  /** Life of the ID tokens of its flows, in seconds. */
  readonly idTokenSeconds?: number
  /** Life of a device code, in seconds. */
  readonly deviceCodeSeconds?: number
}

/** Listens with HTTPS; the issuer is `https://HOST:PORT`. */
export async function startOidcProvider(options: OidcProviderOptions): Promise<OidcProvider> {
  const { host, port = 0, cert, key } = options
  const { privateKey } = await generateKeyPair(ALGORITHM, { extractable: true })
  const signingJwk: JWK = {
    ...(await exportJWK(privateKey)),
    ...{ kid: randomBytes(8).toString('hex'), alg: ALGORITHM, use: 'sig' },
  }
  // the port is part of the issuer, so there is no provider before there is a listener
  let handle: (request: IncomingMessage, response: ServerResponse) => void = () => undefined
  const server = createServer({ cert, key }, (request, response) => {
    handle(request, response)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  const issuer = `https://${host}:${(server.address() as AddressInfo).port}`
  const provider = new Provider(issuer, configuration(options, signingJwk))
  const callback = provider.callback()
  let tokenRequests = 0
  handle = (request, response) => {
    const answer = async (): Promise<void> => {
      if (request.url?.startsWith('/interaction/') === true)
        return interact(provider, request, response)
      if (request.url === '/token') {
        tokenRequests += 1
        await sleep(running.tokenDelayMs)
      }
      return callback(request, response)
    }
    answer().catch((error: unknown) => {
      response.statusCode = 500
      response.end(String(error))
    })
  }
  const running: OidcProvider = {
    ...{ issuer, signingJwk, tokenDelayMs: 0 },
    get tokenRequests() {
      return tokenRequests
    },
    mint: (claims) => mintToken(signingJwk, issuer, claims),
    close: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve()
        })
        server.closeAllConnections()
      }),
  }
  return running
}

/**
 * An ID token of a provider, signed with its own key. `claims` win over what stands by itself: `iss`, audience
 * {@link CLIENT_ID}, made now, good for ten minutes.
 *
 * @param more - fields of the token's header, before its `alg` and `kid`
 */
export async function mintToken(
  jwk: JWK,
  issuer: string,
  claims: TokenClaims,
  more: Readonly<Record<string, unknown>> = {},
): Promise<string> {
  const alg = jwk.alg ?? ALGORITHM
  const iat = Math.floor(Date.now() / 1000)
  const all: Record<string, unknown> = {
    iss: issuer,
    aud: CLIENT_ID,
    iat,
    exp: iat + TOKEN_LIFE_S,
    ...claims,
  }
  return new SignJWT(all)
    .setProtectedHeader({ alg, ...(jwk.kid === undefined ? {} : { kid: jwk.kid }), ...more })
    .sign(await importJWK(jwk, alg))
}

function configuration(options: OidcProviderOptions, jwk: JWK): object {
  const { accounts = DEFAULT_ACCOUNTS, idTokenSeconds = 300, deviceCodeSeconds = 60 } = options
  return {
    jwks: { keys: [jwk] },
    clients: [
      {
        client_id: CLIENT_ID,
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        // any port of a loopback address, RFC 8252
        redirect_uris: ['http://127.0.0.1/callback'],
        response_types: ['code'],
        grant_types: [
          'authorization_code',
          'refresh_token',
          'urn:ietf:params:oauth:grant-type:device_code',
        ],
      },
    ],
    claims: {
      openid: ['sub'],
      profile: ['name', 'preferred_username', 'groups'],
      email: ['email', 'email_verified'],
    },
    conformIdTokenClaims: false,
    cookies: { keys: [randomBytes(16).toString('hex')] },
    features: {
      devInteractions: { enabled: false },
      deviceFlow: {
        enabled: true,
        userCodeConfirmSource: (context: Context, form: string) => {
          context.body = form
        },
        successSource: (context: Context) => {
          context.body = 'You may go back to your device.'
        },
      },
      revocation: { enabled: true, allowedPolicy: () => true },
    },
    findAccount: (_context: unknown, accountId: string) => {
      const groups = Object.hasOwn(accounts, accountId) ? accounts[accountId] : undefined
      if (groups === undefined) return undefined
      const claims = { sub: accountId, name: accountId, preferred_username: accountId, groups }
      const email = { email: `${accountId}@example.com`, email_verified: true }
      return { accountId, claims: () => ({ ...claims, ...email }) }
    },
    interactions: {
      url: (_context: unknown, { uid }: { readonly uid: string }) => `/interaction/${uid}`,
    },
    renderError: (context: Context, out: object) => {
      context.body = out
    },
    ttl: {
      ...{ IdToken: idTokenSeconds, AccessToken: 300, AuthorizationCode: 60 },
      ...{ DeviceCode: deviceCodeSeconds, Grant: 3600, Interaction: 300, Session: 3600 },
      RefreshToken: 3600,
    },
  }
}

/** Signs in and consents, both without a question; the account `nobody` refuses. */
async function interact(
  provider: Provider,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { prompt, params, session } = await provider.interactionDetails(request, response)
  const cookie = /(?:^|; )account=([a-z]+)/.exec(request.headers.cookie ?? '')?.[1]
  const accountId = params['login_hint'] ?? cookie ?? 'alice'
  if (accountId === 'nobody') {
    const error = { error: 'access_denied', error_description: 'nobody refuses' }
    await provider.interactionFinished(request, response, error)
  } else if (prompt.name === 'login') {
    await provider.interactionFinished(request, response, { login: { accountId } })
  } else {
    const clientId = params['client_id'] ?? ''
    const grant = new provider.Grant({ accountId: session?.accountId ?? accountId, clientId })
    grant.addOIDCScope(params['scope'] ?? 'openid')
    const grantId = await grant.save()
    await provider.interactionFinished(request, response, { consent: { grantId } })
  }
}
