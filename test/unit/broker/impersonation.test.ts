import { expect } from 'chai'
import { describe, it } from 'mocha'
import { identityOf, tokenSubject, userName } from '../../../broker/credentials/actor.ts'
import type { Actor } from '../../../broker/credentials/actor.ts'
import { callOf } from '../../../broker/credentials/api-call.ts'
import type { CredentialNeed } from '../../../broker/credentials/credential.ts'
import { impersonationHeaders } from '../../../broker/credentials/impersonation.ts'
import { Fault } from '../../../shared/errors.ts'
import { newRequestId } from '../../../shared/request-id.ts'

const requestId = newRequestId(1_700_000_000_000)
const WORKER: Actor = { kind: 'serviceAccount', namespace: 'agents', serviceAccount: 'my.worker' }
const SUBJECT: Actor = { kind: 'subject', name: 'github:repo:org/app' }

function need(change: Partial<CredentialNeed>): CredentialNeed {
  const call = callOf('GET', '/api/v1/pods')
  const none = { grantGroups: [], process: undefined, approvers: [] }
  return { requestId, actor: WORKER, ...none, call, ...change }
}

describe('impersonation', () => {
  it('names the service account and carries the request id twice', () => {
    expect(impersonationHeaders(need({}))).to.deep.equal({
      'impersonate-user': 'system:serviceaccount:agents:my.worker',
      'impersonate-extra-nestgate.dev%2Frequest-id': requestId,
      'audit-id': requestId,
    })
  })

  it('says which process asks, who approved, and what it may come to', () => {
    const call = callOf('PUT', '/apis/apps/v1/namespaces/shop/deployments/web')
    const more = { process: 'planner/küche\n', approvers: ['sara', 'Sven Ö.'], call }
    expect(impersonationHeaders(need(more))).to.deep.include({
      'impersonate-extra-nestgate.dev%2Fprocess': 'planner/k%C3%BCche',
      'impersonate-extra-nestgate.dev%2Fapprover': ['sara', 'Sven %C3%96.'],
      'impersonate-extra-nestgate.dev%2Fbind': [
        'UPDATE apps/deployments/ shop/web',
        'CREATE apps/deployments/ shop/web',
      ],
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
      const actor: Actor = { kind: 'serviceAccount', namespace, serviceAccount }
      expect(() => userName({ namespace, serviceAccount })).to.throw('empty or malformed')
      expect(() => impersonationHeaders(need({ actor }))).to.throw(Fault, 'empty or malformed')
      expect(() => tokenSubject(actor)).to.throw(Fault, 'empty or malformed')
    })
  }

  it('is a fault without a request id', () => {
    expect(() => impersonationHeaders(need({ requestId: '' }))).to.throw('malformed')
  })

  it('adds the groups that policy grants to those that the account has of itself', () => {
    const granted = impersonationHeaders(need({ grantGroups: ['db-admins', 'on call'] }))
    expect(granted['impersonate-group']).to.deep.equal([
      'system:serviceaccounts',
      'system:serviceaccounts:agents',
      'db-admins',
      'on call',
    ])
  })

  it('leaves the account’s own groups to the API server where policy grants none', () => {
    expect(impersonationHeaders(need({}))).to.not.have.property('impersonate-group')
  })

  it('names a subject with the granted groups and no others', () => {
    const headers = impersonationHeaders(need({ actor: SUBJECT, grantGroups: ['db-admins'] }))
    expect(headers).to.deep.equal({
      'impersonate-user': 'github:repo:org/app',
      'impersonate-group': ['db-admins'],
      'impersonate-extra-nestgate.dev%2Frequest-id': requestId,
      'audit-id': requestId,
    })
    expect(impersonationHeaders(need({ actor: SUBJECT }))).to.not.have.property('impersonate-group')
  })

  const UNUSABLE = [
    '',
    ' ',
    'a\nb',
    'a\r\nImpersonate-Group: system:masters',
    'é',
    ' a',
    'a ',
    'system:admin',
    'System:Masters',
    'a\u0000',
  ]
  for (const name of UNUSABLE) {
    it(`is a fault for the name ${JSON.stringify(name)}`, () => {
      const actor: Actor = { kind: 'subject', name }
      expect(() => impersonationHeaders(need({ actor }))).to.throw(Fault, 'a subject')
      expect(() => identityOf(actor, [])).to.throw(Fault, 'a subject')
      expect(() => tokenSubject(actor)).to.throw(Fault, 'a subject')
      for (const who of [WORKER, SUBJECT])
        expect(() => impersonationHeaders(need({ actor: who, grantGroups: ['b', name] }))).to.throw(
          Fault,
          'a group',
        )
    })
  }
})
