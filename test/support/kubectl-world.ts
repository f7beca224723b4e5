/**
 * A cluster in memory, asked in the words of kubectl: objects in the shapes that an API server of 1.34 prints, a webhook that
 * is the real review. `record` makes files of its answers, which a shell script gives as a real `kubectl` would.
 */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { levelOf } from '../../cli/check/labels.ts'
import type { Answer, Failure, FailureKind, Kubectl } from '../../cli/kube/kubectl.ts'
import type { InjectionSettings } from '../../shared/injection/sidecar-spec.ts'
import { reviewPod } from '../../shared/injection/review.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { makeCertificates } from './certificates.ts'
import { admit } from './pod-admission.ts'
import type { Json } from './pod-admission.ts'
import { SETTINGS, inject, reviewOf } from './reviews.ts'

export const IMAGE = 'registry.example/nestgate:1'
const SYSTEM = 'nestgate-system'
const OTHER_POLICIES = [
  ...['running-pods', 'ephemeral-containers', 'sessions'],
  ...['token-secrets', 'token-requests', 'namespaces'],
].map((name) => `nestgate-${name}`)
const PART_OF = { 'app.kubernetes.io/part-of': 'nestgate' }

/** How long the webhook's certificate is good, in milliseconds: 90 days. */
const LIFE_MS = 90 * 86_400_000
const certificates = makeCertificates({
  hosts: ['nestgate-webhook.nestgate-system.svc'],
  lifeMs: LIFE_MS,
})

/** Settings by which the webhook of the fake cluster injects. */
export const CLUSTER_SETTINGS: InjectionSettings = {
  ...SETTINGS,
  image: IMAGE,
  brokerCaPem: certificates.ca.replaceAll('\r', ''),
  apiAudiences: ['https://kubernetes.default.svc'],
}

/** What the API server says when it says no. */
export function failure(kind: FailureKind, said: string): Failure {
  return { failure: kind, said }
}

/** See the head of the file. Everything may be changed before it is asked. */
export class FakeCluster {
  minor = '34'
  gitVersion = 'v1.34.1'
  issuer = 'https://kubernetes.default.svc'
  /** How its webhook injects. */
  settings = CLUSTER_SETTINGS
  /** Objects by plural. */
  readonly objects: Record<string, Json[]> = healthyObjects()
  /** Kinds that cannot be listed, and how. */
  readonly refused = new Map<string, Failure>()
  /** Secrets' names by namespace that hold tokens. */
  readonly tokens: Record<string, string[]> = {}
  /** Public entries of Secrets of our own namespace. */
  readonly entries: Record<string, string> = {
    'tls.crt': certificates.cert,
    'ca.crt': certificates.ca,
  }
  /** Whether Secrets may be read. */
  secretsReadable = true
  /** Whether the webhook is away where it fails open. */
  silent = false
  /** Everything that was asked. */
  readonly calls: (readonly string[])[] = []
  dryRun: (pod: Json, namespace: string) => Json | Failure = (pod, namespace) =>
    this.create(pod, namespace)

  /** What the webhook makes of a pod in a namespace, by the namespace's labels. */
  create(pod: Json, namespace: string): Json {
    const received = admit(pod, '1.33')
    const labels = this.labelsOf(namespace)
    if (labels['nestgate.dev/inject'] !== 'enabled') return received
    const { pod: injected } = inject(received, this.settings, { namespace }, levelOf(labels))
    if (injected === undefined) throw new Error('the webhook refuses this pod')
    return injected
  }

  labelsOf(namespace: string): Record<string, string> {
    const found = this.find('namespaces', namespace)
    return ((found?.['metadata'] as Json | undefined)?.['labels'] ?? {}) as Record<string, string>
  }

  find(kind: string, name: string): Json | undefined {
    return (this.objects[kind] ?? []).find((one) => (one['metadata'] as Json)['name'] === name)
  }

  /** Adds a namespaced object. */
  add(kind: string, namespace: string, name: string, rest: Json, metadata: Json = {}): void {
    ;(this.objects[kind] ??= []).push({ metadata: { name, namespace, ...metadata }, ...rest })
  }

  readonly kubectl: Kubectl = {
    run: (args) => Promise.resolve(this.text(args)),
    json: (args, options) => Promise.resolve(this.json(args, options?.input)),
  }

  private text(args: readonly string[]): string | Failure {
    this.calls.push(args)
    if (args.includes('--raw')) {
      const refused = this.refused.get('issuer')
      return refused ?? JSON.stringify({ issuer: this.issuer })
    }
    const namespace = after(args, '-n') ?? ''
    if (args[1] === 'secrets') {
      const refused = this.refused.get('secrets')
      return refused ?? (this.tokens[namespace] ?? []).map((name) => `${name}\n`).join('')
    }
    if (args[1] === 'secret') {
      if (!this.secretsReadable) return failure('forbidden', 'secrets is forbidden')
      const entry = /\.data\.(.*)\}$/.exec(args.at(-1) ?? '')?.[1]?.replace('\\', '') ?? ''
      return Buffer.from(this.entries[entry] ?? '').toString('base64')
    }
    throw new Error(`unexpected: ${args.join(' ')}`)
  }

  private json(args: readonly string[], input?: string): Answer | Failure {
    this.calls.push(args)
    const [verb, resource = ''] = args
    const answer = (value: unknown, warnings: readonly string[] = []): Answer => ({
      value,
      warnings,
    })
    if (verb === 'version') {
      const { minor, gitVersion } = this
      return answer({ serverVersion: { major: '1', minor, gitVersion } })
    }
    const namespace = after(args, '-n')
    if (verb === 'create') {
      const made = this.dryRun(JSON.parse(input ?? '{}') as Json, namespace ?? '')
      if ('failure' in made) return made as unknown as Failure
      const observes =
        this.labelsOf(namespace ?? '')['nestgate.dev/inject'] === 'observe' && !this.silent
      return answer(made, observes ? observedOf(JSON.parse(input ?? '{}') as Json) : [])
    }
    const kind = (resource.split('.')[0] ?? '').replace(/^(namespace|configmap)$/, '$1s')
    const refused = this.refused.get(kind)
    if (refused !== undefined) return refused
    const name = args[2]
    if (name !== undefined && !name.startsWith('-')) {
      const found = this.find(kind, name)
      return found === undefined
        ? failure('notFound', `${kind} "${name}" not found`)
        : answer(found)
    }
    const label = after(args, '-l')?.split('=')
    const items = (this.objects[kind] ?? []).filter((one) => {
      const metadata = one['metadata'] as Json
      const labels = (metadata['labels'] ?? {}) as Json
      return (
        (namespace === undefined || metadata['namespace'] === namespace) &&
        (label === undefined || labels[label[0] ?? ''] === label[1])
      )
    })
    return answer({ kind: 'List', apiVersion: 'v1', items })
  }
}

/** What the webhook says of a pod that it only observes. */
function observedOf(pod: Json): readonly string[] {
  const body = Buffer.from(JSON.stringify(reviewOf(admit(pod, '1.33'))))
  const reviewed = reviewPod(body, CLUSTER_SETTINGS, 'any', 'observe')
  return isRefusal(reviewed) ? [] : reviewed.warnings
}

function after(args: readonly string[], option: string): string | undefined {
  const at = args.indexOf(option)
  return at === -1 ? undefined : args[at + 1]
}

const SERVICE = { name: 'nestgate-webhook', namespace: SYSTEM, port: 443 }

/** One webhook of our mutating configuration, as the chart writes it. */
function entry(inject: string, level: string): Json {
  const observe = inject === 'observe'
  const isAny = level === ''
  return {
    name: `${isAny ? '' : `${level}.`}${observe ? 'observe.' : ''}pods.nestgate.dev`,
    admissionReviewVersions: ['v1'],
    clientConfig: {
      caBundle: Buffer.from(certificates.ca).toString('base64'),
      service: {
        ...SERVICE,
        path: `${observe ? '/observe' : '/mutate'}${isAny ? '' : `/${level}`}`,
      },
    },
    rules: [
      {
        apiGroups: [''],
        apiVersions: ['v1'],
        operations: ['CREATE'],
        resources: ['pods'],
        scope: 'Namespaced',
      },
    ],
    namespaceSelector: {
      matchLabels: { 'nestgate.dev/inject': inject },
      matchExpressions: [
        { key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: ['kube-system', SYSTEM] },
        { key: 'nestgate.dev/rev', operator: 'DoesNotExist' },
        {
          key: 'nestgate.dev/identity',
          operator: isAny ? 'NotIn' : 'In',
          values: isAny ? ['process', 'container'] : [level],
        },
      ],
    },
    objectSelector: {},
    failurePolicy: observe ? 'Ignore' : 'Fail',
    matchPolicy: 'Equivalent',
    reinvocationPolicy: 'IfNeeded',
    sideEffects: 'None',
    timeoutSeconds: 5,
  }
}

function workload(kind: string, name: string, replicas: number, more: Json = {}): Json {
  const labels = { 'app.kubernetes.io/name': name, ...PART_OF }
  return {
    kind,
    metadata: { name, namespace: SYSTEM, labels },
    spec: {
      replicas,
      selector: { matchLabels: { 'app.kubernetes.io/name': name } },
      template: {
        metadata: { labels },
        spec: { containers: [{ name: 'main', image: IMAGE }], ...more },
      },
    },
    status: { replicas, readyReplicas: replicas },
  }
}

const WEBHOOK_YAML = `listen: {port: 9443}
tls:
  certFile: /var/run/nestgate/tls/tls.crt
  keyFile: /var/run/nestgate/tls/tls.key
sidecar:
  mode: auto
  brokerUrl: https://broker.example:8443
  cluster: c1
  brokerCaFile: /var/run/nestgate/tls/ca.crt
tokens:
  apiAudiences: ['https://kubernetes.default.svc']
`

const webhookSpec: Json = {
  containers: [
    {
      name: 'webhook',
      image: IMAGE,
      command: ['node', '/app/webhook/main.js', '--config', '/etc/nestgate/webhook.yaml'],
      env: [{ name: 'NESTGATE_SIDECAR_IMAGE', value: IMAGE }],
      volumeMounts: [
        { name: 'config', mountPath: '/etc/nestgate' },
        { name: 'tls', mountPath: '/var/run/nestgate/tls' },
      ],
    },
  ],
  volumes: [
    { name: 'config', configMap: { name: 'nestgate-webhook-config', defaultMode: 420 } },
    { name: 'tls', secret: { secretName: 'nestgate-webhook-tls', defaultMode: 288 } },
  ],
}

function node(name: string): Json {
  return {
    metadata: { name },
    status: { nodeInfo: { kubeletVersion: 'v1.34.1', operatingSystem: 'linux' } },
  }
}

/** The namespace kit's policy: egress but for DNS and the broker is denied. */
export const DEFAULT_DENY: Json = {
  podSelector: {},
  policyTypes: ['Egress'],
  egress: [
    {
      ports: [
        { protocol: 'UDP', port: 53 },
        { protocol: 'TCP', port: 53 },
      ],
    },
    {
      to: [
        {
          namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': SYSTEM } },
          podSelector: { matchLabels: { 'app.kubernetes.io/name': 'nestgate-broker' } },
        },
      ],
      ports: [{ protocol: 'TCP', port: 8443 }],
    },
  ],
}

function healthyObjects(): Record<string, Json[]> {
  const selector = { matchLabels: { 'app.kubernetes.io/name': 'nestgate-webhook' } }
  return {
    nodes: [node('one'), node('two')],
    namespaces: [
      { metadata: { name: 'default', labels: { 'kubernetes.io/metadata.name': 'default' } } },
      { metadata: { name: SYSTEM, labels: PART_OF } },
      { metadata: { name: 'team-a', labels: { 'nestgate.dev/inject': 'enabled' } } },
    ],
    mutatingwebhookconfigurations: [
      {
        metadata: { name: 'nestgate-webhook', labels: PART_OF },
        webhooks: ['enabled', 'observe'].flatMap((inject) =>
          ['', 'process', 'container'].map((level) => entry(inject, level)),
        ),
      },
    ],
    validatingwebhookconfigurations: [],
    validatingadmissionpolicies: [
      {
        metadata: { name: 'nestgate-pods', labels: PART_OF },
        spec: {
          failurePolicy: 'Fail',
          validations: [{ expression: `variables.sidecars[0].image == "${IMAGE}"` }],
        },
      },
      ...OTHER_POLICIES.map((name) => ({
        metadata: { name, labels: PART_OF },
        spec: { failurePolicy: 'Fail', validations: [{ expression: 'true' }] },
      })),
    ],
    validatingadmissionpolicybindings: ['nestgate-pods', ...OTHER_POLICIES].map((name) => ({
      metadata: { name, labels: PART_OF },
      spec: { policyName: name, validationActions: ['Deny'] },
    })),
    configmaps: [
      {
        metadata: { name: 'nestgate-webhook-config', namespace: SYSTEM, labels: PART_OF },
        data: { 'webhook.yaml': WEBHOOK_YAML },
      },
    ],
    deployments: [workload('Deployment', 'nestgate-webhook', 2, webhookSpec)],
    statefulsets: [workload('StatefulSet', 'nestgate-broker', 1)],
    poddisruptionbudgets: [
      {
        metadata: { name: 'nestgate-webhook', namespace: SYSTEM, labels: PART_OF },
        spec: { minAvailable: 1, selector },
      },
    ],
    daemonsets: [workload('DaemonSet', 'calico-node', 2)],
    networkpolicies: [
      { metadata: { name: 'nestgate-egress', namespace: 'team-a' }, spec: DEFAULT_DENY },
    ],
    rolebindings: [
      {
        metadata: { name: 'nestgate-impersonator', namespace: 'team-a' },
        roleRef: {
          apiGroup: 'rbac.authorization.k8s.io',
          kind: 'ClusterRole',
          name: 'nestgate-impersonator',
        },
        subjects: [{ kind: 'ServiceAccount', name: 'nestgate-broker', namespace: SYSTEM }],
      },
    ],
    serviceaccounts: [{ metadata: { name: 'default', namespace: 'team-a' } }],
  }
}

/** Name of the file with the answer to a call. */
function keyOf(args: readonly string[]): string {
  return args.join(' ').replace(/[^A-Za-z0-9=.-]/g, '_')
}

/**
 * Asks the cluster by `work`, and writes what it answered into a folder, with a `kubectl` that answers so.
 *
 * @returns the path of that kubectl; `calls` beside it has a line for each call
 */
export async function record(
  cluster: FakeCluster,
  folder: string,
  work: (kubectl: Kubectl) => Promise<unknown>,
): Promise<string> {
  mkdirSync(join(folder, 'answers'), { recursive: true })
  const put = (
    args: readonly string[],
    result: string | Failure,
    warnings: readonly string[] = [],
  ): void => {
    const path = join(folder, 'answers', keyOf(args))
    if (typeof result === 'string') writeFileSync(path, result)
    writeFileSync(
      `${path}.err`,
      typeof result === 'string'
        ? warnings.map((text) => `Warning: ${text}\n`).join('')
        : `Error from server (${result.failure === 'notFound' ? 'NotFound' : 'Forbidden'}): ${result.said}\n`,
    )
  }
  await work({
    async run(args, options) {
      const result = await cluster.kubectl.run(args, options)
      put(args, result)
      return result
    },
    async json(args, options) {
      const result = await cluster.kubectl.json(args, options)
      if ('failure' in result) put([...args, '-o', 'json'], result)
      else put([...args, '-o', 'json'], JSON.stringify(result.value), result.warnings)
      return result
    },
  })
  const program = join(folder, 'kubectl')
  writeFileSync(program, SCRIPT)
  chmodSync(program, 0o755)
  return program
}

const SCRIPT = `#!/bin/sh
here=$(dirname "$0")
printf '%s\\n' "$*" >> "$here/calls"
while [ "$1" != get ] && [ "$1" != version ] && [ "$1" != create ]; do shift; done
file="$here/answers/$(printf '%s' "$*" | tr -c 'A-Za-z0-9=.-' '_')"
[ "$1" = create ] && cat >/dev/null
cat "$file.err" >&2 || exit 3
cat "$file" 2>/dev/null
`
