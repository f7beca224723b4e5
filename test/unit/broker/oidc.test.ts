import { expect } from 'chai'
import { createPrivateKey, createPublicKey, sign } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { after, before, beforeEach, describe, it } from 'mocha'
import { SignJWT, UnsecuredJWT } from 'jose'
import type { JWK } from 'jose'
import { z } from 'zod'
import { createDirectClients } from '../../../broker/identity/direct.ts'
import { createOidc, MAX_TOKEN_LENGTH } from '../../../broker/identity/oidc.ts'
import type { OidcIssuers } from '../../../broker/identity/oidc.ts'
import { oidcSchema } from '../../../broker/identity/oidc-config.ts'
import { mintToken } from '../../support/oidc-provider.ts'
import type { TokenClaims } from '../../support/oidc-provider.ts'
import {
  DISCOVERY_PATH,
  KEYS_PATH,
  newKey,
  publicHalf,
  startScriptedIssuer,
} from '../../support/scripted-issuer.ts'
import type { ScriptedIssuer } from '../../support/scripted-issuer.ts'
import { SILENT } from '../../support/sqlite-store.ts'

const INVALID = { refused: 'credentials_invalid' }
const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE

describe('tokens of OIDC issuers', () => {
  let issuer: ScriptedIssuer
  let key: JWK
  let other: JWK
  let rsa: JWK
  let nowMs: number
  before(async () => {
    issuer = await startScriptedIssuer()
    ;[key, other, rsa] = await Promise.all([newKey(), newKey(), newKey('RS256')])
  })
  after(() => issuer.close())
  beforeEach(() => {
    nowMs = Math.floor(Date.now() / SECOND) * SECOND
    issuer.answers.set(DISCOVERY_PATH, issuer.discovery)
    issuer.publish(key, rsa)
    issuer.asked.length = 0
  })

  const create = (more: object = {}): OidcIssuers => {
    const settings = { name: 'corp', issuer: issuer.issuer, audiences: ['nestgate', 'second'] }
    const issuers = oidcSchema.parse([{ ...settings, caFile: issuer.caFile, ...more }])
    return createOidc(issuers, { log: SILENT, now: () => nowMs })
  }
  const mint = (claims: TokenClaims = {}, by = key, header = {}): Promise<string> =>
    mintToken(by, issuer.issuer, { sub: 'alice', ...claims }, header)
  const seconds = (offset: number): number => nowMs / SECOND + offset
  const keysAsked = (): number => issuer.asked.filter((path) => path === KEYS_PATH).length
  const down = (): void => {
    issuer.answers.clear()
  }

  describe('that are good', () => {
    it('name their subject, beneath the issuer’s name', async () => {
      const exp = seconds(300)
      expect(await create().verify(await mint({ exp }))).to.deep.equal({
        ...{ issuer: issuer.issuer, sub: 'alice', name: 'corp:alice' },
        ...{ names: [`${issuer.issuer}#alice`], groups: [], roles: [] },
        expiresAtMs: exp * SECOND,
      })
    })

    it('name it by the claim and prefix that are configured, and by a verified address', async () => {
      const oidc = create({ usernameClaim: 'preferred_username', usernamePrefix: 'x-' })
      const claims = { preferred_username: 'Al', email: 'al@example.com', email_verified: true }
      expect(await oidc.verify(await mint(claims))).to.deep.include({
        name: 'x-Al',
        names: [`${issuer.issuer}#alice`, 'al@example.com'],
      })
    })

    it('do not name it by an address that nobody verified', async () => {
      for (const email_verified of [false, 'true', undefined]) {
        const token = await mint({ email: 'boss@example.com', email_verified })
        expect(await create().verify(token)).to.deep.include({ names: [`${issuer.issuer}#alice`] })
      }
    })

    it('have groups, and with them roles', async () => {
      const oidc = create({
        ...{ groupsClaim: 'groups', groupsPrefix: 'corp/' },
        roles: { reviewer: ['corp/sre', 'corp/leads'], auditor: ['corp/audit'], admin: ['sre'] },
      })
      expect(await oidc.verify(await mint({ groups: ['sre', 'all'] }))).to.deep.include({
        groups: ['corp/sre', 'corp/all'],
        roles: ['reviewer'],
      })
      expect(await oidc.verify(await mint({ groups: 'audit' }))).to.deep.include({
        groups: ['corp/audit'],
        roles: ['auditor'],
      })
      expect(await oidc.verify(await mint())).to.deep.include({ groups: [], roles: [] })
    })

    it('have groups only where a claim is configured', async () => {
      expect(await create().verify(await mint({ groups: ['sre'] }))).to.deep.include({ groups: [] })
    })

    it('may be for any of several audiences, and by an RSA key', async () => {
      expect(await create().verify(await mint({ aud: ['x', 'second'] }))).to.have.property('name')
      expect(await create().verify(await mint({}, rsa))).to.have.property('name')
    })

    it('have the claims that are required', async () => {
      const oidc = create({ requiredClaims: { ref: ['main', 'release'], env: 'prod' } })
      expect(await oidc.verify(await mint({ ref: 'main', env: 'prod' }))).to.have.property('name')
      for (const claims of [
        {},
        { ref: 'main' },
        { ref: 'dev', env: 'prod' },
        { ref: ['main'], env: 'prod' },
        { ref: 'main', env: true },
      ])
        expect(await oidc.verify(await mint(claims))).to.include(INVALID)
    })

    const RUNS = {
      github: { repository: 'our/shop', ref: 'refs/heads/main', run_id: '7', run_attempt: '2' },
      gitlab: {
        ...{ project_path: 'our/shop', ref: 'main', ref_type: 'branch' },
        ...{ pipeline_id: '7', job_id: '2' },
      },
    } as const
    for (const [profile, claims] of Object.entries(RUNS)) {
      it(`say which run they are of, in ${profile}'s words`, async () => {
        expect(await create({ profile }).verify(await mint(claims))).to.deep.include({
          ci: { repository: 'our/shop', ref: 'refs/heads/main', run: '7/2' },
        })
        expect(await create().verify(await mint(claims))).not.to.have.property('ci')
      })

      it(`are none of ${profile}'s where a claim is missing, or nothing that policy could be held to`, async () => {
        const oidc = create({ profile })
        for (const name of Object.keys(claims).filter((key) => key !== 'run_attempt'))
          for (const value of [
            undefined,
            '',
            7,
            ['our/shop'],
            'm\u00e4in',
            'a b',
            'a\n',
            'x'.repeat(513),
          ])
            expect(await oidc.verify(await mint({ ...claims, [name]: value })), name).to.deep.equal(
              INVALID,
            )
      })
    }

    it('tell a tag from a branch that has its name, and nothing else', async () => {
      const oidc = create({ profile: 'gitlab' })
      const refOf = async (ref_type: string): Promise<unknown> =>
        oidc.verify(await mint({ ...RUNS.gitlab, ref_type }))
      expect(await refOf('tag')).to.have.nested.property('ci.ref', 'refs/tags/main')
      for (const type of ['', 'x', 'constructor']) expect(await refOf(type)).to.deep.equal(INVALID)
    })

    it('say it in the claims that are configured, all of them where there is no profile', async () => {
      const claims = { repo: 'r', branch: 'main', build: 'b' }
      const all = { repository: 'repo', ref: 'branch', run: 'build' }
      expect(await create({ claims: all }).verify(await mint(claims))).to.deep.include({
        ci: { repository: 'r', ref: 'main', run: 'b' },
      })
      expect(await create({ claims: all }).verify(await mint())).to.deep.equal(INVALID)
      const one = create({ profile: 'gitlab', claims: { ref: 'ref_path' } })
      const token = await mint({ ...RUNS.gitlab, ref_path: 'refs/merge-requests/1/head' })
      expect(await one.verify(token)).to.have.nested.property(
        'ci.ref',
        'refs/merge-requests/1/head',
      )
      expect(() => create({ claims: { ref: 'branch' } })).to.throw(/all of repository, ref and run/)
    })

    it('are told from others by their issuer alone, unverified', async () => {
      const oidc = create()
      expect(oidc.handles(await mint({}, other))).to.equal(true)
      expect(oidc.handles(await mint({ iss: 'https://elsewhere.example' }))).to.equal(false)
      for (const text of ['', 'nestgate_abc', 'a.b.c', '..', 'e30.e30.'])
        expect(oidc.handles(text)).to.equal(false)
    })
  })

  describe('that are not', () => {
    const bad: readonly [string, () => Promise<string> | string, object?][] = [
      ['is of another issuer', () => mint({ iss: 'https://elsewhere.example' })],
      ['has no issuer', () => mint({ iss: undefined })],
      ['is for somebody else', () => mint({ aud: 'other' })],
      ['is for nobody', () => mint({ aud: undefined })],
      ['is over', () => mint({ exp: seconds(-6) })],
      ['never ends', () => mint({ exp: undefined })],
      ['is not good yet', () => mint({ nbf: seconds(6) })],
      ['was made in the future', () => mint({ iat: seconds(6) })],
      ['was made at no time', () => mint({ iat: undefined })],
      ['has no subject', () => mint({ sub: undefined })],
      ['has an empty subject', () => mint({ sub: '' })],
      ['has no name', () => mint(), { usernameClaim: 'upn' }],
      ['has a name that is no text', () => mint({ upn: 7 }), { usernameClaim: 'upn' }],
      ['is signed by another key', async () => mint({}, { ...other, kid: key.kid ?? '' })],
      ['names a key that nobody has', () => mint({}, other)],
      ['is too long', () => mint({ padding: 'x'.repeat(MAX_TOKEN_LENGTH) })],
      ['is signed by an algorithm that is not allowed', () => mint(), { algorithms: ['RS256'] }],
      ['is none', () => 'a.b.c'],
      ['is a logout token', () => mint({}, key, { typ: 'logout+jwt' })],
      ['is one that does not say so', () => mint({ events: {} })],
      ['is of some other type', () => mint({}, key, { typ: 'application/dpop+jwt' })],
      ['has a type that is no text', () => mint({}, key, { typ: ['JWT'] })],
      ['is within another', () => mint({}, key, { cty: 'JWT' })],
      ['wants something to be understood', () => signRaw('{"crit":["b64"],"b64":true}')],
      ['has a member twice in its header', () => signRaw('{"typ":"JWT","typ":"JWT"}')],
      ['has a claim twice', () => signRaw('{}', '"sub":"root",')],
      ['is good for longer than a day', () => mint({ iat: seconds(-60), exp: seconds(86_341) })],
      [
        'is good for longer than is configured',
        () => mint({ iat: seconds(-60), exp: seconds(241) }),
        { maxTokenLifeSeconds: 300 },
      ],
      [
        'is for several, and issued to one that we are not',
        () => mint({ aud: ['nestgate', 'x'], azp: 'x' }),
      ],
      ['is issued to no text', () => mint({ aud: ['nestgate', 'second'], azp: ['nestgate'] })],
      ['brings its own key', () => bringingKey()],
      ['has groups that are no list', () => mint({ g: { a: 1 } }), { groupsClaim: 'g' }],
      ['has a group that is no text', () => mint({ g: ['a', 1] }), { groupsClaim: 'g' }],
      ['has a system group', () => mint({ g: ['system:masters'] }), { groupsClaim: 'g' }],
      ['has one in capitals', () => mint({ g: ['SYSTEM:masters'] }), { groupsClaim: 'g' }],
      [
        'has one by its prefix',
        () => mint({ g: ['x'] }),
        { groupsClaim: 'g', groupsPrefix: 'system:' },
      ],
      ['has an empty group', () => mint({ g: [''] }), { groupsClaim: 'g' }],
      ['has a line break in a group', () => mint({ g: ['a\nb'] }), { groupsClaim: 'g' }],
      ['has too many groups', () => mint({ g: Array(501).fill('a') }), { groupsClaim: 'g' }],
      ['has a system name', () => mint({ sub: 'system:admin' }), { usernamePrefix: '' }],
      ['has one in capitals', () => mint({ sub: 'System:admin' }), { usernamePrefix: '' }],
      ['has a line break in its name', () => mint({ sub: 'a\r\nImpersonate-Group: x' })],
      ['has a NUL in its name', () => mint({ sub: 'a\0' })],
      ['has a name that reads backwards', () => mint({ sub: 'a\u202eb' })],
      ['has a name that ends with a space', () => mint({ sub: 'a ' })],
      ['has a name that is too long', () => mint({ sub: 'a'.repeat(254) })],
      [
        'has an address for a name that its issuer has not verified',
        () => mint({ email: 'boss@example.com', email_verified: false }),
        { usernameClaim: 'email' },
      ],
    ]
    /** A token that is right but for what stands before its claims, or in its header. */
    const signRaw = (header: string, claims = ''): string => {
      const named = `{"alg":"ES256","kid":"${key.kid}",${header.slice(1)}`.replace(',}', '}')
      const payload = JSON.stringify({
        ...{ iss: issuer.issuer, aud: 'nestgate', sub: 'alice' },
        ...{ iat: seconds(0), exp: seconds(300) },
      })
      const input = [named, `{${claims}${payload.slice(1)}`]
        .map((part) => Buffer.from(part).toString('base64url'))
        .join('.')
      const signer = createPrivateKey({ key, format: 'jwk' })
      const signature = sign('sha256', Buffer.from(input), {
        key: signer,
        dsaEncoding: 'ieee-p1363',
      })
      return `${input}.${signature.toString('base64url')}`
    }
    const bringingKey = (): Promise<string> => {
      issuer.answers.set('/theirs', { keys: [publicHalf(other)] })
      const jku = `${issuer.issuer}/theirs`
      return mint({}, { ...other, kid: 'theirs' }, { jku, jwk: publicHalf(other) })
    }

    it('are told from good ones by nothing else than what is wrong with them', async () => {
      expect(await create().verify(signRaw('{}'))).to.have.property('name', 'corp:alice')
      for (const typ of ['JWT', 'jwt', 'at+jwt', 'application/at+jwt'])
        expect(await create().verify(await mint({}, key, { typ }))).to.have.property('name')
      const day = { iat: seconds(-60), exp: seconds(86_340) }
      expect(await create().verify(await mint(day))).to.have.property('name')
      for (const claims of [
        { aud: ['x', 'nestgate'], azp: 'second' },
        { aud: 'nestgate', azp: 'x' },
        { aud: ['nestgate'], azp: 'x' },
      ])
        expect(await create().verify(await mint(claims))).to.have.property('name')
    })

    for (const [what, make, more] of bad) {
      it(`are refused when one ${what}`, async () => {
        const refusal = await create(more).verify(await make())
        expect(refusal).to.include(INVALID)
        expect(issuer.asked).not.to.include('/theirs')
      })
    }

    it('are refused when nobody signed them', async () => {
      const token = new UnsecuredJWT({ sub: 'alice' })
        .setIssuer(issuer.issuer)
        .setAudience('nestgate')
        .setIssuedAt()
        .setExpirationTime('5m')
        .encode()
      expect(await create().verify(token)).to.include(INVALID)
    })

    it('are refused when a public key was taken for a secret', async () => {
      const pem = createPublicKey({ key: publicHalf(rsa), format: 'jwk' })
        .export({ type: 'spki', format: 'pem' })
        .toString()
      const token = await new SignJWT({ sub: 'alice' })
        .setProtectedHeader({ alg: 'HS256', kid: rsa.kid ?? '' })
        .setIssuer(issuer.issuer)
        .setAudience('nestgate')
        .setIssuedAt()
        .setExpirationTime('5m')
        .sign(new TextEncoder().encode(pem))
      expect(await create().verify(token)).to.include(INVALID)
    })

    it('cannot name symmetric algorithms in the configuration', () => {
      const one = { name: 'a', issuer: issuer.issuer, audiences: ['x'] }
      for (const alg of ['HS256', 'none'])
        expect(oidcSchema.safeParse([{ ...one, algorithms: [alg] }]).success).to.equal(false)
      expect(oidcSchema.safeParse([one, { ...one, name: 'b' }]).success).to.equal(false)
      const plain = { ...one, issuer: 'http://127.0.0.1' }
      expect(z.safeParse(oidcSchema, [plain]).success).to.equal(false)
    })

    it('are refused when a signature was tampered with', async () => {
      const [header, payload = '', signature] = (await mint()).split('.')
      const claims = JSON.parse(Buffer.from(payload, 'base64url').toString()) as object
      const forged = Buffer.from(JSON.stringify({ ...claims, sub: 'root' })).toString('base64url')
      const oidc = create()
      expect(await oidc.verify(`${header}.${forged}.${signature}`)).to.include(INVALID)
      expect(await oidc.verify(`${header}.${payload}.`)).to.include(INVALID)
    })
  })

  describe('in time', () => {
    it('are refused by a clock that is ten minutes off, either way', async () => {
      const token = await mint({ exp: seconds(300) })
      const right = nowMs
      for (const offMs of [-10 * MINUTE, 10 * MINUTE]) {
        nowMs = right + offMs
        expect(await create({ clockToleranceSeconds: 60 }).verify(token)).to.include(INVALID)
      }
      nowMs = right
      expect(await create().verify(token)).to.have.property('name')
    })

    it('have the tolerance that is configured, each way', async () => {
      const oidc = create({ clockToleranceSeconds: 30 })
      for (const claims of [{ exp: seconds(-29) }, { nbf: seconds(29) }, { iat: seconds(29) }])
        expect(await oidc.verify(await mint(claims))).to.have.property('name')
      for (const claims of [{ exp: seconds(-31) }, { nbf: seconds(31) }, { iat: seconds(31) }])
        expect(await oidc.verify(await mint(claims))).to.include(INVALID)
    })

    it('are remembered, but never past their end', async () => {
      const oidc = create({ clockToleranceSeconds: 0 })
      const token = await mint({ exp: seconds(100) })
      const first = await oidc.verify(token)
      expect(await oidc.verify(token)).to.equal(first)
      nowMs += 99 * SECOND
      expect(await oidc.verify(token)).to.equal(first)
      nowMs += SECOND
      expect(await oidc.verify(token)).to.include(INVALID)
    })

    it('are not remembered for long once their key is withdrawn', async () => {
      const oidc = create()
      const token = await mint({ exp: seconds(5 * 3600) })
      expect(await oidc.verify(token)).to.have.property('name')
      issuer.publish(other)
      nowMs += 5 * MINUTE - 1
      expect(await oidc.verify(token)).to.have.property('name')
      nowMs += 5 * MINUTE + 1
      expect(await oidc.verify(token)).to.include(INVALID)
    })
  })

  describe('and their issuer’s keys', () => {
    it('are trusted for a quarter of an hour after they were withdrawn, at the very most', async () => {
      const oidc = create()
      const long = { exp: seconds(5 * 3600) }
      await oidc.verify(await mint({ ...long, sub: 'first' }))
      issuer.publish(other)
      nowMs += 10 * MINUTE - 1
      const late = await mint({ ...long, sub: 'late' })
      expect(await oidc.verify(late)).to.have.property('name')
      nowMs += 5 * MINUTE - 1
      expect(await oidc.verify(late)).to.have.property('name')
      nowMs += 1
      expect(await oidc.verify(late)).to.include(INVALID)
    })

    it('are asked for once by many tokens at a time, and kept', async () => {
      const oidc = create()
      const tokens = await Promise.all(['a', 'b', 'c'].map((sub) => mint({ sub })))
      await Promise.all(tokens.map((token) => oidc.verify(token)))
      await oidc.verify(await mint({ sub: 'd' }))
      expect(issuer.asked).to.deep.equal([DISCOVERY_PATH, KEYS_PATH])
    })

    it('are asked for again by an unknown key, at most every ten seconds', async () => {
      const oidc = create()
      await oidc.verify(await mint())
      for (let i = 0; i < 5; i += 1)
        expect(await oidc.verify(await mint({ n: i }, other))).to.include(INVALID)
      expect(keysAsked()).to.equal(1)
      nowMs += 10 * SECOND
      for (let i = 0; i < 5; i += 1)
        expect(await oidc.verify(await mint({ n: i }, other))).to.include(INVALID)
      expect(keysAsked()).to.equal(2)
    })

    it('may change', async () => {
      const oidc = create()
      await oidc.verify(await mint())
      issuer.publish(other)
      nowMs += 10 * SECOND
      expect(await oidc.verify(await mint({}, other))).to.have.property('name', 'corp:alice')
      expect(keysAsked()).to.equal(2)
      expect(await oidc.verify(await mint({ sub: 'bob' }))).to.include(INVALID)
    })

    it('are good for an hour while the issuer does not answer, and no longer', async () => {
      const oidc = create()
      const long = { exp: seconds(5 * 3600) }
      const token = await mint(long)
      await oidc.verify(token)
      down()
      nowMs += HOUR - SECOND
      expect(await oidc.verify(await mint({ ...long, sub: 'bob' }))).to.have.property('name')
      nowMs += 11 * SECOND
      const refusal = { refused: 'issuer_unavailable' }
      expect(await oidc.verify(await mint({ ...long, sub: 'carol' }))).to.include(refusal)
      nowMs += HOUR
      expect(await oidc.verify(token)).to.include(refusal)
      issuer.answers.set(DISCOVERY_PATH, issuer.discovery)
      issuer.publish(key)
      nowMs += 10 * SECOND
      expect(await oidc.verify(token)).to.have.property('name')
    })

    const drip = (response: ServerResponse): void => {
      const timer = setInterval(() => response.write(' '), 500)
      response.once('close', () => {
        clearInterval(timer)
      })
    }
    const broken: readonly [string, () => void][] = [
      ['does not answer', down],
      ['has garbage for discovery', () => issuer.answers.set(DISCOVERY_PATH, '<html>')],
      ['has an empty discovery', () => issuer.answers.set(DISCOVERY_PATH, {})],
      [
        'has the discovery of another',
        () =>
          issuer.answers.set(DISCOVERY_PATH, {
            ...issuer.discovery,
            issuer: `${issuer.issuer}/`,
          }),
      ],
      [
        'has its keys where nobody is asked for proof',
        () =>
          issuer.answers.set(DISCOVERY_PATH, {
            ...issuer.discovery,
            jwks_uri: `http://${new URL(issuer.issuer).host}${KEYS_PATH}`,
          }),
      ],
      ['has garbage for keys', () => issuer.answers.set(KEYS_PATH, '[')],
      ['has a list for keys', () => issuer.answers.set(KEYS_PATH, [])],
      ['has no list of keys', () => issuer.answers.set(KEYS_PATH, { keys: {} })],
      [
        'has more keys than it should',
        () => issuer.answers.set(KEYS_PATH, { keys: Array(101).fill(publicHalf(key)) }),
      ],
      [
        'has more to say than is read',
        () => issuer.answers.set(KEYS_PATH, { keys: [publicHalf(key)], more: 'x'.repeat(300_000) }),
      ],
      [
        'sends us elsewhere',
        () => {
          issuer.answers.set('/elsewhere', { keys: [publicHalf(key)] })
          issuer.answers.set(KEYS_PATH, (response) => {
            response.writeHead(302, { location: `${issuer.issuer}/elsewhere` }).end()
          })
        },
      ],
      [
        'never comes to an end',
        () => {
          issuer.answers.set(KEYS_PATH, drip)
        },
      ],
    ]
    for (const [what, breakIt] of broken) {
      it(`cannot be had when it ${what}`, async () => {
        breakIt()
        expect(await create().verify(await mint())).to.include({
          ...{ refused: 'issuer_unavailable', detail: 'corp' },
        })
        expect(issuer.asked).to.not.include('/elsewhere')
      })
    }

    it('cannot be had from one whose certificate is not trusted', async () => {
      const oidc = create({ caFile: undefined })
      expect(await oidc.verify(await mint())).to.include({ refused: 'issuer_unavailable' })
      expect(issuer.asked).to.deep.equal([])
    })
  })

  describe('in a message', () => {
    const send = (
      name: string,
      ...tokens: readonly string[]
    ): { headers: Record<string, string>; rawHeaders: string[] } => ({
      headers: { [name.toLowerCase()]: tokens.join(', ') },
      rawHeaders: tokens.flatMap((token) => [name, token]),
    })

    it('are taken from the Authorization header, of which there may be only one', async () => {
      const direct = createDirectClients(create())
      const token = `Bearer ${await mint()}`
      expect(direct.handles(send('Authorization', token))).to.equal(true)
      expect(await direct.authenticate(send('Authorization', token))).to.have.property('name')
      const twice = { ...send('Authorization', token, token), headers: { authorization: token } }
      expect(await direct.authenticate(twice)).to.include({ refused: 'header_invalid' })
      expect(await direct.authenticate({ headers: {}, rawHeaders: [] })).to.include({
        refused: 'credentials_missing',
      })
      expect(direct.handles(send('Authorization', `Basic ${await mint()}`))).to.equal(false)
    })

    it('may be sent along for a subject, in one header', async () => {
      const direct = createDirectClients(create())
      const token = await mint({ sub: 'bob' })
      const name = 'Nestgate-Subject-Token'
      expect(await direct.subjectOf(send(name, token))).to.have.property('name', 'corp:bob')
      expect(await direct.subjectOf(send(name, token, token))).to.include({
        refused: 'header_invalid',
      })
      expect(await direct.subjectOf(send(name, 'garbage'))).to.include(INVALID)
    })
  })
})
