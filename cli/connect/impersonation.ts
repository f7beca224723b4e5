/**
 * Mode `impersonation`: the RBAC objects of a service account that may only be the accounts, users and groups that are named here, and
 * tell extras of ours. What it may be in a namespace is bound in that namespace; users and groups are named one by one.
 */
import { bindFiles } from './bind.ts'
import { plainFile, toYaml } from './file.ts'
import type { ConnectFile } from './file.ts'
import type { ConnectInputs } from './inputs.ts'

/** From here users are impersonated by the constrained verbs of KEP-5284, which are on by default. */
export const CONSTRAINED_MINOR = 36
/** What the broker tells of a request; the cluster's audit log and admission have it. */
export const EXTRAS = ['request-id', 'process', 'approver', 'bind'] as const
/** The broker's service account and its namespace, the same as in manifests/base. */
export const BROKER_NAMESPACE = 'nestgate-system'
export const BROKER_ACCOUNT = 'nestgate-broker'

const RBAC = 'rbac.authorization.k8s.io'
const AUTHENTICATION = 'authentication.k8s.io'
const LABELS = { 'app.kubernetes.io/part-of': 'nestgate' }
/** Groups of every service account; the API server adds none of its own once one is named (endpoints/filters/impersonation.go). */
const ACCOUNT_GROUPS = 'system:serviceaccounts'
const EXTRA_RESOURCES = EXTRAS.map((key) => `userextras/nestgate.dev/${key}`)
/** What a request may be while its user is impersonated; the user's own rights still decide. */
const REQUEST_VERBS = [
  'get',
  'list',
  'watch',
  'create',
  'update',
  'patch',
  'delete',
  'deletecollection',
]
const NON_RESOURCE_VERBS = ['get', 'head', 'post', 'put', 'patch', 'delete']

/** A rule of RBAC. */
export type Rule = Readonly<Record<string, readonly string[]>>

/** What the broker itself may do; manifests/base/rbac.yaml has the same. */
export const BROKER_RULES: readonly Rule[] = [
  { apiGroups: [AUTHENTICATION], resources: EXTRA_RESOURCES, verbs: ['impersonate'] },
  { apiGroups: [AUTHENTICATION], resources: ['tokenreviews'], verbs: ['create'] },
  {
    nonResourceURLs: ['/.well-known/openid-configuration', '/openid/v1/jwks'],
    verbs: ['get'],
  },
]
/** What it may do in a namespace that binds them; manifests/base/rbac.yaml has the same. */
export const IMPERSONATOR_RULES: readonly Rule[] = [
  { apiGroups: [''], resources: ['serviceaccounts'], verbs: ['impersonate'] },
  { apiGroups: [''], resources: ['pods'], verbs: ['get'] },
]

/** The files of mode `impersonation`. */
export function impersonationFiles(inputs: ConnectInputs): readonly ConnectFile[] {
  return [
    plainFile('rbac.yaml', toYaml(RBAC_COMMENT, ...rbacObjects(inputs))),
    ...bindFiles(inputs),
  ]
}

const RBAC_COMMENT = [
  'Whom the broker may be in this cluster: nobody but those named here, and never itself anything else.',
  'Reads are limited by the rights of whom it is; writes and sessions are bound to one request by what admission is told.',
]

const ACCOUNT_LABELS = { 'app.kubernetes.io/name': BROKER_ACCOUNT, ...LABELS }
/** As in manifests/base: `kubectl apply` would take away what is left out here. */
const NAMESPACE = {
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: {
    name: BROKER_NAMESPACE,
    labels: {
      ...LABELS,
      'pod-security.kubernetes.io/enforce': 'restricted',
      'pod-security.kubernetes.io/warn': 'restricted',
    },
  },
}

function rbacObjects(inputs: ConnectInputs): readonly object[] {
  const subjects = subjectRules(inputs)
  return [
    NAMESPACE,
    {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: BROKER_ACCOUNT, namespace: BROKER_NAMESPACE, labels: ACCOUNT_LABELS },
      automountServiceAccountToken: false,
    },
    ...clusterWide('nestgate-broker', BROKER_RULES),
    role('nestgate-broker-token', BROKER_NAMESPACE, [
      {
        apiGroups: [''],
        resources: ['serviceaccounts/token'],
        resourceNames: [BROKER_ACCOUNT],
        verbs: ['create'],
      },
    ]),
    binding('RoleBinding', 'nestgate-broker-token', 'Role', BROKER_NAMESPACE),
    ...(subjects.length === 0 ? [] : clusterWide('nestgate-broker-subjects', subjects)),
    clusterRole('nestgate-impersonator', IMPERSONATOR_RULES),
    ...inputs.namespaces.map((namespace) =>
      binding('RoleBinding', 'nestgate-impersonator', 'ClusterRole', namespace),
    ),
  ]
}

/** Users and groups, by name. */
function subjectRules(inputs: ConnectInputs): readonly Rule[] {
  const { users, groups, namespaces, kubernetesVersion } = inputs
  const isConstrained = kubernetesVersion >= CONSTRAINED_MINOR && users.length > 0
  // service accounts stay with the old verb: their constrained mode takes neither groups nor extras
  const accountGroups =
    groups.length === 0 || namespaces.length === 0
      ? []
      : [ACCOUNT_GROUPS, ...namespaces.map((namespace) => `${ACCOUNT_GROUPS}:${namespace}`)]
  const legacyGroups = [...groups, ...accountGroups]
  const isLegacyGroups = legacyGroups.length > 0 && (!isConstrained || namespaces.length > 0)
  return [
    ...(isConstrained || users.length === 0 ? [] : [named('', 'users', users, 'impersonate')]),
    ...(isLegacyGroups ? [named('', 'groups', legacyGroups, 'impersonate')] : []),
    ...(isConstrained ? constrainedRules(users, groups) : []),
  ]
}

/** KEP-5284: who may be impersonated, and what may be done meanwhile, are two permissions (filters/impersonation/mode.go). */
function constrainedRules(users: readonly string[], groups: readonly string[]): readonly Rule[] {
  const verb = 'impersonate:user-info'
  return [
    named(AUTHENTICATION, 'users', users, verb),
    ...(groups.length === 0 ? [] : [named(AUTHENTICATION, 'groups', groups, verb)]),
    { apiGroups: [AUTHENTICATION], resources: EXTRA_RESOURCES, verbs: [verb] },
    { apiGroups: ['*'], resources: ['*'], verbs: REQUEST_VERBS.map(whileActing) },
    { nonResourceURLs: ['*'], verbs: NON_RESOURCE_VERBS.map(whileActing) },
  ]
}

function whileActing(verb: string): string {
  return `impersonate-on:user-info:${verb}`
}

function named(
  apiGroup: string,
  resource: string,
  resourceNames: readonly string[],
  verb: string,
): Rule {
  return { apiGroups: [apiGroup], resources: [resource], resourceNames, verbs: [verb] }
}

function clusterWide(name: string, rules: readonly Rule[]): readonly object[] {
  return [clusterRole(name, rules), binding('ClusterRoleBinding', name, 'ClusterRole')]
}

function clusterRole(name: string, rules: readonly Rule[]): object {
  return {
    apiVersion: `${RBAC}/v1`,
    kind: 'ClusterRole',
    metadata: { name, labels: LABELS },
    rules,
  }
}

function role(name: string, namespace: string, rules: readonly Rule[]): object {
  return {
    apiVersion: `${RBAC}/v1`,
    kind: 'Role',
    metadata: { name, namespace, labels: LABELS },
    rules,
  }
}

function binding(kind: string, name: string, roleKind: string, namespace?: string): object {
  return {
    apiVersion: `${RBAC}/v1`,
    kind,
    metadata: { name, ...(namespace === undefined ? {} : { namespace }), labels: LABELS },
    roleRef: { apiGroup: RBAC, kind: roleKind, name },
    subjects: [{ kind: 'ServiceAccount', name: BROKER_ACCOUNT, namespace: BROKER_NAMESPACE }],
  }
}
