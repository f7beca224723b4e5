/** Certificates as PEM texts: what they are, who signed them, how they are put together. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { isIPv6 } from 'node:net'

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g

/** A certificate with its text. */
export interface Certificate {
  readonly pem: string
  readonly x509: X509Certificate
  /** First moment at which it is over, in milliseconds since the epoch. */
  readonly ends: number
}

/** The certificates of a text, in their order; undefined where one cannot be read. */
export function readPems(text: string): readonly Certificate[] | undefined {
  try {
    return (text.match(PEM_CERTIFICATE) ?? []).map((block) => {
      const x509 = new X509Certificate(block)
      return { pem: x509.toString(), x509, ends: x509.validToDate.getTime() }
    })
  } catch {
    return undefined
  }
}

/** The first certificate of a text, where it and all after it can be read. */
export function firstOf(text: string): Certificate | undefined {
  return readPems(text)?.[0]
}

/** One text of several certificates, each once. */
export function joinPems(texts: readonly string[]): string {
  const pems = texts.flatMap((text) => readPems(text) ?? []).map(({ pem }) => pem)
  return [...new Set(pems)].join('')
}

/** Whether two texts hold the same certificates in the same order, whatever else they hold. */
export function samePems(one: string, other: string): boolean {
  return joinPems([one]) === joinPems([other]) && readPems(one) !== undefined
}

/** Whether `issuer` has signed it. */
export function signedBy(certificate: Certificate, issuer: Certificate): boolean {
  const { x509 } = certificate
  return x509.checkIssued(issuer.x509) && x509.verify(issuer.x509.publicKey)
}

/** Whether a PEM text is the key of a certificate. */
export function isKeyOf(key: string, certificate: Certificate): boolean {
  try {
    return certificate.x509.checkPrivateKey(createPrivateKey(key))
  } catch {
    return false
  }
}

/** The DNS names and addresses that a certificate is for, in one form each. */
export function hostsOf({ x509 }: Certificate): ReadonlySet<string> {
  const names = (x509.subjectAltName ?? '').split(', ').flatMap((entry) => {
    const host = /^(?:DNS|IP Address):(.+)$/.exec(entry)?.[1]
    return host === undefined ? [] : [plainHost(host)]
  })
  return new Set(names)
}

/** An address of version 6 can be written in several ways; URLs have one. */
export function plainHost(host: string): string {
  return isIPv6(host) ? new URL(`http://[${host}]`).hostname : host
}
