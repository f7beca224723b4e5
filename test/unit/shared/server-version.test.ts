import { expect } from 'chai'
import { describe, it } from 'mocha'
import { possibleModes, serverVersionSchema } from '../../../shared/kubernetes/server-version.ts'

const modesOf = (gitVersion: string, minor: string): string[] =>
  possibleModes(serverVersionSchema.parse({ major: '1', minor, gitVersion })).map(
    ({ mode, possible, how }) => `${mode} ${possible}: ${how}`,
  )

describe('which modes a version leaves', () => {
  it('knows flags from files, and policies from webhooks', () => {
    expect(modesOf('v1.20.2', '20')).to.deep.equal([
      'issuer true: flags: one OIDC issuer and one authorization webhook',
      'impersonation true: RBAC, and a webhook that binds writes',
    ])
    expect(modesOf('v1.30.0', '30').join()).to.contain('files').and.to.contain('a policy')
  })

  for (const [gitVersion, minor] of [
    ['v1.31.4-eks-2d5f260', '31+'],
    ['v1.30.5-gke.1014001', '30'],
  ] as const) {
    it(`has no issuer for ${gitVersion}`, () => {
      expect(modesOf(gitVersion, minor)[0]).to.contain('issuer false')
    })
  }

  for (const answer of [{}, { minor: '', gitVersion: 'v1' }, { minor: 30, gitVersion: 'v1' }, 'x'])
    it(`takes ${JSON.stringify(answer)} for no version`, () => {
      expect(serverVersionSchema.safeParse(answer).success).to.equal(false)
    })
})
