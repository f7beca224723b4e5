import { expect } from 'chai'
import { describe, it } from 'mocha'
import { requestDigest } from '../../../broker/approvals/digest.ts'
import type { DigestInput } from '../../../broker/approvals/digest.ts'

const BASE: DigestInput = {
  cluster: 'main',
  method: 'DELETE',
  path: '/api/v1/namespaces/shop/pods/web-0',
  query: [
    ['dryRun', 'All'],
    ['propagationPolicy', 'Orphan'],
  ],
  connect: false,
  session: false,
  grantGroups: [],
  contentType: 'application/json',
  bodySha256: 'a'.repeat(64),
  identity: { podUid: 'pod-1', containerId: 'c'.repeat(64), uid: 1000, exe: '/usr/bin/kubectl' },
}

const change = (part: Partial<DigestInput>): string => requestDigest({ ...BASE, ...part })
const identity = (part: Partial<DigestInput['identity']>): string =>
  change({ identity: { ...BASE.identity, ...part } })
const pipeline = (repository: string, ref: string): string =>
  identity({ subject: { issuer: 'https://a', sub: '1', ci: { repository, ref } } })

describe('the digest of a request', () => {
  it('is exactly this, so that approvals survive an update of the broker', () => {
    expect(requestDigest(BASE)).to.equal(
      '326e6eb600e30aafb53c4cff8a203a33e0d3ea52ef91ad2d9ce3afdffc44324a',
    )
  })

  const changes: readonly [string, string][] = [
    ['cluster', change({ cluster: 'other' })],
    ['method', change({ method: 'delete' })],
    ['path', change({ path: '/api/v1/namespaces/shop/pods/web-1' })],
    ['query value', change({ query: [['dryRun', 'all'], BASE.query[1]!] })],
    ['query name', change({ query: [['dryrun', 'All'], BASE.query[1]!] })],
    ['query, without a pair', change({ query: [BASE.query[0]!] })],
    ['query, with one pair twice', change({ query: [...BASE.query, BASE.query[0]!] })],
    ['query, with another pair', change({ query: [...BASE.query, ['', '']] })],
    ['content type', change({ contentType: 'application/yaml' })],
    ['granted groups', change({ grantGroups: ['deployers'] })],
    ['more granted groups', change({ grantGroups: ['deployers', 'admins'] })],
    ['body', change({ bodySha256: 'b'.repeat(64) })],
    ['pod', identity({ podUid: 'pod-2' })],
    ['container', identity({ containerId: 'd'.repeat(64) })],
    ['user id', identity({ uid: 0 })],
    ['executable', identity({ exe: '/bin/sh' })],
    ['subject of a token', identity({ subject: { issuer: 'https://a', sub: '1' } })],
    ['issuer of a token', identity({ subject: { issuer: 'https://b', sub: '1' } })],
    ['repository of a pipeline', pipeline('r', 'main')],
    ['ref of a pipeline', pipeline('r', 'other')],
    ['border between issuer and subject', identity({ subject: { issuer: 'https://a1', sub: '' } })],
    ['border between two fields', change({ cluster: 'mainD', method: 'ELETE' })],
    ['border between name and value', change({ query: [['dryRunA', 'll'], BASE.query[1]!] })],
  ]

  it('changes with everything that is approved, each time to another one', () => {
    const digests = [requestDigest(BASE), ...changes.map(([, digest]) => digest)]
    for (const [what, digest] of changes) {
      expect(
        digests.filter((other) => other === digest),
        what,
      ).to.have.length(1)
    }
  })

  it('does not depend on the order of query parameters, nor on the client’s patience', () => {
    const [first, second] = BASE.query
    expect(change({ query: [second!, ['timeout', '10s'], first!] })).to.equal(requestDigest(BASE))
    const proxied = { connect: true, query: [first!, second!] }
    expect(change({ ...proxied, query: [...proxied.query, ['timeout', '0']] })).not.to.equal(
      change(proxied),
    )
  })

  it('is one for a session asked for by GET or POST, as kubectl does over WebSocket and SPDY', () => {
    const sessions = ['GET', 'POST'].map((method) =>
      change({ method, connect: true, session: true }),
    )
    expect(new Set(sessions).size).to.equal(1)
    expect(change({ method: 'GET', connect: true })).not.to.equal(change({ connect: true }))
    expect(change({ method: 'CONNECT' })).to.not.equal(change({ method: 'GET' }))
  })

  it('depends on the order of values of one parameter, of which the API server reads the first', () => {
    const one = change({
      query: [
        ['dryRun', ''],
        ['dryRun', 'All'],
      ],
    })
    const other = change({
      query: [
        ['dryRun', 'All'],
        ['dryRun', ''],
      ],
    })
    expect(one).to.not.equal(other)
  })
})
