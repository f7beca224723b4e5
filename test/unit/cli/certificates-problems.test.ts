import { expect } from 'chai'
import { describe, it } from 'mocha'
import { certificateProblems } from '../../../cli/certificates-problems.ts'
import type { CertificateTexts } from '../../../cli/certificates-problems.ts'
import {
  authorityOf,
  crossSign,
  issueLeaf,
  makeAuthority,
  pemOf,
  validityOf,
} from '../../../cli/certificates.ts'

const DAY = 86_400_000

describe('problems of certificates', () => {
  const now = Date.now()
  const old = makeAuthority(validityOf(200, now))
  const fresh = makeAuthority(validityOf(3_650, now))
  const { cert: oldPem } = pemOf(old)
  const { cert: freshPem, key: freshKey } = pemOf(fresh)
  const hosts = ['nestgate-webhook.nestgate-system.svc', '::1']
  const leaf = issueLeaf(authorityOf(freshPem, freshKey), 'test', hosts, validityOf(90, now))
  const texts: CertificateTexts = {
    ...{ name: 'webhook', chain: leaf.cert, key: leaf.key, hosts },
    trusted: { 'its caBundle': freshPem },
  }
  const told = (more: Partial<CertificateTexts>, at = now): readonly string[] =>
    certificateProblems({ ...texts, ...more }, at).map(({ code, severity, daysLeft }) =>
      `${severity} ${code} ${daysLeft ?? ''}`.trim(),
    )

  it('are none where all is well', () => {
    expect(told({})).to.deep.equal([])
    expect(told({ trusted: { one: oldPem + freshPem, other: freshPem } })).to.deep.equal([])
  })

  it('are that it is over, not yet good, or ends soon', () => {
    expect(told({}, now + 75.5 * DAY)).to.deep.equal(['warning ends_soon 14'])
    expect(told({}, now + 90.5 * DAY)).to.deep.equal(['error over -1'])
    expect(told({}, now - DAY / 2)).to.include('error not_yet 90')
  })

  it('are a key, a name, or a text that does not fit', () => {
    expect(told({ key: freshKey })).to.deep.equal(['error key'])
    expect(told({ hosts: ['other.svc', ...hosts] })).to.deep.equal(['error names'])
    expect(told({ chain: '' })).to.deep.equal(['error unreadable'])
    expect(told({ trusted: { one: 'x' } })).to.deep.equal(['error unreadable'])
  })

  it('are who does not trust it, and by an authority that is about to end', () => {
    expect(told({ trusted: { 'a pod': oldPem } })).to.deep.equal(['error untrusted'])
    const chain = leaf.cert + crossSign(fresh.certificate, old)
    expect(told({ chain, trusted: { 'a pod': oldPem } })).to.deep.equal([])
    const later = told({ chain, trusted: { 'a pod': oldPem } }, now + 120.5 * DAY)
    expect(later).to.deep.equal(['error over -31', 'warning ends_soon 79'])
    expect(told({ chain, trusted: { 'a pod': oldPem } }, now + 201 * DAY)).to.include(
      'error untrusted',
    )
    const [problem] = certificateProblems({ ...texts, trusted: { 'a pod': oldPem } }, now)
    expect(problem?.text).to.equal('a pod does not trust the certificate of webhook')
  })
})
