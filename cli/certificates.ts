/**
 * Makes the certificates of an installation: one authority, one certificate for the broker, one for the
 * webhook. Private keys are written with mode 0600 and leave this process in no other way; nothing that
 * exists is ever overwritten. Who holds `ca.key` can impersonate the broker to every sidecar: it is needed
 * again only for renewal (certificates-renew.ts) and belongs off the cluster.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { isIP } from 'node:net'
import { join } from 'node:path'
import forge from 'node-forge'
import { readPrivateFileSync } from '../shared/private-file.ts'

/** RSA, because node-forge signs certificates with nothing newer. */
const CA_KEY_BITS = 3072
const LEAF_KEY_BITS = 2048
/** Life of the authority, in days; injected pods carry its certificate until they are replaced. */
const CA_DAYS = 3650
/** Longest life of a leaf that clients still accept everywhere, in days (Apple's limit for private roots). */
export const MAX_LEAF_DAYS = 825
/** How far back validity begins, in milliseconds: clocks of nodes differ. */
export const BACKDATE_MS = 5 * 60_000
const DAY_MS = 86_400_000
/** Modes of the files. */
export const KEY_MODE = 0o600
export const CERTIFICATE_MODE = 0o644
/** A DNS name of RFC 1123, with at most one leading wildcard label. */
export const DNS_NAME = /^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/

/** Names of the broker as the manifests install it; the last two serve `kubectl port-forward`. */
export const BROKER_HOSTS: readonly string[] = [
  'nestgate-broker.nestgate-system.svc',
  'nestgate-broker.nestgate-system.svc.cluster.local',
  'nestgate-broker.nestgate-system',
  'localhost',
  '127.0.0.1',
]

/** Names under which the API server calls the webhook: it always uses `SERVICE.NAMESPACE.svc`. */
export const WEBHOOK_HOSTS: readonly string[] = ['nestgate-webhook.nestgate-system.svc']

/** What to make. */
export interface CertificateRequest {
  /** Folder for the files; made when missing. */
  readonly dir: string
  /** DNS names and IP addresses of the broker, at least one. */
  readonly brokerHosts: readonly string[]
  /** DNS names and IP addresses of the webhook, at least one. */
  readonly webhookHosts: readonly string[]
  /** Life of the two leaf certificates, in days, 1 to {@link MAX_LEAF_DAYS}. */
  readonly days: number
  /** Milliseconds since the epoch; the clock by default. */
  readonly now?: number
}

/** What was written, or why nothing was: one line for each problem. */
export type CertificateResult =
  { readonly written: readonly string[] } | { readonly problems: readonly string[] }

/** A certificate with its key. */
export interface Authority {
  readonly certificate: forge.pki.Certificate
  readonly key: forge.pki.rsa.PrivateKey
}

/** From when to when a certificate is good, in milliseconds since the epoch. */
export interface Validity {
  readonly from: number
  readonly to: number
}

/**
 * Writes `ca.crt`, `ca.key`, `broker.crt`, `broker.key`, `webhook.crt` and `webhook.key` (PEM) into a folder.
 * Where `ca.crt` and `ca.key` are there already, they sign the new leaves, so that certificates can be
 * renewed under an authority that pods trust; any leaf that exists stops everything before the first write.
 *
 * @returns the paths written, or the problems
 * @throws the system's error when the folder cannot be read or written
 */
export function writeCertificates(request: CertificateRequest): CertificateResult {
  const problems = problemsOf(request)
  if (problems.length > 0) return { problems }
  const { dir, days, now = Date.now() } = request
  const renewing = existsSync(join(dir, 'ca.crt'))
  const authority = renewing ? readAuthority(dir, now) : makeAuthority(validityOf(CA_DAYS, now), 0)
  if ('problems' in authority) return authority
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const written: string[] = []
  const write = (name: string, mode: number, pem: string): void => {
    const path = join(dir, name)
    writeFileSync(path, lines(pem), { mode, flag: 'wx' })
    written.push(path)
  }
  if (!renewing) {
    write('ca.key', KEY_MODE, forge.pki.privateKeyToPem(authority.key))
    write('ca.crt', CERTIFICATE_MODE, forge.pki.certificateToPem(authority.certificate))
  }
  const validity = validityOf(days, now)
  for (const [name, hosts] of leaves(request)) {
    const { cert, key } = issueLeaf(authority, `nestgate-${name}`, hosts, validity)
    write(`${name}.key`, KEY_MODE, key)
    write(`${name}.crt`, CERTIFICATE_MODE, cert)
  }
  return { written }
}

/** PEM with the line ends of other tools; node-forge writes those of mail. */
function lines(pem: string): string {
  return pem.replaceAll('\r\n', '\n')
}

/** Good for so many days from now on. */
export function validityOf(days: number, now: number): Validity {
  return { from: now - BACKDATE_MS, to: now + days * DAY_MS }
}

/** What is wrong with a life in days. */
export function lifeProblem(days: number): string | undefined {
  return Number.isInteger(days) && days >= 1 && days <= MAX_LEAF_DAYS
    ? undefined
    : `days: expected a whole number from 1 to ${MAX_LEAF_DAYS}`
}

function leaves(request: CertificateRequest): readonly (readonly [string, readonly string[]])[] {
  return [
    ['broker', request.brokerHosts],
    ['webhook', request.webhookHosts],
  ]
}

function problemsOf(request: CertificateRequest): readonly string[] {
  const problems: string[] = []
  const { dir, days } = request
  const life = lifeProblem(days)
  if (life !== undefined) problems.push(life)
  for (const [name, hosts] of leaves(request)) {
    if (hosts.length === 0) problems.push(`${name}: at least one host name is needed`)
    for (const host of hosts.filter((text) => !isHost(text))) {
      problems.push(`${name}: ${JSON.stringify(host)} is neither a DNS name nor an IP address`)
    }
    for (const file of [`${name}.crt`, `${name}.key`]) {
      if (existsSync(join(dir, file)))
        problems.push(`${join(dir, file)} exists; to replace it: nestgate certificates renew`)
    }
  }
  if (existsSync(join(dir, 'ca.crt')) !== existsSync(join(dir, 'ca.key'))) {
    problems.push(
      `${dir} has only one of ca.crt and ca.key; both are needed to renew, none to begin`,
    )
  }
  return problems
}

function isHost(text: string): boolean {
  return isIP(text) !== 0 || (text.length <= 253 && DNS_NAME.test(text))
}

/** Reads `ca.crt` and `ca.key` of a folder, or says why they cannot sign. @throws the system's error, or a Fault where others can read the key */
export function readAuthority(
  dir: string,
  now: number,
): Authority | { readonly problems: readonly string[] } {
  const certificate = forge.pki.certificateFromPem(readFileSync(join(dir, 'ca.crt'), 'utf8'))
  const key = forge.pki.privateKeyFromPem(readPrivateFileSync(join(dir, 'ca.key')))
  const { publicKey, validity } = certificate
  if (!('n' in publicKey) || !publicKey.n.equals(key.n)) {
    return { problems: [`${dir}: ca.key is not the key of ca.crt`] }
  }
  if (validity.notAfter.getTime() < now) return { problems: [`${dir}: ca.crt has expired`] }
  return { certificate, key }
}

/**
 * Makes an authority with a new key.
 *
 * @param pathLength - how many authorities may stand between it and a server's certificate; as many as it likes when left out
 */
export function makeAuthority(validity: Validity, pathLength?: number): Authority {
  const { publicKey, privateKey } = forge.pki.rsa.generateKeyPair({ bits: CA_KEY_BITS })
  const certificate = blank(publicKey, validity)
  // Random in the name: two installations must not have authorities that a trust store takes for one.
  const subject = [{ name: 'commonName', value: `nestgate ${randomBytes(4).toString('hex')}` }]
  certificate.setSubject(subject)
  certificate.setIssuer(subject)
  certificate.setExtensions([
    {
      ...{ name: 'basicConstraints', critical: true, cA: true },
      ...(pathLength === undefined ? {} : { pathLenConstraint: pathLength }),
    },
    { name: 'keyUsage', critical: true, keyCertSign: true, cRLSign: true },
    { name: 'subjectKeyIdentifier' },
  ])
  certificate.sign(privateKey, forge.md.sha256.create())
  return { certificate, key: privateKey }
}

/**
 * A second certificate of an authority, signed by another one: who trusts that one alone verifies what the first has signed,
 * when a server sends it along.
 *
 * @returns PEM; it ends when the first of the two ends
 */
export function crossSign(subject: forge.pki.Certificate, by: Authority): string {
  const { publicKey, validity } = subject
  if (!('n' in publicKey)) throw new Error('the authority has no RSA key')
  const ends = [validity.notAfter.getTime(), by.certificate.validity.notAfter.getTime()]
  const certificate = blank(publicKey, {
    from: validity.notBefore.getTime(),
    to: Math.min(...ends),
  })
  certificate.setSubject(subject.subject.attributes)
  certificate.setIssuer(by.certificate.subject.attributes)
  certificate.setExtensions([
    { name: 'basicConstraints', critical: true, cA: true },
    { name: 'keyUsage', critical: true, keyCertSign: true, cRLSign: true },
    { name: 'subjectKeyIdentifier' },
    authorityKeyOf(by.certificate),
  ])
  certificate.sign(by.key, forge.md.sha256.create())
  return lines(forge.pki.certificateToPem(certificate))
}

/** An authority of its PEM texts. @throws an error of node-forge's where they are none of RSA */
export function authorityOf(cert: string, key: string): Authority {
  return {
    certificate: forge.pki.certificateFromPem(cert),
    key: forge.pki.privateKeyFromPem(key),
  }
}

/** A certificate and its key as PEM. */
export function pemOf({ certificate, key }: Authority): {
  readonly cert: string
  readonly key: string
} {
  return {
    cert: lines(forge.pki.certificateToPem(certificate)),
    key: lines(forge.pki.privateKeyToPem(key)),
  }
}

/** How many authorities may stand between this one and a server's certificate; undefined: as many as it likes. */
export function pathLengthOf(certificate: forge.pki.Certificate): unknown {
  const constraints = certificate.getExtension('basicConstraints')
  return constraints !== undefined && 'pathLenConstraint' in constraints
    ? constraints.pathLenConstraint
    : undefined
}

function authorityKeyOf(authority: forge.pki.Certificate): {
  readonly name: string
  readonly keyIdentifier: string
} {
  const keyIdentifier = authority.generateSubjectKeyIdentifier().getBytes()
  return { name: 'authorityKeyIdentifier', keyIdentifier }
}

/** Makes a server's certificate with a new key, as PEM; it ends with its authority at the latest. */
export function issueLeaf(
  authority: Authority,
  name: string,
  hosts: readonly string[],
  validity: Validity,
): { readonly cert: string; readonly key: string } {
  return pemOf(makeLeaf(authority, name, hosts, validity))
}

function makeLeaf(
  authority: Authority,
  name: string,
  hosts: readonly string[],
  validity: Validity,
): Authority {
  const { publicKey, privateKey } = forge.pki.rsa.generateKeyPair({ bits: LEAF_KEY_BITS })
  const last = Math.min(validity.to, authority.certificate.validity.notAfter.getTime())
  const certificate = blank(publicKey, { from: validity.from, to: last })
  certificate.setSubject([{ name: 'commonName', value: name }])
  certificate.setIssuer(authority.certificate.subject.attributes)
  certificate.setExtensions([
    { name: 'basicConstraints', critical: true, cA: false },
    { name: 'keyUsage', critical: true, digitalSignature: true },
    { name: 'extKeyUsage', serverAuth: true },
    { name: 'subjectAltName', altNames: hosts.map(altName) },
    { name: 'subjectKeyIdentifier' },
    authorityKeyOf(authority.certificate),
  ])
  certificate.sign(authority.key, forge.md.sha256.create())
  return { certificate, key: privateKey }
}

/** Subject alternative names of RFC 5280: type 2 is a DNS name, type 7 an IP address. */
function altName(host: string): { type: number; value?: string; ip?: string } {
  return isIP(host) === 0 ? { type: 2, value: host } : { type: 7, ip: host }
}

function blank(publicKey: forge.pki.rsa.PublicKey, validity: Validity): forge.pki.Certificate {
  const certificate = forge.pki.createCertificate()
  certificate.publicKey = publicKey
  // The first bit is cleared: a serial number is a positive integer (RFC 5280, section 4.1.2.2).
  const serial = randomBytes(16)
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40
  certificate.serialNumber = serial.toString('hex')
  certificate.validity.notBefore = new Date(validity.from)
  certificate.validity.notAfter = new Date(validity.to)
  return certificate
}
