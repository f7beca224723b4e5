/**
 * Puts onto a cluster what an installation has there: the agents' namespace with a service account, a pod, a
 * Secret and a Deployment; and the broker's service account with rights to impersonate and to nothing else.
 */
import { z } from 'zod'
import type { Admin } from './cluster.ts'

/** Namespace of the demo's objects. */
export const NAMESPACE = 'nestgate-demo'
const RBAC = '/apis/rbac.authorization.k8s.io/v1'
const CORE = `/api/v1/namespaces/${NAMESPACE}`

/** The two tokens that a pod's sidecar and the broker get from kubelet in an installation. */
export interface DemoTokens {
  readonly sidecar: string
  readonly broker: string
}

const withUid = z.object({ metadata: z.object({ uid: z.string() }) })
const withToken = z.object({ status: z.object({ token: z.string() }) })

/** Makes the objects and the tokens. */
export async function prepareCluster(admin: Admin): Promise<DemoTokens> {
  await admin.create('/api/v1/namespaces', object('v1', 'Namespace', NAMESPACE))
  await admin.create(`${CORE}/serviceaccounts`, object('v1', 'ServiceAccount', 'agents'))
  await admin.create(`${CORE}/serviceaccounts`, object('v1', 'ServiceAccount', 'broker'))
  await grantRights(admin)
  await admin.create(`${CORE}/secrets`, {
    ...object('v1', 'Secret', 'app-settings'),
    stringData: { colour: 'green' },
  })
  await admin.create(`/apis/apps/v1/namespaces/${NAMESPACE}/deployments`, deployment('old-report'))
  await admin.create(`${CORE}/pods`, {
    ...object('v1', 'Pod', 'agents'),
    spec: { serviceAccountName: 'agents', ...UNSCHEDULED, containers: [CONTAINER] },
  })
  const pod = withUid.parse((await admin.send('GET', `${CORE}/pods/agents`)).body)
  return {
    sidecar: await tokenFor(admin, 'agents', {
      audiences: ['nestgate-broker'],
      boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: 'agents', uid: pod.metadata.uid },
    }),
    broker: await tokenFor(admin, 'broker', {}),
  }
}

/** Takes everything away again. */
export async function cleanCluster(admin: Admin): Promise<void> {
  await admin.send('DELETE', `/api/v1/namespaces/${NAMESPACE}`)
  for (const kind of ['clusterroles', 'clusterrolebindings'])
    await admin.send('DELETE', `${RBAC}/${kind}/${NAMESPACE}`)
}

const CONTAINER = { name: 'agents', image: 'agents:demo' }
/** The pod stands for the one that agents run in; its processes are this machine's, so it must not start. */
const UNSCHEDULED = {
  automountServiceAccountToken: false,
  nodeSelector: { 'nestgate.dev/demo': 'never' },
}

async function grantRights(admin: Admin): Promise<void> {
  const broker = [{ kind: 'ServiceAccount', namespace: NAMESPACE, name: 'broker' }]
  await admin.create(`${RBAC}/clusterroles`, {
    ...object('rbac.authorization.k8s.io/v1', 'ClusterRole', NAMESPACE),
    rules: [
      {
        apiGroups: ['authentication.k8s.io'],
        resources: ['userextras/nestgate.dev/request-id'],
        verbs: ['impersonate'],
      },
      { nonResourceURLs: ['/openid/v1/jwks'], verbs: ['get'] },
    ],
  })
  await admin.create(
    `${RBAC}/clusterrolebindings`,
    binding('ClusterRoleBinding', NAMESPACE, 'ClusterRole', NAMESPACE, broker),
  )
  await admin.create(`${RBAC}/namespaces/${NAMESPACE}/roles`, {
    ...object('rbac.authorization.k8s.io/v1', 'Role', 'impersonator'),
    rules: [
      {
        apiGroups: [''],
        resources: ['serviceaccounts'],
        resourceNames: ['agents'],
        verbs: ['impersonate'],
      },
      // a sidecar's token is good while its pod is there
      { apiGroups: [''], resources: ['pods'], verbs: ['get'] },
    ],
  })
  const bindings = `${RBAC}/namespaces/${NAMESPACE}/rolebindings`
  await admin.create(
    bindings,
    binding('RoleBinding', 'impersonator', 'Role', 'impersonator', broker),
  )
  await admin.create(`${RBAC}/namespaces/${NAMESPACE}/roles`, {
    ...object('rbac.authorization.k8s.io/v1', 'Role', 'agents'),
    rules: [
      {
        apiGroups: [''],
        resources: ['pods', 'pods/log', 'configmaps', 'secrets'],
        verbs: ['get', 'list', 'watch'],
      },
      {
        apiGroups: ['apps'],
        resources: ['deployments'],
        verbs: ['get', 'list', 'watch', 'create', 'delete'],
      },
    ],
  })
  const agents = [{ kind: 'ServiceAccount', namespace: NAMESPACE, name: 'agents' }]
  await admin.create(bindings, binding('RoleBinding', 'agents', 'Role', 'agents', agents))
}

async function tokenFor(admin: Admin, account: string, spec: object): Promise<string> {
  const body = {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenRequest',
    spec: { audiences: [], expirationSeconds: 3600, ...spec },
  }
  return withToken.parse(await admin.create(`${CORE}/serviceaccounts/${account}/token`, body))
    .status.token
}

function object(apiVersion: string, kind: string, name: string, metadata: object = {}): object {
  return { apiVersion, kind, metadata: { name, ...metadata } }
}

function binding(
  kind: string,
  name: string,
  roleKind: string,
  role: string,
  subjects: readonly object[],
): object {
  return {
    ...object('rbac.authorization.k8s.io/v1', kind, name),
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: roleKind, name: role },
    subjects,
  }
}

function deployment(name: string): object {
  const labels = { app: name }
  return {
    ...object('apps/v1', 'Deployment', name),
    spec: {
      replicas: 0,
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { containers: [CONTAINER] } },
    },
  }
}
