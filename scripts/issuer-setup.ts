/**
 * The broker as issuer for a cluster that is started here: its certificates and what `nestgate connect` makes are there before the
 * API server starts, which reads them. They lie beside the cluster's own files and are used as long as it runs.
 */
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { BROKER_HOSTS } from '../cli/certificates.ts'
import { API_SERVER_FOLDER } from '../cli/connect/issuer.ts'
import { isRunning } from './cluster.ts'
import { ROOT } from './image.ts'
import { run } from './run.ts'

/** Before structured configuration: what the cluster scripts build. */
const KUBERNETES_VERSION = '1.20'

/** What mode issuer takes. */
export interface IssuerSetup {
  /** Of broker and webhook. */
  readonly tls: string
  /** For the API server. */
  readonly flags: string
  /** For the broker's configuration. */
  readonly issuer: object
  readonly credential: object
}

/** Where the broker will be. */
export interface IssuerPlace {
  /** The cluster's name in the broker. */
  readonly cluster: string
  /** Host of the broker as API servers reach it. */
  readonly host: string
  readonly port: number
}

/** Makes the files, or finds those of a running cluster. @param dir - the cluster's own folder */
export async function prepareIssuer(
  dir: string,
  { cluster, host, port }: IssuerPlace,
): Promise<IssuerSetup> {
  const folder = join(dir, 'nestgate')
  const tls = join(folder, 'tls')
  const connected = join(folder, 'connect')
  if (!isRunning(dir) || !existsSync(connected)) {
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    const hosts = [...BROKER_HOSTS, host].flatMap((name) => ['--broker-host', name])
    await nestgate(['certificates', '--out', tls, ...hosts])
    const broker = ['--broker-url', `https://${host}:${port}`, '--broker-ca', join(tls, 'ca.crt')]
    const version = ['--kubernetes-version', KUBERNETES_VERSION]
    await nestgate([
      'connect',
      cluster,
      '--mode',
      'issuer',
      ...version,
      ...broker,
      '--out',
      connected,
    ])
  }
  const read = (name: string): string => readFileSync(join(connected, name), 'utf8')
  const settings = parse(read('broker-cluster.yaml')) as {
    issuer: object
    clusters: [{ credential: object }]
  }
  const flags = read('kube-apiserver-flags.txt')
    .trim()
    .replaceAll(API_SERVER_FOLDER, connected)
    // the cluster scripts say Node,RBAC, and the API server adds what is said again
    .replace('--authorization-mode=Node,RBAC,Webhook', '--authorization-mode=Webhook')
    .replaceAll('\n', ' ')
  return { tls, flags, issuer: settings.issuer, credential: settings.clusters[0].credential }
}

function nestgate(args: readonly string[]): Promise<string> {
  return run('node', [join(ROOT, 'cli', 'main.ts'), ...args])
}
