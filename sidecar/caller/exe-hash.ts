/**
 * SHA-256 of what a process executes, read through the kernel's own link to it, so that neither a renamed nor a deleted
 * file nor another mount namespace misleads. Reading goes on beside other work, in pieces; each file is read once.
 */
import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { codeOf } from '../../shared/errors.ts'

/** Largest executable that is hashed, in bytes. */
export const MAX_EXECUTABLE_BYTES = 1024 * 1024 * 1024
/** Most files whose hash is remembered. */
const MAX_REMEMBERED = 256
/** Most files read at one time: each may come from a file system that never answers. */
const MAX_READING = 2
/** Most files that wait for that. */
const MAX_WAITING = 64
/** How much is read and hashed at once, in bytes: about a millisecond's work. */
const PIECE_BYTES = 512 * 1024
/** How long a request waits for the hash of a program seen for the first time, in milliseconds. */
export const HASH_LIMIT_MS = 2000

/** The hash as hex digits, or why there is none. */
export type ExeHash = { readonly sha256: string } | { readonly note: string }

/** Hashes executables. */
export interface ExeHashes {
  /**
   * Never rejects.
   *
   * @param link - a path that leads to the file whatever its name is now: `/proc/PID/exe`
   */
  of(link: string): Promise<ExeHash>
}

/** @param limitMs - see {@link HASH_LIMIT_MS} */
export function createExeHashes(limitMs = HASH_LIMIT_MS): ExeHashes {
  const remembered = new Map<string, Promise<ExeHash>>()
  const slots = createSlots()
  const remember = (key: string, handle: FileHandle): Promise<ExeHash> => {
    const known = remembered.get(key)
    remembered.delete(key)
    const hash = known ?? slots.run(() => hashFile(handle))
    remembered.set(key, hash)
    for (const [oldest] of remembered) {
      if (remembered.size <= MAX_REMEMBERED) break
      remembered.delete(oldest)
    }
    // What could not be read may be readable the next time.
    if (known === undefined) void hash.then((result) => 'note' in result && remembered.delete(key))
    return hash
  }
  const read = async (link: string): Promise<ExeHash> => {
    try {
      const handle = await open(link, 'r')
      try {
        const { dev, ino, size, mtimeNs, ctimeNs } = await handle.stat({ bigint: true })
        if (size > BigInt(MAX_EXECUTABLE_BYTES)) return { note: 'too large to be hashed' }
        return await remember([dev, ino, size, mtimeNs, ctimeNs].join(':'), handle)
      } finally {
        await handle.close()
      }
    } catch (error) {
      return { note: `not hashed: ${codeOf(error) ?? 'it cannot be read'}` }
    }
  }
  return {
    async of(link): Promise<ExeHash> {
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<ExeHash>((resolve) => {
        timer = setTimeout(resolve, limitMs, { note: 'not hashed in time' })
      })
      const hash = await Promise.race([read(link), late])
      clearTimeout(timer)
      return hash
    },
  }
}

async function hashFile(handle: FileHandle): Promise<ExeHash> {
  const hash = createHash('sha256')
  const piece = Buffer.allocUnsafeSlow(PIECE_BYTES)
  for (let at = 0; at <= MAX_EXECUTABLE_BYTES;) {
    const { bytesRead } = await handle.read(piece, 0, piece.length, at)
    if (bytesRead === 0) return { sha256: hash.digest('hex') }
    hash.update(piece.subarray(0, bytesRead))
    at += bytesRead
  }
  return { note: 'too large to be hashed' }
}

/** Runs a few at a time, the others in order. */
function createSlots(): { run: (work: () => Promise<ExeHash>) => Promise<ExeHash> } {
  let running = 0
  const waiting: (() => void)[] = []
  return {
    async run(work): Promise<ExeHash> {
      if (running >= MAX_READING) {
        if (waiting.length >= MAX_WAITING) return { note: 'not hashed: too many at once' }
        await new Promise<void>((resolve) => waiting.push(resolve))
      }
      running += 1
      try {
        return await work()
      } catch (error) {
        return { note: `not hashed: ${codeOf(error) ?? 'it cannot be read'}` }
      } finally {
        running -= 1
        waiting.shift()?.()
      }
    },
  }
}
