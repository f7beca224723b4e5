import { EmbeddedJWK, decodeJwt, importJWK, jwtVerify } from 'jose'
import type { JWK } from 'jose'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { BROKER_AUDIENCE, PROOF_TYPE, TAG_MAX_AGE_S, TAG_TYPE } from '../../../shared/agent-tag.ts'
import type { AgentTag } from '../../../shared/agent-tag.ts'
import { createSigner } from '../../../sidecar/signer.ts'

const TAG: AgentTag = { verdict: 'unidentified', reason: 'gone' }
const START_MS = 1_800_000_000_000

describe('signer', () => {
  it('proves the key that its tags are signed with', async () => {
    const signer = createSigner(() => START_MS)
    const claims = { audience: BROKER_AUDIENCE, currentDate: new Date(START_MS) }
    const proof = await jwtVerify(await signer.proof(), EmbeddedJWK, { ...claims, typ: PROOF_TYPE })
    const jwk = proof.protectedHeader.jwk as JWK
    expect(jwk).to.have.all.keys('kty', 'crv', 'x')
    const key = await importJWK(jwk, 'EdDSA')
    const tag = await jwtVerify(await signer.sign(TAG), key, { ...claims, typ: TAG_TYPE })
    expect(tag.payload['tag']).to.deep.equal(TAG)
    expect(tag.protectedHeader).to.deep.equal({ alg: 'EdDSA', typ: TAG_TYPE })
  })

  it('uses a signature again, but never until the broker refuses it', async () => {
    let nowMs = START_MS
    const signer = createSigner(() => nowMs)
    const first = await signer.sign(TAG)
    for (; nowMs < START_MS + 180_000; nowMs += 1000) {
      const { iat = 0 } = decodeJwt(await signer.sign(TAG))
      expect(nowMs / 1000 - iat).to.be.lessThan(TAG_MAX_AGE_S - 10)
    }
    nowMs = START_MS + 1000
    const early = createSigner(() => nowMs)
    expect(await early.sign(TAG)).to.equal(await early.sign(TAG))
    expect(await signer.sign(TAG)).not.to.equal(first)
  })

  it('signs again when the clock has gone back', async () => {
    let nowMs = START_MS
    const signer = createSigner(() => nowMs)
    await signer.sign(TAG)
    nowMs -= 3_600_000
    expect(decodeJwt(await signer.sign(TAG)).iat).to.equal(nowMs / 1000)
  })

  it('gives each tag a signature of its own, also past what it keeps', async () => {
    const signer = createSigner(() => START_MS)
    const all = new Set<string>()
    for (let at = 0; at < 300; at += 1) all.add(await signer.sign({ ...TAG, reason: String(at) }))
    expect(all.size).to.equal(300)
  })
})
