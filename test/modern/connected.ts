/** A broker and an API server that are connected by the files of `nestgate connect`. */
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseAllDocuments } from 'yaml'
import { connectFiles } from '../../cli/connect/files.ts'
import { readInputs } from '../../cli/connect/inputs.ts'
import type { ConnectRequest } from '../../cli/connect/inputs.ts'
import { API_SERVER_FOLDER } from '../../cli/connect/issuer.ts'
import { modernBinary, startApiServer } from './api-server.ts'
import type { ApiServer } from './api-server.ts'
import { CLUSTER, startBroker } from './broker.ts'
import type { Broker } from './broker.ts'

/** The kubeconfig's token, by which the API server asks. */
const AUTHORIZER_TOKEN = 'token-of-the-api-server'
/** The broker's own, in mode impersonation. */
export const BROKER_TOKEN = 'token-of-the-broker'
const BROKER_USER = 'system:serviceaccount:nestgate-system:nestgate-broker'

/** See the head of the file. */
export interface Connected {
  readonly api: ApiServer
  readonly broker: Broker
  close(): Promise<void>
}

type Tokens = Parameters<typeof startApiServer>[1] extends infer T
  ? T extends { tokens?: infer U }
    ? U
    : never
  : never

function filesFor(
  broker: Broker,
  request: Partial<ConnectRequest> & Pick<ConnectRequest, 'mode'>,
): ReadonlyMap<string, string> {
  const inputs = readInputs({
    ...{ cluster: CLUSTER, brokerUrl: broker.url, brokerCa: broker.ca },
    ...{ kubernetesVersion: '1.36', namespaces: [], users: [], groups: [] },
    ...request,
  })
  if ('problems' in inputs) throw new Error(inputs.problems.join('; '))
  const tokenSha256 = createHash('sha256').update(AUTHORIZER_TOKEN).digest('hex')
  const files = connectFiles(inputs, { token: AUTHORIZER_TOKEN, tokenSha256 })
  return new Map(files.map(({ name, text }) => [name, text]))
}

/** Mode `issuer`, with the flags that `kube-apiserver-flags.txt` has. */
export async function connectIssuer(
  options: { readonly kubernetesVersion?: string; readonly tokens?: Tokens } = {},
): Promise<Connected> {
  const { kubernetesVersion = '1.36', tokens = {} } = options
  const broker = await startBroker()
  const dir = await mkdtemp(join(tmpdir(), 'nestgate-connect-'))
  try {
    const files = filesFor(broker, { mode: 'issuer', kubernetesVersion })
    for (const [name, text] of files)
      await writeFile(join(dir, name), text.replaceAll(API_SERVER_FOLDER, dir), { mode: 0o600 })
    const flags = (await readFile(join(dir, 'kube-apiserver-flags.txt'), 'utf8')).trim().split('\n')
    const api = await startApiServer(await modernBinary(), { args: flags, tokens })
    const tokenSha256 = createHash('sha256').update(AUTHORIZER_TOKEN).digest('hex')
    await broker.connect({
      ...{ name: CLUSTER, server: api.url, caFile: api.caFile },
      credential: { issuer: { authorizerTokenSha256: tokenSha256 } },
      serviceAccountTokens: { verify: 'tokenReview' },
      bound: undefined,
    })
    return { api, broker, close: closing(api, broker, dir) }
  } catch (error) {
    await broker.close()
    throw error
  }
}

/** Mode `impersonation`, with every object of its files applied, unknown fields refused. */
export async function connectImpersonation(
  request: Partial<ConnectRequest>,
  options: { readonly tokens?: Tokens; readonly args?: readonly string[] } = {},
): Promise<Connected> {
  const broker = await startBroker()
  const dir = await mkdtemp(join(tmpdir(), 'nestgate-connect-'))
  const groups = ['system:serviceaccounts', 'system:serviceaccounts:nestgate-system'] as const
  try {
    const tokens = { [BROKER_USER]: [BROKER_TOKEN, ...groups] as const, ...options.tokens }
    const args = options.args ?? []
    const api = await startApiServer(await modernBinary(), { args, tokens: tokens as Tokens & object })
    await mkdir(dir, { recursive: true })
    await writeFile(join(dir, 'token'), BROKER_TOKEN, { mode: 0o600 })
    const files = filesFor(broker, { mode: 'impersonation', ...request })
    for (const name of request.namespaces ?? []) await api.admin('POST', '/api/v1/namespaces', { metadata: { name } })
    for (const [name, text] of files)
      if (/^(rbac|admission-).*\.yaml$/.test(name)) await apply(api, text)
    await broker.connect({
      ...{ name: CLUSTER, server: api.url, caFile: api.caFile },
      credential: { tokenFile: join(dir, 'token') },
      serviceAccountTokens: { verify: 'tokenReview' },
      bound: { namespaces: [...(request.namespaces ?? [])], users: [...(request.users ?? [])] },
    })
    return { api, broker, close: closing(api, broker, dir) }
  } catch (error) {
    await broker.close()
    throw error
  }
}

function closing(api: ApiServer, broker: Broker, dir: string): () => Promise<void> {
  return async () => {
    await api.close()
    await broker.close()
    await rm(dir, { recursive: true })
  }
}

/** Creates what a file has, as `kubectl apply` does the first time. */
export async function apply(api: ApiServer, text: string): Promise<void> {
  for (const document of parseAllDocuments(text)) {
    const object = document.toJS() as { apiVersion: string; kind: string; metadata: { namespace?: string } }
    await api.admin('POST', `${pathOf(object)}?fieldValidation=Strict`, object)
  }
}

function pathOf({ apiVersion, kind, metadata }: Parameters<typeof String>[0] & { apiVersion: string; kind: string; metadata: { namespace?: string } }): string {
  const root = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`
  const namespace = metadata.namespace === undefined ? '' : `/namespaces/${metadata.namespace}`
  const plural = kind.endsWith('Policy') ? `${kind.slice(0, -1)}ies` : `${kind}s`
  return `${root}${namespace}/${plural.toLowerCase()}`
}
