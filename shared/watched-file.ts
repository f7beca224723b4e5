/**
 * A file that others replace while we run: tokens and certificates, which kubelet rotates by swapping a
 * symbolic link. Read when asked for and its modification time or inode has changed; a look costs one `stat`.
 */
import { readFile, stat } from 'node:fs/promises'

/** How long a look at the file is trusted, in milliseconds. */
const LOOK_INTERVAL_MS = 1_000

/** See the head of the file. */
export interface WatchedFile {
  /** The content as of at most a second ago. Rejects as reading does when the file cannot be read. */
  read(): Promise<string>
}

/**
 * Watches a UTF-8 text file.
 *
 * @param now - milliseconds, any origin
 * @param readText - reads it; `readPrivateFile` for one that holds a secret
 */
export function watchFile(
  path: string,
  now: () => number,
  readText: (path: string) => Promise<string> = readPlain,
): WatchedFile {
  let lookedAt = Number.NEGATIVE_INFINITY
  let identity = ''
  let content = ''
  let pending: Promise<string> | undefined
  const look = async (): Promise<string> => {
    const { mtimeNs, ino, dev, size } = await stat(path, { bigint: true })
    const found = `${dev}:${ino}:${mtimeNs}:${size}`
    if (found !== identity) {
      content = await readText(path)
      identity = found
    }
    lookedAt = now()
    return content
  }
  return {
    read(): Promise<string> {
      if (now() - lookedAt < LOOK_INTERVAL_MS) return Promise.resolve(content)
      pending ??= look().finally(() => {
        pending = undefined
      })
      return pending
    },
  }
}

function readPlain(path: string): Promise<string> {
  return readFile(path, 'utf8')
}
