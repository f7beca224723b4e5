/** What a sidecar signs, made by hand: for tests of the broker that need tags no honest sidecar would make. */
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import type { JWK } from 'jose'
import { BROKER_AUDIENCE, PROOF_TYPE, TAG_TYPE } from '../../shared/agent-tag.ts'
import type { AgentTag } from '../../shared/agent-tag.ts'

/** A tag as an honest sidecar makes it. */
export const TAG: AgentTag = {
  verdict: 'exclusive',
  instanceId: 'instance-1',
  verified: {
    pid: 42,
    startTicks: '1000',
    bootId: 'boot',
    exe: '/usr/bin/python3.11',
    containerId: 'c'.repeat(64),
    uid: 1000,
    gid: 1000,
    ancestors: [{ pid: 1, startTicks: '1', exe: '/pause' }],
  },
  declared: { command: 'python3 agent.py', agentName: 'scanner' },
}

/** Signs like the sidecar of one pod. */
export interface SidecarKey {
  readonly jwk: JWK
  proof(header?: object, claims?: object): Promise<string>
  tag(tag?: unknown, header?: object, claims?: object): Promise<string>
}

/** A fresh Ed25519 key. */
export async function makeSidecarKey(): Promise<SidecarKey> {
  const { publicKey, privateKey } = await generateKeyPair('EdDSA', { extractable: true })
  const jwk = await exportJWK(publicKey)
  const sign = (payload: object, header: object): Promise<string> =>
    new SignJWT({ iat: Math.floor(Date.now() / 1000), aud: BROKER_AUDIENCE, ...payload })
      .setProtectedHeader({ alg: 'EdDSA', ...header })
      .sign(privateKey)
  return {
    jwk,
    proof: (header = {}, claims = {}) => sign(claims, { typ: PROOF_TYPE, jwk, ...header }),
    tag: (tag = TAG, header = {}, claims = {}) =>
      sign({ tag, ...claims }, { typ: TAG_TYPE, ...header }),
  }
}
