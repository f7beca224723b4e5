import { expect } from 'chai'
import { describe, it } from 'mocha'
import {
  impersonationHeaders,
  subjectHeaders,
  userName,
} from '../../../broker/credentials/impersonation.ts'
import { Fault } from '../../../shared/errors.ts'
import { newRequestId } from '../../../shared/request-id.ts'

describe('impersonation', () => {
  const requestId = newRequestId(1_700_000_000_000)

  it('names the service account and carries the request id twice', () => {
    expect(
      impersonationHeaders({ namespace: 'agents', serviceAccount: 'my.worker' }, requestId),
    ).to.deep.equal({
      'impersonate-user': 'system:serviceaccount:agents:my.worker',
      'impersonate-extra-nestgate.dev%2Frequest-id': requestId,
      'audit-id': requestId,
    })
  })

  const BAD: readonly (readonly [string, string])[] = [
    ['', 'default'],
    ['agents', ''],
    ['agents:kube-system', 'x'],
    ['agents', 'x:y'],
    ['Agents', 'x'],
    ['agents', 'x\r\nImpersonate-Group: system:masters'],
    ['../x', 'x'],
  ]
  for (const [namespace, serviceAccount] of BAD) {
    it(`is a fault for ${JSON.stringify([namespace, serviceAccount])}, never the broker itself`, () => {
      expect(() => userName({ namespace, serviceAccount })).to.throw('empty or malformed')
      expect(() => impersonationHeaders({ namespace, serviceAccount }, requestId)).to.throw(
        'empty or malformed',
      )
    })
  }

  it('is a fault without a request id', () => {
    expect(() => impersonationHeaders({ namespace: 'a', serviceAccount: 'b' }, '')).to.throw(
      'malformed',
    )
  })

  it('adds the groups that policy grants to those that the account has of itself', () => {
    const identity = { namespace: 'agents', serviceAccount: 'x' }
    expect(impersonationHeaders(identity, requestId, ['db-admins', 'on call'])).to.deep.include({
      'impersonate-user': 'system:serviceaccount:agents:x',
      'impersonate-group': [
        'system:serviceaccounts',
        'system:serviceaccounts:agents',
        'db-admins',
        'on call',
      ],
    })
    expect(impersonationHeaders(identity, requestId, [])).to.not.have.property('impersonate-group')
  })

  it('names a subject, with the groups that policy grants and no others', () => {
    const subject = { name: 'corp:alice', groups: ['sre'], roles: ['admin'] }
    expect(subjectHeaders(subject, ['db-admins'], requestId)).to.deep.equal({
      'impersonate-user': 'corp:alice',
      'impersonate-group': ['db-admins'],
      'impersonate-extra-nestgate.dev%2Frequest-id': requestId,
      'audit-id': requestId,
    })
    expect(subjectHeaders(subject, [], requestId)).to.not.have.property('impersonate-group')
  })

  const OUTSIDE_NAMES = [
    '',
    ' ',
    'a ',
    ' a',
    'a\r\nImpersonate-User: system:admin',
    'a\0',
    'a\tb',
    'jörg',
    'system:masters',
    'System:masters',
    'system:',
  ]
  for (const name of OUTSIDE_NAMES) {
    it(`is a fault for the subject or the group ${JSON.stringify(name)}`, () => {
      expect(() => subjectHeaders({ name }, [], requestId)).to.throw(Fault, 'a subject')
      expect(() => subjectHeaders({ name: 'a' }, ['b', name], requestId)).to.throw(Fault, 'a group')
      const identity = { namespace: 'agents', serviceAccount: 'x' }
      expect(() => impersonationHeaders(identity, requestId, [name])).to.throw(Fault, 'a group')
    })
  }

  it('is a fault for a subject without a request id', () => {
    expect(() => subjectHeaders({ name: 'a' }, [], 'x')).to.throw(Fault, 'malformed')
  })
})
