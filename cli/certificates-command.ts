/** `nestgate certificates`: the wiring of certificates.ts, certificates-renew.ts, certificates-show.ts and keep/ into the command. */
import type { Command } from 'commander'
import { ConfigError } from '../shared/config.ts'
import { messageOf } from '../shared/errors.ts'
import { createLog } from '../shared/log.ts'
import { closeOnSignal } from '../shared/shutdown.ts'
import type { CertificateResult } from './certificates.ts'
import { CallError } from './client.ts'
import { toJson, toTable } from './output.ts'
import type { Runner } from './program.ts'
import { UsageError } from './settings.ts'
import type { Environment } from './settings.ts'

/** Fewer days than this are too few unless `--days` says otherwise. */
const WARNING_DAYS = '30'

/** Adds the command. */
export function addCertificates(program: Command, runner: Runner, env: Environment): void {
  const group = program
    .command('certificates')
    .description('make, renew, show and keep the certificates of an installation')
  addMake(group, runner)
  addRenew(group, runner)
  addShow(group, runner)
  addKeep(group, runner, env)
}

function addMake(group: Command, runner: Runner): void {
  const more = (host: string, hosts: readonly string[]): readonly string[] => [...hosts, host]
  const none: readonly string[] = []
  group
    .command('make', { isDefault: true })
    .description('make them; nothing that exists is overwritten (also without the word "make")')
    .requiredOption('--out <folder>', 'folder for the files')
    .option('--broker-host <host>', 'a name or address of the broker; may be repeated', more, none)
    .option('--webhook-host <host>', 'a name of the webhook; may be repeated', more, none)
    .option('--days <number>', 'life of the certificates, in days (the most that clients accept)')
    .action(async (options: MakeOptions) => {
      // Loaded here because no other command needs the library behind it.
      const made = await import('./certificates.ts')
      const { out: dir, brokerHost, webhookHost, days = String(made.MAX_LEAF_DAYS) } = options
      const request = {
        dir,
        brokerHosts: brokerHost.length === 0 ? made.BROKER_HOSTS : brokerHost,
        webhookHosts: webhookHost.length === 0 ? made.WEBHOOK_HOSTS : webhookHost,
        days: wholeDays(days),
      }
      tell(runner, () => made.writeCertificates(request))
    })
}

function addRenew(group: Command, runner: Runner): void {
  group
    .command('renew')
    .description(
      'renew broker.crt and webhook.crt of a folder in place: new keys, the same names, the same authority',
    )
    .requiredOption('--out <folder>', 'folder of the files; needs its ca.key')
    .option('--days <number>', 'life of the certificates, in days (the most that clients accept)')
    .action(async (options: { readonly out: string; readonly days?: string }) => {
      const { MAX_LEAF_DAYS } = await import('./certificates.ts')
      const { renewCertificates } = await import('./certificates-renew.ts')
      const { out: dir, days = String(MAX_LEAF_DAYS) } = options
      tell(runner, () => renewCertificates({ dir, days: wholeDays(days) }))
    })
}

function addShow(group: Command, runner: Runner): void {
  group
    .command('show')
    .description('show certificates and their ends; exits with 1 when one has too few days left')
    .argument('<paths...>', 'files, or folders of *.crt and *.pem')
    .option('--days <number>', 'fewest days that must be left', WARNING_DAYS)
    .action(async (paths: readonly string[], options: { readonly days: string }) => {
      const { readCertificates } = await import('./certificates-show.ts')
      const days = wholeDays(options.days)
      const facts = orFail(() => readCertificates(paths, runner.now()))
      if (facts.length === 0) throw new CallError('there is no certificate')
      if (facts.some(({ daysLeft }) => daysLeft < days)) runner.fail()
      if (runner.format() === 'json') runner.print(toJson(facts))
      else
        runner.print(
          toTable(
            ['FILE', 'SUBJECT', 'NAMES', 'NOT AFTER', 'DAYS LEFT'],
            facts.map(({ file, subject, names, notAfter, daysLeft }) => [
              ...[file, subject, names.join(', '), notAfter, String(daysLeft)],
            ]),
          ),
        )
    })
}

function addKeep(group: Command, runner: Runner, env: Environment): void {
  group
    .command('keep')
    .description(
      'keep the certificates of the cluster that it runs in, until it is told to end; see docs/certificates.md',
    )
    .requiredOption('--config <file>', 'its settings; NESTGATE_ variables win')
    .action(async (options: { readonly config: string }) => {
      const { readKeepConfig } = await import('./keep/config.ts')
      const { startKeeper } = await import('./keep/start.ts')
      const { now } = runner
      try {
        const config = readKeepConfig({ argv: ['--config', options.config], env })
        const log = createLog('nestgate-certificates', config.log.level)
        const keeper = await startKeeper(config, { log, now })
        closeOnSignal(log, [keeper.close])
      } catch (error) {
        if (error instanceof ConfigError) throw new CallError(error.problems.join('; '))
        throw new CallError(messageOf(error))
      }
    })
}

interface MakeOptions {
  readonly out: string
  readonly brokerHost: readonly string[]
  readonly webhookHost: readonly string[]
  readonly days?: string
}

function wholeDays(text: string): number {
  if (!/^\d{1,5}$/.test(text)) throw new UsageError('--days must be a whole number')
  return Number(text)
}

function tell(runner: Runner, work: () => CertificateResult): void {
  const result = orFail(work)
  if ('problems' in result) throw new CallError(result.problems.join('; '))
  runner.print(runner.format() === 'json' ? toJson(result) : result.written.join('\n'))
}

/** What files cannot be used for is told in one line. */
function orFail<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw new CallError(messageOf(error))
  }
}
