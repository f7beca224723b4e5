import { expect } from 'chai'
import { describe, it } from 'mocha'
import { oidcSchema } from '../../../broker/identity/oidc-config.ts'

const issuer = (name: string, usernamePrefix?: string): object => ({
  ...{ name, issuer: `https://${name}.example`, audiences: ['nestgate'] },
  ...(usernamePrefix === undefined ? {} : { usernamePrefix }),
})
const problems = (...issuers: object[]): string[] =>
  oidcSchema.safeParse(issuers).error?.issues.map(({ message }) => message) ?? []

describe('prefixes of issuers', () => {
  it('may be anything where there is one', () => {
    expect(problems(issuer('corp', ''))).to.deep.equal([])
  })

  it('keep subjects apart by default', () => {
    expect(problems(issuer('corp'), issuer('corp-ci'), issuer('ci'))).to.deep.equal([])
  })

  for (const [a, b] of [
    ['', ''],
    ['', 'x:'],
    ['corp:', 'corp:'],
    ['corp:', 'corp:ci:'],
    ['corp:ci:', 'corp:'],
  ] as const)
    it(`cannot be ${JSON.stringify(a)} and ${JSON.stringify(b)}`, () => {
      expect(problems(issuer('a', a), issuer('b', b))).to.have.lengthOf(1)
    })
})
