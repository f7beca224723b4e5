/** Demo agent 1: takes stock of a namespace. */
import { ask } from './ask.ts'

const [namespace = ''] = process.argv.slice(2)
await ask('list pods', 'GET', `/api/v1/namespaces/${namespace}/pods`)
await ask('list deployments', 'GET', `/apis/apps/v1/namespaces/${namespace}/deployments`)
await ask(
  'read the secret app-settings',
  'GET',
  `/api/v1/namespaces/${namespace}/secrets/app-settings`,
)
