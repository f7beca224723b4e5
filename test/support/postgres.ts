/** Real PostgreSQL servers for tests: Debian's own, in temporary folders, as another user where tests run as root. */
import { execFileSync, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from 'pg'
import { openPostgresStore } from '../../broker/store/postgres/client.ts'
import type { PostgresStoreDeps } from '../../broker/store/postgres/client.ts'
import type { Store } from '../../broker/store/store.ts'
import { freePort } from './free-port.ts'
import { SILENT } from './sqlite-store.ts'

const DEBIAN = '/usr/lib/postgresql'
/** A role by this name, if a test makes it, must give its password. */
export const WITH_PASSWORD = 'secretive'
/** `nobody`: the server refuses to run as root. */
const NOBODY = 65_534
const START_LIMIT_MS = 20_000
const isRoot = process.getuid?.() === 0
const AS = isRoot ? { uid: NOBODY, gid: NOBODY } : {}

/** A server; its role is `nestgate`, without password. */
export interface Server {
  readonly port: number
  /** Of the data; copy it while the server is stopped. */
  readonly folder: string
  url(database: string): string
  /** Starts it, with further settings. */
  start(settings?: Readonly<Record<string, string>>): Promise<void>
  /** SIGKILL to all of its processes: as if the machine had no current. */
  kill(): Promise<void>
  /** In order. */
  stop(): Promise<void>
  remove(): Promise<void>
}

function program(name: string): string {
  const versions = existsSync(DEBIAN)
    ? readdirSync(DEBIAN).sort((a, b) => Number(b) - Number(a))
    : []
  const found = versions.map((version) => join(DEBIAN, version, 'bin', name)).find(existsSync)
  if (found === undefined) throw new Error(`there is no ${name}: run scripts/test-tools.sh`)
  return found
}

/** Makes a server that is not started yet. */
export async function makeServer(): Promise<Server> {
  const base = mkdtempSync(join(tmpdir(), 'nestgate-postgres-'))
  if (isRoot) chownSync(base, NOBODY, NOBODY)
  const folder = join(base, 'data')
  const initdb = ['-D', folder, '-U', 'nestgate', '-A', 'trust', '--no-sync', '-E', 'UTF8']
  execFileSync(program('initdb'), [...initdb, '--locale=C'], { ...AS, cwd: base, stdio: 'pipe' })
  const hba = join(folder, 'pg_hba.conf')
  const rules = readFileSync(hba, 'utf8')
  writeFileSync(hba, `host all ${WITH_PASSWORD} 127.0.0.1/32 scram-sha-256\n${rules}`)
  const port = await freePort()
  let child: ChildProcess | undefined
  const end = async (signal: 'SIGKILL' | 'SIGINT'): Promise<void> => {
    const running = child
    child = undefined
    if (running?.pid === undefined || running.exitCode !== null) return
    const exited = once(running, 'exit')
    const children = signal === 'SIGKILL' ? childrenOf(running.pid) : []
    running.ref()
    process.kill(running.pid, signal)
    for (const pid of children) killQuietly(pid)
    await exited
  }
  // what a failed test leaves running
  process.once('exit', () => {
    if (child?.pid !== undefined) {
      for (const pid of [child.pid, ...childrenOf(child.pid)]) killQuietly(pid)
    }
    rmSync(base, { recursive: true, force: true, maxRetries: 10 })
  })
  const server: Server = {
    port,
    folder,
    url: (database) => `postgres://nestgate@127.0.0.1:${port}/${database}`,
    async start(settings = {}) {
      const all = {
        ...{ listen_addresses: '127.0.0.1', port: String(port), unix_socket_directories: '' },
        ...{ max_connections: '60', shared_buffers: '64MB', log_min_messages: 'fatal' },
        ...settings,
      }
      const options = Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`])
      child = spawn(program('postgres'), ['-D', folder, ...options], {
        ...{ ...AS, cwd: base, stdio: 'ignore' },
      })
      child.unref()
      await ready(server)
    },
    kill: () => end('SIGKILL'),
    stop: () => end('SIGINT'),
    async remove() {
      await end('SIGKILL')
      rmSync(base, { recursive: true, force: true, maxRetries: 10 })
    },
  }
  return server
}

async function ready(server: Server): Promise<void> {
  const endMs = Date.now() + START_LIMIT_MS
  for (;;) {
    try {
      await sql(server.url('postgres'), 'select 1')
      return
    } catch (error) {
      if (Date.now() > endMs) throw error
      await sleep(50)
    }
  }
}

function childrenOf(pid: number): readonly number[] {
  try {
    return execFileSync('ps', ['-o', 'pid=', '--ppid', String(pid)], { encoding: 'utf8' })
      .split('\n')
      .map(Number)
      .filter((child) => child > 0)
  } catch {
    return []
  }
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // it has ended
  }
}

/** Runs statements on a connection of their own. @returns rows of the last one */
export async function sql(
  url: string,
  text: string,
): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const client = new Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  try {
    const result: unknown = await client.query(text)
    const last: unknown = Array.isArray(result) ? result.at(-1) : result
    return (last as { rows: Record<string, unknown>[] }).rows
  } finally {
    await client.end().catch(() => undefined)
  }
}

let shared: Promise<Server> | undefined
let databases = 0

/** The server that tests share which leave it as it is. */
export function sharedServer(): Promise<Server> {
  shared ??= makeServer().then(async (server) => {
    await server.start()
    return server
  })
  return shared
}

/** A new, empty database. @returns its URL */
export async function newDatabase(server?: Server): Promise<string> {
  const own = server ?? (await sharedServer())
  databases += 1
  const name = `test_${process.pid}_${databases}`
  await sql(own.url('postgres'), `create database ${name} template template0`)
  return own.url(name)
}

export function openPostgres(url: string, change: Partial<PostgresStoreDeps> = {}): Promise<Store> {
  return openPostgresStore({ url, log: SILENT, now: Date.now, ...change })
}

/** Makes a copied data folder the server's own again. */
export function ownFolder(folder: string): void {
  chmodSync(folder, 0o700)
  if (isRoot) execFileSync('chown', ['-R', `${NOBODY}:${NOBODY}`, folder])
}
