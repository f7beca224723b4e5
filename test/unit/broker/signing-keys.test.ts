import { chmod, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { generateKeyPairSync } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { createLocalJWKSet, decodeProtectedHeader, jwtVerify } from 'jose'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { OVERLAP_MS } from '../../../broker/credentials/key-times.ts'
import { openSigningKeys } from '../../../broker/credentials/signing-keys.ts'
import type { SigningKeys } from '../../../broker/credentials/signing-keys.ts'
import { createTokenMaker } from '../../../broker/credentials/tokens.ts'
import { createLog } from '../../../shared/log.ts'
import { newRequestId } from '../../../shared/request-id.ts'

const log = createLog('test', 'silent')
const ISSUER = 'https://broker.example/issuer'
const DAY_MS = 86_400_000
const START_MS = 1_800_000_000_000

describe('the signing keys of the issuer', () => {
  let dir: string
  let clock: number
  let open: SigningKeys[]
  let made: string[]
  beforeEach(async () => {
    dir = join(await mkdtemp(join(tmpdir(), 'nestgate-keys-')), 'keys')
    clock = START_MS
    open = []
    made = []
  })
  afterEach(async () => {
    for (const keys of open) keys.close()
    await rm(join(dir, '..'), { recursive: true })
  })

  const keysOf = async (): Promise<SigningKeys> => {
    const onRotated = (kid: string): void => {
      made.push(kid)
    }
    const keys = await openSigningKeys(
      { dir, rotateAfterDays: 30 },
      { log, now: () => clock, onRotated },
    )
    open.push(keys)
    return keys
  }
  const token = (keys: SigningKeys): Promise<string> =>
    createTokenMaker(ISSUER, keys, () => clock).make({
      ...{ cluster: 'prod', subject: 'subject:ci:x', requestId: newRequestId(clock) },
      ...{ grantGroups: ['deployers'], process: 'planner', approvers: ['sara', 'sven'] },
    })
  const verify = (text: string, keys: SigningKeys) =>
    jwtVerify(text, createLocalJWKSet({ keys: [...keys.published().keys] }), {
      ...{ issuer: ISSUER, audience: 'nestgate/prod', algorithms: ['ES256'] },
      currentDate: new Date(clock),
    })

  it('make one that nobody else may read, publish only its public half, and find it again', async () => {
    const keys = await keysOf()
    const [file = ''] = await readdir(dir)
    expect((await stat(join(dir, file))).mode & 0o777).to.equal(0o600)
    expect((await stat(dir)).mode & 0o777).to.equal(0o700)
    const { kid } = keys.current()
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
    expect((await keysOf()).current().kid).to.equal(kid)
    expect(made).to.deep.equal([kid])
  })

  it('sign tokens that say what they are for, and end after half a minute', async () => {
    const keys = await keysOf()
    const { payload, protectedHeader } = await verify(await token(keys), keys)
    expect(protectedHeader).to.deep.equal({ alg: 'ES256', typ: 'JWT', kid: keys.current().kid })
    expect(payload).to.deep.include({
      sub: 'subject:ci:x',
      groups: ['group:deployers'],
      process: 'planner',
      approvers: ['sara', 'sven'],
      exp: clock / 1000 + 30,
    })
    expect(payload['marked_groups']).to.deep.equal([
      'group:deployers',
      `request:${payload.jti}`,
      'process:planner',
      'approver:sara',
      'approver:sven',
    ])
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).to.be.at.most(60)
  })

  it('are published before they sign, and stay until no token of theirs is left', async () => {
    const keys = await keysOf()
    const first = keys.current().kid
    const kids = (): unknown[] => keys.published().keys.map(({ kid }) => kid)
    clock += 30 * DAY_MS
    const again = await keysOf()
    const second = again.published().keys[0]?.kid
    expect(second).to.not.equal(first)
    expect(again.current().kid, 'published, and not used yet').to.equal(first)
    const old = await token(again)
    clock += OVERLAP_MS - 1
    expect(again.current().kid).to.equal(first)
    clock += 1
    expect(again.current().kid).to.equal(second)
    clock -= OVERLAP_MS - 1000
    expect((await verify(old, again)).payload.sub).to.equal('subject:ci:x')
    clock += OVERLAP_MS
    const later = await keysOf()
    expect(later.published().keys).to.have.length(2)
    clock += OVERLAP_MS
    const last = await keysOf()
    expect(last.published().keys.map(({ kid }) => kid)).to.deep.equal([second])
    expect(await readdir(dir)).to.have.length(1)
    expect(kids()).to.deep.equal([first])
  })

  it('are replaced at once where one may be known to others', async () => {
    const keys = await keysOf()
    const stolen = await token(keys)
    const replaced = await keys.replace()
    const kid = 'kid' in replaced ? replaced.kid : undefined
    expect(keys.current().kid).to.equal(kid)
    expect(keys.published().keys.map((key) => key.kid)).to.deep.equal([kid])
    expect(decodeProtectedHeader(await token(keys)).kid).to.equal(kid)
    let refused: unknown
    await verify(stolen, keys).catch((error: unknown) => (refused = error))
    expect(refused).to.have.property('code', 'ERR_JWKS_NO_MATCHING_KEY')
    expect(await readdir(dir)).to.have.length(1)
  })

  const problem = async (): Promise<string> => {
    try {
      await keysOf()
      return ''
    } catch (error) {
      return String(error)
    }
  }

  it('are refused where others may read one, and where one is something else, without repeating it', async () => {
    await keysOf()
    const [file = ''] = await readdir(dir)
    await chmod(join(dir, file), 0o604)
    expect(await problem())
      .to.contain('0600')
      .and.to.contain(file)
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
    for (const text of ['garbage', rsa.privateKey.export({ type: 'pkcs8', format: 'pem' })]) {
      await rm(join(dir, file))
      await writeFile(join(dir, file), text, { mode: 0o600 })
      expect(await problem())
        .to.contain('not a P-256 key')
        .and.to.not.contain('garbage')
    }
  })

  it('are taken back from the group, which a volume with `fsGroup` gives them at each mount', async () => {
    const { kid } = (await keysOf()).current()
    const [file = ''] = await readdir(dir)
    await chmod(join(dir, file), 0o660)
    expect((await keysOf()).current().kid).to.equal(kid)
    expect((await stat(join(dir, file))).mode & 0o777).to.equal(0o600)
  })

  it('take no half-written key for one', async () => {
    await keysOf()
    await writeFile(join(dir, '1800000000001.pem.new'), 'half', { mode: 0o600 })
    expect(await problem()).to.equal('')
  })
})
