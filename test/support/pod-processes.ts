/**
 * What a pod with one process namespace is to its processes, made of this machine's: processes of one user that is not
 * root, who see each other alone, and a first one that is not theirs, as the sandbox's. Needs root.
 */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmod, chown, copyFile, mkdir, mkdtemp, readFile, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { among, onlyChildOf, OWN_PROCESSES } from '../../bench/processes.ts'

/** The user, and the group, of all containers. */
export const POD_UID = 12_345
const REPOSITORY = join(import.meta.dirname, '..', '..')
/** The machine's own: one that a version manager keeps in root's home is out of the user's reach. */
const PYTHON = '/usr/bin/python3'

/** See the head of the file. */
export interface Pod {
  /** A folder that the user owns. */
  readonly dir: string
  /** The repository, as the processes see it, wherever it lies. */
  readonly app: string
  /** A Node that may be executed but not read, as the image has it. */
  readonly node: string
  readonly python: string
  /** What a command is started with so that it runs in the pod, as its user. */
  readonly enter: readonly string[]
  /** Starts a process in the pod; it ends with it at the latest. */
  start(command: readonly string[], env?: Readonly<Record<string, string>>): ChildProcess
  /** Number, here, of the process that was started; it has started when this settles. */
  pidOf(child: ChildProcess): Promise<number>
  /** Ends all processes. */
  stop(): Promise<void>
}

/** A pod with no process but the first. */
export async function startPod(): Promise<Pod> {
  const dir = await mkdtemp(join(tmpdir(), 'nestgate-pod-'))
  const app = join(dir, 'app')
  const node = join(dir, 'node')
  await mkdir(app)
  await copyFile(await realpath(process.execPath), node)
  await chmod(node, 0o111)
  await chown(dir, POD_UID, POD_UID)
  const asUser = ['setpriv', `--reuid=${POD_UID}`, `--regid=${POD_UID}`]
  // setpriv(1) executes with root's capabilities still, by which it could read any program: env(1) has none any more.
  const user = [...asUser, '--clear-groups', '--no-new-privs', '--inh-caps=-all', 'env']
  const script = 'mount --bind "$1" "$2" && shift 2 && echo ready && exec "$@"'
  const [unshare, ...args] = [...OWN_PROCESSES, 'sh', '-c', script, 'sh', REPOSITORY, app]
  const first = spawn(unshare, [...args, ...user, 'sleep', 'infinity'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  await once(first.stdout, 'data')
  const sandbox = onlyChildOf(first.pid ?? 0)
  const enter = [...among(sandbox), ...user]
  const started: ChildProcess[] = []
  return {
    dir,
    app,
    node,
    python: PYTHON,
    enter,
    start(command, env): ChildProcess {
      const [program = '', ...rest] = [...enter, ...command]
      const options = { env: { ...process.env, ...env }, stdio: 'inherit' } as const
      const child = spawn(program, rest, options)
      started.push(child)
      return child
    },
    pidOf,
    async stop(): Promise<void> {
      // Not unshare(1): what ends its child with it is undone when the child changes its user.
      const closed = once(first, 'close')
      process.kill(sandbox, 'SIGKILL')
      // nsenter(1) stops with what it started, and could not see it end.
      for (const child of started) child.kill('SIGCONT')
      await closed
      await rm(dir, { recursive: true })
    },
  }
}

/** nsenter(1) stays outside and waits for its one child. */
async function pidOf(child: ChildProcess): Promise<number> {
  const path = `/proc/${child.pid ?? 0}/task/${child.pid ?? 0}/children`
  for (;;) {
    const pid = Number((await readFile(path, 'latin1')).trim())
    // Until then it is one of those that lead there.
    if (pid > 0 && (await isUsers(pid))) return pid
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

async function isUsers(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1')
  return (
    !/^Name:\t(?:nsenter|setpriv|env)$/m.test(status) && status.includes(`\nUid:\t${POD_UID}\t`)
  )
}
