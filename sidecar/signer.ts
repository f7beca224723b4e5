/**
 * The sidecar's signing key (Ed25519). It is made at start, lives in memory only and is registered with the broker,
 * so a tag can be made by this process alone. Compact JWS (RFC 7515, 8037) by Node's own crypto: verifying is the
 * broker's, and a token library would cost this process several MiB.
 */
import { generateKeyPairSync, sign as signBytes } from 'node:crypto'
import type { AgentTag } from '../shared/agent-tag.ts'
import { BROKER_AUDIENCE, PROOF_TYPE, TAG_TYPE } from '../shared/tag-constants.ts'

/** How long one signature is used, in milliseconds: less than the 60 s after which the broker refuses it, by what clocks may differ. */
export const TAG_REUSE_MS = 45_000
/** Most signatures kept; the oldest goes first. */
const MAX_CACHED_TAGS = 256

/** Signs what the sidecar says. */
export interface Signer {
  /** Proof of possession of the key, for the registration; made anew at each call. */
  proof(): Promise<string>
  /** The tag as a compact JWS, at most {@link TAG_REUSE_MS} old. */
  sign(tag: AgentTag): Promise<string>
}

/**
 * A signer with a new key.
 *
 * @param now - milliseconds since the epoch
 */
export function createSigner(now: () => number): Signer {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const { kty, crv, x } = publicKey.export({ format: 'jwk' })
  const cache = new Map<string, { jws: string; signedAt: number }>()
  const jws = (header: object, claims: object): string => {
    const iat = Math.floor(now() / 1000)
    const input = `${encode({ alg: 'EdDSA', ...header })}.${encode({ ...claims, aud: BROKER_AUDIENCE, iat })}`
    return `${input}.${signBytes(null, Buffer.from(input), privateKey).toString('base64url')}`
  }
  return {
    proof: () => Promise.resolve(jws({ typ: PROOF_TYPE, jwk: { kty, crv, x } }, {})),
    sign(tag): Promise<string> {
      const key = JSON.stringify(tag)
      const known = cache.get(key)
      const age = known === undefined ? Infinity : now() - known.signedAt
      if (known !== undefined && age >= 0 && age < TAG_REUSE_MS) return Promise.resolve(known.jws)
      const signed = { jws: jws({ typ: TAG_TYPE }, { tag }), signedAt: now() }
      cache.delete(key)
      cache.set(key, signed)
      const [oldest] = cache.keys()
      if (cache.size > MAX_CACHED_TAGS && oldest !== undefined) cache.delete(oldest)
      return Promise.resolve(signed.jws)
    },
  }
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}
