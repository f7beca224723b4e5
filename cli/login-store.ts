/**
 * What `nestgate login` keeps: per broker the tokens of one person, in `$XDG_CONFIG_HOME/nestgate/credentials.json`, which
 * only its owner can read. Written whole, then moved into place; changes are made under a lock that the operating system
 * drops with the process, so that two processes never use up one refresh token.
 */
import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { randomBytes } from 'node:crypto'
import { homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { codeOf, messageOf } from '../shared/errors.ts'
import { CallError } from './client.ts'
import type { Environment } from './settings.ts'

const FOLDER_MODE = 0o700
const FILE_MODE = 0o600
/** Permissions of others than the owner. */
const OTHERS = 0o077
/** Longest wait for another process that changes the file, in milliseconds, and between two tries. */
const LOCK_WAIT_MS = 45_000
const LOCK_TRY_MS = 50

const signInSchema = z.object({
  /** Its name at the broker. */
  name: z.string(),
  issuer: z.string(),
  clientId: z.string(),
  scopes: z.array(z.string()),
  idToken: z.string(),
  /** Seconds since the epoch. */
  expiresAt: z.number(),
  refreshToken: z.string().optional(),
  /** Where the issuer's certificate is checked with others than the system's. */
  issuerCaFile: z.string().optional(),
})
const fileSchema = z.object({
  version: z.literal(1),
  brokers: z.record(z.string(), signInSchema),
})

/** One sign-in at one broker. */
export type SignIn = z.infer<typeof signInSchema>

/** The file. */
export interface LoginStore {
  /** @returns undefined where nobody is signed in. @throws CallError where the file is unusable or not private */
  read(broker: URL): SignIn | undefined
  /**
   * Changes the sign-in at one broker, alone.
   *
   * @param work - from what there is to what there shall be; undefined removes it
   */
  change(
    broker: URL,
    work: (current: SignIn | undefined) => Promise<SignIn | undefined>,
  ): Promise<SignIn | undefined>
}

/** The store of this user. */
export function openLoginStore(env: Environment): LoginStore {
  const folder = join(configHome(env), 'nestgate')
  const file = join(folder, 'credentials.json')
  const readAll = (): z.infer<typeof fileSchema> => {
    const text = readPrivate(file)
    if (text === undefined) return { version: 1, brokers: {} }
    const parsed = fileSchema.safeParse(parseJson(text))
    if (!parsed.success) throw new CallError(`${file} cannot be read: remove it, and sign in again`)
    return parsed.data
  }
  return {
    read: (broker) => signInAt(readAll().brokers, broker),
    async change(broker, work) {
      mkdirSync(folder, { recursive: true, mode: FOLDER_MODE })
      chmodSync(folder, FOLDER_MODE)
      const unlock = await lock(`${file}.lock`)
      try {
        const result = await work(signInAt(readAll().brokers, broker))
        // read again: work may have taken long, and only this key is ours
        const brokers = new Map(Object.entries(readAll().brokers))
        if (result === undefined) brokers.delete(keyOf(broker))
        else brokers.set(keyOf(broker), result)
        replaceFile(file, `${JSON.stringify(fileOf(brokers), undefined, 2)}\n`)
        return result
      } finally {
        unlock()
      }
    },
  }
}

function configHome(env: Environment): string {
  const { XDG_CONFIG_HOME: configured, HOME: home } = env
  // a relative path is to be ignored (XDG Base Directory Specification)
  if (configured !== undefined && isAbsolute(configured)) return configured
  return join(home !== undefined && isAbsolute(home) ? home : homedir(), '.config')
}

function keyOf({ href }: URL): string {
  return href.endsWith('/') ? href.slice(0, -1) : href
}

function signInAt(brokers: Readonly<Record<string, SignIn>>, broker: URL): SignIn | undefined {
  return Object.hasOwn(brokers, keyOf(broker)) ? brokers[keyOf(broker)] : undefined
}

function fileOf(brokers: ReadonlyMap<string, SignIn>): z.infer<typeof fileSchema> {
  return { version: 1, brokers: Object.fromEntries(brokers) }
}

function readPrivate(file: string): string | undefined {
  try {
    // Windows has no such bits; there the folder is the user's own
    if (process.platform !== 'win32' && (statSync(file).mode & OTHERS) !== 0)
      throw new CallError(`${file} is open to others: chmod 600 it, or remove it and sign in again`)
    return readFileSync(file, 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    if (error instanceof CallError) throw error
    throw new CallError(`cannot read ${file}: ${messageOf(error)}`)
  }
}

function replaceFile(file: string, text: string): void {
  const fresh = `${file}.${randomBytes(6).toString('hex')}`
  try {
    writeFileSync(fresh, text, { mode: FILE_MODE, flag: 'wx', flush: true })
    renameSync(fresh, file)
  } catch (error) {
    rmSync(fresh, { force: true })
    throw new CallError(`cannot write ${file}: ${messageOf(error)}`)
  }
}

/** @returns gives the lock back */
async function lock(file: string): Promise<() => void> {
  closeSync(openSync(file, 'a', FILE_MODE))
  const database = new DatabaseSync(file, { timeout: 0 })
  const endMs = performance.now() + LOCK_WAIT_MS
  for (;;) {
    try {
      database.exec('BEGIN EXCLUSIVE')
      return () => {
        database.close()
      }
    } catch (error) {
      if (!messageOf(error).includes('locked') || performance.now() > endMs) {
        database.close()
        throw new CallError(`cannot lock ${file}: ${messageOf(error)}`)
      }
    }
    await sleep(LOCK_TRY_MS)
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
