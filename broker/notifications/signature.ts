/** Signatures of Standard Webhooks (standardwebhooks.com, "Signature scheme"), symmetric: `v1`, HMAC-SHA256, base64. */
import { createHmac } from 'node:crypto'

const PREFIX = 'whsec_'
/** Bytes of a key, as the specification bounds them. */
const MIN_KEY_BYTES = 24
const MAX_KEY_BYTES = 64

/** The keys in the text of a secret file, one a line; undefined where it has none, or one that is malformed. */
export function readSecrets(text: string): readonly Buffer[] | undefined {
  const lines = text.split('\n').filter((line) => line.trim() !== '')
  const keys = lines.map((line) => Buffer.from(line.trim().replace(PREFIX, ''), 'base64'))
  const fits = keys.every(({ length }) => length >= MIN_KEY_BYTES && length <= MAX_KEY_BYTES)
  return keys.length > 0 && fits ? keys : undefined
}

/** Headers of a signed message. @param atS - of this attempt, whole seconds since the epoch */
export function signedHeaders(
  id: string,
  atS: number,
  body: string,
  keys: readonly Buffer[],
): Readonly<Record<string, string>> {
  const signed = `${id}.${atS}.${body}`
  const signatures = keys.map(
    (key) => `v1,${createHmac('sha256', key).update(signed).digest('base64')}`,
  )
  return {
    'webhook-id': id,
    'webhook-timestamp': String(atS),
    'webhook-signature': signatures.join(' '),
  }
}
