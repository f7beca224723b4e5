/**
 * What a process says about itself: its arguments and one variable of its environment. Both can be rewritten by the
 * process, and arguments often hold secrets, so only the program, a script's path and a count leave the pod. Nothing
 * here is ever evidence.
 */
import { readFileSync } from 'node:fs'
import type { Declared } from '../../shared/agent-tag.ts'

/** The one environment variable that is looked at. */
const AGENT_NAME_KEY = 'AGENT_NAME='
/** Longest agent name that is passed on, in characters. */
const MAX_AGENT_NAME = 128

/** A word that may be shown: a path, a name. No spaces, no `=`, no `:` as in URLs with passwords. */
const SHOWABLE = /^[A-Za-z0-9_./@+~-]{1,256}$/
/** Programs whose first plain argument is the script that they run. */
const INTERPRETER = /^(?:python|node|nodejs|bash|sh|dash|ash|zsh|ruby|perl|php|deno|bun)[0-9.]*$/
/** Options without a value of their own, so that what follows them is still the script. */
const PLAIN_OPTION =
  /^(?:-[uBsSEIOx]+|--no-warnings|--enable-source-maps|--experimental-[a-z-]+|--[a-z-]+=.*)$/

/** What the process behind a folder of /proc declares; fields that cannot be read are absent. */
export function readDeclared(folder: string): Declared {
  const argv = readArguments(folder)
  const command = commandOf(argv)
  const script = scriptOf(argv[0] ?? '', argv.slice(1))
  const environment = readBytes(`${folder}/environ`)
  const agentName = agentNameOf(split(environment))
  environment.fill(0)
  return {
    ...(command === undefined ? {} : { command }),
    ...(script === undefined ? {} : { script }),
    ...(agentName === undefined ? {} : { agentName }),
  }
}

/** The arguments of a process, `argv[0]` included, in a form that holds no secret. */
export function commandOf(argv: readonly string[]): string | undefined {
  const [program, ...rest] = argv
  if (program === undefined || program === '') return undefined
  const shown = [SHOWABLE.test(program) ? program : '(not shown)']
  const script = scriptOf(program, rest)
  if (script !== undefined) shown.push(script)
  const left = rest.length - (script === undefined ? 0 : 1)
  if (left > 0) shown.push(`(+${left} arguments)`)
  return shown.join(' ')
}

/** Whether these arguments are those of `kubectl proxy`, which passes on what others send to it. */
export function isKubectlProxy(argv: readonly string[]): boolean {
  return argv.slice(1).find((word) => !word.startsWith('-')) === 'proxy'
}

/** The arguments of a process as of now; empty when they cannot be read. */
export function readArguments(folder: string): readonly string[] {
  return split(readBytes(`${folder}/cmdline`))
}

function scriptOf(program: string, rest: readonly string[]): string | undefined {
  if (!INTERPRETER.test(program.slice(program.lastIndexOf('/') + 1))) return undefined
  const at = rest.findIndex((word) => !PLAIN_OPTION.test(word))
  const word = rest[at]
  return word !== undefined && !word.startsWith('-') && SHOWABLE.test(word) ? word : undefined
}

function agentNameOf(environment: readonly string[]): string | undefined {
  const entry = environment.find((variable) => variable.startsWith(AGENT_NAME_KEY))
  const name = entry
    ?.slice(AGENT_NAME_KEY.length)
    .replaceAll(/[^\p{L}\p{N}\p{P}\p{S} ]/gu, '')
    .slice(0, MAX_AGENT_NAME)
    .toWellFormed()
  return name === '' ? undefined : name
}

function split(bytes: Buffer): readonly string[] {
  const words = bytes.toString('utf8').split('\0')
  if (words.at(-1) === '') words.pop()
  return words
}

function readBytes(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch {
    return Buffer.alloc(0)
  }
}
