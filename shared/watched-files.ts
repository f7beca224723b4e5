/**
 * Files that change under a running process: certificates that are renewed, a Secret volume whose `..data` link
 * is swapped. They are read again at an interval and compared by content: no file events, which neither
 * symlink swaps nor every volume driver deliver. What does not pass the check never replaces what did.
 */
import { readFile, stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { codeOf, Fault } from './errors.ts'
import { readPrivateFile } from './private-file.ts'

/** How often files are read again, in milliseconds: a new certificate is served at the latest 10 s after it is there. */
export const FILE_CHECK_INTERVAL_MS = 5_000

/** Longest wait for files at start that settings may ask for, in seconds. */
export const MAX_FILE_WAIT_S = 600
/** How often is looked for files that are waited for, in milliseconds. */
const WAIT_CHECK_MS = 500

/** What a watch is made for. */
export interface WatchedFiles<T> {
  readonly files: readonly string[]
  /** Those of `files` that hold a secret, and are refused where others can read them. */
  readonly secret?: readonly string[]
  /** Makes a value of the files' texts, in the order of `files`; throws where they are not right, or not right together. */
  readonly load: (texts: readonly string[]) => T
  /** Called with each new value after the first. */
  readonly changed: (value: T) => void
  /** Called with what went wrong; the value before stays. Texts of the files are never in it. */
  readonly failed: (files: readonly string[], error: unknown) => void
  /** See {@link FILE_CHECK_INTERVAL_MS}, the default. */
  readonly intervalMs?: number
}

/** A running watch. */
export interface Watch<T> {
  /** The value at the start. */
  readonly first: T
  /** Ends the watch; a reading under way reports nothing any more. */
  readonly stop: () => void
}

/**
 * Waits for files that others write: a pod may start before its Secret is filled, and ends up in ever longer pauses between
 * restarts when it fails at once. Settles as soon as each file has content, or when the time is over: reading them then tells what
 * is missing.
 *
 * @param waiting - called once, with the files that are missing or empty, where there are any
 */
export async function waitForFiles(
  files: readonly string[],
  limitMs: number,
  waiting: (missing: readonly string[]) => void,
): Promise<void> {
  const end = performance.now() + limitMs
  for (let first = true; performance.now() < end; first = false) {
    const found = await Promise.all(files.map(hasContent))
    if (found.every(Boolean)) return
    if (first) waiting(files.filter((_, index) => found[index] !== true))
    await sleep(Math.min(WAIT_CHECK_MS, Math.max(0, end - performance.now())))
  }
}

/** Whatever else is wrong with a file, reading it tells. */
async function hasContent(file: string): Promise<boolean> {
  try {
    return (await stat(file)).size > 0
  } catch (error) {
    return codeOf(error) !== 'ENOENT'
  }
}

/**
 * Reads files and watches them.
 *
 * @throws what reading or `load` throws the first time: a process starts with good files or not at all
 */
export async function watchFiles<T>(options: WatchedFiles<T>): Promise<Watch<T>> {
  const { files, load } = options
  const secret = new Set(options.secret)
  let texts = await readAll(files, secret)
  const first = load(texts)
  let stopped = false
  let complaint = ''
  const check = async (): Promise<void> => {
    try {
      const now = await readAll(files, secret)
      if (stopped) return
      if (now.some((text, index) => text !== texts[index])) {
        const value = load(now)
        texts = now
        options.changed(value)
      }
      complaint = ''
    } catch (error) {
      // A broken file is told once, not at every reading.
      if (!stopped && complaint !== String(error)) options.failed(files, error)
      complaint = String(error)
    }
  }
  let timer: NodeJS.Timeout
  const schedule = (): void => {
    timer = setTimeout(() => {
      void check().then(() => {
        if (!stopped) schedule()
      })
    }, options.intervalMs ?? FILE_CHECK_INTERVAL_MS)
    timer.unref()
  }
  schedule()
  return {
    first,
    stop: () => {
      stopped = true
      clearTimeout(timer)
    },
  }
}

async function readAll(
  files: readonly string[],
  secret: ReadonlySet<string>,
): Promise<readonly string[]> {
  return Promise.all(
    files.map(async (file) => {
      try {
        return await (secret.has(file) ? readPrivateFile(file) : readFile(file, 'utf8'))
      } catch (error) {
        if (error instanceof Fault) throw error
        throw new Error(`${file}: ${codeOf(error) ?? 'cannot be read'}`, { cause: error })
      }
    }),
  )
}
