/** Which running pods are told of, as what, and what replaces them. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { auditPods, secretFindings } from '../../../cli/audit-pods/audit.ts'
import type { AuditedNamespace, AuditFinding } from '../../../cli/audit-pods/audit.ts'
import { auditText } from '../../../cli/audit-pods/report.ts'
import { problemsOf } from '../../../cli/kube/pod-state.ts'
import { CLUSTER_SETTINGS } from '../../support/kubectl-world.ts'
import { admit } from '../../support/pod-admission.ts'
import type { Json } from '../../support/pod-admission.ts'
import { inject } from '../../support/reviews.ts'

const NAMESPACE = 'team-a'
const enabled: AuditedNamespace = {
  name: NAMESPACE,
  labels: { 'nestgate.dev/inject': 'enabled' },
  settings: CLUSTER_SETTINGS,
}
const observed = { ...enabled, labels: { 'nestgate.dev/inject': 'observe' } }

function authored(metadata: Json = {}, spec: Json = {}): Json {
  return {
    metadata: { name: 'web-5d4f8c7b9-x2x4z', namespace: NAMESPACE, ...metadata },
    spec: { containers: [{ name: 'main', image: 'web' }], ...spec },
  }
}

/** As the API server has it when the webhook was not there. */
const bare = (metadata?: Json, spec?: Json): Json =>
  running(admit(authored(metadata, spec), '1.33'))

/** As the API server has it when the webhook was there, with these settings. */
function made(settings = CLUSTER_SETTINGS, metadata?: Json): Json {
  const { pod } = inject(admit(authored(metadata), '1.33'), settings, { namespace: NAMESPACE })
  return running(admit(pod ?? {}, '1.33'))
}

function running(pod: Json): Json {
  return { ...pod, status: { phase: 'Running' } }
}

const codes = (pod: Json, namespace = enabled): readonly string[] =>
  auditPods(namespace, [pod]).map(({ code }) => code)
const context = { namespace: NAMESPACE, level: 'any', settings: CLUSTER_SETTINGS } as const

describe('nestgate audit-pods', () => {
  it('has nothing against a pod as it is made now', () => {
    expect(codes(made())).to.deep.equal([])
  })

  it('has nothing against what somebody debugs', () => {
    const pod = made()
    ;(pod['spec'] as Json)['ephemeralContainers'] = [{ name: 'debugger', image: 'busybox' }]
    expect(codes(pod)).to.deep.equal([])
  })

  it('tells of a pod that is older than the label, and of its token', () => {
    expect(codes(bare())).to.deep.equal(['no_sidecar', 'api_token'])
  })

  it('tells of a token that somebody put in by name or by content', () => {
    const secret = (spec: Json): readonly string[] =>
      problemsOf(bare({}, { automountServiceAccountToken: false, ...spec }), context).map(
        ({ said }) => said,
      )
    const volume = { name: 'x', secret: { secretName: 'default-token-x8f2k' } }
    expect(secret({ volumes: [volume] })[1]).to.match(/^token_secret: .*spec\.volumes\[0\]/)
    const sources = [
      { serviceAccountToken: { audience: 'https://kubernetes.default.svc', path: 't' } },
    ]
    expect(secret({ volumes: [{ name: 'y', projected: { sources } }] })[1]).to.match(
      /spec\.volumes\[0\]/,
    )
    const valueFrom = { secretKeyRef: { name: 'ci-token-bbbbb', key: 'token' } }
    const containers = [{ name: 'main', env: [{ name: 'T', valueFrom }] }]
    expect(secret({ containers })[1]).to.match(/env\[0\]/)
    expect(secret({})).to.have.lengthOf(1)
  })

  const older: readonly (readonly [string, Partial<typeof CLUSTER_SETTINGS>, string])[] = [
    ['image', { image: 'registry.example/nestgate:0' }, 'sidecar_image'],
    ['authority', { brokerCaPem: 'an older one' }, 'sidecar_ca'],
    ['revision', { revision: 'old' }, 'sidecar_revision'],
    ['mode', { mode: 'container' }, 'sidecar_form'],
    ['broker', { brokerUrl: 'https://old.example' }, 'sidecar_differs'],
    ['life of its token', { tokenExpirationSeconds: 7200 }, 'sidecar_differs'],
  ]
  for (const [what, settings, code] of older) {
    it(`tells of a sidecar with another ${what}`, () => {
      expect(codes(made({ ...CLUSTER_SETTINGS, ...settings }))).to.deep.equal([code])
    })
  }

  it('tells of a form that has changed since', () => {
    const pod = made()
    const { annotations } = pod['metadata'] as { annotations: Record<string, string> }
    annotations['nestgate.dev/status'] = '{"version":1,"mode":"native","profile":"P"}'
    expect(codes(pod)).to.deep.equal(['sidecar_form'])
  })

  it('compares no authority that it does not know', () => {
    const unknown = { ...enabled, settings: { ...CLUSTER_SETTINGS, brokerCaPem: '' } }
    expect(
      codes(made({ ...CLUSTER_SETTINGS, brokerCaPem: 'an older one' }), unknown),
    ).to.deep.equal([])
    const other = made({ ...CLUSTER_SETTINGS, brokerUrl: 'https://old.example' })
    expect(codes(other, unknown)).to.deep.equal(['sidecar_differs'])
  })

  it('tells of what somebody changed in a pod', () => {
    const pod = made()
    const [container] = (pod['spec'] as { containers: Json[] }).containers
    if (container !== undefined) container['volumeMounts'] = []
    expect(codes(pod)).to.deep.equal(['sidecar_differs'])
  })

  it('leaves out what is over, and what is the node’s own', () => {
    expect(codes({ ...bare(), status: { phase: 'Succeeded' } })).to.deep.equal([])
    expect(codes({ ...bare(), status: { phase: 'Failed' } })).to.deep.equal([])
    const annotations = { 'kubernetes.io/config.mirror': 'x' }
    expect(codes(bare({ annotations }))).to.deep.equal([])
  })

  it('tells of observed pods what would be refused, and nothing else', () => {
    expect(codes(bare(), observed)).to.deep.equal([])
    const [finding] = auditPods(observed, [bare({}, { hostNetwork: true })])
    expect(finding).to.include({ code: 'would_be_refused' })
    expect(finding?.said).to.match(/^host_network: .*spec\.hostNetwork; remove/)
  })

  const controller = (kind: string, name: string): Json => ({
    ownerReferences: [{ apiVersion: 'x', kind, name, controller: true }],
  })
  const hash = { labels: { 'pod-template-hash': '5d4f8c7b9' } }
  const owners: readonly (readonly [string, Json, string, RegExp])[] = [
    [
      'a Deployment',
      { ...controller('ReplicaSet', 'web-5d4f8c7b9'), ...hash },
      'Deployment/web',
      /^kubectl -n team-a rollout restart deployment\/web$/,
    ],
    ['a DaemonSet', controller('DaemonSet', 'logs'), 'DaemonSet/logs', /restart daemonset\/logs$/],
    [
      'a StatefulSet',
      controller('StatefulSet', 'db'),
      'StatefulSet/db',
      /restart statefulset\/db$/,
    ],
    ['a Job', controller('Job', 'once'), 'Job/once', /delete job once/],
    [
      'a ReplicaSet of its own',
      controller('ReplicaSet', 'rs'),
      'ReplicaSet/rs',
      /delete pod web-5d4f8c7b9-x2x4z; its ReplicaSet/,
    ],
    ['nobody', {}, 'Pod/web-5d4f8c7b9-x2x4z', /delete pod web-5d4f8c7b9-x2x4z, and create/],
  ]
  for (const [who, metadata, owner, remedy] of owners) {
    it(`says how a pod of ${who} is replaced`, () => {
      const [finding] = auditPods(enabled, [bare(metadata)])
      expect(finding?.owner).to.equal(owner)
      expect(finding?.remedy).to.match(remedy)
    })
  }

  describe('prints', () => {
    const findings: readonly AuditFinding[] = [
      ...auditPods(enabled, [
        bare({ name: 'web-1', ...controller('DaemonSet', 'web') }),
        bare({ name: 'web-2', ...controller('DaemonSet', 'web') }),
      ]),
      ...secretFindings(NAMESPACE, ['forever']),
    ]
    const audited = { findings, namespaces: 1, pods: 2, unread: [] }

    it('by owner, with one remedy', () => {
      expect(auditText(audited, 'table').split('\n')).to.deep.equal([
        'team-a DaemonSet/web (2 pods)',
        '  no_sidecar: it was created without a sidecar',
        '  api_token: spec.volumes[0] has a token for the API server',
        '  → kubectl -n team-a rollout restart daemonset/web',
        '',
        'team-a Secret/forever',
        '  token_secret: it holds a service account’s token, which never ends',
        '  → kubectl -n team-a delete secret forever once nothing uses it',
        '',
        '2 pods in 1 namespaces: 5 findings',
      ])
    })

    it('one by one as JSON and CSV', () => {
      const json = JSON.parse(auditText(audited, 'json')) as typeof audited
      expect(json.findings).to.deep.equal(findings)
      const lines = auditText(audited, 'csv').split('\r\n')
      expect(lines[0]).to.equal('"namespace","owner","pod","code","said","remedy"')
      expect(lines).to.have.lengthOf(6)
    })
  })
})
