import { expect } from 'chai'
import { describe, it } from 'mocha'
import { compareTargets, contentSha256, objectPath } from '../../../broker/approvals/target.ts'
import type { Target } from '../../../broker/approvals/target.ts'
import { isObject, readJson } from '../../../broker/approvals/json-tree.ts'
import type { JsonObject } from '../../../broker/approvals/json-tree.ts'
import { attributesOf } from '../../support/caller-requests.ts'
import type { Line } from '../../support/caller-requests.ts'

const N = '/api/v1/namespaces/agents'
const APPS = '/apis/apps/v1/namespaces/agents'
const named = { metadata: { name: 'made' } }

describe('the object that a request acts on', () => {
  const cases: readonly [Line['method'], string, string | undefined, object?][] = [
    ['GET', `${N}/pods/p`, `${N}/pods/p`],
    ['DELETE', `${N}/pods/p?propagationPolicy=Orphan`, `${N}/pods/p`],
    ['PATCH', `${APPS}/deployments/d/scale`, `${APPS}/deployments/d`],
    ['GET', `${N}/pods/p/exec?command=sh`, `${N}/pods/p`],
    ['POST', `${N}/pods/p/eviction`, `${N}/pods/p`],
    ['PUT', `${N}/pods/p/status`, `${N}/pods/p`],
    ['POST', `${N}/serviceaccounts/s/token`, `${N}/serviceaccounts/s`],
    ['GET', `${N}/pods/https:p:8443/proxy/x`, `${N}/pods/p`],
    ['GET', `${N}/services/https:8443/proxy`, `${N}/services/https`],
    ['GET', '/api/v1/nodes/n:10250/proxy/exec', '/api/v1/nodes/n'],
    ['DELETE', '/api/v1/namespaces/agents', '/api/v1/namespaces/agents'],
    ['PUT', '/api/v1/namespaces/agents/finalize', '/api/v1/namespaces/agents'],
    [
      'DELETE',
      '/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node',
      '/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode',
    ],
    ['POST', `${N}/configmaps`, `${N}/configmaps/made`, named],
    ['POST', '/api/v1/namespaces', '/api/v1/namespaces/made', named],
    ['POST', `${N}/bindings`, `${N}/pods/made`, named],
    ['POST', `${N}/configmaps`, undefined, { metadata: { generateName: 'x-' } }],
    ['POST', `${N}/configmaps`, undefined, { metadata: { name: '../secrets/s' } }],
    ['POST', `${N}/configmaps`, undefined, { metadata: { name: '..' } }],
    ['GET', `${N}/pods`, undefined],
    ['GET', `${N}/pods?fieldSelector=metadata.name%3Dp`, undefined],
    ['DELETE', `${N}/pods`, undefined],
    ['POST', '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews', undefined, named],
    ['GET', '/version', undefined],
  ]
  for (const [method, url, path, body] of cases) {
    it(`${method} ${url}${body === undefined ? '' : ` ${JSON.stringify(body)}`}`, () => {
      const line = { method, url, ...(body === undefined ? {} : { body }) }
      expect(objectPath(attributesOf(line))).to.equal(path)
    })
  }
})

describe('the content of an object', () => {
  const read = (text: string): JsonObject => {
    const value = readJson(text)
    if (!isObject(value)) throw new Error('no object')
    return value
  }
  const one = read(
    '{"kind":"Pod","metadata":{"name":"p","resourceVersion":"1","managedFields":[1]},"spec":{"n":9007199254740993},"status":{"a":1}}',
  )
  const sameButStatus = read(
    '{"status":{"a":2},"spec":{"n":9007199254740993},"metadata":{"resourceVersion":"2","name":"p"},"kind":"Pod"}',
  )
  const otherNumber = read(
    '{"kind":"Pod","metadata":{"name":"p","resourceVersion":"1"},"spec":{"n":9007199254740992},"status":{"a":1}}',
  )

  it('is not its status, its version, or the order of its keys', () => {
    expect(contentSha256(one, false)).to.equal(contentSha256(sameButStatus, false))
    expect(contentSha256(one, true)).not.to.equal(contentSha256(sameButStatus, true))
  })

  it('is told apart by numbers that are not exact in JavaScript', () => {
    expect(contentSha256(one, false)).not.to.equal(contentSha256(otherNumber, false))
  })
})

describe('a target at release', () => {
  const object = (uid: string, resourceVersion = '1', contentSha = 'a'): Target => ({
    uid,
    resourceVersion,
    contentSha256: contentSha,
  })
  const absent: Target = { absent: true }
  const hidden: Target = { unreadable: 'the caller may not read it (403)' }
  const write = attributesOf({ method: 'DELETE', url: `${N}/pods/p` })
  const session = attributesOf({ method: 'GET', url: `${N}/pods/p/exec` })
  const changed = (detail: string): object => ({ refused: 'approval_target_changed', detail })

  it('may be written only if it is the same object with the same content', () => {
    expect(compareTargets(write, object('u'), object('u'))).to.equal(undefined)
    expect(compareTargets(write, object('u'), object('u', '2', 'a'))).to.equal(undefined)
    expect(compareTargets(write, object('u'), object('u', '2', 'b'))).to.deep.equal(
      changed('it has changed since, resourceVersion 1 → 2'),
    )
    expect(compareTargets(write, object('u'), object('v'))).to.deep.equal(
      changed('it is another object of the same name'),
    )
    expect(compareTargets(write, object('u'), absent)).to.deep.equal(changed('it was deleted'))
  })

  it('may be entered as long as it is the same object', () => {
    expect(compareTargets(session, object('u'), object('u', '2', 'b'))).to.equal(undefined)
    expect(compareTargets(session, object('u'), object('v'))).to.deep.include({
      refused: 'approval_target_changed',
    })
    expect(compareTargets(session, object('u'), absent)).to.deep.equal(changed('it was deleted'))
    // without a uid only the content tells
    expect(compareTargets(session, object('', ''), object('', '', 'b'))).to.deep.include({
      refused: 'approval_target_changed',
    })
  })

  it('must still be absent, or still be hidden', () => {
    expect(compareTargets(write, absent, absent)).to.equal(undefined)
    expect(compareTargets(write, absent, object('u'))).to.deep.include({
      refused: 'approval_target_changed',
    })
    expect(compareTargets(write, hidden, hidden)).to.equal(undefined)
    expect(compareTargets(write, hidden, object('u'))).to.deep.include({
      refused: 'approval_target_changed',
    })
    for (const before of [absent, object('u')]) {
      expect(compareTargets(write, before, hidden)).to.deep.include({
        refused: 'target_unreadable',
      })
    }
    expect(compareTargets(write, undefined, undefined)).to.equal(undefined)
  })
})
