/** Answers of an API server, of the sizes and shapes that clusters have; the same ones in each run. */
import { createHash } from 'node:crypto'

/** Bytes of a list. */
export const LIST_BYTES = 8e6

/** Bytes that look random, and are the same in each run. */
function noise(seed: string, length: number): Buffer {
  const pieces: Buffer[] = []
  for (let at = 0; at * 32 < length; at += 1)
    pieces.push(createHash('sha256').update(`${seed}-${at}`).digest())
  return Buffer.concat(pieces).subarray(0, length)
}

const base64 = (seed: string, length: number): string => noise(seed, length).toString('base64')
const word = (seed: string, length: number): string =>
  noise(seed, length).toString('hex').slice(0, length)

function metadataOf(kind: string, at: number, fields: readonly string[]): object {
  const name = `${kind}-${at}`
  return {
    name,
    namespace: `team-${at % 40}`,
    uid: `${word(name, 8)}-0000-4000-8000-${word(`${name}u`, 12)}`,
    resourceVersion: String(800_000 + at),
    creationTimestamp: '2026-03-01T10:00:00Z',
    labels: { 'app.kubernetes.io/name': `shop-${at % 17}`, 'app.kubernetes.io/part-of': 'shop' },
    managedFields: [
      {
        ...{ manager: 'kubectl-create', operation: 'Update', apiVersion: 'v1' },
        ...{ time: '2026-03-01T10:00:00Z', fieldsType: 'FieldsV1' },
        fieldsV1: Object.fromEntries(fields.map((field) => [`f:${field}`, { '.': {} }])),
      },
    ],
  }
}

/** Half of a few words, the rest certificates, registries and releases of Helm. */
interface Item {
  readonly metadata: object
  readonly data: object
  readonly type: string
}

function secret(at: number): Item {
  const seed = `secret-${at}`
  const own = (type: string, data: Readonly<Record<string, string>>): Item => ({
    metadata: metadataOf('secret', at, Object.keys(data)),
    data,
    type,
  })
  if (at % 8 === 7) return own('helm.sh/release.v1', { release: base64(seed, 24_000) })
  if (at % 8 === 6) {
    const auths = { 'registry.example': { username: 'shop', password: word(seed, 24) } }
    const file = Buffer.from(JSON.stringify({ auths })).toString('base64')
    return own('kubernetes.io/dockerconfigjson', { '.dockerconfigjson': file })
  }
  if (at % 4 === 1)
    return own('kubernetes.io/tls', {
      'tls.crt': base64(seed, 2400),
      'tls.key': base64(`${seed}k`, 1700),
    })
  const { username, password, url } = { username: 9, password: 24, url: 60 }
  return own('Opaque', {
    username: base64(`${seed}n`, username),
    password: base64(`${seed}p`, password),
    url: base64(`${seed}u`, url),
  })
}

function configMap(at: number): object {
  const lines = Array.from(
    { length: 30 },
    (_, line) => `shop.part-${line}.setting = ${word(`${at}-${line}`, 12)} # as agreed\n`,
  )
  const yaml = `server:\n  port: 8080\n  name: shop-${at}\nlog: { level: info, format: "json" }\n`
  const data = { 'application.properties': lines.join(''), 'config.yaml': yaml, mode: 'production' }
  return { metadata: metadataOf('config', at, Object.keys(data)), data }
}

function podContainer(at: number, index: number): object {
  const env = Array.from({ length: 8 }, (_, number) => ({
    name: `SETTING_${number}`,
    value: `value-${word(`${at}-${number}`, 10)}`,
  }))
  const fromSecret = { secretKeyRef: { name: `secret-${at}`, key: 'password' } }
  return {
    name: `part-${index}`,
    image: `registry.example/shop/part-${index}:1.${at % 30}.0`,
    command: ['/app/server'],
    args: ['--listen=:8080', '--config=/etc/shop/config.yaml', '--verbose'],
    env: [...env, { name: 'DB_PASSWORD', valueFrom: fromSecret }],
    resources: { requests: { cpu: '100m', memory: '128Mi' }, limits: { memory: '256Mi' } },
    volumeMounts: [{ name: 'config', mountPath: '/etc/shop', readOnly: true }],
    readinessProbe: { httpGet: { path: '/ready', port: 8080, scheme: 'HTTP' }, periodSeconds: 10 },
    terminationMessagePath: '/dev/termination-log',
    imagePullPolicy: 'IfNotPresent',
  }
}

function pod(at: number): object {
  const statuses = [0, 1].map((index) => ({
    name: `part-${index}`,
    ready: true,
    restartCount: at % 3,
    imageID: `registry.example/shop/part-${index}@sha256:${word(`${at}i`, 64)}`,
    containerID: `containerd://${word(`${at}c${index}`, 64)}`,
    state: { running: { startedAt: '2026-03-01T10:00:05Z' } },
  }))
  return {
    metadata: metadataOf('pod', at, ['spec', 'status', 'metadata', 'containers', 'conditions']),
    spec: {
      ...{
        containers: [0, 1].map((index) => podContainer(at, index)),
        nodeName: `node-${at % 50}`,
      },
      ...{ serviceAccountName: 'shop', restartPolicy: 'Always', dnsPolicy: 'ClusterFirst' },
      volumes: [{ name: 'config', configMap: { name: `config-${at}`, defaultMode: 420 } }],
    },
    status: {
      phase: 'Running',
      conditions: ['Initialized', 'Ready', 'ContainersReady', 'PodScheduled'].map((type) => ({
        ...{ type, status: 'True', lastTransitionTime: '2026-03-01T10:00:06Z' },
        lastProbeTime: null,
      })),
      hostIP: '10.0.0.1',
      podIP: `10.1.${at % 200}.7`,
      containerStatuses: statuses,
    },
  }
}

function node(at: number): object {
  return {
    metadata: metadataOf('node', at, ['spec', 'status', 'metadata']),
    spec: { podCIDR: `10.${at % 200}.0.0/24`, providerID: `example://zone/${word(`${at}`, 17)}` },
    status: {
      capacity: { cpu: '8', memory: '32761424Ki', pods: '110' },
      nodeInfo: { kernelVersion: '6.1.0', kubeletVersion: 'v1.34.1', osImage: 'Debian 12' },
      images: Array.from({ length: 40 }, (_, image) => ({
        names: [`registry.example/image-${image}@sha256:${word(`${image}`, 64)}`],
        sizeBytes: 50_000_000 + image * 1_111_111,
      })),
    },
  }
}

function service(at: number): object {
  return {
    metadata: metadataOf('service', at, ['spec', 'ports', 'selector']),
    spec: {
      ports: [{ name: 'http', protocol: 'TCP', port: 80, targetPort: 8080 }],
      selector: { app: `shop-${at}` },
      ...{ clusterIP: `10.96.${at % 200}.1`, type: 'ClusterIP', sessionAffinity: 'None' },
    },
    status: { loadBalancer: {} },
  }
}

/** An object of an operator. */
function widget(at: number): object {
  const users = [1, 2].map((user) => ({ name: `user-${user}`, password: word(`${at}${user}`, 20) }))
  const rules = Array.from({ length: 12 }, (_, rule) => ({
    ...{ id: rule, path: `/part-${rule}`, weight: rule * 7, enabled: rule % 2 === 0 },
    description: 'sends what comes to this path to the part of the same name, and retries twice',
  }))
  return {
    apiVersion: 'example.com/v1',
    kind: 'Widget',
    metadata: metadataOf('widget', at, ['spec', 'status']),
    spec: { auth: { main: { token: word(`${at}t`, 32) } }, users, rules },
    status: { observedGeneration: 4, ready: true },
  }
}

function row(at: number): object {
  const object = {
    ...{ kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1' },
    metadata: metadataOf('secret', at, ['data', 'type']),
  }
  return { cells: [`secret-${at}`, 'Opaque', 3, '34d'], object }
}

/** As many items as make up a list's size. */
function fill(item: (at: number) => object, bytes: number): readonly string[] {
  const items: string[] = []
  for (let size = 0; size < bytes;) {
    const text = JSON.stringify(item(items.length))
    items.push(text)
    size += text.length + 1
  }
  return items
}

function list(kind: string, item: (at: number) => object, apiVersion = 'v1'): Buffer {
  const head = `{"kind":"${kind}","apiVersion":"${apiVersion}","metadata":{"resourceVersion":"900000"},"items":[`
  return Buffer.from(`${head}${fill(item, LIST_BYTES).join(',')}]}\n`)
}

function tableOf(): Buffer {
  const names = ['Name', 'Type', 'Data', 'Age']
  const columns = JSON.stringify(names.map((name) => ({ name, type: 'string', priority: 0 })))
  const head = `{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"1"},"columnDefinitions":${columns},"rows":[`
  return Buffer.from(`${head}${fill(row, LIST_BYTES).join(',')}]}\n`)
}

/** One answer. */
export interface Body {
  readonly name: string
  /** Path at which the stand-in for an API server answers with it. */
  readonly path: string
  /** What clients send to be answered so. */
  readonly accept: string
  /** The standard profile finds something to hide, or must look at every text. */
  readonly masked: boolean
  readonly bytes: Buffer
}

const JSON_TYPE = 'application/json'
const TABLE_TYPE = 'application/json;as=Table;v=v1;g=meta.k8s.io'

/** All that is measured. */
export function makeBodies(): readonly Body[] {
  const one = Buffer.from(JSON.stringify({ kind: 'Secret', apiVersion: 'v1', ...secret(0) }))
  const all = '/api/v1'
  const json = { accept: JSON_TYPE }
  const body = (name: string, path: string, masked: boolean, bytes: Buffer): Body => ({
    ...{ name, path, masked, bytes },
    ...json,
  })
  return [
    body('Secrets', `${all}/secrets`, true, list('SecretList', secret)),
    body('ConfigMaps', `${all}/configmaps`, true, list('ConfigMapList', configMap)),
    body('Pods', `${all}/pods`, true, list('PodList', pod)),
    body(
      'custom resources',
      '/apis/example.com/v1/widgets',
      true,
      list('WidgetList', widget, 'example.com/v1'),
    ),
    {
      ...body('Table of Secrets', `${all}/secrets`, true, tableOf()),
      accept: TABLE_TYPE,
    },
    body('Nodes', `${all}/nodes`, false, list('NodeList', node)),
    body('Services', `${all}/services`, false, list('ServiceList', service)),
    body('one Secret', `${all}/namespaces/team-0/secrets/secret-0`, true, one),
  ]
}

/** A piece of a list of Secrets that is streamed: items, with a comma behind each. */
export function secretItems(bytes: number): Buffer {
  return Buffer.from(`${fill(secret, bytes).join(',')},`)
}

/** Where {@link secretItems} stand in a whole document. */
export const STREAMED = {
  head: '{"kind":"SecretList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[',
  tail: '{"metadata":{"name":"last","uid":"1"},"data":{"key":"bGFzdA=="}}]}\n',
} as const

/** One event of a watch. @param sentAt - kept as its resourceVersion */
export function watchEvent(at: number, sentAt: bigint): Buffer {
  const own = secret(at % 8 === 7 ? 0 : at)
  const metadata = { ...own.metadata, resourceVersion: `${sentAt}` }
  const object = { kind: 'Secret', apiVersion: 'v1', ...own, metadata }
  return Buffer.from(`${JSON.stringify({ type: 'MODIFIED', object })}\n`)
}
