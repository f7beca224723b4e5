/** What the JavaScript client of Kubernetes sees of a namespace, unchanged: objects, a list, a watch, a log. Prints all of it. */
import { PassThrough } from 'node:stream'
import { AppsV1Api, CoreV1Api, KubeConfig, Log, Watch } from '@kubernetes/client-node'

const [namespace = '', secret = '', map = '', deployment = '', pod = ''] = process.argv.slice(2)
const config = new KubeConfig()
config.loadFromCluster()
const core = config.makeApiClient(CoreV1Api)
const apps = config.makeApiClient(AppsV1Api)
const show = (what: unknown): void => {
  console.log(JSON.stringify(what))
}

show(await core.readNamespacedSecret({ name: secret, namespace }))
show(await core.listNamespacedSecret({ namespace }))
show(await core.readNamespacedConfigMap({ name: map, namespace }))
show(await apps.readNamespacedDeployment({ name: deployment, namespace }))
show(await core.readNamespacedPodLog({ name: pod, namespace }))
await new Promise<void>((resolve, reject) => {
  const path = `/api/v1/namespaces/${namespace}/secrets`
  const done = (error: unknown): void => {
    if (error instanceof Error) reject(error)
    else resolve()
  }
  new Watch(config)
    .watch(
      path,
      { timeoutSeconds: 2 },
      (...event) => {
        show(event)
      },
      done,
    )
    .catch(reject)
})
const stream = new PassThrough()
stream.setEncoding('utf8').on('data', show)
const ended = new Promise((resolve) => stream.once('close', resolve).once('end', resolve))
await new Log(config).log(namespace, pod, 'web', stream, { follow: false })
await ended
console.log('done')
