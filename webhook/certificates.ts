/** Checks of the PEM files that the webhook is given: its own certificate and key, and the CA that it hands to every pod. */
import { X509Certificate, createPrivateKey } from 'node:crypto'
import { Fault } from '../shared/errors.ts'

/** Most bytes of CA certificates that go into a pod; the variables of a process share about 128 KiB with its arguments. */
export const MAX_CA_BYTES = 32_768

const PEM_BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----[\s\S]*?-----END \1-----/g

/** A certificate chain with its key, both PEM. */
export interface KeyPair {
  readonly cert: string
  readonly key: string
}

/**
 * Takes a certificate and a key that belong together: while files are being swapped they may not.
 *
 * @throws Fault `certificate_invalid` where one is no PEM, or they are not a pair
 */
export function loadKeyPair(cert: string, key: string): KeyPair {
  let pair: boolean
  try {
    pair = new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))
  } catch (error) {
    throw new Fault('certificate_invalid', 'the certificate or its key cannot be read', {
      cause: error,
    })
  }
  if (!pair) throw new Fault('certificate_invalid', 'the key is not that of the certificate')
  return { cert, key }
}

/** The day a PEM certificate (the first of its chain) ends. */
export function expiryOf(cert: string): Date {
  return new Date(new X509Certificate(cert).validTo)
}

/**
 * The CA certificates of a PEM text, in plain form: comments and line ends of other systems are left out.
 *
 * @throws Fault `certificate_invalid` where it holds none, anything else (a key would go into every pod), or too much
 */
export function loadCaCertificates(text: string): string {
  const blocks = [...text.matchAll(PEM_BLOCK)]
  const certificates = blocks.map(([block, label]) => {
    if (label !== 'CERTIFICATE')
      throw new Fault('certificate_invalid', 'the CA file holds something other than certificates')
    try {
      return new X509Certificate(block).toString()
    } catch (error) {
      throw new Fault('certificate_invalid', 'a CA certificate cannot be read', { cause: error })
    }
  })
  if (certificates.length === 0)
    throw new Fault('certificate_invalid', 'the CA file holds no certificate')
  const plain = certificates.join('')
  if (plain.length > MAX_CA_BYTES)
    throw new Fault('certificate_invalid', `the CA file is larger than ${MAX_CA_BYTES} bytes`)
  return plain
}
