/**
 * Reading files that hold a secret: a private key, a token, a signing secret. What others of the machine may read is
 * no secret, and what they may write is not ours: such a file is refused, not used with a warning. Links are followed
 * (Kubernetes mounts are links), and what is checked is what is read: one open file, not two looks at a path.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { Fault } from './errors.ts'

/** Read and write for others, and write for the group: with `fsGroup`, Kubernetes lets the group read. */
const NOT_ALLOWED = 0o027
const GROUP = 0o070
const GROUP_WRITE = 0o020
/** Bits of a mode that are shown. */
const PERMISSIONS = 0o7777
/** Largest file that can be a key or a token, in bytes. */
const MAX_PRIVATE_BYTES = 1024 * 1024
/** Without waiting: opening a pipe would wait for its writer. */
const FLAGS = constants.O_RDONLY | constants.O_NONBLOCK

interface Stats {
  readonly mode: number
  readonly size: number
  isFile(): boolean
}

/**
 * Reads a UTF-8 text that must be private: a regular file that others can neither read nor write nor run, and its group cannot write.
 * Windows has no such modes; only the kind of file is checked there.
 *
 * @throws Fault `file_not_private` naming path and mode, never the content; or the system's error where it cannot be opened
 */
export async function readPrivateFile(path: string): Promise<string> {
  const file = await open(path, FLAGS)
  try {
    check(path, await file.stat())
    return await file.readFile('utf8')
  } finally {
    await file.close()
  }
}

/**
 * As {@link readPrivateFile}, for a file that the process has made itself: what its group may is taken back first. A volume with `fsGroup`
 * gives it to every file at each mount (Kubernetes, pkg/volume/volume_linux.go), so that a key would be refused after the first restart.
 */
export async function readOwnFile(path: string): Promise<string> {
  const file = await open(path, FLAGS)
  try {
    const { mode } = await file.stat()
    // somebody else's file, or one on a volume that cannot be written, is judged as it is
    if ((mode & GROUP_WRITE) !== 0) await file.chmod(mode & ~GROUP).catch(() => undefined)
    check(path, await file.stat())
    return await file.readFile('utf8')
  } finally {
    await file.close()
  }
}

/** As {@link readPrivateFile}, for commands that do one thing after the other. @throws as that */
export function readPrivateFileSync(path: string): string {
  const file = openSync(path, FLAGS)
  try {
    check(path, fstatSync(file))
    return readFileSync(file, 'utf8')
  } finally {
    closeSync(file)
  }
}

function check(path: string, stats: Stats): void {
  if (!stats.isFile()) throw new Fault('file_not_private', `${path} is not a regular file`)
  if (stats.size > MAX_PRIVATE_BYTES)
    throw new Fault('file_not_private', `${path} is larger than ${MAX_PRIVATE_BYTES} bytes`)
  if (process.platform === 'win32' || (stats.mode & NOT_ALLOWED) === 0) return
  const mode = (stats.mode & PERMISSIONS).toString(8).padStart(4, '0')
  throw new Fault(
    'file_not_private',
    `${path} has mode ${mode}: others may not use it, nor its group write it; give it 0600, or 0440 in a Kubernetes volume`,
  )
}
