/**
 * Where `nestgate` finds the broker and its own token: options, then environment, then for the token `nestgate login`. It comes from a
 * file or the environment, never from an option, because options are readable by every user of a machine.
 */
import { readFileSync } from 'node:fs'
import { messageOf } from '../shared/errors.ts'

/** The command was called in a way that cannot work; exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** Options that every command takes, as commander reads them. */
export interface GlobalOptions {
  readonly broker?: string
  readonly tokenFile?: string
  readonly caFile?: string
  readonly output?: string
}

/** Environment variables by name. */
export type Environment = Readonly<Record<string, string | undefined>>

/** What a call to the broker needs. */
export interface BrokerSettings {
  readonly url: URL
  /** Undefined where none was given: then it is that of `nestgate login`. */
  readonly token?: string
  /** Certificates to trust instead of the system's, PEM. */
  readonly ca?: string
}

/** How results are printed. */
export type OutputFormat = 'table' | 'json'

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/
/** Characters that may stand in an Authorization header after `Bearer` (RFC 6750). */
const TOKEN = /^[A-Za-z0-9\-._~+/]+=*$/

/** Finds broker and, where one was given, token. @throws {@link UsageError} naming what is missing or unusable */
export function brokerSettings(options: GlobalOptions, env: Environment): BrokerSettings {
  const url = readUrl(options.broker ?? env['NESTGATE_BROKER_URL'])
  const caFile = options.caFile ?? env['NESTGATE_CA_FILE']
  const token = readToken(options.tokenFile ?? env['NESTGATE_TOKEN_FILE'], env['NESTGATE_TOKEN'])
  return {
    url,
    ...(token === undefined ? {} : { token }),
    ...(caFile === undefined ? {} : { ca: readText(caFile) }),
  }
}

function readUrl(text: string | undefined): URL {
  if (text === undefined) throw new UsageError('no broker: give --broker or NESTGATE_BROKER_URL')
  const url = URL.parse(text)
  if (url === null) throw new UsageError('the broker is not a URL')
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    throw new UsageError('the broker’s URL may have no user, query or fragment')
  }
  const plain = url.protocol === 'http:' && LOOPBACK.test(url.hostname)
  if (url.protocol !== 'https:' && !plain) {
    throw new UsageError('the broker’s URL must begin with https:// (http only on this machine)')
  }
  return url
}

function readToken(file: string | undefined, direct: string | undefined): string | undefined {
  const token = (file === undefined ? direct : readText(file))?.trim()
  if (token === undefined) return undefined
  if (token === '') throw new UsageError('the token is empty')
  if (!TOKEN.test(token)) throw new UsageError('the token has characters that no token has')
  return token
}

/** A text file that an option names. @throws {@link UsageError} when it cannot be read */
export function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new UsageError(`cannot read a file: ${messageOf(error)}`)
  }
}
