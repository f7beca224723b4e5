/** Certificates for tests: a CA of its own and a server certificate for the hosts asked for, both good for a day. */
import { isIP } from 'node:net'
import forge from 'node-forge'

/** Smaller keys are refused by OpenSSL's default security level; larger ones take forge seconds to make. */
const KEY_BITS = 2048
/** Life of a test certificate, in milliseconds; it begins an hour ago. */
const LIFE_MS = 24 * 3_600_000
const HOUR_MS = 3_600_000

/** subjectAltName types of RFC 5280. */
const SAN_DNS = 2
const SAN_IP = 7

/** PEM texts. */
export interface Certificates {
  /** The CA that signed `cert`. */
  readonly ca: string
  readonly cert: string
  readonly key: string
}

/**
 * Makes a new CA and a certificate of it.
 *
 * @param options - `hosts`: DNS names and IP addresses that the certificate is for; `lifeMs`: how long both are good
 */
export function makeCertificates(options: {
  readonly hosts: readonly string[]
  readonly lifeMs?: number
}): Certificates {
  const { lifeMs = LIFE_MS } = options
  // A name of its own: clients that trust two CAs of one name try the wrong key.
  const caName = `test CA ${forge.util.bytesToHex(forge.random.getBytesSync(8))}`
  const authority = newCertificate(
    caName,
    [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    ],
    lifeMs,
  )
  const subject = [{ name: 'commonName', value: caName }]
  authority.cert.setIssuer(subject)
  authority.cert.sign(authority.keys.privateKey, forge.md.sha256.create())
  const altNames = options.hosts.map((host) =>
    isIP(host) === 0 ? { type: SAN_DNS, value: host } : { type: SAN_IP, ip: host },
  )
  const leaf = newCertificate(
    options.hosts[0] ?? 'test',
    [
      { name: 'basicConstraints', cA: false },
      { name: 'extKeyUsage', serverAuth: true, clientAuth: true },
      { name: 'subjectAltName', altNames },
    ],
    lifeMs,
  )
  leaf.cert.setIssuer(subject)
  leaf.cert.sign(authority.keys.privateKey, forge.md.sha256.create())
  return {
    ca: forge.pki.certificateToPem(authority.cert),
    cert: forge.pki.certificateToPem(leaf.cert),
    key: forge.pki.privateKeyToPem(leaf.keys.privateKey),
  }
}

function newCertificate(
  commonName: string,
  extensions: object[],
  lifeMs: number,
): { cert: forge.pki.Certificate; keys: forge.pki.rsa.KeyPair } {
  const keys = forge.pki.rsa.generateKeyPair(KEY_BITS)
  const cert = forge.pki.createCertificate()
  const now = Date.now()
  cert.publicKey = keys.publicKey
  cert.serialNumber = `01${forge.util.bytesToHex(forge.random.getBytesSync(15))}`
  cert.validity.notBefore = new Date(now - HOUR_MS)
  cert.validity.notAfter = new Date(now + lifeMs)
  cert.setSubject([{ name: 'commonName', value: commonName }])
  cert.setExtensions(extensions)
  return { cert, keys }
}
