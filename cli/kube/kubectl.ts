/**
 * A cluster as the person at the keyboard reaches it: by `kubectl` as a child, so that every kubeconfig and every
 * credential plugin works that works there. Output and time are bounded; nothing of a token passes through here.
 */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import type { Command } from 'commander'
import { codeOf, messageOf } from '../../shared/errors.ts'
import { CallError } from '../client.ts'
import type { Environment } from '../settings.ts'

/** How long one call may take, in milliseconds; kubectl itself gives each request half of it. */
const CALL_LIMIT_MS = 60_000
const REQUEST_TIMEOUT = '--request-timeout=30s'
/** Largest answer, in bytes; the lists of large clusters are tens of megabytes. */
const MAX_OUTPUT_BYTES = 256 * 1024 * 1024
/** Most of what kubectl complains of that is kept, in bytes. */
const MAX_ERROR_BYTES = 65_536
/** How many arguments an error repeats. */
const SHOWN_ARGS = 8
/** How many objects one request asks for; lists are read page by page. */
const CHUNK_SIZE = 250

/** Which cluster, as commander reads it. */
export interface ClusterOptions {
  readonly kubeconfig?: string
  readonly context?: string
  readonly kubectl?: string
}

/** Why a call came to nothing. `unknownKind`: the cluster has no such resource. */
export type FailureKind = 'forbidden' | 'notFound' | 'unknownKind' | 'failed'

/** A call that came to nothing. */
export interface Failure {
  readonly failure: FailureKind
  /** The last line of what kubectl said. */
  readonly said: string
}

/** What came back. */
export interface Answer {
  readonly value: unknown
  /** Warnings of the API server, without kubectl's `Warning: `. */
  readonly warnings: readonly string[]
}

/** What is asked of one call. */
export interface CallOptions {
  /** What kubectl reads on its standard input. */
  readonly input?: string
}

/** Calls kubectl. */
export interface Kubectl {
  /**
   * Runs it and reads its output.
   *
   * @returns the output, or a failure where it ended with another status than 0
   * @throws CallError where there is no kubectl, or its output or time went over the limit
   */
  run(args: readonly string[], options?: CallOptions): Promise<string | Failure>
  /** Runs it with `-o json`. @throws CallError as {@link Kubectl.run}, and where the output is no JSON */
  json(args: readonly string[], options?: CallOptions): Promise<Answer | Failure>
}

/** Whether a call came to nothing. */
export function isFailure(result: string | object): result is Failure {
  return typeof result === 'object' && 'failure' in result
}

/** Adds the options that say which cluster. */
export function addClusterOptions(command: Command): Command {
  return command
    .option('--kubeconfig <file>', 'kubeconfig, as kubectl takes it')
    .option('--context <name>', 'context of the kubeconfig')
    .option('--kubectl <program>', 'kubectl to run', 'kubectl')
}

/** A list of all objects of a kind, page by page. `where`: namespace, selector, as kubectl takes them. */
export function listArgs(resource: string, ...where: readonly string[]): readonly string[] {
  return ['get', resource, `--chunk-size=${CHUNK_SIZE}`, ...where]
}

/** How much one call may take; for tests. */
export interface CallLimits {
  /** Milliseconds. */
  readonly callMs: number
  readonly outputBytes: number
}

const LIMITS: CallLimits = { callMs: CALL_LIMIT_MS, outputBytes: MAX_OUTPUT_BYTES }

/** Makes what calls kubectl. */
export function createKubectl(
  options: ClusterOptions,
  env: Environment,
  limits: CallLimits = LIMITS,
): Kubectl {
  const program = options.kubectl ?? 'kubectl'
  const common = [
    ...(options.kubeconfig === undefined ? [] : ['--kubeconfig', options.kubeconfig]),
    ...(options.context === undefined ? [] : ['--context', options.context]),
    REQUEST_TIMEOUT,
  ]
  const call = async (
    args: readonly string[],
    options: CallOptions = {},
  ): Promise<Ended | Failure> => {
    const ended = await runProgram(program, [...common, ...args], {
      env,
      input: options.input,
      limits,
    })
    return ended.code === 0 ? ended : failureOf(ended.err)
  }
  return {
    async run(args, options) {
      const ended = await call(args, options)
      return isFailure(ended) ? ended : ended.out
    },
    async json(args, options) {
      const ended = await call([...args, '-o', 'json'], options)
      if (isFailure(ended)) return ended
      try {
        const value: unknown = JSON.parse(ended.out)
        return { value, warnings: warningsIn(ended.err) }
      } catch {
        throw new CallError(`kubectl ${args.join(' ')}: no JSON came back`)
      }
    },
  }
}

function warningsIn(err: string): readonly string[] {
  return [...err.matchAll(/^Warning: (.*)$/gm)].map(([, text = '']) => text)
}

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

interface Call {
  readonly env: Environment
  readonly input: string | undefined
  readonly limits: CallLimits
}

function runProgram(
  program: string,
  args: readonly string[],
  { env, input, limits }: Call,
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      env,
      stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    })
    const stop = (why: string): void => {
      clearTimeout(limit)
      child.kill('SIGKILL')
      // a plugin of its own may still hold them open
      child.stdout?.destroy()
      child.stderr?.destroy()
      reject(new CallError(`${program} ${args.slice(0, SHOWN_ARGS).join(' ')}: ${why}`))
    }
    const limit = setTimeout(() => {
      stop(`no answer within ${limits.callMs / 1000} s`)
    }, limits.callMs)
    const out = collect(child.stdout, limits.outputBytes, () => {
      stop(`more than ${limits.outputBytes} bytes`)
    })
    const err = collect(child.stderr, MAX_ERROR_BYTES, () => undefined)
    child.on('error', (error) => {
      clearTimeout(limit)
      reject(new CallError(startProblem(program, error)))
    })
    child.on('close', (code) => {
      clearTimeout(limit)
      resolve({ code, out: out(), err: err() })
    })
    // a child that ends before it has read everything says why on its standard error
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(input)
  })
}

function startProblem(program: string, error: unknown): string {
  if (codeOf(error) === 'ENOENT')
    return `there is no ${program}: install it, or name it by --kubectl`
  return `${program} cannot be started: ${messageOf(error)}`
}

/** Keeps what a stream says, up to a limit. */
function collect(stream: ChildProcess['stdout'], limit: number, over: () => void): () => string {
  const parts: Buffer[] = []
  let size = 0
  stream?.on('data', (part: Buffer) => {
    size += part.length
    if (size <= limit) parts.push(part)
    else over()
  })
  return () => Buffer.concat(parts).toString()
}

/** kubectl ends with 1 for everything; the words are its own (kubectl/pkg/cmd/util, apimachinery's StatusReason). */
function failureOf(err: string): Failure {
  const said = err.trim().split('\n').at(-1)?.trim() ?? ''
  if (/\(Forbidden\)|is forbidden|\(Unauthorized\)/.test(err)) return { failure: 'forbidden', said }
  if (err.includes('(NotFound)')) return { failure: 'notFound', said }
  if (/the server doesn't have a resource type|no matches for kind/.test(err))
    return { failure: 'unknownKind', said }
  return { failure: 'failed', said }
}
