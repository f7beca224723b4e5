import { expect } from 'chai'
import { describe, it } from 'mocha'
import { isRefusal } from '../../../shared/reasons.ts'
import type { Refusal } from '../../../shared/reasons.ts'
import { reviewPod } from '../../../shared/injection/review.ts'
import type { Reviewed } from '../../../shared/injection/review.ts'
import type { Json } from '../../support/pod-admission.ts'
import { SETTINGS, inject, reviewOf } from '../../support/reviews.ts'

const POD = { metadata: { generateName: 'agents-' }, spec: { containers: [{ name: 'a' }] } }

function review(body: unknown): Reviewed | Refusal {
  const bytes = body instanceof Uint8Array ? body : Buffer.from(JSON.stringify(body))
  return reviewPod(bytes, SETTINGS, 'any')
}

function refusalOf(body: unknown): string {
  const result = review(body)
  if (!isRefusal(result)) throw new Error(`answered: ${result.outcome}`)
  expect(result.refused).to.equal('review_invalid')
  return result.detail ?? ''
}

describe('a review that is none', () => {
  const bytes: readonly (readonly [string, Buffer])[] = [
    ['nothing', Buffer.alloc(0)],
    ['half a document', Buffer.from(JSON.stringify(reviewOf(POD))).subarray(0, 200)],
    ['text', Buffer.from('secret-text')],
    ['YAML', Buffer.from('kind: AdmissionReview')],
    ['two documents', Buffer.from('{} {}')],
    ['bytes that are not UTF-8', Buffer.from([0x22, 0xff, 0xfe, 0x22])],
    ['UTF-16', Buffer.from('{}', 'utf16le')],
  ]
  for (const [what, body] of bytes)
    it(`is refused for ${what}, without quoting it`, () => {
      expect(refusalOf(body)).to.equal('not JSON in UTF-8')
    })

  const values: readonly (readonly [string, unknown, string])[] = [
    ['null', null, ''],
    ['a list', [], ''],
    ['a number', 1, ''],
    ['an empty object', {}, 'apiVersion'],
    ['another version', { ...reviewOf(POD), apiVersion: 'admission.k8s.io/v1beta1' }, 'apiVersion'],
    ['another kind', { ...reviewOf(POD), kind: 'Pod' }, 'kind'],
    ['no request', { ...reviewOf(POD), request: null }, 'request'],
    ['no uid', reviewOf(POD, { uid: undefined }), 'request.uid'],
    ['an empty uid', reviewOf(POD, { uid: '' }), 'request.uid'],
    ['a long uid', reviewOf(POD, { uid: 'x'.repeat(129) }), 'request.uid'],
    ['an update', reviewOf(POD, { operation: 'UPDATE' }), 'request.operation'],
    ['a subresource', reviewOf(POD, { subResource: 'exec' }), 'request.subResource'],
    [
      'another resource',
      reviewOf(POD, { resource: { group: '', version: 'v1', resource: 'nodes' } }),
      'request.resource.resource',
    ],
    [
      'another kind of object',
      reviewOf(POD, { kind: { group: 'apps', version: 'v1', kind: 'Deployment' } }),
      'request.kind.group',
    ],
    ['no namespace', reviewOf(POD, { namespace: '' }), 'request.namespace'],
    [
      'a namespace that would break out of YAML',
      reviewOf(POD, { namespace: 'a\n' }),
      'request.namespace',
    ],
    ['no object', reviewOf(null), 'request.object'],
    ['an object that is a list', reviewOf([]), 'request.object'],
    ['a pod without spec', reviewOf({ metadata: {} }), 'request.object.spec'],
    [
      'volumes that are no list',
      reviewOf({ spec: { volumes: {} } }),
      'request.object.spec.volumes',
    ],
    [
      'a container that is null',
      reviewOf({ spec: { containers: [null] } }),
      'request.object.spec.containers.0',
    ],
    [
      'a user id as text',
      reviewOf({ spec: { securityContext: { runAsUser: '1' } } }),
      'request.object.spec.securityContext.runAsUser',
    ],
  ]
  for (const [what, body, path] of values)
    it(`is refused for ${what}`, () => {
      expect(refusalOf(body).split(':')[0]).to.equal(path)
    })

  it('is refused for its depth, before anything recursive meets it', () => {
    const deep = '{"a":'.repeat(50_000) + '1' + '}'.repeat(50_000)
    const body = JSON.stringify(reviewOf({ spec: { containers: [] }, x: 'HERE' }))
    expect(refusalOf(Buffer.from(body.replace('"HERE"', deep)))).to.equal('nested too deeply')
  })
})

describe('an answer', () => {
  it('echoes the uid and the version, and says in the audit log what was done', () => {
    const { reviewed, response } = inject(POD)
    const body = JSON.parse(reviewed.body) as Json
    expect(body['apiVersion']).to.equal('admission.k8s.io/v1')
    expect(body['kind']).to.equal('AdmissionReview')
    expect(response['uid']).to.equal('c0ffee00-0000-4000-8000-000000000001')
    expect(response['patchType']).to.equal('JSONPatch')
    expect(response['auditAnnotations']).to.deep.equal({ profile: 'P', mode: 'native' })
    expect(reviewed).to.include({ outcome: 'patched', namespace: 'team-a', pod: 'agents-' })
  })

  it('has no patch where nothing changes', () => {
    const { pod } = inject(POD)
    const { response } = inject(pod ?? {})
    expect(response).to.have.keys('uid', 'allowed', 'auditAnnotations')
  })

  it('denies with code, field and remedy, and without a patch', () => {
    const { reviewed, response } = inject({ spec: { containers: [], hostNetwork: true } })
    expect(response).to.deep.equal({
      uid: 'c0ffee00-0000-4000-8000-000000000001',
      allowed: false,
      status: {
        status: 'Failure',
        code: 403,
        reason: 'Forbidden',
        message:
          'nestgate: host_network: a pod on the host network shares its loopback with the node: spec.hostNetwork; remove spec.hostNetwork',
      },
      auditAnnotations: { reason: 'host_network' },
    })
    expect(reviewed).to.include({ outcome: 'denied', reason: 'host_network', pod: '' })
  })

  it('takes the namespace from the request, quoted, whatever the pod says', () => {
    const pod = { metadata: { namespace: 'elsewhere' }, spec: POD.spec }
    for (const namespace of ['123', 'null', 'team-b']) {
      const metadata = inject(pod, SETTINGS, { namespace }).pod?.['metadata'] as Json
      const text = (metadata['annotations'] as Json)['nestgate.dev/kubeconfig']
      expect(text).to.include(`namespace: "${namespace}"`)
    }
  })

  it('believes nothing that a pod says through __proto__', () => {
    const text = JSON.stringify(
      reviewOf({ spec: { containers: [{ name: 'a', securityContext: 0 }] } }),
    )
    const forged = text.replace(
      '"securityContext":0',
      '"securityContext":{"__proto__":{"runAsUser":1000,"runAsGroup":1000}}',
    )
    const result = review(Buffer.from(forged))
    expect(isRefusal(result)).to.equal(false)
    expect(JSON.stringify(result)).to.include(String.raw`\"profile\":\"P\"`)
  })

  it('puts no credential into the kubeconfig', () => {
    const metadata = inject(POD).pod?.['metadata'] as Json
    const text = String((metadata['annotations'] as Json)['nestgate.dev/kubeconfig'])
    expect(text).to.include('server: http://localhost:8001')
    expect(text).not.to.match(/token|certificate|password|exec/)
  })
})
