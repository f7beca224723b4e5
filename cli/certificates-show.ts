/** What certificates there are, and how long they are good for. */
import { X509Certificate } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'

const DAY_MS = 86_400_000
const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g

/** One certificate of a file. */
export interface CertificateFacts {
  readonly file: string
  readonly subject: string
  /** DNS names and addresses, as the certificate has them. */
  readonly names: readonly string[]
  readonly notAfter: string
  /** Whole days until then, down to the last; negative when it is over. */
  readonly daysLeft: number
}

/**
 * Reads the certificates of files, and of folders the files `*.crt` and `*.pem`; a chain has several.
 *
 * @throws the system's error where a file cannot be read, or Error where one is broken
 */
export function readCertificates(paths: readonly string[], now: number): CertificateFacts[] {
  return paths.flatMap(filesOf).flatMap((file) => {
    const blocks = readFileSync(file, 'utf8').match(PEM_CERTIFICATE) ?? []
    return blocks.map((pem) => factsOf(file, pem, now))
  })
}

function filesOf(path: string): readonly string[] {
  if (!statSync(path).isDirectory()) return [path]
  return readdirSync(path)
    .filter((name) => /\.(crt|pem)$/.test(name))
    .toSorted()
    .map((name) => join(path, name))
}

function factsOf(file: string, pem: string, now: number): CertificateFacts {
  let certificate: X509Certificate
  try {
    certificate = new X509Certificate(pem)
  } catch (error) {
    throw new Error(`${file}: a certificate cannot be read`, { cause: error })
  }
  const { subject, subjectAltName = '', validToDate } = certificate
  return {
    file,
    subject: subject.replaceAll('\n', ', '),
    names: subjectAltName === '' ? [] : subjectAltName.split(', '),
    notAfter: validToDate.toISOString(),
    daysLeft: Math.floor((validToDate.getTime() - now) / DAY_MS),
  }
}
