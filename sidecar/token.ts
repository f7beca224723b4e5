/**
 * The projected token by which the broker knows the pod. The kubelet replaces the file long before the token
 * expires, so it is read again when it changes and at least every minute. The token is never logged.
 */
import { readFileSync, statSync } from 'node:fs'

/** Longest time between two readings of the file, in milliseconds. */
const READ_AGAIN_AFTER_MS = 60_000
/** A larger file is not a token. */
const MAX_TOKEN_BYTES = 16_384

/** Where the sidecar's own token comes from. */
export interface TokenSource {
  /** The token as of now, or undefined when there is none; never throws. */
  read(): string | undefined
}

/**
 * A token from a file. What is not a bearer token (RFC 6750, section 2.1) counts as missing.
 *
 * @param now - milliseconds
 */
export function createTokenSource(file: string, now: () => number): TokenSource {
  let cached: { token: string | undefined; mark: string; readAt: number } | undefined
  return {
    read(): string | undefined {
      const mark = fileMark(file)
      if (mark === undefined) return undefined
      if (cached?.mark !== mark || now() - cached.readAt >= READ_AGAIN_AFTER_MS)
        cached = { token: readToken(file), mark, readAt: now() }
      return cached.token
    },
  }
}

/** Changes when the kubelet swaps the `..data` link under the file, because `stat` follows it. */
function fileMark(file: string): string | undefined {
  try {
    const { dev, ino, mtimeMs, size } = statSync(file)
    return size > MAX_TOKEN_BYTES ? undefined : `${dev}:${ino}:${mtimeMs}:${size}`
  } catch {
    return undefined
  }
}

function readToken(file: string): string | undefined {
  try {
    const token = readFileSync(file, 'latin1').trim()
    return /^[A-Za-z0-9\-._~+/]+=*$/.test(token) ? token : undefined
  } catch {
    return undefined
  }
}
