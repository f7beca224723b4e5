/** `nestgate doctor`: what a cluster is, and whether every trap is closed there; the broker tries, this prints. */
import type { Command } from 'commander'
import { doctorReportSchema } from '../shared/wire.ts'
import type { DoctorReport, ProbeResult } from '../shared/wire.ts'
import { plain, toDetails, toJson, toTable } from './output.ts'
import type { Runner } from './program.ts'

const HEAD = ['', 'TRIED', 'STATUS', 'SAID']
const MARKS: Readonly<Record<ProbeResult['outcome'], string>> = {
  ok: 'ok',
  failed: 'FAILED',
  unclear: '?',
}

/** Adds the command. It ends with 1 when an attempt came through that must not, or was refused that must come through. */
export function addDoctor(program: Command, runner: Runner): void {
  program
    .command('doctor')
    .description('try every trap of a cluster, with the broker’s own keys and credentials')
    .argument('<cluster>', 'name of a registered cluster')
    .action((name: string) =>
      runner.call(async (client, format) => {
        const path = `v1/clusters/${encodeURIComponent(name)}/check`
        const report = await client.post(doctorReportSchema, path, {})
        if (!report.ok) runner.fail()
        return format === 'json' ? toJson(report) : toText(report)
      }),
    )
}

function toText(report: DoctorReport): string {
  const { cluster, version, mode, possible, probes } = report
  const details = toDetails([
    ['cluster', cluster],
    ['version', version],
    ['mode', mode],
    ...possible.map(
      (one) =>
        [`mode ${one.mode}`, `${one.possible ? 'possible' : 'not possible'}: ${one.how}`] as const,
    ),
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

function verdict({ cluster, mode, possible, probes }: DoctorReport): string {
  const count = (wanted: ProbeResult['outcome']): number =>
    probes.filter(({ outcome }) => outcome === wanted).length
  const lines = [
    `${count('ok')} as they must be, ${count('failed')} not, ${count('unclear')} show nothing.`,
  ]
  if (count('failed') > 0)
    lines.push(`Apply again what nestgate connect ${plain(cluster)} --mode ${mode} makes.`)
  const better = possible.find((one) => one.mode === 'issuer' && one.possible)
  if (mode === 'impersonation' && better !== undefined)
    lines.push(
      `Mode issuer is possible here, where a stolen credential is of no use: nestgate connect ${plain(cluster)} --mode issuer.`,
    )
  return lines.join('\n')
}
