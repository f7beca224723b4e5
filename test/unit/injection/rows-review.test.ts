/** What the rows need of the review as a whole: text that can be read one way only, observing, lists of the operator's, bounds. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { isRefusal } from '../../../shared/reasons.ts'
import { reviewPod } from '../../../shared/injection/review.ts'
import type { Reviewed } from '../../../shared/injection/review.ts'
import type { InjectionSettings } from '../../../shared/injection/sidecar-spec.ts'
import { openWays } from '../../support/invariants.ts'
import type { Json } from '../../support/pod-admission.ts'
import { HARMLESS, REFUSED, REWRITTEN, addVolume, plainPod } from '../../support/pods.ts'
import { SETTINGS, inject, reviewOf } from '../../support/reviews.ts'

const decoded = (reviewed: Reviewed): Json =>
  (JSON.parse(reviewed.body) as { response: Json }).response

/** Reviews a text. Throws where it is refused as such. */
function reviewed(text: string, purpose: 'enforce' | 'observe' = 'enforce'): Reviewed {
  const result = reviewPod(Buffer.from(text), SETTINGS, 'any', purpose)
  if (isRefusal(result)) throw new Error(`${result.refused}: ${result.detail ?? ''}`)
  return result
}

const patchOf = (response: Json): string =>
  Buffer.from((response['patch'] ?? '') as string, 'base64').toString()

describe('numbers', () => {
  const big = '9223372036854775807'
  const rounded = /922337203685477\d+/
  it('beyond what JavaScript keeps exactly stay as they were: no patch repeats one', () => {
    const pod = plainPod()
    const spec = pod['spec'] as Json
    const unknown = { deep: ['BIG', { 'a/b~c': 'BIG' }] }
    const [container] = spec['containers'] as Json[]
    Object.assign(container ?? {}, {
      unknown,
      env: [{ name: 'KUBECONFIG', value: 'x', unknown }],
      volumeMounts: [{ name: 'e', mountPath: '/x', unknown }],
      securityContext: { unknown },
      livenessProbe: { terminationGracePeriodSeconds: 'BIG' },
    })
    Object.assign(spec, {
      unknown,
      terminationGracePeriodSeconds: 'BIG',
      activeDeadlineSeconds: 'BIG',
      tolerations: [{ tolerationSeconds: 'BIG' }],
      volumes: [{ name: 'e', emptyDir: {}, unknown }],
    })
    Object.assign(pod, { unknown, metadata: { generation: 'BIG', unknown, annotations: {} } })
    const text = JSON.stringify(reviewOf(pod)).replaceAll('"BIG"', big)
    const response = decoded(reviewed(text))
    expect(response['allowed']).to.equal(true)
    expect(patchOf(response)).not.to.match(rounded)
  })

  it('that are no ids are refused or told apart, never rounded into one', () => {
    for (const id of ['64210.0', '6421e1', '64210.00000000000000001']) {
      const text = JSON.stringify(reviewOf({ spec: { containers: [], securityContext: 'X' } }))
      const response = decoded(reviewed(text.replace('"X"', `{"runAsUser":${id}}`)))
      expect(response['allowed'], id).to.equal(false)
    }
  })
})

describe('a key that is there twice', () => {
  const good = JSON.stringify(reviewOf(plainPod()))
  const cases: readonly (readonly [string, string, string])[] = [
    ['at the top', '{"apiVersion"', '{"kind":"AdmissionReview","apiVersion"'],
    ['in the request', '"operation"', '"operation":"CREATE","operation"'],
    ['in the pod', '"spec":{', '"spec":{"containers":[]},"spec":{'],
    ['in the spec', '"spec":{', '"spec":{"hostPID":true,"hostPID":false,'],
    ['in a container', '"name":"agent","image"', '"name":"a","name":"agent","image"'],
    ['spelled with an escape', '"spec":{', '"spec":{"hostPID":true,"\\u0068ostPID":false,'],
    ['equal and with equal values', '"spec":{', '"spec":{"hostPID":true,"hostPID":true,'],
    ['named like a prototype', '"spec":{', '"spec":{"__proto__":{},"__proto__":{},'],
    ['with a colon in it', '"spec":{', '"spec":{"a:\\":":1,"a:\\":":2,'],
  ]
  for (const [what, from, to] of cases)
    it(`is refused ${what}`, () => {
      expect(good).to.include(from)
      const text = good.replace(from, to)
      // JSON.parse sees nothing wrong with it.
      expect(JSON.parse(text)).to.be.an('object')
      const result = reviewPod(Buffer.from(text), SETTINGS, 'any')
      expect(result).to.deep.equal({ refused: 'review_invalid', detail: 'a key is there twice' })
    })

  it('is not seen where there is none', () => {
    const odd = '{"a:b":"c:\\"d\\\\","\\\\":{"x":[{"y":":"},{"y":":"}]},"\\"":"\\\\\\\\:"}'
    const text = good.replace('"spec":{', `"spec":{"odd":${odd},`)
    expect(decoded(reviewed(text))['allowed']).to.equal(true)
  })
})

describe('observing', () => {
  for (const attack of [...REFUSED, ...REWRITTEN, ...HARMLESS])
    it(`changes and refuses nothing: ${attack.row}, ${attack.name}`, () => {
      const pod = plainPod()
      attack.apply(pod)
      const text = JSON.stringify(reviewOf(pod))
      const response = decoded(reviewed(text, 'observe'))
      expect(response['allowed']).to.equal(true)
      expect(response).not.to.have.any.keys('patch', 'patchType', 'status')
      if (attack.code === undefined) return
      expect((response['warnings'] as string[]).join()).to.include(attack.code)
      expect(response['auditAnnotations']).to.include({ reason: attack.code })
    })
})

describe('lists of the operator’s', () => {
  const certificate = (signerName: string): Json => ({
    projected: { sources: [{ podCertificate: { signerName } }] },
  })
  const token = (audience: string): Json => ({
    projected: { sources: [{ serviceAccountToken: { audience, path: 't' } }] },
  })
  type Lists = Partial<InjectionSettings>
  const cases: readonly (readonly [Json, Lists, string | undefined])[] = [
    [token('istio-ca'), { allowedAudiences: ['istio-ca'] }, undefined],
    [token('istio-ca'), { allowedAudiences: ['istio'] }, 'token_audience_not_allowed'],
    [token('nestgate-broker'), { allowedAudiences: ['nestgate-broker'] }, 'token_audience'],
    [{ csi: { driver: 'd' } }, { allowedCsiDrivers: ['d'] }, undefined],
    [{ csi: { driver: 'D' } }, { allowedCsiDrivers: ['d'] }, 'csi_driver'],
    [{ flexVolume: { driver: 'd' } }, { allowedCsiDrivers: ['d'] }, 'csi_driver'],
    [certificate('s.example/x'), { allowedSigners: ['s.example/x'] }, undefined],
    [certificate('s.example/y'), { allowedSigners: ['s.example/x'] }, 'pod_certificate'],
    [
      certificate('kubernetes.io/kubelet-serving'),
      { allowedSigners: ['kubernetes.io/kubelet-serving'] },
      'pod_certificate',
    ],
  ]
  for (const [volume, lists, code] of cases)
    it(`${JSON.stringify(volume)} with ${JSON.stringify(lists)}: ${code ?? 'allowed'}`, () => {
      const pod = plainPod()
      addVolume(pod, { name: 'v', ...volume })
      const settings = { ...SETTINGS, ...lists }
      const { reviewed: result, pod: after } = inject(pod, settings)
      expect(result.reason).to.equal(code)
      if (after !== undefined) expect(openWays(after, settings)).to.deep.equal([])
    })
})

describe('a sidecar that the author brings along', () => {
  /** An injected pod, changed; the list of the sidecar comes first. */
  function brought(
    more: Json,
    change: (spec: Record<string, Json[]>, sidecar: Json) => void,
  ): ReturnType<typeof inject> {
    const { pod } = inject({ spec: { ...(plainPod()['spec'] as Json), ...more } })
    const spec = pod?.['spec'] as Record<string, Json[]>
    change(spec, spec['initContainers']?.[0] ?? {})
    return inject(pod ?? {})
  }

  it('comes first again, wherever it stood', () => {
    const { pod, patch } = brought({}, (spec) => {
      spec['initContainers'] = [{ name: 'a' }, { name: 'b' }, ...(spec['initContainers'] ?? [])]
    })
    const lists = (pod?.['spec'] as Record<string, Json[]>)['initContainers']
    expect(lists?.map(({ name }) => name)).to.deep.equal(['nestgate-sidecar', 'a', 'b'])
    expect(openWays(pod, SETTINGS)).to.deep.equal([])
    expect(patch).not.to.deep.equal([])
  })

  const refused: readonly (readonly [string, Json, Parameters<typeof brought>[1]])[] = [
    ['twice', {}, (spec, sidecar) => spec['initContainers']?.push(sidecar)],
    ['in two lists', {}, (spec, sidecar) => spec['containers']?.push(sidecar)],
    ['with a device', {}, (_spec, it) => ((it['resources'] as Json)['claims'] = [{ name: 'x' }])],
    [
      'with a device, in a pod with resources as a whole',
      { resources: { limits: { cpu: '1' } } },
      (_spec, it) => (it['resources'] = { claims: [{ name: 'x' }] }),
    ],
    ['with arguments', {}, (_spec, it) => (it['args'] = ['--inspect'])],
    ['with a terminal', {}, (_spec, it) => (it['tty'] = true)],
    ['with a field that is new', {}, (_spec, it) => (it['somethingNew'] = 1)],
    ['with another image', {}, (_spec, it) => (it['image'] = 'evil.example/x')],
  ]
  for (const [what, more, change] of refused)
    it(`${what} is refused`, () => {
      expect(brought(more, change).reviewed.reason).to.equal('reserved_name')
    })
})

describe('a mirror pod', () => {
  const pod = { ...plainPod(), metadata: { annotations: { 'kubernetes.io/config.mirror': 'x' } } }
  const of = (username: string, ...groups: string[]): string | undefined =>
    inject(pod, SETTINGS, { userInfo: { username, groups } }).reviewed.reason

  it('of a node is left alone', () => {
    const userInfo = { username: 'system:node:n1', groups: ['system:nodes'] }
    const { patch, response } = inject(pod, SETTINGS, { userInfo })
    expect(patch).to.deep.equal([])
    expect(response['allowed']).to.equal(true)
  })

  it('of anybody else is refused', () => {
    expect(of('alice', 'system:masters')).to.equal('mirror_pod')
    expect(of('system:node:n1', 'system:authenticated')).to.equal('mirror_pod')
    expect(of('system:serviceaccount:a:b', 'system:nodes')).to.equal('mirror_pod')
    expect(inject(pod, SETTINGS, { userInfo: null }).reviewed.reason).to.equal('mirror_pod')
  })

  it('is none without the annotation, whoever creates it', () => {
    const userInfo = { username: 'system:node:n1', groups: ['system:nodes'] }
    expect(inject(plainPod(), SETTINGS, { userInfo }).reviewed.outcome).to.equal('patched')
  })
})

describe('a name of a mebibyte', () => {
  const long = 'x'.repeat(2 ** 20)
  const OWNER = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'a', uid: 'u', controller: true }
  const mounted = (name: string, mountPath: string): Json => ({
    containers: [{ name: 'a', volumeMounts: [{ name, mountPath }] }],
  })
  const token = (audience: string): Json => ({
    name: 'v',
    projected: { sources: [{ serviceAccountToken: { audience } }] },
  })
  const cases: readonly (readonly [string, Json])[] = [
    ['of the pod', { metadata: { name: long } }],
    ['that begins the pod’s', { metadata: { generateName: long } }],
    ['of an annotation of a wrong type', { metadata: { annotations: { [long]: 1 } } }],
    [
      'of an annotation about us',
      { metadata: { annotations: { [`${long}/nestgate-sidecar`]: '' } } },
    ],
    ['of a label', { metadata: { labels: { [long]: '' } } }],
    [
      'of a node’s label of a wrong type',
      { spec: { containers: [], nodeSelector: { [long]: 1 } } },
    ],
    ['of a container', { spec: { containers: [{ name: long }] } }],
    [
      'of a volume that gives way',
      { spec: mounted(long, '/var/run/secrets/kubernetes.io/serviceaccount') },
    ],
    [
      'of its owner',
      {
        metadata: {
          ownerReferences: [
            { apiVersion: 'v1', kind: 'Job', name: long, uid: 'u', controller: true },
          ],
        },
      },
    ],
    ['of a folder', { spec: mounted('nestgate-token', `/${long}`) }],
    ['of an audience', { spec: { containers: [], volumes: [token(long)] } }],
    [
      'of a volume that gives way',
      { spec: mounted(long, '/run/secrets/kubernetes.io/serviceaccount') },
    ],
    ['of an owner', { metadata: { ownerReferences: [{ ...OWNER, name: long }] } }],
    ['of an owner’s uid', { metadata: { ownerReferences: [{ ...OWNER, uid: long }] } }],
    ['of a driver', { spec: { containers: [], volumes: [{ name: 'v', csi: { driver: long } }] } }],
    [
      'of a capability',
      {
        spec: { containers: [{ securityContext: { capabilities: { add: [long, 'SYS_ADMIN'] } } }] },
      },
    ],
  ]
  for (const [what, more] of cases)
    it(`${what} is not repeated`, () => {
      for (const purpose of ['enforce', 'observe'] as const) {
        const body = Buffer.from(JSON.stringify(reviewOf({ ...plainPod(), ...more })))
        const result = reviewPod(body, SETTINGS, 'any', purpose)
        if (isRefusal(result)) {
          expect(result.detail ?? '').to.have.length.lessThan(1024)
          continue
        }
        const { patch, ...response } = decoded(result)
        expect(JSON.stringify(response)).to.have.length.lessThan(4096)
        expect(JSON.stringify({ ...result, body: '' })).to.have.length.lessThan(4096)
        expect(JSON.stringify(patch ?? '')).to.have.length.lessThan(32_768)
      }
    })
})
