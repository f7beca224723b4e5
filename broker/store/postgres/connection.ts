/**
 * One connection to PostgreSQL that is opened again when it breaks. What was under way then is rejected: whether it was
 * done is open. Calls wait a bounded time for the next connection; a database that is gone for longer is told at once.
 */
import { Client, DatabaseError } from 'pg'
import { Fault, messageOf } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/log.ts'
import { readPrivateFile } from '../../../shared/private-file.ts'
import { createSession, TYPES } from './execute.ts'
import type { Session } from './execute.ts'
import {
  CONNECT_TIMEOUT_MS,
  FIRST_RETRY_MS,
  IDLE_IN_TRANSACTION_MS,
  LOCK_TIMEOUT_MS,
  MAX_RETRY_MS,
  PATIENCE_MS,
  STATEMENT_TIMEOUT_MS,
  WORK_TIMEOUT_MS,
} from './limits.ts'

/** Where the database is. */
export interface PostgresSettings {
  /** `postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full`, without password. */
  readonly url: string
  /** Private file with the password; read again for each connection. */
  readonly passwordFile?: string | undefined
}

/** What a connection needs. */
export interface ConnectionDeps {
  readonly settings: PostgresSettings
  readonly log: Logger
  /** What it is for; the server shows it as the application's name. */
  readonly role: string
  /** Done with each new connection before it is used; it is closed again where this rejects. */
  readonly prepare?: (session: Session, client: Client) => Promise<void>
}

interface Opened {
  readonly client: Client
  readonly session: Session
}

/** The connection broke: whether what was asked was done is open. */
class Lost extends Fault {
  constructor(cause: unknown) {
    super('store_failed', `the connection to the database broke: ${messageOf(cause)}`, { cause })
  }
}

/** See the head of the file. */
export class Connection {
  readonly #deps: ConnectionDeps
  #opened: Opened | undefined
  #opening: Promise<void> | undefined
  #lostAtMs = -Infinity
  #why = 'it was never reached'
  #closed = new AbortController()

  private constructor(deps: ConnectionDeps) {
    this.#deps = deps
  }

  /** Opens it. @throws Fault `store_failed` with the reason */
  static async open(deps: ConnectionDeps): Promise<Connection> {
    const connection = new Connection(deps)
    try {
      connection.#opened = await connection.#connect()
      return connection
    } catch (error) {
      if (error instanceof Fault) throw error
      const why = `cannot open the database: ${messageOf(error)}`
      throw new Fault('store_failed', why, { cause: error })
    }
  }

  /** Uses the connection; one at a time. Rejects with {@link Fault}. */
  async use<T>(work: (session: Session) => Promise<T>): Promise<T> {
    const opened = await this.#ready()
    const timer = setTimeout(() => {
      cut(opened.client)
    }, WORK_TIMEOUT_MS)
    try {
      return await work(opened.session)
    } catch (error) {
      if (error instanceof Fault) throw error
      if (isAnswer(error)) throw new Fault('store_failed', messageOf(error), { cause: error })
      this.#lose(opened, error)
      throw new Lost(error)
    } finally {
      clearTimeout(timer)
    }
  }

  /** As {@link use}, for what changes nothing: it is tried once more on a new connection. */
  async ask<T>(work: (session: Session) => Promise<T>): Promise<T> {
    try {
      return await this.use(work)
    } catch (error) {
      if (!(error instanceof Lost)) throw error
      return this.use(work)
    }
  }

  /** Gives the connection up, as nobody knows its state any more. */
  drop(why: unknown): void {
    if (this.#opened !== undefined) this.#lose(this.#opened, why)
  }

  async close(): Promise<void> {
    this.#closed.abort()
    const opened = this.#opened
    this.#opened = undefined
    await this.#opening
    if (opened === undefined) return
    const timer = setTimeout(() => {
      cut(opened.client)
    }, CONNECT_TIMEOUT_MS)
    await opened.client.end().catch(() => undefined)
    clearTimeout(timer)
  }

  async #ready(): Promise<Opened> {
    if (this.#opened !== undefined) return this.#opened
    if (this.#closed.signal.aborted) throw new Fault('store_closed', 'the store is closed')
    const leftMs = this.#lostAtMs + PATIENCE_MS - performance.now()
    if (leftMs > 0) await Promise.race([this.#opening, pause(leftMs, this.#closed.signal)])
    const opened = this.#current()
    if (opened !== undefined) return opened
    throw new Fault('store_failed', `the database cannot be reached: ${this.#why}`)
  }

  /** Asked anew after each wait. */
  #current(): Opened | undefined {
    return this.#opened
  }

  #lose(opened: Opened, why: unknown): void {
    if (this.#opened !== opened) return
    this.#opened = undefined
    cut(opened.client)
    if (this.#closed.signal.aborted) return
    const { log, role } = this.#deps
    this.#why = messageOf(why)
    this.#lostAtMs = performance.now()
    log.warn({ role, why: this.#why }, 'a connection to the database broke')
    this.#opening = this.#reopen()
  }

  /** Never rejects. */
  async #reopen(): Promise<void> {
    const { log, role } = this.#deps
    for (let waitMs = FIRST_RETRY_MS; ; waitMs = Math.min(waitMs * 2, MAX_RETRY_MS)) {
      try {
        const opened = await this.#connect()
        if (this.#closed.signal.aborted) cut(opened.client)
        else {
          this.#opened = opened
          log.info({ role }, 'a connection to the database is open again')
        }
        return
      } catch (error) {
        this.#why = messageOf(error)
      }
      await pause(waitMs, this.#closed.signal)
      if (this.#closed.signal.aborted) return
    }
  }

  async #connect(): Promise<Opened> {
    const { role, prepare } = this.#deps
    const client = new Client({
      connectionString: await withPassword(this.#deps.settings),
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      statement_timeout: STATEMENT_TIMEOUT_MS,
      lock_timeout: LOCK_TIMEOUT_MS,
      idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_MS,
      application_name: `nestgate ${role}`,
      keepAlive: true,
      types: TYPES,
    })
    const opened = { client, session: createSession(client) }
    client.on('error', (error) => {
      this.#lose(opened, error)
    })
    client.on('end', () => {
      this.#lose(opened, 'the server closed it')
    })
    try {
      await client.connect()
      await prepare?.(opened.session, client)
      return opened
    } catch (error) {
      cut(client)
      throw error
    }
  }
}

/** The server answered, and its session goes on. */
function isAnswer(error: unknown): boolean {
  return error instanceof DatabaseError && error.severity === 'ERROR'
}

function cut(client: Client): void {
  client.connection.stream.destroy()
}

async function withPassword({ url, passwordFile }: PostgresSettings): Promise<string> {
  if (passwordFile === undefined) return url
  const whole = new URL(url)
  whole.password = encodeURIComponent((await readPrivateFile(passwordFile)).trimEnd())
  return whole.href
}

/** Never rejects. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  const done = (): void => {
    clearTimeout(timer)
    signal.removeEventListener('abort', done)
    resolve(undefined)
  }
  const timer = setTimeout(done, ms)
  signal.addEventListener('abort', done)
  if (signal.aborted) done()
  return promise
}
