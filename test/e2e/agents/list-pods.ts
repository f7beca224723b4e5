// An in-cluster client as its authors write it: lists the pods of its own namespace. Knows nothing of Nestgate.
import { readFileSync } from 'node:fs'
import { CoreV1Api, KubeConfig } from '@kubernetes/client-node'

const config = new KubeConfig()
config.loadFromCluster()
const namespace = readFileSync('/var/run/secrets/kubernetes.io/serviceaccount/namespace', 'utf8')
const { items } = await config.makeApiClient(CoreV1Api).listNamespacedPod({ namespace })
for (const pod of items) console.log(pod.metadata?.name)
