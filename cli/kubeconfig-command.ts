/** `nestgate kubeconfig`: reads what the kubeconfig is made of, and writes it (kubeconfig.ts). */
import { writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { Option } from 'commander'
import type { Command } from 'commander'
import { codeOf, messageOf } from '../shared/errors.ts'
import { CI_SYSTEMS } from './ci-token.ts'
import type { CiSystem } from './ci-token.ts'
import { CallError } from './client.ts'
import { APPROVALS, AUDIENCES, kubeconfig } from './kubeconfig.ts'
import type { KubeconfigInputs, KubeconfigUser } from './kubeconfig.ts'
import { toJson } from './output.ts'
import type { Runner } from './program.ts'
import { brokerSettings, UsageError } from './settings.ts'
import type { Environment, GlobalOptions } from './settings.ts'

const FILE_MODE = 0o600
const CLUSTER = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/

/** What the command needs of its process. */
export interface KubeconfigDeps {
  readonly env: Environment
  readonly globals: () => GlobalOptions
}

interface Options {
  readonly cluster: string
  readonly for: (typeof AUDIENCES)[number]
  readonly approval: KubeconfigInputs['approval']
  readonly ci?: CiSystem
  readonly audience?: string
  readonly variable?: string
  readonly out?: string
}

/** Adds the command. */
export function addKubeconfig(program: Command, runner: Runner, deps: KubeconfigDeps): void {
  program
    .command('kubeconfig')
    .description('write a kubeconfig for a client that calls the broker itself')
    .requiredOption('--cluster <name>', 'the cluster’s name at the broker')
    .addOption(new Option('--for <whom>', 'who uses it').choices(AUDIENCES).makeOptionMandatory())
    .addOption(
      new Option('--approval <how>', 'a held request waits, or is told to come back')
        .choices(APPROVALS)
        .default('wait'),
    )
    .addOption(new Option('--ci <system>', 'ci: whose jobs use it').choices(CI_SYSTEMS))
    .option('--audience <name>', 'ci: what the job’s token is for')
    .option('--variable <name>', 'ci, gitlab: variable that id_tokens fills')
    .option('--out <file>', 'where to write it, for its owner alone; else it is printed')
    .action((options: Options) => {
      const text = kubeconfig(readInputs(options, deps))
      if (options.out === undefined) {
        runner.print(text.trimEnd())
        return
      }
      writeNew(options.out, text)
      runner.print(runner.format() === 'json' ? toJson({ written: options.out }) : options.out)
    })
}

function readInputs(options: Options, { env, globals }: KubeconfigDeps): KubeconfigInputs {
  const { cluster, approval } = options
  const given = globals()
  // the token is not read here: what is written is where it is
  const { url, ca } = brokerSettings(withoutToken(given), withoutTokens(env))
  if (url.protocol !== 'https:') throw new UsageError('the broker’s URL must begin with https://')
  if (!CLUSTER.test(cluster)) throw new UsageError('--cluster is not the name of a cluster')
  return {
    broker: url.href.replace(/\/$/, ''),
    cluster,
    approval,
    ...(ca === undefined ? {} : { ca: checkedCa(ca) }),
    user: userOf(options, given.tokenFile ?? env['NESTGATE_TOKEN_FILE']),
  }
}

function userOf(options: Options, tokenFile: string | undefined): KubeconfigUser {
  if (options.for === 'ci') return ciUser(options)
  if ((options.ci ?? options.audience ?? options.variable) !== undefined)
    throw new UsageError('--ci, --audience and --variable go with --for ci')
  if (options.for === 'person') return { kind: 'person' }
  if (tokenFile === undefined)
    throw new UsageError('an agent needs --token-file: a file that always has a good token')
  return { kind: 'agent', tokenFile: resolve(tokenFile) }
}

function ciUser({ ci, audience, variable }: Options): KubeconfigUser {
  if (ci === undefined) throw new UsageError(`give --ci: ${CI_SYSTEMS.join(' or ')}`)
  if (variable !== undefined && ci !== 'gitlab')
    throw new UsageError('--variable goes with --ci gitlab')
  return {
    kind: 'ci',
    system: ci,
    ...(audience === undefined ? {} : { audience }),
    ...(variable === undefined ? {} : { variable }),
  }
}

function withoutToken({ broker, caFile }: GlobalOptions): GlobalOptions {
  return {
    ...(broker === undefined ? {} : { broker }),
    ...(caFile === undefined ? {} : { caFile }),
  }
}

function withoutTokens(env: Environment): Environment {
  const { NESTGATE_BROKER_URL, NESTGATE_CA_FILE } = env
  return { NESTGATE_BROKER_URL, NESTGATE_CA_FILE }
}

/** A key in a file that goes to others would be no secret any more. */
function checkedCa(ca: string): string {
  if (!ca.includes('-----BEGIN CERTIFICATE-----') || ca.includes('PRIVATE KEY'))
    throw new UsageError('the file of authorities must have certificates, and nothing secret')
  return ca
}

function writeNew(file: string, text: string): void {
  try {
    writeFileSync(file, text, { mode: FILE_MODE, flag: 'wx' })
  } catch (error) {
    if (codeOf(error) === 'EEXIST') throw new CallError(`${file} exists; move it away first`)
    throw new CallError(`cannot write ${file}: ${messageOf(error)}`)
  }
}
