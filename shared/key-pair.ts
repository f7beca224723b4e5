/** A server's own certificate and key, as they are read from files that others replace. */
import { X509Certificate, createPrivateKey } from 'node:crypto'
import { createSecureContext } from 'node:tls'
import { Fault } from './errors.ts'

/** A certificate chain with its key, both PEM. */
export interface KeyPair {
  readonly cert: string
  readonly key: string
}

/**
 * Takes a certificate and a key that belong together: while files are being swapped they may not.
 *
 * @throws Fault `certificate_invalid` where one is no PEM, they are not a pair, or TLS would not take them
 */
export function loadKeyPair(cert: string, key: string): KeyPair {
  let pair: boolean
  try {
    pair = new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))
    if (pair) createSecureContext({ cert, key })
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
