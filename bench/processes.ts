/** The processes that a benchmark measures: started here, watched for their memory, ended by their ids. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'

/** What a command is started with so that it is the first process of a namespace of its own; needs root. */
export const OWN_PROCESSES = ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child'] as const
/** How long a process may take to say that it is ready, in milliseconds. */
const READY_LIMIT_MS = 60_000
const SAID_LIMIT = 4000

/** A process that is ready. */
export interface Measured {
  readonly name: string
  readonly pid: number
  /** The match of its ready line. */
  readonly ready: RegExpExecArray
  /** What it has said so far, up to a bound. */
  readonly said: () => string
  /** Resident memory now, in MiB. */
  readonly rss: () => number
  /** Time of CPU that it has had so far, in milliseconds; in steps of 10. */
  readonly cpuMs: () => number
  /** Ends it; settles when it is gone. */
  readonly stop: () => Promise<void>
}

/**
 * What a command is started with so that it and what enters it see each other's processes alone, as in a pod: a
 * process namespace with a /proc of its own. Empty where this user may not make one; the sidecar then searches all
 * processes of the machine, which costs it more than it would in a pod.
 */
export function podLike(): readonly string[] {
  return process.getuid?.() === 0 ? [...OWN_PROCESSES, 'sh', '-c', '"$@" & wait', 'sandbox'] : []
}

/** What a command is started with so that it runs among the processes of `pid`, made by {@link podLike}. */
export function among(pid: number): readonly string[] {
  return podLike().length === 0 ? [] : ['nsenter', '--target', String(pid), '--pid', '--mount']
}

/**
 * Starts a process and waits for a line that says it is ready.
 *
 * @throws an error with what it said, when it ends or takes too long
 */
export async function start(
  name: string,
  program: string,
  args: readonly string[],
  ready: RegExp,
  env: Readonly<Record<string, string>> = {},
): Promise<Measured> {
  const child = spawn(program, args, {
    env: { ...inherited(), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const hearing = { said: '' }
  const match = await readyLine(name, child, ready, hearing)
  const started = child.pid ?? 0
  const pid = program === OWN_PROCESSES[0] ? onlyChildOf(onlyChildOf(started)) : started
  return {
    name,
    pid,
    ready: match,
    said: () => hearing.said,
    rss: () => residentMiB(pid),
    cpuMs: () => cpuMs(pid),
    stop: () =>
      new Promise((resolve) => {
        if (child.exitCode !== null || child.signalCode !== null) {
          resolve()
          return
        }
        child.once('close', () => {
          resolve()
        })
        process.kill(pid, 'SIGTERM')
        setTimeout(() => child.kill('SIGKILL'), 15_000).unref()
      }),
  }
}

/** This process's environment without settings of ours: what is measured is configured by its start alone. */
function inherited(): NodeJS.ProcessEnv {
  const entries = Object.entries(process.env).filter(([name]) => !name.startsWith('NESTGATE_'))
  return Object.fromEntries(entries)
}

function readyLine(
  name: string,
  child: ChildProcess,
  ready: RegExp,
  hearing: { said: string },
): Promise<RegExpExecArray> {
  return new Promise((resolve, reject) => {
    const stop = (why: string): void => {
      child.kill('SIGKILL')
      reject(new Error(`${name} ${why}:\n${hearing.said.slice(-SAID_LIMIT)}`))
    }
    const timer = setTimeout(() => {
      stop('was not ready in time')
    }, READY_LIMIT_MS)
    const hear = (text: string): void => {
      if (hearing.said.length < 1_000_000) hearing.said += text
      const match = ready.exec(hearing.said)
      if (match === null) return
      clearTimeout(timer)
      resolve(match)
    }
    child.stdout?.setEncoding('utf8').on('data', hear)
    child.stderr?.setEncoding('utf8').on('data', hear)
    child.once('error', reject)
    child.once('close', () => {
      clearTimeout(timer)
      reject(new Error(`${name} ended:\n${hearing.said.slice(-SAID_LIMIT)}`))
    })
  })
}

/** The process that one waits for which has no other child. */
export function onlyChildOf(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim())
}

function residentMiB(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kib) / 1024
}

/** User and system time are fields 14 and 15 of proc_pid_stat(5), in ticks of a hundredth of a second. */
function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10
}
