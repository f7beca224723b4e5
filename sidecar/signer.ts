/**
 * The sidecar's signing key (Ed25519). It is made at start, lives in memory only and is registered with the broker,
 * so a tag can be made by this process alone.
 */
import { SignJWT, exportJWK, generateKeyPair } from 'jose'
import { BROKER_AUDIENCE, PROOF_TYPE, TAG_TYPE } from '../shared/agent-tag.ts'
import type { AgentTag } from '../shared/agent-tag.ts'

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
export async function createSigner(now: () => number): Promise<Signer> {
  const { privateKey, publicKey } = await generateKeyPair('EdDSA', { crv: 'Ed25519' })
  const jwk = await exportJWK(publicKey)
  const cache = new Map<string, { jws: string; signedAt: number }>()
  const seconds = (): number => Math.floor(now() / 1000)
  return {
    proof(): Promise<string> {
      return new SignJWT()
        .setProtectedHeader({ alg: 'EdDSA', typ: PROOF_TYPE, jwk })
        .setAudience(BROKER_AUDIENCE)
        .setIssuedAt(seconds())
        .sign(privateKey)
    },
    async sign(tag): Promise<string> {
      const key = JSON.stringify(tag)
      const known = cache.get(key)
      const age = known === undefined ? Infinity : now() - known.signedAt
      if (known !== undefined && age >= 0 && age < TAG_REUSE_MS) return known.jws
      const signedAt = now()
      const jws = await new SignJWT({ tag })
        .setProtectedHeader({ alg: 'EdDSA', typ: TAG_TYPE })
        .setAudience(BROKER_AUDIENCE)
        .setIssuedAt(seconds())
        .sign(privateKey)
      cache.delete(key)
      cache.set(key, { jws, signedAt })
      const [oldest] = cache.keys()
      if (cache.size > MAX_CACHED_TAGS && oldest !== undefined) cache.delete(oldest)
      return jws
    },
  }
}
