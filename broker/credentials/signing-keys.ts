/**
 * The keys that our tokens are signed with: P-256, each in a file of its own, mode 0600, in a folder that only the broker
 * has. A new key is published before it signs, and the old one stays published until no token of it is left anywhere, so
 * that a rotation refuses nobody. Where the keys are is behind {@link SigningKeys}; vault-keys.ts has those of a key service.
 */
import { createPrivateKey, createPublicKey, generateKeyPair, sign } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { chmod, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { calculateJwkThumbprint, exportJWK } from 'jose'
import type { JWK } from 'jose'
import { codeOf, Fault, messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { createOneByOne } from '../one-by-one.ts'
import { notOver, signingKey } from './key-times.ts'
import type { AgedKey } from './key-times.ts'

/** A key that signs. */
export interface SigningKey {
  /** RFC 7638 thumbprint of the public key. */
  readonly kid: string
  /** ES256 over the bytes: r and s, 32 bytes each (RFC 7518, 3.4). Rejects with a Fault `credential_unavailable` where a key service does not sign. */
  sign(bytes: Uint8Array): Promise<Uint8Array>
}

/** See the head of the file. */
export interface SigningKeys {
  /** The key that signs now. @throws Fault `credential_unavailable` while none is known */
  current(): SigningKey
  /** The public keys whose tokens are good, the newest first: a JWK set (RFC 7517, 5). */
  published(): { readonly keys: readonly JWK[] }
  /** The same keys, by age. */
  list(): readonly AgedKey[]
  /**
   * A new key signs from now on, and all others are gone for good: for a key that somebody else may have. An API server
   * that knows the others still takes them until it sees a token of the new one.
   *
   * @returns the new key, or why a key service did not do it
   */
  replace(): Promise<{ readonly kid: string } | Refusal>
  close(): void
}

/** How often the keys' age is looked at, in milliseconds. */
const LOOK_MS = 60_000
const DAY_MS = 86_400_000
/** Life of a signing key, in days, unless the configuration says otherwise. */
export const DEFAULT_ROTATE_DAYS = 30
const FILE = /^([0-9]{13})\.pem$/
const KEY_MODE = 0o600
const FOLDER_MODE = 0o700
/** Permissions of the group, which a volume with `fsGroup` gives to every file at each mount (manifests/base/broker). */
const GROUP = 0o070
/** Permissions of those who are neither owner nor group. */
const OTHERS = 0o007

interface StoredKey extends SigningKey, AgedKey {
  readonly file: string
  readonly jwk: JWK
}

/** Where the keys are, and how long one signs. */
export interface SigningKeysOptions {
  readonly dir: string
  readonly rotateAfterDays: number
}

/**
 * Reads the keys, makes the first one, and rotates them as they age.
 *
 * @param deps - `now` in milliseconds since the epoch; `onRotated` is told of each key that begins
 * @returns rejects when the folder cannot be used, or others may read a key; what its group may is taken back
 */
export async function openSigningKeys(
  options: SigningKeysOptions,
  deps: {
    readonly log: Logger
    readonly now: () => number
    readonly onRotated?: (kid: string) => void
  },
): Promise<SigningKeys> {
  const files = new KeyFiles(options, deps)
  await files.open()
  return files
}

class KeyFiles implements SigningKeys {
  readonly #dir: string
  readonly #rotateMs: number
  readonly #deps: Parameters<typeof openSigningKeys>[1]
  /** The newest first. */
  #keys: readonly StoredKey[] = []
  #timer: NodeJS.Timeout | undefined
  /** Changes of the folder, one after the other. */
  readonly #oneByOne = createOneByOne()

  constructor(
    { dir, rotateAfterDays }: SigningKeysOptions,
    deps: Parameters<typeof openSigningKeys>[1],
  ) {
    this.#dir = dir
    this.#rotateMs = rotateAfterDays * DAY_MS
    this.#deps = deps
  }

  async open(): Promise<void> {
    await mkdir(this.#dir, { recursive: true, mode: FOLDER_MODE })
    const names = (await readdir(this.#dir)).filter((name) => FILE.test(name))
    const read = await Promise.all(names.map((name) => readKey(this.#dir, name)))
    this.#keys = read.sort((a, b) => b.createdMs - a.createdMs)
    await this.#rotate()
    this.#timer = setInterval(() => {
      this.#rotate().catch((error: unknown) => {
        this.#deps.log.error({ error: messageOf(error) }, 'signing keys could not be rotated')
      })
    }, LOOK_MS)
    this.#timer.unref()
  }

  current(): SigningKey {
    const key = signingKey(this.#keys, this.#deps.now())
    if (key === undefined) throw new Fault('credential_unavailable', 'there is no key to sign with')
    return key
  }

  published(): { readonly keys: readonly JWK[] } {
    return { keys: this.#keys.map(({ jwk }) => jwk) }
  }

  list(): readonly AgedKey[] {
    return this.#keys
  }

  replace(): Promise<{ readonly kid: string }> {
    return this.#oneByOne('keys', async () => {
      const key = await this.#make()
      const old = this.#keys
      this.#keys = [key]
      await this.#forget(old)
      return { kid: key.kid }
    })
  }

  close(): void {
    clearInterval(this.#timer)
  }

  #rotate(): Promise<void> {
    return this.#oneByOne('keys', async () => {
      const nowMs = this.#deps.now()
      const [newest] = this.#keys
      if (newest === undefined || newest.createdMs + this.#rotateMs <= nowMs)
        this.#keys = [await this.#make(), ...this.#keys]
      const kept = notOver(this.#keys, nowMs)
      const over = this.#keys.slice(kept)
      this.#keys = this.#keys.slice(0, kept)
      await this.#forget(over)
    })
  }

  async #make(): Promise<StoredKey> {
    const { privateKey } = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' })
    const newest = this.#keys[0]?.createdMs ?? 0
    const createdMs = Math.max(this.#deps.now(), newest + 1)
    const name = `${String(createdMs).padStart(13, '0')}.pem`
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
    // whole or not at all: a broker that ends meanwhile must find no half of a key
    await writeFile(join(this.#dir, `${name}.new`), pem, { mode: KEY_MODE })
    await rename(join(this.#dir, `${name}.new`), join(this.#dir, name))
    const key = await storedKey(privateKey, createdMs, name)
    this.#deps.log.info({ kid: key.kid }, 'a new signing key was made')
    this.#deps.onRotated?.(key.kid)
    return key
  }

  async #forget(keys: readonly StoredKey[]): Promise<void> {
    for (const { file, kid } of keys) {
      await rm(join(this.#dir, file), { force: true })
      this.#deps.log.info({ kid }, 'a signing key is gone')
    }
  }
}

async function readKey(dir: string, file: string): Promise<StoredKey> {
  const path = join(dir, file)
  const { mode } = await stat(path)
  if ((mode & OTHERS) !== 0)
    throw new Fault(
      'config_invalid',
      `${path}: others than its owner may use it; its mode must be 0600`,
    )
  // fails where the file is not the broker's own
  if ((mode & GROUP) !== 0) await chmod(path, KEY_MODE)
  const pem = await readFile(path, 'utf8')
  try {
    const key = createPrivateKey(pem)
    if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new Error('not a P-256 key')
    return await storedKey(key, Number(FILE.exec(file)?.[1]), file)
  } catch (error) {
    // a message of the key's own parser could repeat what it read
    throw new Fault('config_invalid', `${path}: not a P-256 key (${codeOf(error) ?? 'unreadable'})`)
  }
}

async function storedKey(key: KeyObject, createdMs: number, file: string): Promise<StoredKey> {
  const jwk = await exportJWK(createPublicKey(key))
  const kid = await calculateJwkThumbprint(jwk)
  const signed = { key, dsaEncoding: 'ieee-p1363' } as const
  return {
    ...{ kid, createdMs, file, jwk: { ...jwk, kid, alg: 'ES256', use: 'sig' } },
    sign: (bytes) => Promise.resolve(sign('sha256', bytes, signed)),
  }
}
