/**
 * A stand-in for HashiCorp Vault or OpenBao: the Transit engine's HTTP API as far as the broker uses it, over TLS, signing and
 * encrypting with real keys. What a version, a policy or a fault does is set by the test.
 */
import {
  createCipheriv,
  createDecipheriv,
  generateKeyPairSync,
  randomBytes,
  sign,
} from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { VaultSettings } from '../../broker/credentials/vault-client.ts'
import { makeCertificates } from './certificates.ts'

/** A call as it arrived. */
export interface VaultCall {
  readonly method: string
  readonly path: string
  readonly token: string | undefined
  readonly body: Readonly<Record<string, unknown>>
}

interface Version {
  readonly createdMs: number
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

/** See the head of the file. */
export interface Vault {
  /** What the broker is configured with. */
  readonly settings: VaultSettings
  readonly calls: VaultCall[]
  /** By number, from 1. */
  readonly versions: Version[]
  /** As Vault's policy for the token would: what it answers 403 to. */
  readonly forbidden: Set<'keys' | 'sign' | 'rotate' | 'config' | 'encrypt' | 'decrypt'>
  token: string
  minDecryption: number
  /** Shows versions below that, too; Vault itself does not. */
  showsAll: boolean
  minEncryption: number
  type: string
  /** Answers instead, where it is set. */
  fault: ((response: ServerResponse, path: string) => void) | undefined
  /** Makes what Transit puts after `vault:vN:`; tests break it. */
  signature: (bytes: Buffer) => string
  /** A new version, made at that time. */
  rotate(createdMs: number): void
  writeToken(token: string, mode?: number): void
  close(): Promise<void>
}

/** Starts it with one version, made at that time. @param now - for versions that it is asked for */
export async function startVault(createdMs: number, now: () => number = Date.now): Promise<Vault> {
  const { ca, cert, key } = makeCertificates({ hosts: ['127.0.0.1'] })
  const folder = mkdtempSync(join(tmpdir(), 'nestgate-vault-'))
  const caFile = join(folder, 'ca.pem')
  const tokenFile = join(folder, 'token')
  writeFileSync(caFile, ca)
  const server = createServer({ cert, key }, (request, response) => {
    void serve(vault, now, request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const vault: Vault = {
    settings: { address, mount: 'transit', key: 'issuer', tokenFile, caFile },
    ...{ calls: [], versions: [], forbidden: new Set(), token: 'hvs.first', fault: undefined },
    ...{ minDecryption: 1, showsAll: false, minEncryption: 0, type: 'ecdsa-p256' },
    signature: (bytes) => bytes.toString('base64url'),
    rotate(atMs) {
      const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      vault.versions.push({ createdMs: atMs, ...pair })
    },
    writeToken(token, mode = 0o600) {
      rmSync(tokenFile, { force: true })
      writeFileSync(tokenFile, `${token}\n`, { mode })
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
  vault.rotate(createdMs)
  vault.writeToken(vault.token)
  return vault
}

async function serve(
  vault: Vault,
  now: () => number,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  let text = ''
  for await (const chunk of request) text += String(chunk)
  const { method = '', url: path = '', headers } = request
  const token = headers['x-vault-token'] as string | undefined
  const body = (text === '' ? {} : JSON.parse(text)) as VaultCall['body']
  vault.calls.push({ method, path, token, body })
  const reply = (status: number, value: object): void => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
  }
  if (vault.fault !== undefined) {
    vault.fault(response, path)
    return
  }
  const what =
    /^\/v1\/transit\/(?:(sign|encrypt|decrypt)\/issuer|keys\/issuer(?:\/(rotate|config))?)$/.exec(
      path,
    )
  const call = what === null ? undefined : (what[1] ?? what[2] ?? 'keys')
  if (token !== vault.token || headers['x-vault-request'] !== 'true')
    reply(403, { errors: ['permission denied'] })
  else if (call === undefined) reply(404, { errors: [] })
  else if (vault.forbidden.has(call as 'sign')) reply(403, { errors: ['1 error: denied'] })
  else if (call === 'keys' && method === 'GET') reply(200, shown(vault))
  else if (call === 'sign' && method === 'POST') signed(vault, body, reply)
  else if (call === 'encrypt' && method === 'POST') encrypted(body, reply)
  else if (call === 'decrypt' && method === 'POST') decrypted(body, reply)
  else if (call === 'rotate' && method === 'POST') {
    vault.rotate(now())
    reply(200, shown(vault))
  } else if (call === 'config' && method === 'POST') {
    vault.minDecryption = Number(body['min_decryption_version'])
    vault.minEncryption = Number(body['min_encryption_version'])
    response.writeHead(204).end()
  } else reply(405, { errors: [] })
}

/** As Transit shows a key: archived versions are not among `keys`; times have nanoseconds. */
function shown({ versions, type, minDecryption, minEncryption, showsAll }: Vault): object {
  const keys = versions.flatMap(({ createdMs, publicKey }, index) => {
    if (index + 1 < minDecryption && !showsAll) return []
    const created = new Date(createdMs).toISOString().replace('Z', '123456Z')
    const pem = publicKey.export({ type: 'spki', format: 'pem' })
    return [[String(index + 1), { creation_time: created, name: 'P-256', public_key: pem }]]
  })
  return {
    ...{ request_id: randomBytes(8).toString('hex'), lease_duration: 0 },
    data: {
      ...{ name: 'issuer', type, exportable: false, supports_signing: true },
      keys: Object.fromEntries(keys) as object,
      latest_version: versions.length,
      ...{ min_available_version: 0, min_decryption_version: minDecryption },
      min_encryption_version: minEncryption,
    },
  }
}

function signed(
  { versions, minEncryption, signature }: Vault,
  body: VaultCall['body'],
  reply: (status: number, value: object) => void,
): void {
  const number = Number(body['key_version'])
  const version = versions[number - 1]
  const right = body['hash_algorithm'] === 'sha2-256' && body['marshaling_algorithm'] === 'jws'
  if (version === undefined || number < minEncryption || !right || 'prehashed' in body) {
    reply(400, { errors: ['invalid'] })
    return
  }
  const input = Buffer.from(String(body['input']), 'base64')
  const bytes = sign('sha256', input, { key: version.privateKey, dsaEncoding: 'ieee-p1363' })
  const text = `vault:v${number}:${signature(bytes)}`
  reply(200, { data: { signature: text, key_version: number } })
}

/** Of a key of type `aes256-gcm96`, whose versions do not matter here. */
const WRAPPING_KEY = randomBytes(32)

function encrypted(body: VaultCall['body'], reply: (status: number, value: object) => void): void {
  const nonce = randomBytes(12)
  const cipher = createCipheriv('aes-256-gcm', WRAPPING_KEY, nonce)
  cipher.setAAD(Buffer.from(String(body['associated_data']), 'base64'))
  const plain = Buffer.from(String(body['plaintext']), 'base64')
  const parts = [nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]
  reply(200, { data: { ciphertext: `vault:v1:${Buffer.concat(parts).toString('base64')}` } })
}

function decrypted(body: VaultCall['body'], reply: (status: number, value: object) => void): void {
  const bytes = Buffer.from(String(body['ciphertext']).replace('vault:v1:', ''), 'base64')
  const cipher = createDecipheriv('aes-256-gcm', WRAPPING_KEY, bytes.subarray(0, 12))
  cipher.setAAD(Buffer.from(String(body['associated_data']), 'base64'))
  cipher.setAuthTag(bytes.subarray(-16))
  try {
    const plain = Buffer.concat([cipher.update(bytes.subarray(12, -16)), cipher.final()])
    reply(200, { data: { plaintext: plain.toString('base64') } })
  } catch {
    reply(400, { errors: ['cipher: message authentication failed'] })
  }
}
