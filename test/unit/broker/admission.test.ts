import { expect } from 'chai'
import { describe, it } from 'mocha'
import { admit } from '../../../broker/credentials/admission.ts'
import { ANY_NAME, apiCall, callOf } from '../../../broker/credentials/api-call.ts'
import type { ApiCall } from '../../../broker/credentials/api-call.ts'
import type { Refused } from '../../../broker/credentials/refused-record.ts'
import { createTickets } from '../../../broker/credentials/tickets.ts'
import { NON_RESOURCE } from '../../../shared/kubernetes/request-info.ts'
import { newRequestId } from '../../../shared/request-id.ts'

const requestId = newRequestId(1_700_000_000_000)
const WEB = { namespace: 'shop', name: 'web' }
const DEPLOYMENTS = { group: 'apps', version: 'v1', resource: 'deployments' }
const USER = 'system:serviceaccount:agents:worker'
const PUT = callOf('PUT', '/apis/apps/v1/namespaces/shop/deployments/web')

const refused: Refused[] = []

function answer(
  call: ApiCall,
  request: object,
  extra: object | null = { 'nestgate.dev/request-id': [requestId] },
) {
  const tickets = createTickets(() => 1_700_000_000_000)
  tickets.open('prod', {
    ...{ requestId, grantGroups: [], process: undefined, approvers: [], call },
    actor: { kind: 'serviceAccount', namespace: 'agents', serviceAccount: 'worker' },
  })
  const isOurs = (cluster: string, user: string): boolean => cluster === 'prod' && user === USER
  return admit({ tickets, isOurs, onRefused: (one) => refused.push(one) }, 'prod', {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: { uid: 'u1', userInfo: { username: USER, extra }, ...request },
  })
}

const UPDATE = { operation: 'UPDATE', resource: DEPLOYMENTS, ...WEB }

describe('admission by the broker', () => {
  it('allows what the request may come to', () => {
    expect(answer(PUT, UPDATE)).to.deep.equal({ uid: 'u1', allowed: true })
    expect(answer(PUT, { ...UPDATE, operation: 'CREATE' })?.allowed).to.equal(true)
  })

  const REFUSED: readonly (readonly [string, object])[] = [
    ['another operation', { operation: 'DELETE' }],
    ['another object', { name: 'db' }],
    ['another namespace', { namespace: 'kube-system' }],
    ['a subresource', { subResource: 'scale' }],
    ['another group', { resource: { ...DEPLOYMENTS, group: 'extensions' } }],
    ['another resource', { resource: { ...DEPLOYMENTS, resource: 'daemonsets' } }],
    [
      'another user',
      { userInfo: { username: 'alice', extra: { 'nestgate.dev/request-id': [requestId] } } },
    ],
  ]
  for (const [what, change] of REFUSED) {
    it(`refuses ${what} under the same id`, () => {
      expect(answer(PUT, { ...UPDATE, ...change })).to.have.nested.property('status.code', 403)
    })
  }

  it('refuses users of ours without an id of ours, and two ids', () => {
    for (const extra of [null, {}, { 'nestgate.dev/request-id': null }])
      expect(answer(PUT, UPDATE, extra)?.status?.message).to.contain('through the broker only')
    const two = { 'nestgate.dev/request-id': [requestId, requestId] }
    expect(answer(PUT, UPDATE, two)?.status?.message).to.contain('under way')
    const unknown = { 'nestgate.dev/request-id': [newRequestId(1)] }
    refused.length = 0
    expect(answer(PUT, UPDATE, unknown)?.status?.message).to.contain('under way')
    expect(refused.map(({ asked }) => asked)).to.deep.equal(['UPDATE apps/deployments/ shop/web'])
  })

  it('keeps no id that is none, whatever its length', () => {
    refused.length = 0
    const long = { 'nestgate.dev/request-id': ['x'.repeat(3_000_000)] }
    expect(answer(PUT, UPDATE, long)?.allowed).to.equal(false)
    expect(refused.map((one) => one.requestId)).to.deep.equal([''])
  })

  it('does not concern others', () => {
    const userInfo = { username: 'system:kube-scheduler' }
    expect(answer(PUT, { ...UPDATE, userInfo })).to.deep.equal({ uid: 'u1', allowed: true })
  })

  it('goes by the request’s own resource where a webhook matches equivalent ones', () => {
    const converted = { ...UPDATE, resource: { ...DEPLOYMENTS, group: 'extensions' } }
    expect(answer(PUT, { ...converted, requestResource: DEPLOYMENTS })?.allowed).to.equal(true)
    const other = { ...DEPLOYMENTS, resource: 'daemonsets' }
    expect(answer(PUT, { ...UPDATE, requestResource: other })?.allowed).to.equal(false)
  })

  const LINES: readonly (readonly [string, string, object])[] = [
    [
      'GET',
      '/api/v1/namespaces/shop/pods/web/exec?command=ls',
      {
        operation: 'CONNECT',
        resource: { group: '', resource: 'pods' },
        subResource: 'exec',
        ...WEB,
      },
    ],
    [
      'POST',
      '/api/v1/namespaces/shop/pods/web/eviction',
      {
        operation: 'CREATE',
        resource: { group: '', resource: 'pods' },
        subResource: 'eviction',
        ...WEB,
      },
    ],
    [
      'DELETE',
      '/api/v1/namespaces/shop/pods?labelSelector=a',
      { operation: 'DELETE', resource: { group: '', resource: 'pods' }, namespace: 'shop' },
    ],
    [
      'DELETE',
      '/api/v1/namespaces/shop',
      {
        operation: 'DELETE',
        resource: { group: '', resource: 'namespaces' },
        namespace: 'shop',
        name: 'shop',
      },
    ],
    [
      'PATCH',
      '/api/v1/nodes/n1/status',
      {
        operation: 'UPDATE',
        resource: { group: '', resource: 'nodes' },
        subResource: 'status',
        name: 'n1',
      },
    ],
  ]
  for (const [method, target, request] of LINES) {
    it(`knows what ${method} ${target} is at admission`, () => {
      expect(answer(callOf(method, target), request)?.allowed).to.equal(true)
    })
  }

  it('takes any name where the body was not read, and no other place', () => {
    const info = { ...NON_RESOURCE, isResourceRequest: true, verb: 'create', apiVersion: 'v1' }
    const place = { resource: 'configmaps', namespace: 'shop' }
    const call = apiCall({
      ...{ info: { ...info, ...place }, segments: [], contentType: '', objectName: ANY_NAME },
    })
    const create = { operation: 'CREATE', resource: { group: '', resource: 'configmaps' } }
    expect(answer(call, { ...create, ...WEB })?.allowed).to.equal(true)
    expect(answer(call, { ...create, ...WEB, namespace: 'x' })?.allowed).to.equal(false)
  })

  it('takes a name that the server makes by what it begins with', () => {
    const info = { ...NON_RESOURCE, isResourceRequest: true, verb: 'create', apiVersion: 'v1' }
    const place = { resource: 'configmaps', namespace: 'shop' }
    const call = apiCall({
      ...{
        info: { ...info, ...place },
        segments: [],
        contentType: '',
        objectName: `g-${ANY_NAME}`,
      },
    })
    const create = { operation: 'CREATE', resource: { group: '', resource: 'configmaps' } }
    expect(answer(call, { ...create, ...WEB, name: 'g-x7k2p' })?.allowed).to.equal(true)
    expect(answer(call, { ...create, ...WEB, name: 'x' })?.allowed).to.equal(false)
  })

  it('takes a star in a name for itself where nothing is created', () => {
    const call = callOf('DELETE', '/apis/rbac.authorization.k8s.io/v1/clusterroles/a*')
    const roles = { group: 'rbac.authorization.k8s.io', resource: 'clusterroles' }
    const request = { operation: 'DELETE', resource: roles }
    expect(answer(call, { ...request, name: 'a*' })?.allowed).to.equal(true)
    expect(answer(call, { ...request, name: 'admin' })?.allowed).to.equal(false)
  })

  it('binds nothing to a read', () => {
    const read = callOf('GET', '/apis/apps/v1/namespaces/shop/deployments/web')
    expect(read.operations).to.deep.equal([])
    expect(answer(read, UPDATE)?.allowed).to.equal(false)
  })

  it('does not answer what is no AdmissionReview', () => {
    expect(
      admit(
        { tickets: createTickets(Date.now), isOurs: () => false, onRefused: () => undefined },
        'prod',
        {},
      ),
    ).to.equal(undefined)
  })
})
