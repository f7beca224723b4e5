/** What `nestgate check` says of clusters: of a sound one nothing, and of each fault what and what to do. */
import { readFileSync, readdirSync } from 'node:fs'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { parseAllDocuments } from 'yaml'
import { parseConfiguration } from '../../../cli/kube/installation.ts'
import { injectionSettings } from '../../../shared/injection/settings.ts'
import { readFacts } from '../../../cli/check/facts.ts'
import { reportText, runChecks } from '../../../cli/check/report.ts'
import type { Finding } from '../../../cli/check/finding.ts'
import { DEFAULT_DENY, FakeCluster, IMAGE, failure } from '../../support/kubectl-world.ts'
import { makeCertificates } from '../../support/certificates.ts'
import type { Json } from '../../support/pod-admission.ts'

type Change = (cluster: FakeCluster) => void

const DAY_MS = 86_400_000

async function check(
  change: Change = () => undefined,
  now = Date.now(),
): Promise<readonly Finding[]> {
  const cluster = new FakeCluster()
  change(cluster)
  return runChecks(await readFacts(cluster.kubectl, []), now)
}

function inside(object: Json | undefined, ...path: readonly (string | number)[]): Json {
  let value: unknown = object
  for (const key of path) value = (value as Json)[key]
  return value as Json
}

const webhookEntry = (cluster: FakeCluster, at = 0): Json =>
  inside(cluster.find('mutatingwebhookconfigurations', 'nestgate-webhook'), 'webhooks', at)
const label = (cluster: FakeCluster, labels: Json): void => {
  inside(cluster.find('namespaces', 'team-a'), 'metadata')['labels'] = labels
}
const configure = (cluster: FakeCluster, from: string, to: string): void => {
  const data = inside(cluster.find('configmaps', 'nestgate-webhook-config'), 'data')
  expect(data['webhook.yaml']).to.contain(from)
  data['webhook.yaml'] = String(data['webhook.yaml']).replace(from, to)
}
const otherWebhook = (cluster: FakeCluster, name: string, more: Json = {}): void => {
  const rules = [{ apiGroups: [''], operations: ['CREATE'], resources: ['pods'] }]
  cluster.objects['mutatingwebhookconfigurations']?.push({
    metadata: { name },
    webhooks: [{ name: 'x.example', clientConfig: {}, rules, ...more }],
  })
}
const workload = (cluster: FakeCluster, kind: string, name: string): Json | undefined =>
  cluster.find(kind, name)
const policy = (cluster: FakeCluster, spec: Json): void => {
  cluster.add('networkpolicies', 'team-a', 'other', { spec: { podSelector: {}, ...spec } })
}

describe('nestgate check, of a sound cluster', () => {
  it('has nothing to say but ok', async () => {
    const findings = await check()
    expect(findings.filter(({ outcome }) => outcome !== 'ok')).to.deep.equal([])
    expect(new Set(findings.map((finding) => finding.check)).size).to.be.at.least(15)
  })

  it('asks for nothing but reads and a dry run', async () => {
    const cluster = new FakeCluster()
    await readFacts(cluster.kubectl, [])
    for (const args of cluster.calls) {
      const isRead = args[0] === 'get' || args[0] === 'version'
      expect(isRead || args.includes('--dry-run=server'), args.join(' ')).to.equal(true)
    }
  })

  it('reads of Secrets certificates and names', async () => {
    const cluster = new FakeCluster()
    await readFacts(cluster.kubectl, [])
    const secrets = cluster.calls.filter((args) => /^secrets?$/.test(args[1] ?? ''))
    expect(secrets.length).to.equal(3)
    for (const args of secrets)
      expect(args.at(-1)).to.match(/^jsonpath=(\{\.data\.(tls|ca)\\\.crt\}|.*\.metadata\.name.*)$/)
  })

  it('prints a line for each, and a sum', async () => {
    const text = reportText(await check(), 'table')
    expect(text).to.match(/^ok +version +API server: v1\.34\.1/)
    expect(text).to.match(/\n\n\d+ ok, 0 warnings, 0 failed, 0 not checked$/)
    const { counts } = JSON.parse(reportText(await check(), 'json')) as { counts: Json }
    expect(counts['fail']).to.equal(0)
  })

  it('asks about the namespaces that it is told', async () => {
    const cluster = new FakeCluster()
    const facts = await readFacts(cluster.kubectl, ['default'])
    expect(facts.namespaces.map(({ name }) => name)).to.deep.equal(['default'])
    const findings = runChecks(facts, Date.now()).filter(({ about }) => about === 'default')
    expect(findings.map(({ outcome }) => outcome)).to.deep.equal(['fail'])
  })
})

interface Case {
  readonly fault: string
  readonly change: Change
  /** Check, outcome and text of a line that must be there. */
  readonly says: readonly [string, Finding['outcome'], RegExp]
  readonly now?: number
}

const CASES: readonly Case[] = [
  {
    fault: 'an old kubelet beside native sidecars',
    change: (it) => {
      inside(it.find('nodes', 'two'), 'status', 'nodeInfo')['kubeletVersion'] = 'v1.28.9-eks-1'
    },
    says: ['nodes', 'fail', /^two: 1 of 2 kubelets are older than 1\.29/],
  },
  {
    fault: 'a Windows node',
    change: (it) => {
      inside(it.find('nodes', 'two'), 'status', 'nodeInfo')['operatingSystem'] = 'windows'
    },
    says: ['nodes', 'warn', /Windows/],
  },
  {
    fault: 'nodes that may not be read',
    change: (it) => it.refused.set('nodes', failure('forbidden', 'nodes is forbidden')),
    says: ['nodes', 'unknown', /forbidden/],
  },
  {
    fault: 'an API server that is too old',
    change: (it) => {
      it.minor = '19+'
      it.gitVersion = 'v1.19.16'
    },
    says: ['version', 'fail', /older than 1\.20/],
  },
  {
    fault: 'a broker that is not ready',
    change: (it) => {
      inside(workload(it, 'statefulsets', 'nestgate-broker'), 'status')['readyReplicas'] = 0
    },
    says: ['parts', 'fail', /StatefulSet nestgate-system\/nestgate-broker: 0 of 1 ready/],
  },
  {
    fault: 'one replica of the webhook',
    change: (it) => {
      inside(workload(it, 'deployments', 'nestgate-webhook'), 'spec')['replicas'] = 1
    },
    says: ['parts', 'warn', /one replica/],
  },
  {
    fault: 'no disruption budget',
    change: (it) => it.objects['poddisruptionbudgets']?.pop(),
    says: ['parts', 'warn', /no PodDisruptionBudget/],
  },
  {
    fault: 'no webhook configuration',
    change: (it) => it.objects['mutatingwebhookconfigurations']?.pop(),
    says: ['webhook', 'fail', /nothing is injected/],
  },
  {
    fault: 'a webhook that fails open',
    change: (it) => {
      webhookEntry(it, 2)['failurePolicy'] = 'Ignore'
    },
    says: ['webhook', 'fail', /container\.pods\.nestgate\.dev: failurePolicy is Ignore/],
  },
  {
    fault: 'a webhook that is called once',
    change: (it) => {
      webhookEntry(it)['reinvocationPolicy'] = 'Never'
    },
    says: ['webhook', 'fail', /reinvocationPolicy is Never/],
  },
  {
    fault: 'a webhook that is not asked about pods',
    change: (it) => {
      webhookEntry(it)['rules'] = []
    },
    says: ['webhook', 'fail', /not asked about new pods/],
  },
  {
    fault: 'a webhook without an authority',
    change: (it) => {
      delete inside(webhookEntry(it), 'clientConfig')['caBundle']
    },
    says: ['webhook', 'fail', /no caBundle/],
  },
  {
    fault: 'a caBundle of another authority',
    change: (it) => {
      const { ca } = makeCertificates({ hosts: ['x'] })
      inside(webhookEntry(it), 'clientConfig')['caBundle'] = Buffer.from(ca).toString('base64')
    },
    says: ['certificate', 'fail', /the caBundle does not trust/],
  },
  {
    fault: 'a certificate for another name',
    change: (it) => {
      const made = makeCertificates({ hosts: ['other.nestgate-system.svc'] })
      it.entries['tls.crt'] = made.cert
    },
    says: ['certificate', 'fail', /not for nestgate-webhook\.nestgate-system\.svc/],
  },
  {
    fault: 'a certificate that has ended',
    change: () => undefined,
    now: Date.now() + 91 * DAY_MS,
    says: ['certificate', 'fail', /has been over since \d{4}-/],
  },
  {
    fault: 'a certificate that ends soon',
    change: () => undefined,
    now: Date.now() + 80 * DAY_MS,
    says: ['certificate', 'warn', /ends on \d{4}-\d\d-\d\d, in 9 days/],
  },
  {
    fault: 'a certificate that may not be read',
    change: (it) => {
      it.secretsReadable = false
    },
    says: ['certificate', 'unknown', /cannot be read/],
  },
  {
    fault: 'a configuration that is wrong',
    change: (it) => {
      configure(it, 'mode: auto', 'mode: some')
    },
    says: ['configuration', 'fail', /sidecar\.mode/],
  },
  {
    fault: 'an issuer that is not known as one',
    change: (it) => {
      it.issuer = 'https://oidc.eks.example/id/1'
    },
    says: ['api-audiences', 'fail', /oidc\.eks\.example/],
  },
  {
    fault: 'an issuer that may not be read',
    change: (it) => it.refused.set('issuer', failure('forbidden', 'forbidden')),
    says: ['api-audiences', 'unknown', /issuer/],
  },
  {
    fault: 'no final state',
    change: (it) => (it.objects['validatingadmissionpolicies'] = []),
    says: ['final-state', 'fail', /nothing checks pods as they end up.*policies\.enabled/],
  },
  {
    fault: 'a policy that is not bound',
    change: (it) => it.objects['validatingadmissionpolicybindings']?.shift(),
    says: ['final-state', 'fail', /nestgate-pods: no binding/],
  },
  {
    fault: 'a binding of another policy',
    change: (it) => {
      const [binding] = it.objects['validatingadmissionpolicybindings'] ?? []
      inside(binding, 'spec')['policyName'] = 'nestgate-bind'
    },
    says: ['final-state', 'fail', /nestgate-pods: no binding/],
  },
  {
    fault: 'a policy that is missing',
    change: (it) => it.objects['validatingadmissionpolicies']?.splice(5, 1),
    says: ['final-state', 'fail', /nestgate-token-requests: this policy is not there/],
  },
  {
    fault: 'a policy that fails open',
    change: (it) => {
      inside(it.find('validatingadmissionpolicies', 'nestgate-pods'), 'spec')['failurePolicy'] =
        'Ignore'
    },
    says: ['final-state', 'fail', /failurePolicy is Ignore/],
  },
  {
    fault: 'the policies of nestgate connect alone',
    change: (it) => {
      const policy = it.find('validatingadmissionpolicies', 'nestgate-pods')
      inside(policy, 'metadata')['name'] = 'nestgate-bind'
    },
    says: ['final-state', 'fail', /nothing checks pods/],
  },
  {
    fault: 'a policy that only audits',
    change: (it) => {
      const [binding] = it.objects['validatingadmissionpolicybindings'] ?? []
      inside(binding, 'spec')['validationActions'] = ['Audit']
    },
    says: ['final-state', 'fail', /no binding/],
  },
  {
    fault: 'policies of another release',
    change: (it) => {
      const [one] = it.objects['validatingadmissionpolicies'] ?? []
      inside(one, 'spec')['validations'] = [
        { expression: 'image == "registry.example/nestgate:0"' },
      ]
    },
    says: ['final-state', 'fail', /do not know the image/],
  },
  {
    fault: 'a namespace with a label that means nothing',
    change: (it) => {
      label(it, { 'nestgate.dev/inject': 'true' })
    },
    says: ['labels', 'fail', /"true", which means nothing/],
  },
  {
    fault: 'an identity that means nothing',
    change: (it) => {
      label(it, { 'nestgate.dev/inject': 'enabled', 'nestgate.dev/identity': 'strict' })
    },
    says: ['labels', 'fail', /identity is "strict"/],
  },
  {
    fault: 'a revision that is not installed',
    change: (it) => {
      label(it, { 'nestgate.dev/inject': 'enabled', 'nestgate.dev/rev': 'next' })
    },
    says: ['labels', 'fail', /no installation has that revision/],
  },
  {
    fault: 'webhook configurations that may not be read',
    change: (it) =>
      it.refused.set('mutatingwebhookconfigurations', failure('forbidden', 'forbidden')),
    says: ['labels', 'unknown', /team-a: whether a webhook takes it/],
  },
  {
    fault: 'no namespace',
    change: (it) => {
      label(it, {})
    },
    says: ['labels', 'warn', /no pod is injected/],
  },
  {
    fault: 'Pod Security that refuses a profile',
    change: (it) => {
      label(it, {
        'nestgate.dev/inject': 'enabled',
        'pod-security.kubernetes.io/enforce': 'restricted',
      })
    },
    says: ['pod-security', 'warn', /restricted refuses profile P/],
  },
  {
    fault: 'no policy of egress',
    change: (it) => it.objects['networkpolicies']?.pop(),
    says: ['network-policy', 'fail', /no NetworkPolicy denies egress/],
  },
  {
    fault: 'a policy for some pods only',
    change: (it) => {
      inside(it.find('networkpolicies', 'nestgate-egress'))['spec'] = {
        ...DEFAULT_DENY,
        podSelector: { matchLabels: { app: 'x' } },
      }
    },
    says: ['network-policy', 'fail', /no NetworkPolicy denies egress/],
  },
  {
    fault: 'a policy that lets out to anywhere',
    change: (it) => {
      policy(it, { policyTypes: ['Egress'], egress: [{ ports: [{ port: 443 }] }] })
    },
    says: ['network-policy', 'fail', /NetworkPolicy other lets all pods out to any address/],
  },
  {
    fault: 'a policy that lets out to all addresses by name',
    change: (it) => {
      policy(it, { egress: [{ to: [{ ipBlock: { cidr: '0.0.0.0/0', except: ['10.0.0.0/8'] } }] }] })
    },
    says: ['network-policy', 'fail', /any address/],
  },
  {
    fault: 'a policy that lets out to some addresses',
    change: (it) => {
      policy(it, { egress: [{ to: [{ ipBlock: { cidr: '10.1.0.0/16' } }] }] })
    },
    says: ['network-policy', 'warn', /out to 10\.1\.0\.0\/16/],
  },
  {
    fault: 'a policy that lets out to every pod',
    change: (it) => {
      policy(it, { egress: [{ to: [{ namespaceSelector: {} }] }] })
    },
    says: ['network-policy', 'warn', /other pods/],
  },
  {
    fault: 'flannel',
    change: (it) => {
      inside(it.objects['daemonsets']?.[0], 'metadata')['name'] = 'kube-flannel-ds'
    },
    says: ['network-enforced', 'fail', /flannel/],
  },
  {
    fault: 'a network that is not known',
    change: (it) => it.objects['daemonsets']?.pop(),
    says: ['network-enforced', 'warn', /nothing that is known/],
  },
  {
    fault: 'a broker that may not act',
    change: (it) => it.objects['rolebindings']?.pop(),
    says: ['broker-may-act', 'warn', /no RoleBinding/],
  },
  {
    fault: 'an account with an identity of a cloud',
    change: (it) => {
      it.add(
        'serviceaccounts',
        'team-a',
        'deployer',
        {},
        {
          annotations: { 'eks.amazonaws.com/role-arn': 'arn:aws:iam::1:role/x' },
        },
      )
    },
    says: ['service-accounts', 'warn', /team-a: deployer: has an identity at AWS/],
  },
  {
    fault: 'an account with Secrets',
    change: (it) => {
      it.add('serviceaccounts', 'team-a', 'old', { secrets: [{ name: 'old-token-abcde' }] })
    },
    says: ['service-accounts', 'warn', /team-a: old: names 1 Secrets/],
  },
  {
    fault: 'a token in a Secret',
    change: (it) => {
      it.tokens['team-a'] = ['forever']
    },
    says: ['token-secrets', 'fail', /forever/],
  },
  {
    fault: 'Secrets that may not be listed',
    change: (it) => it.refused.set('secrets', failure('forbidden', 'secrets is forbidden')),
    says: ['token-secrets', 'unknown', /forbidden/],
  },
  {
    fault: 'a LimitRange below the sidecar',
    change: (it) => {
      const limits = [{ type: 'Container', max: { cpu: '250m' } }]
      it.add('limitranges', 'team-a', 'small', { spec: { limits } })
    },
    says: ['resources', 'fail', /LimitRange small: the sidecar’s limit of 500m cpu/],
  },
  {
    fault: 'a LimitRange above the sidecar',
    change: (it) => {
      const limits = [{ type: 'Container', min: { memory: '128Mi' } }]
      it.add('limitranges', 'team-a', 'large', { spec: { limits } })
    },
    says: ['resources', 'fail', /asks for 64Mi memory, and the least is 128Mi/],
  },
  {
    fault: 'a LimitRange with a ratio',
    change: (it) => {
      const limits = [{ type: 'Container', maxLimitRequestRatio: { cpu: '10' } }]
      it.add('limitranges', 'team-a', 'ratio', { spec: { limits } })
    },
    says: ['resources', 'fail', /50 times what it asks for; allowed is 10/],
  },
  {
    fault: 'a quota that is used up',
    change: (it) => {
      it.add('resourcequotas', 'team-a', 'q', {
        spec: { hard: { 'limits.cpu': '2', pods: '10' } },
        status: { used: { 'limits.cpu': '1800m' } },
      })
    },
    says: ['resources', 'warn', /ResourceQuota q: of limits\.cpu 2 there is no room/],
  },
  {
    fault: 'a quota of what the sidecar does not say',
    change: (it) => {
      it.add('resourcequotas', 'team-a', 'q', {
        spec: { hard: { 'limits.ephemeral-storage': '1Gi' } },
      })
    },
    says: ['resources', 'fail', /must say limits\.ephemeral-storage/],
  },
  {
    fault: 'a pod that comes out bare',
    change: (it) => {
      it.dryRun = (pod) => pod
    },
    says: ['dry-run', 'fail', /without a sidecar/],
  },
  {
    fault: 'a webhook that is not reached',
    change: (it) => {
      const said =
        'Error from server (InternalError): failed calling webhook "pods.nestgate.dev": connection refused'
      it.dryRun = () => failure('failed', said)
    },
    says: ['dry-run', 'fail', /does not reach a webhook: .*connection refused/],
  },
  {
    fault: 'a pod that others refuse',
    change: (it) => {
      it.dryRun = () => failure('forbidden', 'exceeded quota')
    },
    says: ['dry-run', 'fail', /a plain pod is refused: exceeded quota/],
  },
  {
    fault: 'somebody who may not create pods',
    change: (it) => {
      const said = 'pods is forbidden: User "x" cannot create resource "pods"'
      it.dryRun = () => failure('forbidden', said)
    },
    says: ['dry-run', 'unknown', /may not create/],
  },
  {
    fault: 'a pod that somebody gives a token again',
    change: (it) => {
      it.dryRun = (pod, namespace) => {
        const made = it.create(pod, namespace)
        const sources = [{ serviceAccountToken: { path: 'token' } }]
        ;(inside(made, 'spec')['volumes'] as Json[]).push({ name: 'x', projected: { sources } })
        return made
      }
    },
    says: ['dry-run', 'fail', /comes out wrong: spec\.volumes\[3\] has a token/],
  },
  {
    fault: 'an observed namespace whose pods are refused',
    change: (it) => {
      const said =
        'admission webhook "pods.nestgate.dev" denied the request: nestgate: port_reserved: …'
      it.dryRun = () => failure('forbidden', said)
      label(it, { 'nestgate.dev/inject': 'observe' })
    },
    says: ['dry-run', 'fail', /only observed/],
  },
  {
    fault: 'an observed namespace whose webhook is away',
    change: (it) => {
      label(it, { 'nestgate.dev/inject': 'observe' })
      it.silent = true
    },
    says: ['dry-run', 'warn', /nothing is said/],
  },
  {
    fault: 'a token in a Secret on an old cluster',
    change: (it) => {
      it.minor = '20'
      it.tokens['team-a'] = ['default-token-x8f2k', 'forever']
    },
    says: ['token-secrets', 'fail', /1 Secrets .*: forever;/],
  },
  {
    fault: 'Istio without its audience',
    change: (it) => {
      otherWebhook(it, 'istio-sidecar-injector')
    },
    says: [
      'other-injectors',
      'warn',
      /Istio, runs before ours: .*token_audience_not_allowed.*istio-ca/,
    ],
  },
  {
    fault: 'an injector that nobody knows',
    change: (it) => {
      otherWebhook(it, 'zz-injector')
    },
    says: ['other-injectors', 'warn', /zz-injector: runs after ours/],
  },
]

describe('nestgate check', () => {
  for (const { fault, change, says, now } of CASES) {
    it(`tells of ${fault}`, async () => {
      const [name, outcome, text] = says
      const findings = await check(change, now)
      const lines = findings
        .filter((finding) => finding.check === name && finding.outcome === outcome)
        .map(({ about, said, remedy }) => `${about}: ${said}; ${remedy ?? ''}`)
      expect(
        lines.some((line) => text.test(line)),
        JSON.stringify(findings, undefined, 1),
      ).to.equal(true)
      // whatever is wrong has a remedy
      for (const finding of findings)
        if (finding.outcome === 'warn' || finding.outcome === 'fail')
          expect(finding.remedy).not.to.equal('')
    })
  }

  const NONE: readonly (readonly [string, Change])[] = [
    [
      'a webhook of another namespace',
      (it) => {
        otherWebhook(it, 'other', { namespaceSelector: { matchLabels: { other: 'yes' } } })
      },
    ],
    [
      'a webhook of other objects',
      (it) => {
        otherWebhook(it, 'other', {
          rules: [{ apiGroups: ['apps'], operations: ['CREATE'], resources: ['*'] }],
        })
      },
    ],
    [
      'the final state by webhook on an old cluster',
      (it) => {
        it.refused.set('validatingadmissionpolicies', failure('unknownKind', 'no such type'))
        const service = {
          name: 'nestgate-webhook',
          namespace: 'nestgate-system',
          path: '/validate',
        }
        it.objects['validatingwebhookconfigurations']?.push({
          metadata: {
            name: 'nestgate-webhook',
            labels: { 'app.kubernetes.io/part-of': 'nestgate' },
          },
          webhooks: [{ name: 'final.nestgate.dev', clientConfig: { service } }],
        })
      },
    ],
    [
      'Pod Security where pods cannot get profile P',
      (it) => {
        label(it, {
          'nestgate.dev/inject': 'enabled',
          'nestgate.dev/identity': 'container',
          'pod-security.kubernetes.io/enforce': 'baseline',
        })
      },
    ],
    [
      'an observed namespace',
      (it) => {
        label(it, { 'nestgate.dev/inject': 'observe' })
      },
    ],
    [
      'a quota that a default answers',
      (it) => {
        const limits = [{ type: 'Container', default: { 'ephemeral-storage': '1Gi' } }]
        it.add('limitranges', 'team-a', 'd', { spec: { limits } })
        it.add('resourcequotas', 'team-a', 'q', {
          spec: { hard: { 'limits.ephemeral-storage': '9Gi' } },
        })
      },
    ],
    [
      'policies that take the image from a ConfigMap',
      (it) => {
        const [one] = it.objects['validatingadmissionpolicies'] ?? []
        inside(one, 'spec')['validations'] = [{ expression: 'params.data.image' }]
        it.objects['configmaps']?.push({
          metadata: {
            name: 'params',
            namespace: 'x',
            labels: { 'app.kubernetes.io/part-of': 'nestgate' },
          },
          data: { image: IMAGE },
        })
      },
    ],
  ]
  for (const [what, change] of NONE) {
    it(`finds nothing wrong with ${what}`, async () => {
      const findings = await check(change)
      expect(findings.filter(({ outcome }) => outcome !== 'ok')).to.deep.equal([])
    })
  }
})

describe('nestgate check, of what the manifests make', () => {
  const folder = new URL('../../../manifests/', import.meta.url)
  const read = (name: string): readonly Json[] =>
    parseAllDocuments(readFileSync(new URL(name, folder), 'utf8'), { version: '1.1' }).map(
      (document) => document.toJS() as Json,
    )
  const plurals: Record<string, string> = {
    Deployment: 'deployments',
    StatefulSet: 'statefulsets',
    PodDisruptionBudget: 'poddisruptionbudgets',
    ConfigMap: 'configmaps',
    MutatingWebhookConfiguration: 'mutatingwebhookconfigurations',
    ValidatingWebhookConfiguration: 'validatingwebhookconfigurations',
    ValidatingAdmissionPolicy: 'validatingadmissionpolicies',
    ValidatingAdmissionPolicyBinding: 'validatingadmissionpolicybindings',
    Namespace: 'namespaces',
    NetworkPolicy: 'networkpolicies',
    RoleBinding: 'rolebindings',
    ServiceAccount: 'serviceaccounts',
  }

  /** A cluster that has these and nothing else of ours, as its controllers leave it. */
  function clusterOf(...files: readonly string[]): FakeCluster {
    const cluster = new FakeCluster()
    for (const plural of Object.values(plurals)) cluster.objects[plural] = []
    for (const object of files.flatMap(read)) {
      const plural = plurals[String(object['kind'])]
      if (plural === undefined) continue
      const { replicas } = (object['spec'] ?? {}) as { replicas?: number }
      if (replicas !== undefined) object['status'] = { readyReplicas: replicas }
      for (const entry of (object['webhooks'] ?? []) as Json[])
        inside(entry, 'clientConfig')['caBundle'] = Buffer.from(
          cluster.entries['ca.crt'] ?? '',
        ).toString('base64')
      cluster.objects[plural]?.push(object)
    }
    const text = inside(cluster.find('configmaps', 'nestgate-webhook-config'), 'data')[
      'webhook.yaml'
    ]
    const config = parseConfiguration(String(text), { NESTGATE_SIDECAR_IMAGE: 'nestgate:0.1.0' })
    if ('problems' in config) throw new Error(config.problems.join())
    cluster.settings = injectionSettings(config, cluster.settings.brokerCaPem, 'native')
    return cluster
  }
  const KIT = ['namespace', 'network-policy', 'role-binding', 'service-account'].map(
    (name) => `namespace/${name}.yaml`,
  )
  const POLICIES = readdirSync(new URL('components/admission-policies/', folder))
    .filter((name) => name !== 'kustomization.yaml')
    .map((name) => `components/admission-policies/${name}`)

  for (const [what, files] of [
    ['with the validating webhook', ['nestgate.yaml', ...KIT]],
    ['with the admission policies', ['nestgate.yaml', ...KIT, ...POLICIES]],
  ] as const) {
    it(`finds nothing wrong ${what}`, async () => {
      const cluster = clusterOf(...files)
      const findings = runChecks(await readFacts(cluster.kubectl, []), Date.now())
      const told = findings.filter(({ outcome }) => outcome !== 'ok')
      expect(told.map(({ check, about }) => `${check} ${about}`)).to.deep.equal([
        // the kit is for pods of one user, and says so
        'pod-security agents',
      ])
      const final = findings.find((finding) => finding.check === 'final-state')
      expect(final?.about).to.match(what.includes('policies') ? /^\d policies$/ : /webhook/)
    })
  }
})
