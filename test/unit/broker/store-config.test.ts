import { expect } from 'chai'
import { describe, it } from 'mocha'
import { brokerSchema } from '../../../broker/config.ts'

const REST = { tls: { certFile: 'c', keyFile: 'k' }, dataDir: 'd', policyFile: 'p' }

describe('the setting of the store', () => {
  it('may be left out, or name a database', () => {
    expect(brokerSchema.parse(REST).store).to.deep.equal({})
    const url = 'postgres://nestgate@db.example:5432/nestgate?sslmode=verify-full'
    const postgres = { url, passwordFile: '/run/secrets/db' }
    expect(brokerSchema.parse({ ...REST, store: { postgres } }).store).to.deep.equal({ postgres })
  })

  for (const url of [
    'postgres://nestgate:secret@db.example/nestgate',
    'postgres://nestgate@db.example/nestgate?password=secret',
    'https://db.example/nestgate',
    'db.example',
  ]) {
    it(`is refused as ${url}, and the password is not repeated`, () => {
      const parsed = brokerSchema.safeParse({ ...REST, store: { postgres: { url } } })
      expect(parsed.success).to.equal(false)
      expect(parsed.error?.message).to.contain('postgres').and.not.contain('secret')
    })
  }
})
