/** An issuer whose answers a test sets, also the wrong ones: HTTPS on 127.0.0.1. A real one is in oidc-provider.ts. */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { exportJWK, generateKeyPair } from 'jose'
import type { JWK } from 'jose'
import { makeCertificates } from './certificates.ts'

/** What it answers to one address: a JSON value, or whatever the function does. */
export type Script = object | string | ((response: ServerResponse) => void)

export interface ScriptedIssuer {
  readonly issuer: string
  readonly caFile: string
  /** The right discovery document. */
  readonly discovery: Readonly<Record<string, unknown>>
  /** Answers by path; what is not there is 404. */
  readonly answers: Map<string, Script>
  /** Paths that were asked for. */
  readonly asked: string[]
  /** Publishes keys, only their public half. */
  publish(...keys: readonly JWK[]): void
  close(): Promise<void>
}

export const DISCOVERY_PATH = '/.well-known/openid-configuration'
export const KEYS_PATH = '/keys'

/** A private key as JSON. */
export async function newKey(alg = 'ES256'): Promise<JWK> {
  const { privateKey } = await generateKeyPair(alg, { extractable: true })
  return { ...(await exportJWK(privateKey)), kid: randomBytes(8).toString('hex'), alg }
}

/** The public half of a key. */
export function publicHalf(key: JWK): JWK {
  const open = ['kty', 'kid', 'alg', 'use', 'crv', 'x', 'y', 'n', 'e']
  return Object.fromEntries(Object.entries(key).filter(([name]) => open.includes(name)))
}

/** Starts it, with a right discovery document and no keys. */
export async function startScriptedIssuer(): Promise<ScriptedIssuer> {
  const { ca, cert, key } = makeCertificates({ hosts: ['127.0.0.1'] })
  const folder = mkdtempSync(join(tmpdir(), 'nestgate-issuer-'))
  const caFile = join(folder, 'ca.pem')
  writeFileSync(caFile, ca)
  const answers = new Map<string, Script>()
  const asked: string[] = []
  const server = createServer({ cert, key }, (request, response) => {
    const path = request.url ?? ''
    asked.push(path)
    const script = answers.get(path)
    if (script === undefined) response.writeHead(404).end()
    else if (typeof script === 'function') script(response)
    else response.end(typeof script === 'string' ? script : JSON.stringify(script))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const issuer = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const discovery = { issuer, jwks_uri: issuer + KEYS_PATH }
  answers.set(DISCOVERY_PATH, discovery)
  return {
    ...{ issuer, caFile, discovery, answers, asked },
    publish(...keys) {
      answers.set(KEYS_PATH, { keys: keys.map(publicHalf) })
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => {
          rmSync(folder, { recursive: true })
          resolve()
        })
        server.closeAllConnections()
      }),
  }
}
