/** The key of placeholders: a broker, and those that share its key, can put back what it has hidden. */
import { randomBytes } from 'node:crypto'
import { link, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { codeOf, Fault } from '../../shared/errors.ts'
import { readOwnFile, readPrivateFile } from '../../shared/private-file.ts'
import { createPlaceholders } from './placeholder.ts'
import type { Placeholders } from './types.ts'

/** How the configuration says it. */
export const maskingSchema = z.strictObject({
  /** Private file with the key; `masking.key` in `dataDir` when left out. Brokers that share a store should share it. */
  keyFile: z.string().min(1).optional(),
})

/** Placeholders of every cluster. */
export interface MaskingKey {
  /** @param cluster - name of the connection */
  placeholders(cluster: string): Placeholders
}

/** Shortest key, in bytes of its text. */
const MIN_KEY_BYTES = 32
const KEY_MODE = 0o600
/** In the broker's own folder. */
const KEY_FILE = 'masking.key'

/**
 * Reads the key, and makes it where the configuration names none and there is none.
 *
 * @throws Fault `file_not_private` for a file that others can read, `config_invalid` for one with less than 32 bytes
 */
export async function openMaskingKey(
  { keyFile }: z.infer<typeof maskingSchema>,
  dataDir: string,
): Promise<MaskingKey> {
  const path = keyFile ?? join(dataDir, KEY_FILE)
  if (keyFile === undefined) await makeKey(dataDir, path)
  const read = keyFile === undefined ? readOwnFile : readPrivateFile
  const key = Buffer.from((await read(path)).trim())
  if (key.length < MIN_KEY_BYTES)
    throw new Fault('config_invalid', `${path} is no key: it has less than ${MIN_KEY_BYTES} bytes`)
  return maskingKey(key)
}

/** Placeholders under a key that is there. @param key - secret, at least 32 bytes */
export function maskingKey(key: Buffer): MaskingKey {
  return { placeholders: (cluster) => createPlaceholders(key, cluster) }
}

async function makeKey(dataDir: string, path: string): Promise<void> {
  const unfinished = join(dataDir, `${randomBytes(6).toString('hex')}.new`)
  const text = `${randomBytes(MIN_KEY_BYTES).toString('base64')}\n`
  await writeFile(unfinished, text, { flag: 'wx', mode: KEY_MODE, flush: true })
  try {
    // whole or not at all, and never over one that is there
    await link(unfinished, path)
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
  } finally {
    await rm(unfinished)
  }
}
