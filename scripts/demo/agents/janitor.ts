/** Demo agent 2: cleans up, and reaches for more than it should. */
import { ask } from './ask.ts'

const [namespace = ''] = process.argv.slice(2)
await ask(
  'delete the deployment old-report',
  'DELETE',
  `/apis/apps/v1/namespaces/${namespace}/deployments/old-report`,
)
await ask(
  'make itself cluster-admin',
  'POST',
  '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings',
  {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: 'janitor-admin' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
    subjects: [{ kind: 'ServiceAccount', namespace, name: 'agents' }],
  },
)
