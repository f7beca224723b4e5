/** Signing keys in Vault, against a stand-in that signs with real keys: what it publishes, who signs when, and each way in which it fails. */
import { generateKeyPairSync } from 'node:crypto'
import { chmodSync, rmSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { expect } from 'chai'
import { createLocalJWKSet, decodeProtectedHeader, jwtVerify } from 'jose'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { keyStates, OVERLAP_MS } from '../../../broker/credentials/key-times.ts'
import type { SigningKeys } from '../../../broker/credentials/signing-keys.ts'
import { createTokenMaker } from '../../../broker/credentials/tokens.ts'
import { openVaultKeys } from '../../../broker/credentials/vault-keys.ts'
import { createLog } from '../../../shared/log.ts'
import { newRequestId } from '../../../shared/request-id.ts'
import { makeCertificates } from '../../support/certificates.ts'
import { startVault } from '../../support/vault.ts'
import type { Vault } from '../../support/vault.ts'

const log = createLog('test', 'silent')
const ISSUER = 'https://broker.example/issuer'
const START_MS = 1_800_000_000_000
const ANSWER_MS = 300
const MINUTE_MS = 60_000

interface Watched extends SigningKeys {
  look(): Promise<void>
}

describe('signing keys in Vault', () => {
  let vault: Vault
  let clock: number
  let open: SigningKeys[]
  let made: string[]
  beforeEach(async () => {
    clock = START_MS
    vault = await startVault(START_MS - 10 * OVERLAP_MS, () => clock)
    open = []
    made = []
  })
  afterEach(async () => {
    for (const keys of open) keys.close()
    await vault.close()
  })

  const keysOf = async (settings = vault.settings): Promise<Watched> => {
    const keys = await openVaultKeys(settings, {
      ...{ log, now: () => clock, answerMs: ANSWER_MS },
      onRotated: (kid) => made.push(kid),
    })
    open.push(keys)
    return keys as Watched
  }
  const token = (keys: SigningKeys): Promise<string> =>
    createTokenMaker(ISSUER, keys, () => clock).make({
      ...{ cluster: 'prod', subject: 'subject:ci:x', requestId: newRequestId(clock) },
      ...{ grantGroups: [], process: 'planner', approvers: [] },
    })
  const verify = (text: string, keys: SigningKeys): Promise<unknown> =>
    jwtVerify(text, createLocalJWKSet({ keys: [...keys.published().keys] }), {
      ...{ issuer: ISSUER, audience: 'nestgate/prod', algorithms: ['ES256'] },
      currentDate: new Date(clock),
    })
  const fails = async (keys: SigningKeys): Promise<string> => {
    try {
      await token(keys)
      return ''
    } catch (error) {
      expect(error).to.have.property('code', 'credential_unavailable')
      return String(error)
    }
  }

  it('sign tokens that their published half verifies, and nothing of the private one is there', async () => {
    const keys = await keysOf()
    const text = await token(keys)
    await verify(text, keys)
    const [published] = keys.published().keys
    expect(Object.keys(published ?? {}).toSorted()).to.deep.equal([
      'alg',
      'crv',
      'kid',
      'kty',
      'use',
      'x',
      'y',
    ])
    expect(decodeProtectedHeader(text).kid).to.equal(published?.kid)
    const signed = vault.calls.find(({ path }) => path.includes('/sign/'))
    expect(signed?.token).to.equal('hvs.first')
    expect(signed?.body).to.include({ key_version: 1, marshaling_algorithm: 'jws' })
  })

  it('publish a new version before it signs, and the old one until no token of it is left', async () => {
    const keys = await keysOf()
    const first = keys.current().kid
    vault.rotate(clock)
    await keys.look()
    const second = keys.published().keys[0]?.kid
    expect(made).to.deep.equal([second])
    expect(keys.published().keys).to.have.length(2)
    expect(keys.current().kid, 'published, and not used yet').to.equal(first)
    const states = (): unknown =>
      keyStates(keys.list(), keys.current().kid, clock).map(({ state }) => state)
    expect(states()).to.deep.equal(['publishes', 'signs'])
    const old = await token(keys)
    clock += OVERLAP_MS + 1
    expect(keys.current().kid).to.equal(second)
    expect(states()).to.deep.equal(['signs', 'retires'])
    await verify(await token(keys), keys)
    clock -= OVERLAP_MS
    await verify(old, keys)
    clock += 2 * OVERLAP_MS
    expect(keys.published().keys.map(({ kid }) => kid)).to.deep.equal([second])
  })

  it('leave out versions that Vault does not check by any more, and do not sign by what it does not let sign', async () => {
    vault.rotate(clock)
    const keys = await keysOf()
    expect(keys.published().keys).to.have.length(2)
    const newest = keys.published().keys[0]?.kid
    vault.minEncryption = 2
    await keys.look()
    expect(keys.current().kid, 'the new one, early').to.equal(newest)
    vault.minDecryption = 2
    for (const showsAll of [false, true]) {
      vault.showsAll = showsAll
      await keys.look()
      expect(keys.published().keys.map(({ kid }) => kid)).to.deep.equal([newest])
    }
  })

  it('are known for as long as Vault does not answer, and sign nothing meanwhile', async () => {
    const keys = await keysOf()
    const { kid } = keys.current()
    vault.fault = (response) => response.writeHead(503).end('{"errors":["Vault is sealed"]}')
    await keys.look()
    expect(keys.published().keys.map((key) => key.kid)).to.deep.equal([kid])
    expect(await fails(keys))
      .to.contain('status 503')
      .and.not.to.contain('sealed')
    vault.fault = undefined
    await verify(await token(keys), keys)
  })

  it('are not there until Vault answers for the first time', async () => {
    vault.fault = (response) => response.writeHead(503).end()
    const keys = await keysOf()
    expect(keys.published().keys).to.deep.equal([])
    expect(await fails(keys)).to.contain('no key')
    vault.fault = undefined
    await keys.look()
    await verify(await token(keys), keys)
    expect(made, 'nothing is new').to.deep.equal([])
  })

  it('are read again every minute', async () => {
    const keys = await openVaultKeys(vault.settings, { log, now: Date.now, lookMs: 30 })
    open.push(keys)
    const { length } = vault.calls
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(vault.calls.length).to.be.within(length + 2, length + 8)
    keys.close()
    const closed = vault.calls.length
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(vault.calls.length).to.be.at.most(closed + 1)
  })

  it('are asked for by the token as it is now, from a file that is private', async () => {
    const keys = await keysOf()
    vault.token = 'hvs.second'
    clock += MINUTE_MS
    expect(await fails(keys)).to.contain('status 403')
    vault.writeToken('hvs.second')
    clock += MINUTE_MS
    await verify(await token(keys), keys)
    chmodSync(vault.settings.tokenFile, 0o644)
    vault.writeToken('hvs.second', 0o644)
    clock += MINUTE_MS
    expect(await fails(keys))
      .to.contain('0644')
      .and.not.to.contain('hvs.')
    rmSync(vault.settings.tokenFile)
    clock += MINUTE_MS
    expect(await fails(keys)).to.contain('ENOENT')
  })

  it('are those of a Vault whose certificate is of the authority that was given', async () => {
    const { ca } = makeCertificates({ hosts: ['127.0.0.1'] })
    const { caFile = '' } = vault.settings
    writeFileSync(caFile, ca)
    const keys = await keysOf()
    expect(keys.published().keys).to.deep.equal([])
    expect(vault.calls, 'no token was sent').to.deep.equal([])
    await keysOf({ ...vault.settings, caFile: undefined })
    expect(vault.calls).to.deep.equal([])
  })

  const other = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const hang = (): void => undefined
  const drip = (response: ServerResponse): void => {
    response.writeHead(200)
    const timer = setInterval(() => response.write(' '), 50)
    response.once('close', () => {
      clearInterval(timer)
    })
  }
  const FAULTS: Readonly<Record<string, readonly [(response: ServerResponse) => void, string]>> = {
    'forbids it': [
      (response) => response.writeHead(403).end('{"errors":["secret"]}'),
      'status 403',
    ],
    fails: [(response) => response.writeHead(500).end('secret'), 'status 500'],
    'answers garbage': [(response) => response.end('secret{'), 'not JSON'],
    'answers something else': [
      (response) => response.end('{"data":{"secret":1}}'),
      'answer is not',
    ],
    'answers nothing': [(response) => response.writeHead(204).end(), 'answer is not'],
    'answers no end': [
      (response) => response.end(`"${'x'.repeat(2 * 1024 * 1024)}"`),
      'UND_ERR_RES_EXCEEDED_MAX_SIZE',
    ],
    'does not answer': [hang, 'no answer in time'],
    'answers drop by drop': [drip, 'no answer in time'],
    'hangs up': [(response) => response.destroy(), 'UND_ERR_SOCKET'],
    'leads elsewhere': [
      (response) => response.writeHead(307, { location: `${vault.settings.address}/v1/x` }).end(),
      'status 307',
    ],
  }
  for (const [what, [fault, said]] of Object.entries(FAULTS))
    it(`sign nothing, and stay what they were, where Vault ${what}`, async () => {
      const keys = await keysOf()
      const { kid } = keys.current()
      vault.fault = fault
      expect(await fails(keys))
        .to.contain(said)
        .and.not.to.contain('secret')
      await keys.look()
      expect(keys.published().keys.map((key) => key.kid)).to.deep.equal([kid])
      expect(vault.calls.some(({ path }) => path === '/v1/x')).to.equal(false)
    })

  const SIGNATURES: Readonly<Record<string, readonly [(bytes: Buffer) => string, string]>> = {
    'of another length': [(bytes) => bytes.subarray(1).toString('base64url'), 'another length'],
    'in DER': [
      (bytes) => Buffer.concat([Buffer.from([48, 68]), bytes]).toString('base64url'),
      'another length',
    ],
    'of another key': [() => Buffer.alloc(64, 7).toString('base64url'), 'not of the published key'],
    'in plain base64': [() => `${'+'.repeat(86)}==`, 'not a signature'],
    'that is empty': [() => '', 'not a signature'],
  }
  for (const [what, [signature, said]] of Object.entries(SIGNATURES))
    it(`do not pass on a signature ${what}`, async () => {
      const keys = await keysOf()
      vault.signature = signature
      expect(await fails(keys)).to.contain(said)
    })

  it('are none of another type, whatever its name says', async () => {
    vault.type = 'ecdsa-p384'
    expect((await keysOf()).published().keys).to.deep.equal([])
    vault.type = 'ecdsa-p256'
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
    vault.versions[0] = { createdMs: START_MS, ...rsa }
    expect((await keysOf()).published().keys).to.deep.equal([])
    vault.versions[0] = { createdMs: START_MS, ...other }
    expect((await keysOf()).published().keys).to.have.length(1)
  })

  it('are replaced in Vault, which then has the new version alone', async () => {
    const keys = await keysOf()
    const stolen = await token(keys)
    const replaced = await keys.replace()
    expect(replaced).to.deep.equal({ kid: keys.current().kid })
    expect([vault.minDecryption, vault.minEncryption]).to.deep.equal([2, 2])
    expect(keys.published().keys).to.have.length(1)
    await verify(await token(keys), keys)
    let refused: unknown
    await verify(stolen, keys).catch((error: unknown) => (refused = error))
    expect(refused).to.have.property('code', 'ERR_JWKS_NO_MATCHING_KEY')
    expect(made).to.deep.equal([keys.current().kid])
  })

  it('stay where Vault does not let the broker replace them, and the refusal says what to do there', async () => {
    const keys = await keysOf()
    const { kid } = keys.current()
    vault.forbidden.add('rotate')
    const first = await keys.replace()
    expect(first).to.have.property('refused', 'issuer_key_kept')
    expect(first)
      .to.have.property('detail')
      .that.contains('status 403')
      .and.contains('rotate issuer')
    expect(vault.versions).to.have.length(1)
    vault.forbidden.delete('rotate')
    vault.forbidden.add('config')
    const second = await keys.replace()
    expect(second)
      .to.have.property('detail')
      .that.contains('set min_decryption_version and min_encryption_version of issuer to 2')
    expect(keys.current().kid, 'the new one is published first').to.equal(kid)
  })
})
