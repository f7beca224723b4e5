/**
 * Signing keys in HashiCorp Vault or OpenBao, Transit engine, type `ecdsa-p256`: the private key never leaves it. Versions of
 * the key are rotated there; here they are published, sign and end by their age, as keys in files do (key-times.ts). While Vault does
 * not answer nothing is signed: there is no other key to fall back to.
 */
import { createPublicKey, verify } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { calculateJwkThumbprint, exportJWK } from 'jose'
import type { JWK } from 'jose'
import { z } from 'zod'
import { Fault, messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { createOneByOne } from '../one-by-one.ts'
import { notOver, signingKey } from './key-times.ts'
import type { AgedKey } from './key-times.ts'
import type { SigningKey, SigningKeys } from './signing-keys.ts'
import { createVaultClient } from './vault-client.ts'
import type { VaultClient, VaultSettings } from './vault-client.ts'

/** How often the versions are read again, in milliseconds. */
export const LOOK_MS = 60_000
/** The same while none is known. */
const LOOK_SOON_MS = 5_000
const KEY_TYPE = 'ecdsa-p256'
/** r and s of P-256. */
const SIGNATURE_BYTES = 64

const typeSchema = z.object({ data: z.object({ type: z.string() }) })
const version = z.number().int().min(0)
const keySchema = z.object({
  data: z.object({
    latest_version: version,
    min_decryption_version: version,
    min_available_version: version.default(0),
    min_encryption_version: version.default(0),
    keys: z.record(
      z.string().regex(/^[1-9][0-9]{0,8}$/),
      z.object({ creation_time: z.iso.datetime({ offset: true }), public_key: z.string() }),
    ),
  }),
})
/** Marshalled as a JWS has it: `vault:v3:` and base64url without padding. */
const signatureSchema = z.object({
  data: z.object({ signature: z.string().regex(/^vault:v[0-9]+:[\w-]+$/) }),
})

type KeyData = z.infer<typeof keySchema>['data']

interface VaultKey extends SigningKey, AgedKey {
  readonly version: number
  readonly jwk: JWK
}

/** What Vault has. */
interface Known {
  readonly latest: number
  /** Below that Vault signs with no version. */
  readonly signsFrom: number
  /** The newest first. */
  readonly keys: readonly VaultKey[]
}

/** What these keys need. */
export interface VaultKeysDeps {
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /** Told of each version that begins while the broker runs. */
  readonly onRotated?: (kid: string) => void
  /** Longest wait for Vault, in milliseconds; tests shorten it. */
  readonly answerMs?: number
  /** See {@link LOOK_MS}; tests shorten both. */
  readonly lookMs?: number
}

/**
 * Reads the versions, and again every minute. Does not reject: while Vault does not answer there is no key, or those that
 * were known.
 */
export async function openVaultKeys(
  settings: VaultSettings,
  deps: VaultKeysDeps,
): Promise<SigningKeys> {
  const keys = new VaultKeys(settings, deps)
  await keys.look()
  return keys
}

class VaultKeys implements SigningKeys {
  readonly #name: string
  readonly #client: VaultClient
  readonly #deps: VaultKeysDeps
  readonly #timer: NodeJS.Timeout
  #known: Known | undefined
  #problem: string | undefined
  #lookedMs = -Infinity
  /** One after the other. */
  readonly #oneByOne = createOneByOne()

  constructor(settings: VaultSettings, deps: VaultKeysDeps) {
    this.#name = settings.key
    this.#deps = deps
    this.#client = createVaultClient(settings, deps.now, deps.answerMs)
    const { lookMs = LOOK_MS } = deps
    const tick = Math.min(LOOK_SOON_MS, lookMs)
    this.#timer = setInterval(() => {
      const dueMs = this.#known === undefined ? 0 : lookMs - tick
      if (this.#lookedMs + dueMs <= deps.now()) void this.look()
    }, tick)
    this.#timer.unref()
  }

  current(): SigningKey {
    const { keys = [], signsFrom = 0 } = this.#known ?? {}
    // what the operator does not let sign any more does not, also where its successor is new
    const able = keys.filter((key) => key.version >= signsFrom)
    const key = signingKey(able, this.#deps.now())
    if (key === undefined)
      throw new Fault('credential_unavailable', 'no key of Vault is known to sign with')
    return key
  }

  published(): { readonly keys: readonly JWK[] } {
    return { keys: this.#kept().map(({ jwk }) => jwk) }
  }

  list(): readonly AgedKey[] {
    return this.#kept()
  }

  replace(): Promise<{ readonly kid: string } | Refusal> {
    return this.#oneByOne('keys', () => this.#replace())
  }

  close(): void {
    clearInterval(this.#timer)
    this.#client.close()
  }

  /** Reads the versions. Does not reject; what was known stays where Vault says nothing to work with. */
  async look(): Promise<void> {
    await this.#oneByOne('keys', () => this.#look())
  }

  #kept(): readonly VaultKey[] {
    const keys = this.#known?.keys ?? []
    return keys.slice(0, notOver(keys, this.#deps.now()))
  }

  /** Whether Vault answered. */
  async #look(): Promise<boolean> {
    const { log, now, onRotated } = this.#deps
    this.#lookedMs = now()
    try {
      const found = await this.#read()
      const before = this.#known
      this.#known = found
      this.#problem = undefined
      const old = new Set(before?.keys.map(({ kid }) => kid))
      if (before === undefined) return true
      for (const { kid } of found.keys.filter((key) => !old.has(key.kid))) {
        log.info({ kid }, 'Vault has a new version of the signing key')
        onRotated?.(kid)
      }
      return true
    } catch (error) {
      const problem = messageOf(error)
      if (problem !== this.#problem)
        log.error({ problem }, 'the signing keys could not be read from Vault')
      this.#problem = problem
      return false
    }
  }

  async #read(): Promise<Known> {
    const answer = await this.#client.call('GET', `keys/${this.#name}`)
    if ('problem' in answer) throw new Error(answer.problem)
    const typed = typeSchema.safeParse(answer.json)
    if (typed.success && typed.data.data.type !== KEY_TYPE)
      throw new Error(`the key is not of type ${KEY_TYPE}`)
    const parsed = keySchema.safeParse(answer.json)
    if (!typed.success || !parsed.success) throw new Error('the answer is not a Transit key')
    const { data } = parsed.data
    const keys = await Promise.all(
      usableVersions(data).map(([number, { creation_time: created, public_key: pem }]) =>
        this.#keyOf(number, Date.parse(created), pem),
      ),
    )
    if (keys.length === 0) throw new Error('the key has no version to sign with')
    return {
      ...{ latest: data.latest_version, signsFrom: data.min_encryption_version },
      keys: keys.sort((a, b) => b.version - a.version),
    }
  }

  async #keyOf(number: number, createdMs: number, pem: string): Promise<VaultKey> {
    const key = publicKey(pem)
    const jwk = await exportJWK(key)
    const kid = await calculateJwkThumbprint(jwk)
    return {
      ...{ kid, createdMs, version: number, jwk: { ...jwk, kid, alg: 'ES256', use: 'sig' } },
      sign: (bytes) => this.#sign(number, key, bytes),
    }
  }

  async #sign(number: number, key: KeyObject, bytes: Uint8Array): Promise<Uint8Array> {
    const answer = await this.#client.call('POST', `sign/${this.#name}`, {
      input: Buffer.from(bytes).toString('base64'),
      ...{ hash_algorithm: 'sha2-256', marshaling_algorithm: 'jws' },
      key_version: number,
    })
    if ('problem' in answer) throw notSigned(answer.problem)
    const parsed = signatureSchema.safeParse(answer.json)
    if (!parsed.success) throw notSigned('the answer is not a signature')
    const text = parsed.data.data.signature
    const signature = Buffer.from(text.slice(text.lastIndexOf(':') + 1), 'base64url')
    if (signature.length !== SIGNATURE_BYTES) throw notSigned('a signature of another length')
    // what another key made would be refused by the API server, as if the caller were to blame
    if (!verify('sha256', bytes, { key, dsaEncoding: 'ieee-p1363' }, signature))
      throw notSigned('the signature is not of the published key')
    return signature
  }

  async #replace(): Promise<{ readonly kid: string } | Refusal> {
    const name = this.#name
    const rotated = await this.#client.call('POST', `keys/${name}/rotate`)
    if ('problem' in rotated)
      return kept(`${rotated.problem}; rotate ${name}, then set its min_decryption_version`)
    const found = await this.#look()
    const latest = this.#known?.latest
    if (latest === undefined || !found)
      return kept('its new version cannot be read; set min_decryption_version to that')
    // of Vault itself too: what nobody checks by an old version, nobody signs with it
    const body = { min_decryption_version: latest, min_encryption_version: latest }
    const raised = await this.#client.call('POST', `keys/${name}/config`, body)
    const what = `set min_decryption_version and min_encryption_version of ${name} to ${latest}`
    if ('problem' in raised) return kept(`version ${latest} was made, ${raised.problem}; ${what}`)
    const again = await this.#look()
    const [newest, ...others] = this.#known?.keys ?? []
    return newest === undefined || others.length > 0 || !again
      ? kept(`it still has the earlier versions; ${what}`)
      : { kid: newest.kid }
  }
}

/** Versions that Vault still checks signatures by. */
function usableVersions({
  keys,
  min_decryption_version: checksFrom,
  min_available_version: hasFrom,
}: KeyData): readonly [number, KeyData['keys'][string]][] {
  return Object.entries(keys)
    .map(([number, key]): [number, KeyData['keys'][string]] => [Number(number), key])
    .filter(([number]) => number >= Math.max(checksFrom, hasFrom))
}

function publicKey(pem: string): KeyObject {
  const key = createPublicKey(pem)
  if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1')
    throw new Error('a version of the key is not on P-256')
  return key
}

function notSigned(problem: string): Fault {
  return new Fault('credential_unavailable', `Vault did not sign: ${problem}`)
}

function kept(detail: string): Refusal {
  return refuse('issuer_key_kept', detail)
}
