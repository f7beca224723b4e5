import { expect } from 'chai'
import { describe, it } from 'mocha'
import { rewriteAccept } from '../../../broker/masking/answers/accept.ts'
import type { AcceptTerms } from '../../../broker/masking/answers/accept.ts'
import { answerSort } from '../../../broker/masking/answers/sort.ts'
import { parseTarget } from '../../../shared/kubernetes/path.ts'
import { readRequestInfo } from '../../../shared/kubernetes/request-info.ts'
import { STANDARD_MASKING } from '../../../shared/policy/masking.ts'
import { isRefusal } from '../../../shared/reasons.ts'

const OBJECTS: AcceptTerms = { sort: 'objects', group: '', masking: STANDARD_MASKING }
const PROTOBUF = 'application/vnd.kubernetes.protobuf'
const TABLE = 'application/json;as=Table;v=v1;g=meta.k8s.io'
const METADATA = 'application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io'

const rewritten = (accept: string | undefined, terms: Partial<AcceptTerms> = {}): unknown => {
  const result = rewriteAccept(accept, { ...OBJECTS, ...terms })
  return isRefusal(result) ? result.refused : result.accept
}

describe('what is asked for in place of what a client accepts', () => {
  const ALL: readonly (readonly [string, string | undefined, string])[] = [
    ['nothing', undefined, 'application/json'],
    ['an empty header', ' ', 'application/json'],
    ['anything', '*/*', 'application/json'],
    ['any application', 'application/*', 'application/json'],
    ['kubectl', `${TABLE},application/json`, `${TABLE},application/json`],
    ['a controller', `${PROTOBUF},application/json`, 'application/json'],
    ['an older controller', `${PROTOBUF}, */*`, 'application/json'],
    ['a cache of metadata', `${METADATA},application/json`, `${METADATA},application/json`],
    [
      'a watch',
      `${PROTOBUF};stream=watch, application/json;stream=watch`,
      'application/json;stream=watch',
    ],
    [
      'weights',
      'application/yaml;q=0.9, application/json;q=0.5;pretty=1, */*;q=0.1',
      'application/json;q=0.5;pretty=1,application/json;q=0.1',
    ],
    ['upper case', 'Application/JSON; AS=Table', 'application/json;as=Table'],
    ['what has no weight left', 'application/json;q=0, application/yaml', 'not_acceptable'],
    ['JSON least of all', 'application/json;q=0.0, */*', 'not_acceptable'],
    ['no application', 'application/*;q=0, */*', 'not_acceptable'],
    ['nothing but JSON', '*/*;q=0, application/json', 'application/json'],
    ['no JSON but tables', `application/json;q=0, ${TABLE}`, TABLE],
    ['protobuf alone', PROTOBUF, 'not_acceptable'],
    ['CBOR alone', 'application/cbor', 'not_acceptable'],
    ['YAML alone', 'application/yaml', 'not_acceptable'],
    ['what is no range', 'json, application/json;;q=0.5', 'application/json;q=0.5'],
    [
      'quoted commas',
      `application/json;x="a, ${PROTOBUF}, b", application/json;as=Table`,
      'application/json;as=Table',
    ],
    ['an open quote', `application/json;x=", ${PROTOBUF}`, 'not_acceptable'],
    [
      'a weight that is none',
      'application/json;q=2, application/json;v=v1',
      'application/json;v=v1',
    ],
  ]
  for (const [name, accept, expected] of ALL)
    it(`is JSON for ${name}`, () => {
      expect(rewritten(accept)).to.equal(expected)
    })

  it('has no table and no metadata where policy hides fields of the group', () => {
    const path = [{ name: 'spec' }, { name: 'token' }] as const
    const field = { group: 'apps', kind: 'Deployment', path }
    const masking = { ...STANDARD_MASKING, fields: [field] }
    const accept = `${TABLE},${METADATA},application/json`
    expect(rewritten(accept, { group: 'apps', masking })).to.equal(`${METADATA},application/json`)
    expect(rewritten(accept, { group: '', masking })).to.equal(accept)
    expect(rewritten(TABLE, { group: 'apps', masking })).to.equal('not_acceptable')
    const labels = { ...field, path: [{ name: 'metadata' }, { name: 'labels' }] as const }
    const both = { ...STANDARD_MASKING, fields: [field, labels] }
    expect(rewritten(accept, { group: 'apps', masking: both })).to.equal('application/json')
  })

  it('is what a client takes of a text, without what is binary', () => {
    for (const sort of ['log', 'kubelet', 'other'] as const) {
      expect(rewritten(undefined, { sort })).to.equal(undefined)
      expect(rewritten('text/plain;version=0.0.4;q=0.5, */*;q=0.1', { sort })).to.equal(
        'text/plain;version=0.0.4;q=0.5,*/*;q=0.1',
      )
      expect(rewritten(`${PROTOBUF}, application/json, */*`, { sort })).to.equal(
        'application/json,*/*',
      )
      expect(rewritten('application/vnd.google.protobuf;proto=x', { sort })).to.equal(
        'not_acceptable',
      )
    }
  })

  it('is untouched where nothing is masked', () => {
    expect(rewritten(PROTOBUF, { sort: 'passed' })).to.equal(PROTOBUF)
    expect(rewritten(PROTOBUF, { masking: { ...STANDARD_MASKING, profiles: [] } })).to.equal(
      PROTOBUF,
    )
    expect(rewritten(undefined, { sort: 'passed' })).to.equal(undefined)
  })
})

describe('what a request asks for', () => {
  const N = '/api/v1/namespaces/n'
  const SORTS: readonly (readonly [string, string, string])[] = [
    ['GET', `${N}/secrets/s`, 'objects'],
    ['GET', '/api/v1/secrets?watch=true', 'objects'],
    ['GET', '/api/v1/watch/secrets', 'objects'],
    ['GET', '/apis/apps/v1/deployments', 'objects'],
    ['GET', '/apis/metrics.k8s.io/v1beta1/nodes', 'objects'],
    ['POST', `${N}/pods/p/exec`, 'other'],
    ['GET', `${N}/pods/p/attach`, 'other'],
    ['POST', `${N}/pods/p/portforward`, 'other'],
    ['GET', `${N}/pods/p/log`, 'log'],
    ['GET', '/apis/example.com/v1/namespaces/n/pods/p/log', 'objects'],
    ['GET', `${N}/pods/p/proxy/secrets`, 'passed'],
    ['POST', `${N}/services/https:s:443/proxy`, 'passed'],
    ['GET', `/api/v1/proxy/namespaces/n/services/s`, 'passed'],
    ['GET', '/api/v1/nodes/n/proxy/pods', 'kubelet'],
    ['GET', '/api/v1/proxy/nodes/n/pods', 'kubelet'],
    ['GET', '/apis/example.com/v1/clusters/c/proxy/api/v1/secrets', 'objects'],
    ['GET', '/apis/example.com/v1/namespaces/n/pods/p/proxy', 'objects'],
    ['GET', '/api', 'passed'],
    ['GET', '/api/v1', 'passed'],
    ['GET', '/apis/apps/v1', 'passed'],
    ['POST', '/apis/apps/v1', 'other'],
    ['GET', '/openapi/v3/apis/apps/v1', 'passed'],
    ['GET', '/version', 'passed'],
    ['GET', '/livez/etcd', 'passed'],
    ['GET', '/metrics/slis', 'passed'],
    ['GET', '/.well-known/openid-configuration', 'passed'],
    ['GET', '/openid/v1/jwks', 'passed'],
    ['GET', '/debug/pprof/heap', 'other'],
    ['GET', '/logs/kube-apiserver.log', 'other'],
    ['GET', '/versions', 'other'],
    ['GET', '/', 'other'],
  ]
  for (const [method, path, sort] of SORTS)
    it(`is ${sort} for ${method} ${path}`, () => {
      const target = parseTarget(path)
      if (isRefusal(target)) throw new Error(target.detail)
      const info = readRequestInfo(method, target)
      if (isRefusal(info)) throw new Error(info.detail)
      expect(answerSort(info, target.segments)).to.equal(sort)
    })
})
