/**
 * What binds writes and sessions to the approved request in mode `impersonation`: admission lets whoever the broker may be do nothing but
 * what the broker has under way. The API server asks the broker; from 1.30 it also compares with the extra `nestgate.dev/bind` by itself.
 */
import { plainFile, toYaml } from './file.ts'
import type { ConnectFile } from './file.ts'
import type { ConnectInputs } from './inputs.ts'

/** From here ValidatingAdmissionPolicy is served as v1. */
export const POLICY_MINOR = 30
/** From here webhooks have matchConditions without a feature gate. */
export const CONDITIONS_MINOR = 28
/** How long the API server waits for the broker's word, in seconds. */
const WEBHOOK_TIMEOUT_S = 5
const BIND = 'nestgate.dev/bind'
const LABELS = { 'app.kubernetes.io/part-of': 'nestgate' }
const ADMISSION = 'admissionregistration.k8s.io/v1'
const OPERATIONS = ['CREATE', 'UPDATE', 'DELETE', 'CONNECT']
/** Where the webhook is asked about everybody: subresources that change something or open a session; `*` alone has none. `status` is what controllers write. */
const SUBRESOURCES = [
  'pods/exec',
  'pods/attach',
  'pods/portforward',
  'pods/proxy',
  'pods/eviction',
  'pods/binding',
  'pods/ephemeralcontainers',
  'pods/resize',
  'services/proxy',
  'serviceaccounts/token',
  '*/scale',
]
/**
 * What binds, in the order in which it is applied. The webhook compares with the request that is under way, which only the broker
 * knows; the policy, where there are policies, with what the request says it is: it holds also while somebody took the webhook away.
 */
export function bindFiles(inputs: ConnectInputs): readonly ConnectFile[] {
  const asks = plainFile(
    'admission-webhook.yaml',
    toYaml(
      ['Asks the broker before the accounts and users of rbac.yaml change anything.'],
      webhook(inputs),
    ),
  )
  if (inputs.kubernetesVersion < POLICY_MINOR) return [asks]
  const compares = plainFile(
    'admission-policy.yaml',
    toYaml(
      [
        'Lets the accounts and users of rbac.yaml change nothing but what their request says it is.',
      ],
      policy(inputs),
      policyBinding(),
    ),
  )
  return [compares, asks]
}

function policy(inputs: ConnectInputs): object {
  return {
    apiVersion: ADMISSION,
    kind: 'ValidatingAdmissionPolicy',
    metadata: { name: 'nestgate-bind', labels: LABELS },
    spec: {
      failurePolicy: 'Fail',
      matchConstraints: {
        matchPolicy: 'Equivalent',
        resourceRules: [
          {
            apiGroups: ['*'],
            apiVersions: ['*'],
            operations: OPERATIONS,
            resources: ['*/*'],
            scope: '*',
          },
        ],
      },
      matchConditions: [{ name: 'bound-names', expression: isBoundName(inputs) }],
      variables: VARIABLES,
      validations: [VALIDATION],
    },
  }
}

/** Parts of the request that may be missing are read with `has`; a namespace is in itself for the API server, and not for us. */
const VARIABLES = [
  {
    name: 'namespace',
    expression:
      "!has(request.namespace) || (request.resource.group == '' && request.resource.resource == 'namespaces') ? '' : request.namespace",
  },
  {
    name: 'subresource',
    expression: "has(request.subResource) ? request.subResource : ''",
  },
  { name: 'objectName', expression: "has(request.name) ? request.name : ''" },
  {
    name: 'place',
    expression:
      "request.operation + ' ' + request.resource.group + '/' + request.resource.resource + '/' + variables.subresource + ' ' + variables.namespace + '/'",
  },
  { name: 'operation', expression: 'variables.place + variables.objectName' },
  {
    name: 'approved',
    expression: `has(request.userInfo.extra) && '${BIND}' in request.userInfo.extra ? request.userInfo.extra['${BIND}'] : []`,
  },
]

const VALIDATION = {
  // `*` ends a name that the broker does not know before: the API server makes it, or the body was not looked into
  expression:
    "variables.approved.exists(a, a == variables.operation || (a.startsWith('CREATE ') && a.endsWith('*') && variables.operation.startsWith(a.substring(0, a.size() - 1))))",
  reason: 'Forbidden',
  message: 'nestgate: this is not the request that was approved',
  messageExpression:
    "'nestgate: this is ' + variables.operation + ', and approved is ' + (variables.approved.size() == 0 ? 'nothing' : variables.approved.join(', '))",
}

function policyBinding(): object {
  return {
    apiVersion: ADMISSION,
    kind: 'ValidatingAdmissionPolicyBinding',
    metadata: { name: 'nestgate-bind', labels: LABELS },
    spec: { policyName: 'nestgate-bind', validationActions: ['Deny'] },
  }
}

function webhook({ brokerUrl, brokerCa, cluster, ...inputs }: ConnectInputs): object {
  const hasConditions = inputs.kubernetesVersion >= CONDITIONS_MINOR
  return {
    apiVersion: ADMISSION,
    kind: 'ValidatingWebhookConfiguration',
    metadata: { name: 'nestgate-bind', labels: LABELS },
    webhooks: [
      {
        name: 'bind.nestgate.dev',
        admissionReviewVersions: ['v1'],
        clientConfig: {
          url: `${brokerUrl}/v1/clusters/${cluster}/admit`,
          caBundle: Buffer.from(brokerCa).toString('base64'),
        },
        rules: hasConditions ? EVERYWHERE : IN_NAMESPACES,
        ...(hasConditions
          ? {
              matchConditions: [
                { name: 'bound-names', expression: isBoundName(inputs) },
                NO_REVIEW,
              ],
            }
          : { namespaceSelector: { matchLabels: { 'nestgate.dev/inject': 'enabled' } } }),
        failurePolicy: 'Fail',
        matchPolicy: 'Equivalent',
        sideEffects: 'None',
        timeoutSeconds: WEBHOOK_TIMEOUT_S,
      },
    ],
  }
}

/** Questions about oneself change nothing; a policy is not asked about them (apiserver, policy/generic excludedResources), a webhook is. */
const NO_REVIEW = {
  name: 'no-review',
  expression: "!(request.resource.group in ['authentication.k8s.io', 'authorization.k8s.io'])",
}
/** Everything, subresources of kinds that nobody has thought of yet too: by the condition it is about bound names alone. */
const EVERYWHERE = [rule(['*'], ['*/*'], '*')]
/**
 * Without conditions the webhook is asked about everybody's writes, so that it is asked in labelled namespaces only: a selector of
 * namespaces says nothing of other cluster-wide objects, which would all wait for the broker.
 */
const IN_NAMESPACES = [
  rule(['*'], ['*', ...SUBRESOURCES], 'Namespaced'),
  rule([''], ['namespaces', 'namespaces/finalize'], 'Cluster'),
]

function rule(apiGroups: readonly string[], resources: readonly string[], scope: string): object {
  return { apiGroups, apiVersions: ['*'], operations: OPERATIONS, resources, scope }
}

/** CEL: whether the request is by somebody whom the broker may be. */
function isBoundName({ namespaces, users }: Pick<ConnectInputs, 'namespaces' | 'users'>): string {
  const name = 'request.userInfo.username'
  return [
    ...namespaces.map((namespace) => `${name}.startsWith('system:serviceaccount:${namespace}:')`),
    // JSON's escapes are CEL's, and names are ASCII
    ...(users.length === 0 ? [] : [`${name} in ${JSON.stringify(users)}`]),
  ].join(' || ')
}
