import { expect } from 'chai'
import { createHash } from 'node:crypto'
import { describe, it } from 'mocha'
import type { DirectClients } from '../../../broker/identity/direct.ts'
import { createPeople, hasRole } from '../../../broker/identity/people.ts'
import type { Role } from '../../../broker/identity/roles.ts'
import { refuse } from '../../../shared/reasons.ts'

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')
const people = createPeople([
  { name: 'alice', roles: ['reviewer'], tokenSha256: sha256('token-of-alice') },
  { name: 'carol', roles: ['auditor', 'admin'], tokenSha256: sha256('token-of-carol') },
])
const ask = (...lines: string[]): Promise<object> => {
  const [authorization] = lines
  return people.authenticate({
    headers: authorization === undefined ? {} : { authorization },
    rawHeaders: lines.flatMap((line) => ['Authorization', line]),
  })
}

describe('people of the configuration', () => {
  it('are known by their token', async () => {
    expect(await ask('Bearer token-of-alice')).to.deep.equal({ name: 'alice', roles: ['reviewer'] })
    expect(await ask('bearer token-of-carol')).to.deep.include({ name: 'carol' })
  })

  const refused: readonly [string, string[], string][] = [
    ['there is no token', [], 'credentials_missing'],
    ['the token is nobody’s', ['Bearer token-of-mallory'], 'credentials_invalid'],
    [
      'the token is a hash of the configuration',
      [`Bearer ${sha256('token-of-alice')}`],
      'credentials_invalid',
    ],
    ['the token is cut short', ['Bearer token-of-alic'], 'credentials_invalid'],
    ['the token is empty', ['Bearer '], 'credentials_invalid'],
    ['the scheme is another one', ['Basic token-of-alice'], 'credentials_invalid'],
    ['there are two headers', ['Bearer token-of-alice', 'Bearer token-of-carol'], 'header_invalid'],
  ]
  for (const [when, lines, reason] of refused) {
    it(`are refused when ${when}`, async () => {
      expect(await ask(...lines)).to.have.property('refused', reason)
    })
  }

  it('are nobody when the configuration lists the hash of the empty token', async () => {
    const empty = createPeople([{ name: 'eve', roles: ['admin'], tokenSha256: sha256('') }])
    const message = {
      headers: { authorization: 'Bearer' },
      rawHeaders: ['authorization', 'Bearer'],
    }
    expect(await empty.authenticate(message)).to.have.property('refused', 'credentials_invalid')
  })

  const roles: readonly [Role, readonly Role[], boolean][] = [
    ['reviewer', ['reviewer'], true],
    ['auditor', ['reviewer'], false],
    ['auditor', ['reviewer', 'auditor'], true],
    ['admin', ['reviewer'], true],
    ['admin', ['auditor'], true],
  ]
  for (const [role, needed, expected] of roles) {
    it(`as ${role} ${expected ? 'may' : 'may not'} do what needs ${needed.join(' or ')}`, () => {
      expect(hasRole({ name: 'x', roles: [role] }, needed)).to.equal(expected)
    })
  }
})

describe('people that an issuer vouches for', () => {
  const subject = {
    ...{ issuer: 'https://idp.example', sub: '17', name: 'corp:dora', expiresAtMs: 5 },
    ...{ names: ['https://idp.example#17', 'dora@example.com'], groups: ['sre'] },
    roles: ['reviewer'] as const,
  }
  const asked: string[] = []
  const direct: DirectClients = {
    handles: ({ headers }) => headers.authorization?.startsWith('Bearer oidc-') === true,
    authenticate({ headers }) {
      asked.push(headers.authorization ?? '')
      const isGood = headers.authorization === 'Bearer oidc-good'
      return Promise.resolve(isGood ? subject : refuse('issuer_unavailable', 'corp'))
    },
    subjectOf: () => Promise.reject(new Error('not for people')),
  }
  const both = createPeople(
    [{ name: 'alice', roles: ['reviewer'], tokenSha256: sha256('oidc-alice') }],
    direct,
  )
  const send = (...lines: string[]): Promise<object> =>
    both.authenticate({
      headers: { authorization: lines[0] },
      rawHeaders: lines.flatMap((line) => ['Authorization', line]),
    })

  it('have name, other names, groups, roles, issuer and end of their token, and nothing else of it', async () => {
    expect(await send('Bearer oidc-good')).to.deep.equal({
      ...{ name: 'corp:dora', names: subject.names, groups: ['sre'], roles: ['reviewer'] },
      ...{ expiresAtMs: 5, issuer: 'https://idp.example' },
    })
  })

  it('are refused as their issuer’s check says', async () => {
    expect(await send('Bearer oidc-bad')).to.include({ refused: 'issuer_unavailable' })
  })

  it('are refused with two Authorization headers, without being looked at', async () => {
    asked.length = 0
    expect(await send('Bearer oidc-good', 'Bearer oidc-good')).to.include({
      refused: 'header_invalid',
    })
    expect(asked).to.deep.equal([])
  })

  it('do not hide those of the configuration, whose tokens are sent nowhere', async () => {
    asked.length = 0
    expect(await send('Bearer oidc-alice')).to.deep.include({ name: 'alice' })
    expect(await send('Bearer other')).to.include({ refused: 'credentials_invalid' })
    expect(asked).to.deep.equal([])
  })
})
