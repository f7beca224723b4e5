/**
 * What the chart gives, by its golden cases (test/golden/chart), the kustomize base and the one file for kubectl. That these are
 * what the templates give is for scripts/render-chart.sh to check: it needs Go.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { after, describe, it } from 'mocha'
import { parse } from 'yaml'
import { z } from 'zod'
import { readBrokerConfig } from '../../../broker/config.ts'
import { readKeepConfig } from '../../../cli/keep/config.ts'
import { configSchema, readWebhookConfig } from '../../../shared/injection/config.ts'
import { readPolicySet } from '../../../shared/policy/policy-set.ts'
import { VALIDATE_PATHS } from '../../../webhook/validate.ts'
import { CHART_GOLDEN, chartCases, MANIFESTS, objectsIn } from '../../support/manifests.ts'
import type { Container, KubernetesObject, PodSpec, Webhook } from '../../support/manifests.ts'

const CHART = join(MANIFESTS, 'chart')
const CLUSTER_WIDE = [
  'Namespace',
  'ClusterRole',
  'ClusterRoleBinding',
  'MutatingWebhookConfiguration',
  'ValidatingWebhookConfiguration',
  'ValidatingAdmissionPolicy',
  'ValidatingAdmissionPolicyBinding',
]

type AskedOf = Webhook['rules'][number]
type Values = Readonly<Record<string, Readonly<Record<string, unknown>>>>
interface Case {
  readonly name: string
  readonly objects: readonly KubernetesObject[]
  readonly values: Values
}

const cases: readonly Case[] = [
  ...chartCases('expected.yaml').map((name) => ({
    name,
    objects: objectsIn(join(CHART_GOLDEN, name, 'expected.yaml')),
    values: parse(readFileSync(join(CHART_GOLDEN, name, 'values.yaml'), 'utf8')) as Values,
  })),
  { name: 'nestgate.yaml', objects: objectsIn(join(MANIFESTS, 'nestgate.yaml')), values: {} },
]

const workloadsOf = (objects: readonly KubernetesObject[]): readonly KubernetesObject[] =>
  objects.filter(({ spec }) => spec?.template !== undefined)
const podOf = ({ spec }: KubernetesObject): PodSpec => {
  if (spec?.template === undefined) throw new Error('no workload')
  return spec.template.spec
}
const containersOf = (objects: readonly KubernetesObject[]): readonly Container[] =>
  workloadsOf(objects).flatMap((object) => podOf(object).containers)
const named = (
  objects: readonly KubernetesObject[],
  kind: string,
  name: RegExp,
): KubernetesObject | undefined =>
  objects.find((object) => object.kind === kind && name.test(object.metadata.name))
const webhooksOf = (objects: readonly KubernetesObject[], kind: string): readonly Webhook[] =>
  objects.filter((object) => object.kind === kind).flatMap(({ webhooks = [] }) => webhooks)
const namespaceOf = (objects: readonly KubernetesObject[]): string =>
  named(objects, 'Deployment', /./)?.metadata.namespace ?? ''
/** Secrets and the like that a user or cert-manager brings. */
const broughtSecrets = ({ objects, values }: Case): readonly unknown[] => [
  ...objects.flatMap(({ kind, spec }) => (kind === 'Certificate' ? [spec?.secretName] : [])),
  values['certs']?.['webhookSecretName'],
  values['certs']?.['brokerSecretName'],
  values['sidecar']?.['brokerCaSecret'],
  ...((values['broker']?.['extraVolumes'] ?? []) as { secret: { secretName: string } }[]).map(
    ({ secret }) => secret.secretName,
  ),
]

const scratch = mkdtempSync(join(tmpdir(), 'nestgate-chart-'))
after(() => {
  rmSync(scratch, { recursive: true })
})
/** Writes settings where a process would read them. */
function fileOf(text = ''): string {
  const path = join(scratch, 'settings.yaml')
  writeFileSync(path, text)
  return path
}

/** All rules of roles, by the role's name without revision. */
const RIGHTS: Readonly<Record<string, (suffix: string) => readonly object[]>> = {
  'ClusterRole nestgate-broker': () => [
    {
      apiGroups: ['authentication.k8s.io'],
      resources: ['request-id', 'process', 'approver', 'bind'].map(
        (key) => `userextras/nestgate.dev/${key}`,
      ),
      verbs: ['impersonate'],
    },
    { apiGroups: ['authentication.k8s.io'], resources: ['tokenreviews'], verbs: ['create'] },
    { nonResourceURLs: ['/.well-known/openid-configuration', '/openid/v1/jwks'], verbs: ['get'] },
  ],
  'ClusterRole nestgate-impersonator': () => [
    { apiGroups: [''], resources: ['serviceaccounts'], verbs: ['impersonate'] },
    { apiGroups: [''], resources: ['pods'], verbs: ['get'] },
  ],
  'ClusterRole nestgate-bypass': () => [
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
  'ClusterRole nestgate-webhook': () => [
    { apiGroups: [''], resources: ['events'], verbs: ['create'] },
  ],
  'Role nestgate-certificates': (suffix) => [
    {
      apiGroups: [''],
      resources: ['secrets'],
      resourceNames: ['nestgate-ca', 'nestgate-webhook', 'nestgate-broker'].map((name) =>
        name === 'nestgate-ca' ? name + suffix : `${name}${suffix}-tls`,
      ),
      verbs: ['get', 'update'],
    },
  ],
}

for (const one of cases) {
  const { name, objects, values } = one
  const suffix = typeof values['revision'] === 'string' ? `-${String(values['revision'])}` : ''
  const namespace = namespaceOf(objects)
  const workloads = workloadsOf(objects)

  describe(`the chart’s objects (${name})`, () => {
    it('are each there once, in the release’s namespace or in none', () => {
      const ids = objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`)
      expect(new Set(ids).size).to.equal(ids.length)
      for (const { kind, metadata } of objects)
        expect(metadata.namespace, `${kind} ${metadata.name}`).to.equal(
          CLUSTER_WIDE.includes(kind) ? undefined : namespace,
        )
    })

    it('bear the revision, so that another release can stand beside', () => {
      for (const { kind, metadata } of objects)
        if (suffix !== '') expect(metadata.name, kind).to.include(suffix)
    })

    it('need no hook, neither to be there nor to go', () => {
      expect(JSON.stringify(objects)).to.not.include('helm.sh/')
    })

    for (const workload of workloads) {
      it(`run ${workload.metadata.name} as the Pod Security standard restricted demands`, () => {
        const pod = podOf(workload)
        expect(pod).to.include({
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          serviceAccountName: workload.metadata.name,
        })
        if (values['webhook']?.['hostNetwork'] !== true)
          expect(pod).to.not.have.property('hostNetwork')
        expect(pod.securityContext).to.deep.equal({
          runAsNonRoot: true,
          ...{ runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532 },
          seccompProfile: { type: 'RuntimeDefault' },
        })
        for (const { securityContext } of pod.containers)
          expect(securityContext).to.deep.equal({
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ['ALL'] },
          })
        for (const { secret, projected } of pod.volumes ?? [])
          for (const source of [secret, projected])
            if (source !== undefined) expect(source).to.have.property('defaultMode', 0o440)
      })
    }

    it('are of one image, which does not change, and so are the sidecars', () => {
      const images = new Set([
        ...containersOf(objects).map(({ image }) => image),
        ...containersOf(objects).flatMap(({ env = [] }) =>
          env
            .filter((variable) => variable.name === 'NESTGATE_SIDECAR_IMAGE')
            .map(({ value }) => value),
        ),
      ])
      expect([...images]).to.have.lengthOf(1)
      expect([...images][0]).to.match(/^[^@]+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})$/)
    })

    it('select pods that there are, by ports that these have', () => {
      const labels = workloads.map(({ spec }) => spec?.template?.metadata.labels ?? {})
      const matching = (wanted: Readonly<Record<string, unknown>>): number[] =>
        labels.flatMap((own, at) =>
          Object.entries(wanted).every(([key, value]) => own[key] === value) ? [at] : [],
        )
      for (const { kind, metadata, spec } of objects) {
        const selector =
          kind === 'Service' ? spec?.selector : (spec?.selector ?? spec?.podSelector)?.matchLabels
        if (selector === undefined || kind === 'ServiceMonitor') continue
        const [at, ...others] = matching(selector)
        expect([at, others], `${kind} ${metadata.name}`).to.deep.equal([at ?? 'none', []])
        const container = containersOf(workloads.slice(at, (at ?? 0) + 1))[0]
        for (const { targetPort } of kind === 'Service' ? (spec?.ports ?? []) : [])
          expect(container?.ports?.map((port) => port.name)).to.include(targetPort)
        for (const { port } of (spec?.ingress ?? []).flatMap(({ ports }) => ports))
          expect(container?.ports?.map(({ containerPort }) => containerPort)).to.include(port)
      }
    })

    it('name the protocol of each port, without which server-side apply does not take them', () => {
      const ports = [
        ...objects.flatMap(({ kind, spec }) => (kind === 'Service' ? (spec?.ports ?? []) : [])),
        ...containersOf(objects).flatMap(({ ports: list = [] }) => list),
      ]
      expect(ports).to.not.have.lengthOf(0)
      for (const port of ports) expect(port).to.have.property('protocol', 'TCP')
    })

    it('refer to what is there', () => {
      const there = (kind: string): readonly string[] =>
        objects.filter((object) => object.kind === kind).map(({ metadata }) => metadata.name)
      const secrets = [...there('Secret'), ...broughtSecrets(one)]
      for (const workload of workloads) {
        const { containers, volumes = [], serviceAccountName } = podOf(workload)
        expect(there('ServiceAccount')).to.include(serviceAccountName)
        for (const { name: mounted } of containers.flatMap(({ volumeMounts = [] }) => volumeMounts))
          if (mounted !== 'data') expect(volumes.map((volume) => volume.name)).to.include(mounted)
        for (const { configMap, secret } of volumes) {
          if (configMap !== undefined) expect(there('ConfigMap')).to.include(configMap.name)
          if (secret !== undefined) expect(secrets).to.include(secret.secretName)
        }
      }
      for (const { roleRef, subjects = [] } of objects.filter((object) => object.roleRef)) {
        expect(there(roleRef?.kind ?? '')).to.include(roleRef?.name)
        for (const subject of subjects) {
          expect(there('ServiceAccount')).to.include(subject.name)
          expect(subject.namespace).to.equal(namespace)
        }
      }
      for (const { clientConfig } of [
        ...webhooksOf(objects, 'MutatingWebhookConfiguration'),
        ...webhooksOf(objects, 'ValidatingWebhookConfiguration'),
      ]) {
        expect(there('Service')).to.include(clientConfig.service.name)
        expect(clientConfig.service.namespace).to.equal(namespace)
      }
    })

    it('give these rights, and no others', () => {
      for (const { kind, metadata, rules } of objects.filter((object) =>
        object.kind.endsWith('Role'),
      )) {
        const id = `${kind} ${suffix === '' ? metadata.name : metadata.name.replace(suffix, '')}`
        if (id === 'ClusterRole nestgate-certificates') {
          const [rule, ...more] = rules ?? []
          expect(more).to.deep.equal([])
          expect(rule).to.deep.equal({
            apiGroups: ['admissionregistration.k8s.io'],
            resources: objects
              .filter((object) => object.kind.endsWith('WebhookConfiguration'))
              .map((object) => `${object.kind.toLowerCase()}s`),
            resourceNames: [`nestgate-webhook${suffix}`],
            verbs: ['get', 'patch'],
          })
        } else expect(rules, id).to.deep.equal(RIGHTS[id]?.(suffix))
      }
    })

    it('bind nothing but the roles of broker, certificates, and a webhook that writes events', () => {
      const bound = objects.filter(({ roleRef }) => roleRef).map(({ roleRef }) => roleRef?.name)
      expect([
        `nestgate-broker${suffix}`,
        `nestgate-certificates${suffix}`,
        ...(values['events']?.['enabled'] !== false ? [`nestgate-webhook${suffix}`] : []),
      ]).to.include.members(bound)
    })

    it('call the webhook for pods of labelled namespaces of this revision, never of the cluster’s or our own', () => {
      const webhooks = webhooksOf(objects, 'MutatingWebhookConfiguration')
      const paths = webhooks.map(({ clientConfig }) => clientConfig.service.path)
      expect(paths).to.deep.equal(
        ['/mutate', '/observe'].flatMap((path) => [path, `${path}/process`, `${path}/container`]),
      )
      for (const { clientConfig, namespaceSelector, failurePolicy, sideEffects } of webhooks) {
        const observes = clientConfig.service.path.startsWith('/observe')
        expect(failurePolicy).to.equal(observes ? 'Ignore' : 'Fail')
        expect(namespaceSelector?.matchLabels).to.deep.equal({
          'nestgate.dev/inject': observes ? 'observe' : 'enabled',
        })
        expect(sideEffects).to.equal(
          values['events']?.['enabled'] !== false ? 'NoneOnDryRun' : 'None',
        )
        expectKeptAway(namespaceSelector?.matchExpressions ?? [], namespace, suffix.slice(1))
      }
    })

    it('leave no namespace between the levels, and none to two of them', () => {
      const webhooks = webhooksOf(objects, 'MutatingWebhookConfiguration')
      for (const inject of ['enabled', 'observe'])
        for (const level of [undefined, 'process', 'container', 'other']) {
          const called = webhooks.filter(
            ({ namespaceSelector }) =>
              namespaceSelector?.matchLabels?.['nestgate.dev/inject'] === inject &&
              (namespaceSelector.matchExpressions ?? [])
                .filter(({ key }) => key === 'nestgate.dev/identity')
                .every(({ operator, values: list = [] }) =>
                  operator === 'In'
                    ? level !== undefined && list.includes(level)
                    : level === undefined || !list.includes(level),
                ),
          )
          expect(called, `${inject} ${String(level)}`).to.have.lengthOf(1)
        }
    })

    it('ask the validating webhook about all that can change a pod afterwards', () => {
      const webhooks = webhooksOf(objects, 'ValidatingWebhookConfiguration')
      if (webhooks.length === 0) {
        expect(values['finalState']?.['webhook']).to.not.equal(true)
        return
      }
      const asked = webhooks.flatMap(({ rules, clientConfig }) =>
        rules.map(
          ({ operations, resources }) =>
            `${clientConfig.service.path} ${operations.join()} ${resources.join()}`,
        ),
      )
      expect(asked).to.deep.equal([
        '/validate/any CREATE pods',
        '/validate/process CREATE pods',
        '/validate/container CREATE pods',
        '/validate UPDATE pods',
        '/validate UPDATE pods/ephemeralcontainers',
        '/validate CONNECT pods/exec,pods/attach,pods/portforward',
        '/validate CREATE,UPDATE secrets',
        '/validate CREATE serviceaccounts/token',
        '/validate UPDATE namespaces,namespaces/status,namespaces/finalize',
      ])
      const namespaces = webhooks.at(-1)
      for (const webhook of webhooks) {
        expect(VALIDATE_PATHS.has(webhook.clientConfig.service.path)).to.equal(true)
        expect([webhook.failurePolicy, webhook.sideEffects]).to.deep.equal(['Fail', 'None'])
        if (webhook === namespaces) continue
        const { matchLabels, matchExpressions = [] } = webhook.namespaceSelector ?? {}
        expect(matchLabels).to.deep.equal({ 'nestgate.dev/inject': 'enabled' })
        expectKeptAway(matchExpressions, namespace, suffix.slice(1))
        expect(webhook).to.not.have.property('objectSelector')
      }
      // By the new labels it would not see the label go.
      expect(namespaces).to.not.have.property('namespaceSelector')
      expect(namespaces?.objectSelector).to.deep.equal({
        matchLabels: { 'nestgate.dev/inject': 'enabled' },
        matchExpressions: [ofRevision(suffix.slice(1))],
      })
    })

    it('ask policies and validating webhook about the same', () => {
      const policies = objects.filter(({ kind }) => kind === 'ValidatingAdmissionPolicy')
      const webhooks = webhooksOf(objects, 'ValidatingWebhookConfiguration')
      const asked = (rules: readonly AskedOf[]): readonly string[] =>
        rules.flatMap(({ operations, resources }) =>
          operations.flatMap((operation) => resources.map((each) => `${operation} ${each}`)),
        )
      const byPolicies = asked(
        policies.flatMap(({ spec }) => spec?.matchConstraints?.resourceRules ?? []),
      )
      const byWebhook = [...new Set(asked(webhooks.flatMap(({ rules }) => rules)))]
      for (const all of [byPolicies, byWebhook])
        if (all.length > 0)
          expect(all).to.have.members([
            'CREATE pods',
            'UPDATE pods',
            'UPDATE pods/ephemeralcontainers',
            ...['exec', 'attach', 'portforward'].map((session) => `CONNECT pods/${session}`),
            ...['CREATE secrets', 'UPDATE secrets', 'CREATE serviceaccounts/token'],
            'UPDATE namespaces',
            ...['UPDATE namespaces/status', 'UPDATE namespaces/finalize'],
          ])
      expect(byPolicies.length + byWebhook.length).to.be.greaterThan(0)
      const bound = objects
        .filter(({ kind }) => kind === 'ValidatingAdmissionPolicyBinding')
        .map(({ spec }) => spec?.policyName)
      expect(bound).to.have.members(policies.map(({ metadata }) => metadata.name))
    })

    it('have settings that the processes accept', () => {
      const env = Object.fromEntries(
        containersOf(objects).flatMap(({ env: list = [] }) =>
          list.map((variable) => [variable.name, variable.value]),
        ),
      )
      const webhook = named(objects, 'ConfigMap', /^nestgate-webhook.*-config$/)
      const settings = readWebhookConfig({
        argv: ['--config', fileOf(webhook?.data?.['webhook.yaml'])],
        env,
      })
      expect(settings.sidecar.revision).to.equal(suffix.slice(1))
      const container = containersOf(objects).find((each) => each.name === 'webhook')
      expect(container?.ports?.[0]?.containerPort).to.equal(settings.listen.port)
      const keeper = named(objects, 'ConfigMap', /^nestgate-certificates.*-config$/)
      if (keeper !== undefined) expectKept(keeper.data?.['certificates.yaml'], objects)
      const broker = named(objects, 'ConfigMap', /^nestgate-broker.*-config$/)
      if (broker === undefined) return
      readBrokerConfig({ argv: ['--config', fileOf(broker.data?.['broker.yaml'])], env: {} })
      const policies = named(objects, 'ConfigMap', /^nestgate-broker.*-policy$/)?.data ?? {}
      const set = readPolicySet(Object.entries(policies).map(([file, text]) => ({ file, text })))
      expect('problems' in set ? set.problems : []).to.deep.equal([])
    })
  })
}

/** The keeper of certificates knows every object that needs one, and has the rights to these (docs/certificates.md). */
function expectKept(text: string | undefined, objects: readonly KubernetesObject[]): void {
  const { namespace, secrets, webhookConfigurations, dnsNames, listen } = readKeepConfig({
    argv: ['--config', fileOf(text)],
    env: {},
  })
  expect(namespace).to.equal(namespaceOf(objects))
  const made = objects.filter(({ kind }) => kind === 'Secret')
  expect(Object.values(secrets)).to.have.members(made.map(({ metadata }) => metadata.name))
  // What the chart never sets, no upgrade takes away; the type of a Secret cannot change.
  for (const secret of made) {
    expect(secret).to.not.have.any.keys('data', 'stringData', 'immutable')
    expect(secret).to.have.property('type', 'Opaque')
  }
  const configurations = objects.filter(({ kind }) => kind.endsWith('WebhookConfiguration'))
  expect(webhookConfigurations).to.have.deep.members(
    configurations.map(({ kind, metadata }) => ({ kind, name: metadata.name })),
  )
  for (const { webhooks = [] } of configurations)
    for (const { clientConfig } of webhooks) {
      expect(clientConfig).to.not.have.property('caBundle')
      expect(dnsNames.webhook).to.include(
        `${clientConfig.service.name}.${clientConfig.service.namespace}.svc`,
      )
    }
  const container = containersOf(objects).find((each) => each.name === 'certificates')
  expect(container?.ports?.[0]?.containerPort).to.equal(listen.port)
  const broker = named(objects, 'Service', /^nestgate-broker/)
  if (broker !== undefined)
    expect(dnsNames.broker).to.include(`${broker.metadata.name}.${namespace}.svc`)
}

function ofRevision(revision: string): object {
  return revision === ''
    ? { key: 'nestgate.dev/rev', operator: 'DoesNotExist' }
    : { key: 'nestgate.dev/rev', operator: 'In', values: [revision] }
}

function expectKeptAway(expressions: readonly object[], namespace: string, revision: string): void {
  expect(expressions).to.deep.include({
    key: 'kubernetes.io/metadata.name',
    operator: 'NotIn',
    values: ['kube-system', 'kube-public', 'kube-node-lease', namespace],
  })
  expect(expressions).to.deep.include(ofRevision(revision))
}

describe('the chart’s values', () => {
  const schemaText = readFileSync(join(CHART, 'values.schema.json'), 'utf8')
  const schema = z.fromJSONSchema(JSON.parse(schemaText) as Parameters<typeof z.fromJSONSchema>[0])
  const text = readFileSync(join(CHART, 'values.yaml'), 'utf8')
  const defaults = parse(text) as Record<string, unknown>

  it('are what the schema says', () => {
    expect(schema.safeParse(defaults).error).to.equal(undefined)
  })

  it('are all that the schema knows, and the schema knows them all', () => {
    const known = JSON.parse(schemaText) as { properties: object }
    expect(Object.keys(known.properties).filter((key) => key !== 'global')).to.have.members(
      Object.keys(defaults),
    )
    expect(schema.safeParse({ ...defaults, webhok: {} }).success).to.equal(false)
  })

  it('have every setting of the webhook’s file, but those that are the chart’s own to say', () => {
    const ofChart = ['image', 'imagePullPolicy', 'brokerCaFile', 'revision']
    const shape = z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' }) as {
      properties: Record<string, { properties: object }>
    }
    for (const section of ['sidecar', 'identity', 'tokens', 'volumes', 'exempt', 'events']) {
      const settings = Object.keys(shape.properties[section]?.properties ?? {})
      const wanted = settings.filter((key) => section !== 'sidecar' || !ofChart.includes(key))
      expect(wanted).to.not.have.lengthOf(0)
      expect(Object.keys(defaults[section] as object), section).to.include.members(wanted)
    }
    const sections = Object.keys(shape.properties)
    const inConfig = ['listen', 'tls', 'kubernetes', 'log']
    expect(sections.filter((key) => !inConfig.includes(key))).to.have.members(
      Object.keys(defaults).filter((key) => sections.includes(key)),
    )
  })

  it('are the webhook’s own defaults, but that it writes events: the chart gives it the right to', () => {
    const bare = configSchema.parse({
      tls: { certFile: 'x', keyFile: 'x' },
      sidecar: { image: 'x', brokerUrl: 'https://x', cluster: 'local', brokerCaFile: 'x' },
    })
    for (const section of ['identity', 'volumes', 'exempt'] as const)
      expect(defaults[section]).to.deep.equal(bare[section])
    expect([defaults['events'], bare.events]).to.deep.equal([{ enabled: true }, { enabled: false }])
    const tokens = { ...bare.tokens, apiAudiences: null }
    expect(defaults['tokens']).to.deep.equal(tokens)
    const { mode, resources, ledgerKeys } = bare.sidecar
    expect(defaults['sidecar']).to.deep.include({ mode, resources, ledgerKeys })
  })

  it('are each explained', () => {
    const lines = text.split('\n')
    const bare = lines.filter((line, at) => /^[a-zA-Z]/.test(line) && !hasComment(lines, at))
    expect(bare).to.deep.equal([])
  })

  it('are refused where they would leave a gap', () => {
    expect(chartCases('refused.txt')).to.have.length.greaterThan(5)
    for (const name of chartCases('refused.txt'))
      expect(readFileSync(join(CHART_GOLDEN, name, 'refused.txt'), 'utf8')).to.match(/\S/)
  })
})

/** Whether a top-level key has a comment before it, in its section, or shares one with the keys above it. */
function hasComment(lines: readonly string[], at: number): boolean {
  if (/^ +#/.test(lines[at + 1] ?? '')) return true
  for (let before = at - 1; before >= 0 && lines[before] !== ''; before--)
    if (lines[before]?.startsWith('#') === true) return true
  return false
}
