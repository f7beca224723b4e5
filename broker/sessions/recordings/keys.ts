/**
 * Master keys: each recording has a key of its own, which is stored only as a master key has wrapped it, bound to the session's id. Master keys
 * are files `NAME.key` in a folder that only the broker has, or a key of the Transit engine of Vault or OpenBao, which never leaves it.
 * Keys in files are rotated by putting another file beside them, whose name sorts last, and restarting: the last one wraps, all unwrap.
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { link, mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { codeOf, Fault } from '../../../shared/errors.ts'
import { readOwnFile } from '../../../shared/private-file.ts'
import { createVaultClient } from '../../credentials/vault-client.ts'
import type { VaultSettings } from '../../credentials/vault-client.ts'

/** Of AES-256. */
export const KEY_BYTES = 32

const CIPHER = 'aes-256-gcm'
const NONCE_BYTES = 12
const TAG_BYTES = 16
const FOLDER_MODE = 0o700
const KEY_MODE = 0o600
const SUFFIX = '.key'
const FIRST_KEY = 'first'
/** Before the id, so that nothing else that these keys may once seal can be taken for a session's key. */
const PURPOSE = 'nestgate-session-key-v1\0'
const FILE_PREFIX = 'file'
const VAULT_PREFIX = 'transit'

/** Master keys, wherever they are. */
export interface MasterKeys {
  /** @param id - of the session. @returns a text for the session's document; rejects with Fault `recording_failed` */
  wrap(sessionKey: Uint8Array, id: string): Promise<string>
  /** @returns rejects with Fault `recording_failed` where no key fits, or the key service does not answer */
  unwrap(wrapped: string, id: string): Promise<Buffer>
  close(): void
}

/**
 * Reads the keys of a folder, and makes the first one where there is none.
 *
 * @throws Fault `recording_failed` for a file that is no key of 32 bytes in base64, `file_not_private` for one that others can read
 */
export async function openKeyFiles(dir: string): Promise<MasterKeys> {
  await mkdir(dir, { recursive: true, mode: FOLDER_MODE })
  const names = await namesIn(dir)
  if (names.length === 0) {
    await makeFirst(dir)
    names.push(...(await namesIn(dir)))
  }
  const keys = new Map<string, Buffer>()
  for (const name of names) keys.set(name, await readKey(join(dir, name + SUFFIX), name))
  const newest = names.at(-1) ?? FIRST_KEY
  return {
    wrap: (sessionKey, id) => {
      const key = keys.get(newest)
      if (key === undefined) throw failed(`there is no master key in ${dir}`)
      return Promise.resolve(`${FILE_PREFIX}:${newest}:${wrapWith(key, sessionKey, id)}`)
    },
    unwrap: (wrapped, id) => {
      const [prefix, name = '', sealed = ''] = wrapped.split(':')
      const key = prefix === FILE_PREFIX ? keys.get(name) : undefined
      return key === undefined
        ? Promise.reject(failed('the master key of this recording is not here'))
        : unwrapWith(key, sealed, id)
    },
    close: () => undefined,
  }
}

/** Names of keys, in their order. */
async function namesIn(dir: string): Promise<string[]> {
  const files = (await readdir(dir)).filter((name) => name.endsWith(SUFFIX)).sort()
  return files.map((name) => name.slice(0, -SUFFIX.length))
}

async function makeFirst(dir: string): Promise<void> {
  const unfinished = join(dir, `${randomBytes(6).toString('hex')}.new`)
  const text = `${randomBytes(KEY_BYTES).toString('base64')}\n`
  await writeFile(unfinished, text, { flag: 'wx', mode: KEY_MODE, flush: true })
  try {
    // whole or not at all, and never over one that another broker has made meanwhile
    await link(unfinished, join(dir, FIRST_KEY + SUFFIX))
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
  } finally {
    await rm(unfinished)
  }
}

async function readKey(path: string, name: string): Promise<Buffer> {
  const key = Buffer.from((await readOwnFile(path)).trim(), 'base64')
  if (key.length !== KEY_BYTES || name.includes(':'))
    throw failed(`${path} is no key: it has to be ${KEY_BYTES} bytes in base64`)
  return key
}

function wrapWith(key: Buffer, sessionKey: Uint8Array, id: string): string {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv(CIPHER, key, nonce).setAAD(Buffer.from(PURPOSE + id))
  const sealed = [nonce, cipher.update(sessionKey), cipher.final(), cipher.getAuthTag()]
  return Buffer.concat(sealed).toString('base64')
}

function unwrapWith(key: Buffer, sealed: string, id: string): Promise<Buffer> {
  const bytes = Buffer.from(sealed, 'base64')
  if (bytes.length !== NONCE_BYTES + KEY_BYTES + TAG_BYTES) return Promise.reject(notUnwrapped())
  const nonce = bytes.subarray(0, NONCE_BYTES)
  const cipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES })
  cipher.setAAD(Buffer.from(PURPOSE + id)).setAuthTag(bytes.subarray(-TAG_BYTES))
  const plain = cipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES))
  try {
    return Promise.resolve(Buffer.concat([plain, cipher.final()]))
  } catch {
    return Promise.reject(notUnwrapped())
  }
}

const encryptedSchema = z.object({
  data: z.object({ ciphertext: z.string().regex(/^vault:v[0-9]+:[A-Za-z0-9+/=]+$/) }),
})
const decryptedSchema = z.object({ data: z.object({ plaintext: z.base64() }) })

/**
 * A key of the Transit engine, best of type `aes256-gcm96`. The session's id goes along as associated data (Vault 1.9 and later, OpenBao), and as
 * context, which a derived key is derived by; so a wrapped key is good for its own session only.
 *
 * @param now - milliseconds, any origin
 */
export function vaultKeys(
  settings: VaultSettings,
  now: () => number,
  answerMs?: number,
): MasterKeys {
  const client = createVaultClient(settings, now, answerMs)
  const bound = (id: string): object => {
    const context = Buffer.from(PURPOSE + id).toString('base64')
    return { context, associated_data: context }
  }
  return {
    async wrap(sessionKey, id) {
      const plaintext = Buffer.from(sessionKey).toString('base64')
      const body = { plaintext, ...bound(id) }
      const answer = await client.call('POST', `encrypt/${settings.key}`, body)
      if ('problem' in answer) throw failed(`Vault did not wrap the key: ${answer.problem}`)
      const parsed = encryptedSchema.safeParse(answer.json)
      if (!parsed.success) throw failed('Vault did not wrap the key: the answer has no ciphertext')
      return `${VAULT_PREFIX}:${parsed.data.data.ciphertext}`
    },
    async unwrap(wrapped, id) {
      if (!wrapped.startsWith(`${VAULT_PREFIX}:`))
        throw failed('the master key of this recording is not in Vault')
      const body = { ciphertext: wrapped.slice(VAULT_PREFIX.length + 1), ...bound(id) }
      const answer = await client.call('POST', `decrypt/${settings.key}`, body)
      if ('problem' in answer) throw failed(`Vault did not unwrap the key: ${answer.problem}`)
      const parsed = decryptedSchema.safeParse(answer.json)
      const key = Buffer.from(parsed.data?.data.plaintext ?? '', 'base64')
      if (key.length !== KEY_BYTES) throw failed('Vault did not unwrap the key: no key of 32 bytes')
      return key
    },
    close: () => {
      client.close()
    },
  }
}

function failed(message: string): Fault {
  return new Fault('recording_failed', message)
}

function notUnwrapped(): Fault {
  return failed('the key of this recording does not belong to it, or to this master key')
}
