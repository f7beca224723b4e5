/**
 * `nestgate doctor`: what a cluster is, which mode is possible there, and whether every trap is closed. The broker tries, this
 * prints; of a cluster that the broker does not know yet, it asks the version itself.
 */
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { Agent, request } from 'undici'
import { codeOf, messageOf } from '../shared/errors.ts'
import { possibleModes, serverVersionSchema } from '../shared/kubernetes/server-version.ts'
import type { PossibleMode, ServerVersion } from '../shared/kubernetes/server-version.ts'
import { doctorReportSchema } from '../shared/wire.ts'
import type { DoctorReport, ProbeResult } from '../shared/wire.ts'
import { CallError } from './client.ts'
import { plain, toDetails, toJson, toTable } from './output.ts'
import type { Runner } from './program.ts'
import { UsageError } from './settings.ts'

const HEAD = ['', 'TRIED', 'STATUS', 'SAID']
const MARKS: Readonly<Record<ProbeResult['outcome'], string>> = {
  ok: 'ok',
  failed: 'FAILED',
  unclear: '?',
}
/** Longest wait for an API server's version, in milliseconds, and longest answer, in bytes. */
const VERSION_MS = 10_000
const MAX_VERSION_BYTES = 16_384

interface Options {
  readonly server?: string
  readonly ca?: string
}

/** Adds the command. It ends with 1 when an attempt came through that must not, or was refused that must come through. */
export function addDoctor(program: Command, runner: Runner): void {
  program
    .command('doctor')
    .description('try every trap of a cluster, with the broker’s own keys and credentials')
    .argument('<cluster>', 'name of a registered cluster, or the one that it shall have')
    .option(
      '--server <url>',
      'of a cluster that is not registered: its API server; says what is possible there',
    )
    .option('--ca <file>', 'certificates that its own must come from')
    .action(async (name: string, options: Options) => {
      if (options.server !== undefined || options.ca !== undefined) {
        const version = await askVersion(options)
        const modes = possibleModes(version)
        const json = { cluster: name, ...version, possible: modes }
        runner.print(runner.format() === 'json' ? toJson(json) : newcomer(name, version, modes))
        return
      }
      await runner.call(async (client, format) => {
        const path = `v1/clusters/${encodeURIComponent(name)}/check`
        const report = await client.post(doctorReportSchema, path, {})
        if (!report.ok) runner.fail()
        return format === 'json' ? toJson(report) : toText(report)
      })
    })
}

/** What an API server tells everybody of itself. */
async function askVersion({ server, ca }: Options): Promise<ServerVersion> {
  if (server === undefined || ca === undefined)
    throw new UsageError('--server and --ca belong together')
  if (!/^https:\/\/[^/?#@]+\/?$/.test(server))
    throw new UsageError('--server: expected https:// with host and port, and nothing else')
  const dispatcher = new Agent({
    connect: { ca: readText(ca), timeout: VERSION_MS },
    maxResponseSize: MAX_VERSION_BYTES,
  })
  try {
    const { statusCode, body } = await request(new URL('/version', server), {
      dispatcher,
      signal: AbortSignal.timeout(VERSION_MS),
    })
    const parsed = serverVersionSchema.safeParse(await body.json())
    if (parsed.success) return parsed.data
    throw new CallError(`${server}/version: status ${statusCode}, and no version`)
  } catch (error) {
    if (error instanceof CallError) throw error
    throw new CallError(`${server}/version: ${codeOf(error) ?? messageOf(error)}`)
  } finally {
    await dispatcher.destroy()
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new UsageError(`cannot read ${file}: ${messageOf(error)}`)
  }
}

function newcomer(cluster: string, version: ServerVersion, modes: readonly PossibleMode[]): string {
  const best = modes.find(({ possible }) => possible)?.mode ?? 'impersonation'
  const details = toDetails([
    ['cluster', cluster],
    ['version', version.gitVersion],
    ...modes.map(modeLine),
  ])
  return `${details}\n\nConnect it: ${connectCommand(cluster, best, version.minor)}`
}

function modeLine({ mode, possible, how }: PossibleMode): readonly [string, string] {
  return [`mode ${mode}`, `${possible ? 'possible' : 'not possible'}: ${how}`]
}

function connectCommand(cluster: string, mode: string, minor: number): string {
  return `nestgate connect ${plain(cluster)} --mode ${mode} --kubernetes-version 1.${minor} …`
}

function toText(report: DoctorReport): string {
  const { cluster, version, mode, possible, probes } = report
  const details = toDetails([
    ['cluster', cluster],
    ['version', version],
    ['mode', mode],
    ...possible.map(modeLine),
  ])
  const rows = probes.map(({ name, outcome, status, said }) => [
    MARKS[outcome],
    name,
    status === 0 ? '-' : String(status),
    shortly(said),
  ])
  return [details, toTable(HEAD, rows), verdict(report)].join('\n\n')
}

/** Our own words stand at the end of what an API server says. */
function shortly(said: string): string {
  const ours = said.indexOf('nestgate: ')
  return ours === -1 ? said : said.slice(ours)
}

function verdict({ cluster, minor, mode, possible, probes }: DoctorReport): string {
  const count = (wanted: ProbeResult['outcome']): number =>
    probes.filter(({ outcome }) => outcome === wanted).length
  const lines = [
    `${count('ok')} as they must be, ${count('failed')} not, ${count('unclear')} show nothing.`,
  ]
  if (count('failed') > 0)
    lines.push(
      `Apply what this makes, and see its NEXT-STEPS.md: ${connectCommand(cluster, mode, minor)}`,
    )
  const better = possible.find((one) => one.mode === 'issuer' && one.possible)
  if (mode === 'impersonation' && better !== undefined)
    lines.push(
      `Mode issuer is possible here, where a stolen credential is of no use: ${connectCommand(cluster, 'issuer', minor)}`,
    )
  return lines.join('\n')
}
