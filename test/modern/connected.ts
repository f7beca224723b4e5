/** A broker and an API server that are connected by the files of `nestgate connect`. */
import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse, parseAllDocuments } from 'yaml'
import { clusterSchema } from '../../broker/clusters/settings.ts'
import type { ClusterConfig } from '../../broker/clusters/settings.ts'
import { connectFiles } from '../../cli/connect/files.ts'
import { readInputs } from '../../cli/connect/inputs.ts'
import type { ConnectRequest } from '../../cli/connect/inputs.ts'
import { API_SERVER_FOLDER } from '../../cli/connect/issuer.ts'
import { modernBinary, startApiServer } from './api-server.ts'
import type { ApiServer, Tokens } from './api-server.ts'
import { CLUSTER, startBroker } from './broker.ts'
import type { Broker } from './broker.ts'

/** The kubeconfig's token, by which the API server asks. */
const AUTHORIZER_TOKEN = 'token-of-the-api-server'
/** The broker's own, in mode impersonation: known by a file, and by its look one of an hour, as `nestgate doctor` wants it. */
export const BROKER_TOKEN = [{ alg: 'none' }, { iat: 0, exp: 3600 }, 'not signed']
  .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
  .join('.')
export const BROKER_USER = 'system:serviceaccount:nestgate-system:nestgate-broker'
export const BROKER_GROUPS = [
  'system:serviceaccounts',
  'system:serviceaccounts:nestgate-system',
] as const

/** See the head of the file. */
export interface Connected {
  readonly api: ApiServer
  readonly broker: Broker
  close(): Promise<void>
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

/** The files of `nestgate connect`, by name. */
export function filesFor(
  broker: Pick<Broker, 'url' | 'ca'>,
  request: Partial<ConnectRequest> & Pick<ConnectRequest, 'mode'>,
): ReadonlyMap<string, string> {
  const inputs = readInputs({
    ...{ cluster: CLUSTER, brokerUrl: broker.url, brokerCa: broker.ca },
    ...{ kubernetesVersion: '1.36', namespaces: [], users: [], groups: [] },
    ...request,
  })
  if ('problems' in inputs) throw new Error(inputs.problems.join('; '))
  const authorizer = { token: AUTHORIZER_TOKEN, tokenSha256: sha256(AUTHORIZER_TOKEN) }
  const files = connectFiles(inputs, authorizer)
  return new Map(files.map(({ name, text }) => [name, text]))
}

/** Mode `issuer`, with the flags that `kube-apiserver-flags.txt` has. */
export function connectIssuer(
  options: { readonly kubernetesVersion?: string; readonly tokens?: Tokens } = {},
): Promise<Connected> {
  const { kubernetesVersion = '1.36', tokens = {} } = options
  return started(async (broker, dir, onClose) => {
    const files = filesFor(broker, { mode: 'issuer', kubernetesVersion })
    for (const [name, text] of files)
      await writeFile(join(dir, name), text.replaceAll(API_SERVER_FOLDER, dir), { mode: 0o600 })
    const args = (await readFile(join(dir, 'kube-apiserver-flags.txt'), 'utf8')).trim().split('\n')
    const api = await startApiServer(await modernBinary(), { args, tokens })
    onClose(() => api.close())
    const settings = settingsFor(broker, api, { mode: 'issuer', kubernetesVersion })
    await broker.connect({ ...settings, caFile: api.caFile })
    return api
  })
}

/** Mode `impersonation`, with every object of its files applied: unknown fields are refused. */
export function connectImpersonation(
  request: Partial<ConnectRequest>,
  {
    args = [],
    files = /^(rbac|admission-).*\.yaml$/,
    ...options
  }: {
    readonly tokens?: Tokens
    readonly args?: readonly string[]
    /** Which of them are applied; all where none is given. */
    readonly files?: RegExp
  } = {},
): Promise<Connected> {
  const { namespaces = [] } = request
  return started(async (broker, dir, onClose) => {
    const tokens: Tokens = { [BROKER_USER]: [BROKER_TOKEN, ...BROKER_GROUPS], ...options.tokens }
    const api = await startApiServer(await modernBinary(), { args, tokens })
    onClose(() => api.close())
    await writeFile(join(dir, 'token'), BROKER_TOKEN, { mode: 0o600 })
    const labels = { 'nestgate.dev/inject': 'enabled' }
    for (const name of namespaces)
      await api.admin('POST', '/api/v1/namespaces', { metadata: { name, labels } })
    for (const [name, text] of filesFor(broker, { mode: 'impersonation', ...request }))
      if (files.test(name)) await apply(api, text)
    const settings = settingsFor(broker, api, { mode: 'impersonation', ...request })
    // not renewed: this API server makes no tokens
    const credential = { tokenFile: join(dir, 'token') }
    await broker.connect({ ...settings, caFile: api.caFile, credential })
    return api
  })
}

/** The cluster's entry of `broker-cluster.yaml`, as the broker's configuration takes it. */
export function settingsFor(
  broker: Pick<Broker, 'url' | 'ca'>,
  { url }: Pick<ApiServer, 'url'>,
  request: Parameters<typeof filesFor>[1],
): ClusterConfig {
  const text = filesFor(broker, { ...request, server: url }).get('broker-cluster.yaml') ?? ''
  const { clusters } = parse(text) as { clusters: readonly unknown[] }
  return clusterSchema.parse(clusters[0])
}

/** Starts a broker, and what is made beside it; whatever was started is ended, also when a later step fails. */
async function started(
  start: (
    broker: Broker,
    dir: string,
    onClose: (close: () => Promise<void>) => void,
  ) => Promise<ApiServer>,
): Promise<Connected> {
  const dir = await mkdtemp(join(tmpdir(), 'nestgate-connect-'))
  const broker = await startBroker()
  const closers = [() => rm(dir, { recursive: true }), () => broker.close()]
  const close = async (): Promise<void> => {
    for (const one of closers.toReversed()) await one()
  }
  try {
    const api = await start(broker, dir, (one) => closers.push(one))
    return { api, broker, close }
  } catch (error) {
    await close()
    throw error
  }
}

interface ApiObject {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly namespace?: string }
}

/** Creates what a file has, as `kubectl apply` does the first time: unknown and doubled fields are refused. */
export async function apply(api: ApiServer, text: string): Promise<void> {
  for (const document of parseAllDocuments(text)) {
    const object = document.toJS() as ApiObject
    await api.admin('POST', `${pathOf(object)}?fieldValidation=Strict`, object)
  }
}

function pathOf({ apiVersion, kind, metadata }: ApiObject): string {
  const root = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`
  const namespace = metadata.namespace === undefined ? '' : `/namespaces/${metadata.namespace}`
  const plural = kind.endsWith('Policy') ? `${kind.slice(0, -1)}ies` : `${kind}s`
  return `${root}${namespace}/${plural.toLowerCase()}`
}
