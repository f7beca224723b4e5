/** Checks of the CA that the webhook hands to every pod. */
import { X509Certificate } from 'node:crypto'
import { Fault } from '../errors.ts'

/** Most bytes of CA certificates that go into a pod; the variables of a process share about 128 KiB with its arguments. */
export const MAX_CA_BYTES = 32_768

const PEM_BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----[\s\S]*?-----END \1-----/g

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
