/**
 * The Kubernetes that end-to-end tests and benchmarks run on: the one that KUBECONFIG names, or one that is
 * started here with the cluster scripts (a folder with `up` and `down`; NESTGATE_CLUSTER_SCRIPTS, by default
 * ../shared/cluster beside the project) from the binaries in KUBEBUILDER_ASSETS. What was started here is
 * ended here; what was found running is left running.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  writeFileSync,
} from 'node:fs'
import { delimiter, dirname, join, resolve } from 'node:path'
import { ROOT } from './image.ts'
import { attempt, run } from './run.ts'
import type { Ran, RunOptions } from './run.ts'

/** How long a cluster may take to come up, in milliseconds. */
const UP_LIMIT_MS = 300_000

/** A cluster, and how it is spoken to. */
export interface Cluster {
  readonly kubeconfig: string
  /** The newest kubectl there is. */
  readonly kubectl: string
  /** Folder of a cluster that the scripts run; its node is this machine. */
  readonly dir?: string
  /** Whether it was started here. */
  readonly owned: boolean
  /** Ends it, when it was started here. */
  stop(): Promise<void>
}

/** The oldest and the newest kubectl of this machine. */
export interface KubectlPair {
  readonly oldest: string
  readonly newest: string
}

/** What to start when nothing is given. */
export interface ClusterWish {
  /** Whether pods must really run. */
  readonly node: boolean
  /** Where a started cluster keeps its files; also where a running one is looked for. */
  readonly dir: string
  readonly env?: Readonly<Record<string, string>>
}

/** Where the cluster scripts are, or undefined. */
export function clusterScripts(): string | undefined {
  const dir = process.env['NESTGATE_CLUSTER_SCRIPTS'] ?? resolve(ROOT, '..', 'shared', 'cluster')
  return existsSync(join(dir, 'up')) ? dir : undefined
}

/**
 * Finds a cluster or starts one.
 *
 * @throws an error that says what to set when there is neither
 */
export async function openCluster(wish: ClusterWish): Promise<Cluster> {
  const kubectl = kubectls().newest
  const given = process.env['KUBECONFIG']
  if (given !== undefined && given !== '') {
    return { kubeconfig: resolve(given), kubectl, owned: false, stop: () => Promise.resolve() }
  }
  const scripts = clusterScripts()
  if (scripts === undefined) {
    throw new Error(
      'no cluster: set KUBECONFIG, or NESTGATE_CLUSTER_SCRIPTS to the folder of the cluster scripts',
    )
  }
  const { dir } = wish
  const running = isRunning(dir)
  const stop = async (): Promise<void> => {
    if (!running) await run(join(scripts, 'down'), ['--dir', dir, '--wipe'])
  }
  try {
    const said = await run(join(scripts, 'up'), [...(wish.node ? ['--node'] : []), '--dir', dir], {
      timeoutMs: UP_LIMIT_MS,
      ...(wish.env === undefined ? {} : { env: wish.env }),
    })
    const kubeconfig = said.trim().split('\n').at(-1) ?? ''
    return { kubeconfig, kubectl, dir, owned: !running, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/** The binaries to start a cluster from, with an API server that survives our webhook, and patches; see scripts/webhook-apiserver.sh. */
export async function webhookCapable(): Promise<Readonly<Record<string, string>>> {
  if ((process.env['KUBECONFIG'] ?? '') !== '') return {}
  const assets = process.env['KUBEBUILDER_ASSETS'] ?? '/opt/kubernetes/bin'
  const said = await run(join(ROOT, 'scripts', 'webhook-apiserver.sh'), [assets])
  return { KUBEBUILDER_ASSETS: said.trim().split('\n').at(-1) ?? assets }
}

/** Whether the scripts' cluster of this folder runs. */
export function isRunning(dir: string): boolean {
  const file = join(dir, 'pids')
  if (!existsSync(file)) return false
  const pid = /^kube-apiserver (\d+)$/m.exec(readFileSync(file, 'utf8'))?.[1]
  if (pid === undefined) return false
  try {
    process.kill(Number(pid), 0)
    return true
  } catch {
    return false
  }
}

/** A kubectl of a version that its file name tells. */
export interface Kubectl {
  readonly file: string
  /** Of its version 1.N; 0 where the name does not tell. */
  readonly minor: number
}

/**
 * The `kubectl.1.N` that lie beside the kubectl on the PATH (or beside what it links to), the oldest first; where there is none, that kubectl itself.
 *
 * @throws an error when there is no kubectl at all
 */
export function allKubectls(): readonly Kubectl[] {
  const folders = [
    process.env['KUBEBUILDER_ASSETS'] ?? '/opt/kubernetes/bin',
    ...(process.env['PATH'] ?? '').split(delimiter),
  ]
  const plain = folders.map((folder) => join(folder, 'kubectl')).filter((file) => existsSync(file))
  const [first] = plain
  if (first === undefined) throw new Error('no kubectl on the PATH or in KUBEBUILDER_ASSETS')
  const versioned = plain
    .map((file) => dirname(realpathSync(file)))
    .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
    .flatMap((file) => {
      const minor = /\/kubectl\.1\.(\d+)$/.exec(file)?.[1]
      return minor === undefined ? [] : [{ file, minor: Number(minor) }]
    })
    .sort((a, b) => a.minor - b.minor)
  const different = versioned.filter(({ minor }, at) => minor !== versioned[at - 1]?.minor)
  return different.length === 0 ? [{ file: first, minor: 0 }] : different
}

/** The oldest and the newest of {@link allKubectls}. */
export function kubectls(): KubectlPair {
  const all = allKubectls()
  const [first] = all
  if (first === undefined) throw new Error('no kubectl')
  return { oldest: first.file, newest: (all.at(-1) ?? first).file }
}

/** Runs kubectl as the cluster's administrator. @throws an error with its output when it fails */
export function kubectl(
  cluster: Pick<Cluster, 'kubeconfig' | 'kubectl'>,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  return run(cluster.kubectl, ['--kubeconfig', cluster.kubeconfig, ...args], options)
}

/** Runs kubectl as the cluster's administrator, whatever comes of it. */
export function tryKubectl(
  cluster: Pick<Cluster, 'kubeconfig' | 'kubectl'>,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Ran> {
  return attempt(cluster.kubectl, ['--kubeconfig', cluster.kubeconfig, ...args], options)
}

/**
 * Brings an image archive to the cluster's nodes: into the scripts' own containerd, or by the command in
 * NESTGATE_LOAD_IMAGE with the archive's path behind it (`kind load image-archive`).
 */
export async function loadImage(cluster: Cluster, archive: string): Promise<void> {
  if (cluster.dir !== undefined) {
    const socket = join(cluster.dir, 'containerd.sock')
    await run('ctr', ['-a', socket, '-n', 'k8s.io', 'images', 'import', archive])
    return
  }
  const [program, ...args] = (process.env['NESTGATE_LOAD_IMAGE'] ?? '').split(' ')
  if (program === undefined || program === '') {
    throw new Error(
      'with a KUBECONFIG of yours, set NESTGATE_LOAD_IMAGE to the command that loads an image archive',
    )
  }
  await run(program, [...args, archive])
}

/** The API server's minor version. */
export async function minorVersion(
  cluster: Pick<Cluster, 'kubeconfig' | 'kubectl'>,
): Promise<number> {
  const version = JSON.parse(await kubectl(cluster, ['get', '--raw', '/version'])) as {
    minor: string
  }
  const minor = Number.parseInt(version.minor, 10)
  if (!Number.isInteger(minor)) throw new Error('the API server does not tell its version')
  return minor
}

/** Collects what a failure is understood by: pods, events, logs of Nestgate and of the cluster's own parts. */
export async function collectLogs(
  cluster: Cluster,
  namespaces: readonly string[],
  into: string,
): Promise<void> {
  mkdirSync(into, { recursive: true })
  const keep = async (name: string, args: readonly string[]): Promise<void> => {
    const { stdout, stderr } = await tryKubectl(cluster, args, { timeoutMs: 30_000 })
    writeFileSync(join(into, name), stdout + stderr)
  }
  for (const namespace of namespaces) {
    await keep(`${namespace}.pods.txt`, ['-n', namespace, 'describe', 'pods'])
    await keep(`${namespace}.events.txt`, ['-n', namespace, 'get', 'events'])
    const pods = await tryKubectl(cluster, ['-n', namespace, 'get', 'pods', '-o', 'name'])
    for (const pod of pods.stdout.split('\n').filter((line) => line !== '')) {
      const name = `${namespace}.${pod.replace('pod/', '')}.log`
      await keep(name, ['-n', namespace, 'logs', pod, '--all-containers', '--prefix'])
    }
  }
  if (cluster.dir !== undefined)
    cpSync(join(cluster.dir, 'logs'), join(into, 'cluster'), { recursive: true })
}
