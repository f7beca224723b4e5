import { expect } from 'chai'
import { before, describe, it } from 'mocha'
import { Fault } from '../../../shared/errors.ts'
import { expiryOf, loadKeyPair } from '../../../shared/key-pair.ts'
import { MAX_CA_BYTES, loadCaCertificates } from '../../../shared/injection/broker-authority.ts'
import { makeCertificates } from '../../support/certificates.ts'
import type { Certificates } from '../../support/certificates.ts'

describe('certificates', () => {
  let one: Certificates
  let other: Certificates
  before(() => {
    one = makeCertificates({ hosts: ['localhost'] })
    other = makeCertificates({ hosts: ['localhost'] })
  })

  it('are taken with their own key only', () => {
    expect(loadKeyPair(one.cert, one.key)).to.deep.equal({ cert: one.cert, key: one.key })
    expect(() => loadKeyPair(one.cert, other.key)).to.throw(Fault, 'not that of the certificate')
    expect(() => loadKeyPair('', one.key)).to.throw(Fault, 'cannot be read')
    expect(() => loadKeyPair(one.cert, one.key.slice(0, 300))).to.throw(Fault, 'cannot be read')
  })

  it('tell when they end', () => {
    const hours = (expiryOf(one.cert).getTime() - Date.now()) / 3_600_000
    expect(hours).to.be.within(23, 25)
  })

  it('of a CA are brought to plain form', () => {
    const untidy = `# ours\n${one.ca.replaceAll('\n', '\r\n')}\n\n# theirs\n${other.ca}`
    const plain = loadCaCertificates(untidy)
    expect(plain.match(/BEGIN CERTIFICATE/g)).to.have.length(2)
    expect(plain).not.to.match(/[#\r]/)
    expect(loadCaCertificates(plain)).to.equal(plain)
  })

  it('of a CA come with nothing else: a key would go into every pod', () => {
    const refused = /something other than certificates/
    expect(() => loadCaCertificates(one.ca + one.key)).to.throw(Fault, refused)
    expect(() => loadCaCertificates(one.key)).to.throw(Fault, refused)
  })

  it('of a CA must be there, readable and of a bounded size', () => {
    const broken = one.ca.replace(/\n[A-Za-z0-9+/]{8}/, '\nAAAAAAAA')
    expect(() => loadCaCertificates('')).to.throw(Fault, 'no certificate')
    expect(() => loadCaCertificates('text')).to.throw(Fault, 'no certificate')
    expect(() => loadCaCertificates(broken)).to.throw(Fault, 'cannot be read')
    const many = one.ca.repeat(Math.ceil(MAX_CA_BYTES / one.ca.length) + 1)
    expect(() => loadCaCertificates(many)).to.throw(Fault, 'larger than')
  })
})
