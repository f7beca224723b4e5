/**
 * Renews the certificates of an installation in place, under the authority that is there: new keys, the same names. Servers
 * go on meanwhile: each file is written beside the old one and moved over it, the key first, so that a server
 * which reads between the two finds a certificate that is not its key's, and keeps the pair that it has.
 */
import { X509Certificate } from 'node:crypto'
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  CERTIFICATE_MODE,
  issueLeaf,
  KEY_MODE,
  lifeProblem,
  readAuthority,
  validityOf,
} from './certificates.ts'
import type { CertificateResult } from './certificates.ts'

const LEAVES = ['broker', 'webhook'] as const

/** What to renew. */
export interface RenewalRequest {
  /** Folder with `ca.crt`, `ca.key` and at least one of `broker.crt` and `webhook.crt`. */
  readonly dir: string
  /** Life of the new certificates, in days, 1 to MAX_LEAF_DAYS. */
  readonly days: number
  /** Milliseconds since the epoch; the clock by default. */
  readonly now?: number
}

/**
 * Renews those of `broker` and `webhook` that are there. Nothing is written where anything is wrong.
 *
 * @returns the paths written, or the problems
 * @throws the system's error when the folder cannot be read or written, or a Fault where others can read `ca.key`
 */
export function renewCertificates({
  dir,
  days,
  now = Date.now(),
}: RenewalRequest): CertificateResult {
  const life = lifeProblem(days)
  if (life !== undefined) return { problems: [life] }
  for (const file of ['ca.crt', 'ca.key'])
    if (!existsSync(join(dir, file))) return { problems: [`${join(dir, file)} is missing`] }
  const authority = readAuthority(dir, now)
  if ('problems' in authority) return authority
  const present = LEAVES.filter((name) => existsSync(join(dir, `${name}.crt`)))
  if (present.length === 0) return { problems: [`${dir} has no certificate to renew`] }
  const named = present.map((name) => ({ name, hosts: hostsOf(join(dir, `${name}.crt`)) }))
  const nameless = named.filter(({ hosts }) => hosts.length === 0)
  if (nameless.length > 0)
    return { problems: nameless.map(({ name }) => `${join(dir, name)}.crt names no host`) }
  const made = named.map(({ name, hosts }) => {
    const leaf = issueLeaf(authority, `nestgate-${name}`, hosts, validityOf(days, now))
    return { name, ...leaf }
  })
  const moves = made.flatMap(({ name, cert, key }) => [
    prepare(join(dir, `${name}.key`), KEY_MODE, key),
    prepare(join(dir, `${name}.crt`), CERTIFICATE_MODE, cert),
  ])
  for (const { from, to } of moves) renameSync(from, to)
  return { written: moves.map(({ to }) => to) }
}

/** DNS names and addresses of a certificate. @throws Error where it is none */
function hostsOf(file: string): readonly string[] {
  const { subjectAltName = '' } = new X509Certificate(readFileSync(file, 'utf8'))
  return subjectAltName.split(', ').flatMap((entry) => {
    const host = /^(?:DNS|IP Address):(.+)$/.exec(entry)?.[1]
    return host === undefined ? [] : [host]
  })
}

/** Writes a file beside the one that it will replace; what an interrupted renewal left there is removed. */
function prepare(to: string, mode: number, pem: string): { from: string; to: string } {
  const from = `${to}.new`
  rmSync(from, { force: true })
  writeFileSync(from, pem, { mode, flag: 'wx', flush: true })
  return { from, to }
}
