/**
 * `nestgate inject`: what the webhook would make of pods, before there is a cluster. The same review with the same settings, so
 * the same bytes. Reads a file, prints a result, changes nothing.
 */
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { Option } from 'commander'
import { Fault, messageOf } from '../shared/errors.ts'
import { reviewPod } from '../shared/injection/review.ts'
import type { InjectionSettings, WantedLevel } from '../shared/injection/sidecar-spec.ts'
import { isRefusal, refusalText } from '../shared/reasons.ts'
import { CallError } from './client.ts'
import { readDocuments } from './inject/documents.ts'
import { injectDocuments } from './inject/inject.ts'
import type { InjectedDocuments } from './inject/inject.ts'
import { readSettings } from './inject/settings.ts'
import type { SettingsOptions } from './inject/settings.ts'
import { addClusterOptions } from './kube/kubectl.ts'
import { toJson } from './output.ts'
import type { Runner } from './program.ts'
import { UsageError } from './settings.ts'
import type { Environment } from './settings.ts'

/** Largest input, in bytes. */
const MAX_INPUT_BYTES = 64 * 1024 * 1024

const FORMS = ['yaml', 'json', 'patch', 'review'] as const
type Form = (typeof FORMS)[number]

interface Options extends SettingsOptions {
  readonly filename: string
  readonly namespace?: string
  readonly identity: WantedLevel
}

/** Adds the command. It ends with 1, and prints no result, where a pod is refused. */
export function addInject(
  program: Command,
  runner: Runner,
  deps: { readonly env: Environment },
): void {
  const command = program
    .command('inject')
    .description('print pods and workloads as the webhook would make them; changes nothing')
    .requiredOption(
      '-f, --filename <file>',
      'YAML or JSON, several documents; - for standard input',
    )
    .option(
      '--config <file>',
      'the webhook’s configuration (webhook.yaml); else that of the cluster’s webhook',
    )
    .option('--revision <name>', 'of several webhooks of a cluster, the one of this revision')
    .option('--image <image>', 'image of the sidecar, where the configuration has none')
    .option(
      '--broker-ca <file>',
      'certificates that the broker’s must come from, where brokerCaFile is a path of the webhook’s pod',
    )
    .option('-n, --namespace <name>', 'namespace of what names none', 'default')
    .addOption(
      new Option('--identity <level>', 'how far the namespace wants callers told apart')
        .choices(['any', 'process', 'container'])
        .default('any'),
    )
    .addOption(
      new Option(
        '--mode <mode>',
        'form of the sidecar; needed where the configuration says auto',
      ).choices(['native', 'container']),
    )
  addClusterOptions(command).action(async (options: Options) => {
    const form = formOf(runner.output())
    const input = await readInput(options.filename)
    const settings = await readSettings(options, deps.env)
    if (form === 'review') printReview(runner, input, settings, options.identity)
    else printDocuments(runner, input, settings, options, form)
  })
}

function formOf(output: string | undefined): Form {
  const form = FORMS.find((name) => name === (output ?? 'yaml'))
  if (form === undefined) throw new UsageError(`--output: expected one of ${FORMS.join(', ')}`)
  return form
}

async function readInput(file: string): Promise<Uint8Array> {
  try {
    const bytes = file === '-' ? await readStandardInput() : readFileSync(file)
    if (bytes.length <= MAX_INPUT_BYTES) return bytes
  } catch (error) {
    throw new UsageError(`cannot read a file: ${messageOf(error)}`)
  }
  throw new UsageError(`--filename: more than ${MAX_INPUT_BYTES} bytes`)
}

async function readStandardInput(): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let size = 0
  const stream: AsyncIterable<Uint8Array> = process.stdin
  for await (const part of stream) {
    size += part.length
    parts.push(part)
    if (size > MAX_INPUT_BYTES) break
  }
  return Buffer.concat(parts)
}

/** Answers an AdmissionReview, byte for byte as the webhook. */
function printReview(
  runner: Runner,
  input: Uint8Array,
  settings: InjectionSettings,
  level: WantedLevel,
): void {
  const reviewed = reviewPod(input, settings, level)
  if (isRefusal(reviewed)) throw new CallError(`${reviewed.refused}: ${refusalText(reviewed)}`)
  if (reviewed.outcome === 'denied') runner.fail()
  runner.write(reviewed.body)
}

function printDocuments(
  runner: Runner,
  input: Uint8Array,
  settings: InjectionSettings,
  { identity: level, namespace = 'default' }: Options,
  form: Exclude<Form, 'review'>,
): void {
  const result = injectText(decode(input), { settings, level, namespace })
  for (const warning of result.warnings) runner.note(`warning: ${warning}`)
  if (result.refusals.length > 0) {
    for (const refusal of result.refusals) runner.note(refusal)
    runner.fail()
    return
  }
  if (form === 'yaml') runner.write(result.text)
  else if (form === 'json') runner.print(toJson(oneOrList(result.values)))
  else runner.write(onlyPatch(result))
}

function injectText(
  text: string,
  injection: Parameters<typeof injectDocuments>[1],
): InjectedDocuments {
  try {
    return injectDocuments(readDocuments(text), injection)
  } catch (error) {
    if (error instanceof Fault) throw new CallError(error.message)
    throw error
  }
}

function decode(input: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(input)
  } catch {
    throw new UsageError('--filename: the text is not UTF-8')
  }
}

/** As kubectl prints several objects. */
function oneOrList(values: readonly unknown[]): unknown {
  return values.length === 1 ? values[0] : { apiVersion: 'v1', kind: 'List', items: values }
}

function onlyPatch({ patches }: InjectedDocuments): string {
  const [patch] = patches
  if (patch === undefined || patches.length > 1)
    throw new UsageError(
      `--output patch: expected one pod or template, and found ${patches.length}`,
    )
  return patch
}
