/** The manifests as they lie there: settings that their processes accept, and no right beyond the documented ones. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { readBrokerConfig } from '../../../broker/config.ts'
import { readPolicySet } from '../../../shared/policy/policy-set.ts'
import { readWebhookConfig } from '../../../shared/injection/config.ts'
import { MANIFESTS, objectsBelow } from '../../support/manifests.ts'

const base = objectsBelow(join(MANIFESTS, 'base'))
const workloads = base.filter(({ spec }) => spec?.template !== undefined)
const envOf = (kind: string): Record<string, string> => {
  const workload = workloads.find((object) => object.kind === kind)
  const containers = workload?.spec?.template?.spec.containers ?? []
  return Object.fromEntries(
    containers.flatMap(({ env = [] }) => env.map(({ name, value }) => [name, value])),
  )
}

describe('the manifests', () => {
  for (const folder of ['base/config', 'install']) {
    it(`have broker settings that the broker accepts (${folder})`, () => {
      const argv = ['--config', join(MANIFESTS, folder, 'broker.yaml')]
      const config = readBrokerConfig({ argv, env: envOf('StatefulSet') })
      expect(config.clusters[0]?.name).to.equal('local')
    })

    it(`have a policy that the broker accepts (${folder})`, () => {
      const policy = readPolicySet([
        { file: 'policy.yaml', text: readFileSync(join(MANIFESTS, folder, 'policy.yaml'), 'utf8') },
      ])
      expect('problems' in policy ? policy.problems : []).to.deep.equal([])
    })
  }

  it('have webhook settings that the webhook accepts', () => {
    const argv = ['--config', join(MANIFESTS, 'base', 'config', 'webhook.yaml')]
    const config = readWebhookConfig({ argv, env: envOf('Deployment') })
    expect(config.sidecar.brokerUrl).to.equal('https://nestgate-broker.nestgate-system.svc:8443')
  })

  it('give these rights, and no others', () => {
    const rights = base
      .filter(({ kind }) => kind.endsWith('Role'))
      .flatMap(({ metadata, rules = [] }) => rules.map((rule) => [metadata.name, rule]))
    expect(rights).to.deep.equal([
      [
        'nestgate-bypass',
        {
          apiGroups: ['nestgate.dev'],
          resources: [
            'pods/portforward',
            'pods/exec',
            'pods/attach',
            'secrets',
            'serviceaccounts/token',
            'namespaces',
          ],
          verbs: ['bypass'],
        },
      ],
      [
        'nestgate-broker',
        {
          apiGroups: ['authentication.k8s.io'],
          resources: [
            'userextras/nestgate.dev/request-id',
            'userextras/nestgate.dev/process',
            'userextras/nestgate.dev/approver',
            'userextras/nestgate.dev/bind',
          ],
          verbs: ['impersonate'],
        },
      ],
      [
        'nestgate-broker',
        { apiGroups: ['authentication.k8s.io'], resources: ['tokenreviews'], verbs: ['create'] },
      ],
      [
        'nestgate-broker',
        {
          nonResourceURLs: ['/.well-known/openid-configuration', '/openid/v1/jwks'],
          verbs: ['get'],
        },
      ],
      [
        'nestgate-impersonator',
        { apiGroups: [''], resources: ['serviceaccounts'], verbs: ['impersonate'] },
      ],
      ['nestgate-impersonator', { apiGroups: [''], resources: ['pods'], verbs: ['get'] }],
      ['nestgate-webhook', { apiGroups: [''], resources: ['events'], verbs: ['create'] }],
    ])
  })

  it('bind the impersonator in a namespace only, never in the whole cluster', () => {
    const bindings = [...base, ...objectsBelow(join(MANIFESTS, 'namespace'))].filter(
      (object) =>
        JSON.stringify(object).includes('nestgate-impersonator') && object.kind.endsWith('Binding'),
    )
    expect(bindings.map(({ kind }) => kind)).to.deep.equal(['RoleBinding'])
  })

  for (const { kind, metadata, spec } of workloads) {
    it(`run ${kind} ${metadata.name} without rights on its node`, () => {
      const pod = spec?.template?.spec
      expect(pod?.automountServiceAccountToken).to.equal(false)
      expect(pod?.enableServiceLinks).to.equal(false)
      expect(pod?.securityContext).to.deep.include({
        runAsNonRoot: true,
        seccompProfile: { type: 'RuntimeDefault' },
      })
      for (const { securityContext } of pod?.containers ?? []) {
        expect(securityContext).to.deep.equal({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        })
      }
    })
  }

  it('let nobody but the process’s own user and group read keys and tokens', () => {
    const secrets = workloads
      .flatMap(({ spec }) => spec?.template?.spec.volumes ?? [])
      .map(({ secret, projected }) => secret ?? projected)
      .filter((source) => source !== undefined)
    expect(secrets).to.have.lengthOf(4)
    for (const source of secrets) expect(source).to.have.property('defaultMode', 0o440)
  })

  it('let no pod of a labelled namespace past a webhook that does not answer', () => {
    const configuration = base.find(({ kind }) => kind === 'MutatingWebhookConfiguration')
    const injecting = (configuration?.webhooks ?? []).filter(
      ({ namespaceSelector }) =>
        namespaceSelector?.matchLabels?.['nestgate.dev/inject'] === 'enabled',
    )
    expect(injecting).to.have.lengthOf(3)
    for (const webhook of injecting)
      expect(webhook).to.deep.include({
        failurePolicy: 'Fail',
        reinvocationPolicy: 'IfNeeded',
        sideEffects: 'NoneOnDryRun',
        matchPolicy: 'Equivalent',
      })
  })

  describe('the kit of a namespace', () => {
    const kit = objectsBelow(join(MANIFESTS, 'namespace'))

    it('labels it for Nestgate and for Pod Security', () => {
      expect(kit.find(({ kind }) => kind === 'Namespace')?.metadata.labels).to.deep.equal({
        'nestgate.dev/inject': 'enabled',
        'pod-security.kubernetes.io/enforce': 'restricted',
        'pod-security.kubernetes.io/warn': 'restricted',
      })
    })

    it('lets pods reach names and the broker, and nothing else', () => {
      const { egress, ...rest } = (kit.find(({ kind }) => kind === 'NetworkPolicy')?.spec ??
        {}) as { egress?: readonly { to: readonly object[]; ports: readonly { port: number }[] }[] }
      expect(rest).to.deep.equal({ podSelector: {}, policyTypes: ['Egress'] })
      expect(egress?.map(({ ports }) => ports.map(({ port }) => port))).to.deep.equal([
        [53, 53],
        [53, 53],
        [8443],
      ])
      for (const { to } of egress ?? []) expect(to).to.have.lengthOf(1)
      const broker = base.find(({ kind }) => kind === 'StatefulSet')
      expect(egress?.[2]?.to[0]).to.deep.equal({
        namespaceSelector: {
          matchLabels: { 'kubernetes.io/metadata.name': broker?.metadata.namespace },
        },
        podSelector: {
          matchLabels: {
            'app.kubernetes.io/name':
              broker?.spec?.template?.metadata.labels['app.kubernetes.io/name'],
          },
        },
      })
      expect(JSON.stringify(egress)).to.include('169.254.20.10/32')
    })

    it('keeps tokens from its default account', () => {
      expect(kit.find(({ kind }) => kind === 'ServiceAccount')).to.deep.include({
        automountServiceAccountToken: false,
      })
    })
  })
})
