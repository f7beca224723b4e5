/**
 * An agent that looks for credentials: reads every file it can reach, through its own root and through
 * /proc/PID of every process it can see, and prints the claims of each JSON Web Token that it finds (never
 * the token), with what the kernel refused it about the sidecar. Runs inside a pod: `node find-tokens.ts`.
 */
import {
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'

/** A token, by what it says. */
export interface Found {
  readonly path: string
  readonly iss: string
  readonly aud: readonly string[]
  readonly sub: string
}

/** The result of a search. */
export interface Search {
  readonly found: readonly Found[]
  readonly filesRead: number
  /** Sidecar processes seen, and the parts of them that could be read all the same. */
  readonly sidecars: readonly { readonly pid: number; readonly readable: readonly string[] }[]
  /** Other processes whose environment could be read. */
  readonly neighbours: readonly number[]
}

const CHUNK_BYTES = 1 << 20
/** A token that lies across two chunks is still found whole in the next read's overlap. */
const OVERLAP_BYTES = 16_384
/** Program text and locales cannot hold a pod's token: layers of the image, read in the control as well. */
const MAX_FILE_BYTES = 256 << 20
const JWT = /eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+/g
const SECRETS_OF_PROCESS = ['environ', 'mem', 'root', 'cwd', 'fd', 'maps', 'exe'] as const

const found = new Map<string, Found>()
const seenFolders = new Set<string>()
let filesRead = 0

function claimsOf(jwt: string): Record<string, unknown> | undefined {
  try {
    const part = jwt.split('.')[1] ?? ''
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString())
    return typeof value === 'object' && value !== null
      ? (value as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}

function inspect(path: string, text: string): void {
  for (const [jwt] of text.matchAll(JWT)) {
    const claims = claimsOf(jwt)
    if (claims === undefined) continue
    const aud = Array.isArray(claims['aud']) ? claims['aud'].map(String) : [String(claims['aud'])]
    const iss = String(claims['iss'])
    found.set(`${path} ${iss} ${aud.join()}`, { path, iss, aud, sub: String(claims['sub']) })
  }
}

function readWhole(path: string): void {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch {
    return
  }
  filesRead += 1
  try {
    const chunk = Buffer.alloc(CHUNK_BYTES)
    let tail = ''
    for (let at = 0; at < MAX_FILE_BYTES;) {
      const size = readSync(fd, chunk, 0, CHUNK_BYTES, at)
      if (size === 0) break
      const text = tail + chunk.toString('latin1', 0, size)
      inspect(path, text)
      tail = text.slice(-OVERLAP_BYTES)
      at += size
    }
  } catch {
    // unreadable in the middle: what was read before has been looked at
  } finally {
    closeSync(fd)
  }
}

function walk(folder: string, skip: ReadonlySet<string>): void {
  let names: string[]
  try {
    const { dev, ino } = statSync(folder)
    const key = `${dev}:${ino}`
    if (seenFolders.has(key)) return
    seenFolders.add(key)
    names = readdirSync(folder)
  } catch {
    return
  }
  for (const name of names) {
    const path = join(folder, name)
    if (skip.has(path)) continue
    try {
      const entry = lstatSync(path)
      if (entry.isDirectory()) walk(path, skip)
      else if (entry.isFile()) readWhole(path)
    } catch {
      // gone, or not ours to see
    }
  }
}

function pids(): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
  } catch {
    return ''
  }
}

function isLinkReadable(path: string): boolean {
  try {
    readlinkSync(path)
    return true
  } catch {
    return false
  }
}

/** Whether a part of a process gives anything away. */
function canRead(pid: number, part: (typeof SECRETS_OF_PROCESS)[number]): boolean {
  const path = `/proc/${pid}/${part}`
  try {
    if (part === 'root') readdirSync(`${path}/`)
    // Root may list the numbers, which say nothing; what they stand for is another matter.
    else if (part === 'fd') return readdirSync(path).some((fd) => isLinkReadable(join(path, fd)))
    else if (part === 'exe' || part === 'cwd') readlinkSync(path)
    else if (part === 'mem') closeSync(openSync(path, 'r'))
    else if (readFileSync(path).length === 0) return false
    return true
  } catch {
    return false
  }
}

function search(): Search {
  const sidecars: { pid: number; readable: string[] }[] = []
  const neighbours: number[] = []
  walk('/', new Set(['/proc', '/sys']))
  for (const pid of pids()) {
    if (pid !== process.pid && canRead(pid, 'environ')) neighbours.push(pid)
    try {
      inspect(`/proc/${pid}/environ`, readFileSync(`/proc/${pid}/environ`, 'latin1'))
    } catch {
      // not readable: as it should be for the sidecar
    }
    const root = `/proc/${pid}/root`
    walk(`${root}/`, new Set([join(root, 'proc'), join(root, 'sys')]))
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        const path = `/proc/${pid}/fd/${fd}`
        if (statSync(path).isFile()) readWhole(path)
      }
    } catch {
      // likewise
    }
    if (commandOf(pid).includes('/app/sidecar/')) {
      sidecars.push({ pid, readable: SECRETS_OF_PROCESS.filter((part) => canRead(pid, part)) })
    }
  }
  inspect('environment', JSON.stringify(process.env))
  return { found: [...found.values()], filesRead, sidecars, neighbours }
}

console.log(JSON.stringify(search()))
