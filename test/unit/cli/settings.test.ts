import { expect } from 'chai'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'mocha'
import { brokerSettings, UsageError } from '../../../cli/settings.ts'

describe('where nestgate finds the broker', () => {
  let folder: string
  let tokenFile: string
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nestgate-cli-'))
    tokenFile = join(folder, 'token')
    writeFileSync(tokenFile, 'from-file\n')
  })
  after(() => {
    rmSync(folder, { recursive: true })
  })
  const env = { NESTGATE_BROKER_URL: 'https://broker.example:8443', NESTGATE_TOKEN: 'from-env' }

  it('is the environment where no option says otherwise', () => {
    const { url, token } = brokerSettings({}, env)
    expect([url.href, token]).to.deep.equal(['https://broker.example:8443/', 'from-env'])
  })

  it('is the option, and the token’s file, where both are given', () => {
    const { url, token } = brokerSettings({ broker: 'https://other/', tokenFile }, env)
    expect([url.href, token]).to.deep.equal(['https://other/', 'from-file'])
    expect(brokerSettings({}, { ...env, NESTGATE_TOKEN_FILE: tokenFile }).token).to.equal(
      'from-file',
    )
  })

  for (const broker of ['http://127.0.0.1:1', 'http://localhost:1', 'http://[::1]:1']) {
    it(`may be plain HTTP on this machine: ${broker}`, () => {
      expect(brokerSettings({ broker }, env).url.href).to.equal(`${broker}/`)
    })
  }

  for (const broker of [
    'http://broker.example',
    'http://127.0.0.1.evil.example',
    'http://localhost.evil.example',
    'ftp://x',
    'broker',
    '',
    'https://user:secret@x',
    'https://x/?a=b',
    'https://x/#a',
  ]) {
    it(`is refused, with nothing sent: ${broker}`, () => {
      expect(() => brokerSettings({ broker }, env)).to.throw(UsageError)
    })
  }

  it('may have no token, and then is told so', () => {
    expect(brokerSettings({}, { ...env, NESTGATE_TOKEN: undefined })).to.not.have.property('token')
  })

  for (const NESTGATE_TOKEN of ['', '  \n', 'two words', 'line\r\nHost: x', '"quoted"']) {
    it(`needs a token that can be one: ${JSON.stringify(NESTGATE_TOKEN)}`, () => {
      expect(() => brokerSettings({}, { ...env, NESTGATE_TOKEN })).to.throw(UsageError, 'token')
    })
  }

  it('does not fall back to another token when the file cannot be read', () => {
    expect(() => brokerSettings({ tokenFile: join(folder, 'none') }, env)).to.throw(UsageError)
  })
})
