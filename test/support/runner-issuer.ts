/**
 * The issuer of a CI system's tokens, as far as a relying party meets it: a discovery document, a key set, and tokens
 * that it signs for its runners. Whoever has its key can mint, in another process too.
 */
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { exportJWK, generateKeyPair, importJWK, SignJWT } from 'jose'
import type { JWK, JWTPayload } from 'jose'

/** What minting a token takes. */
export interface RunnerIssuer {
  readonly issuer: string
  /** Private. */
  readonly signingJwk: JWK
}

/** Audience that tokens are for unless their claims say otherwise. */
export const AUDIENCE = 'nestgate'
const LIFE_S = 600

/** Starts one. @param host - address to listen on, which the certificate must be for */
export async function startRunnerIssuer(options: {
  readonly host: string
  readonly cert: string
  readonly key: string
}): Promise<RunnerIssuer & { close(): Promise<void> }> {
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true })
  const named = { kid: 'runner-key', alg: 'ES256', use: 'sig' }
  const server = createServer({ cert: options.cert, key: options.key }, (request, response) => {
    const documents: Readonly<Record<string, object>> = {
      '/.well-known/openid-configuration': { issuer, jwks_uri: `${issuer}/jwks` },
      '/jwks': { keys: [{ ...jwk, ...named }] },
    }
    const found = documents[request.url ?? '']
    response.writeHead(found === undefined ? 404 : 200, { 'content-type': 'application/json' })
    response.end(JSON.stringify(found ?? {}))
  })
  const jwk = await exportJWK(publicKey)
  await new Promise<void>((resolve) => server.listen(0, options.host, resolve))
  const { port } = server.address() as AddressInfo
  const issuer = `https://${options.host}:${port}`
  return {
    issuer,
    signingJwk: { ...(await exportJWK(privateKey)), ...named },
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections()
        server.close(() => {
          resolve()
        })
      }),
  }
}

/** A token of a runner, good for ten minutes. */
export async function mintRunnerToken(
  { issuer, signingJwk }: RunnerIssuer,
  claims: JWTPayload,
): Promise<string> {
  return new SignJWT({ aud: AUDIENCE, ...claims })
    .setProtectedHeader({ alg: 'ES256', kid: 'runner-key' })
    .setIssuer(issuer)
    .setIssuedAt()
    .setExpirationTime(`${LIFE_S}s`)
    .sign(await importJWK(signingJwk, 'ES256'))
}
