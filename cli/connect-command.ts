/** `nestgate connect`: makes the files that connect a cluster (connect/), and writes them. Nothing is sent anywhere. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import { messageOf } from '../shared/errors.ts'
import { CallError } from './client.ts'
import type { ConnectFile } from './connect/file.ts'
import { connectFiles } from './connect/files.ts'
import { readInputs } from './connect/inputs.ts'
import type { ConnectRequest } from './connect/inputs.ts'
import { toJson } from './output.ts'
import type { Runner } from './program.ts'
import { readText, UsageError } from './settings.ts'
import { newToken } from './token.ts'

const FOLDER_MODE = 0o700
const SECRET_MODE = 0o600
const FILE_MODE = 0o644

interface Options {
  readonly mode: ConnectRequest['mode']
  readonly kubernetesVersion: string
  readonly brokerUrl: string
  readonly brokerCa: string
  readonly out: string
  readonly server?: string
  readonly ca?: string
  readonly namespaces: readonly string[]
  readonly users: readonly string[]
  readonly groups: readonly string[]
}

/** Adds the command. */
export function addConnect(program: Command, runner: Runner): void {
  const none: readonly string[] = []
  program
    .command('connect')
    .description('make the files that connect a cluster with the broker; nothing is sent anywhere')
    .argument('<cluster>', 'its name at the broker')
    .requiredOption(
      '--mode <mode>',
      'issuer, or impersonation where the API server’s flags are not yours',
    )
    .requiredOption('--kubernetes-version <version>', 'of the cluster, 1.NN')
    .requiredOption('--broker-url <url>', 'the broker as the API server reaches it')
    .requiredOption('--broker-ca <file>', 'certificates that the broker’s must come from')
    .requiredOption('--out <folder>', 'folder for the files; nothing in it is overwritten')
    .option('--server <url>', 'the API server as the broker reaches it')
    .option('--ca <file>', 'certificates that the API server’s must come from')
    .option('--namespaces <names>', 'impersonation: of agents; by commas', more, none)
    .option(
      '--users <names>',
      'impersonation: subjects of people and pipelines; by commas',
      more,
      none,
    )
    .option('--groups <names>', 'impersonation: groups that rules grant; by commas', more, none)
    .action((cluster: string, options: Options) => {
      const { out, brokerCa, ca, ...rest } = options
      const inputs = readInputs({
        ...rest,
        cluster,
        namespaces: [...options.namespaces],
        users: [...options.users],
        groups: [...options.groups],
        brokerCa: readText(brokerCa),
        ...(ca === undefined ? {} : { ca: readText(ca) }),
      })
      if ('problems' in inputs) throw new UsageError(inputs.problems.join('; '))
      const written = writeFiles(out, connectFiles(inputs, newToken()))
      runner.print(
        runner.format() === 'json'
          ? toJson({ written })
          : `${written.join('\n')}\nRead ${join(out, 'NEXT-STEPS.md')} first.`,
      )
    })
}

function more(names: string, before: readonly string[]): readonly string[] {
  return [...before, ...names.split(',').map((name) => name.trim())]
}

/**
 * Writes files into a folder, those with secrets for their owner alone.
 *
 * @returns their paths
 * @throws CallError where one of them exists already, before any is written, or the folder cannot be written
 */
export function writeFiles(folder: string, files: readonly ConnectFile[]): readonly string[] {
  const places = files.map((file) => ({ ...file, path: join(folder, file.name) }))
  const taken = places.filter(({ path }) => existsSync(path)).map(({ path }) => path)
  if (taken.length > 0) throw new CallError(`nothing is overwritten: ${taken.join(', ')} exists`)
  try {
    mkdirSync(folder, { recursive: true, mode: FOLDER_MODE })
    for (const { path, text, isSecret } of places)
      writeFileSync(path, text, { mode: isSecret ? SECRET_MODE : FILE_MODE, flag: 'wx' })
  } catch (error) {
    throw new CallError(`cannot write to ${folder}: ${messageOf(error)}`)
  }
  return places.map(({ path }) => path)
}
