import { expect } from 'chai'
import { describe, it } from 'mocha'
import { impersonationHeaders, userName } from '../../../broker/credentials/impersonation.ts'
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
})
