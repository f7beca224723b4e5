/** `nestgate certificates`: the wiring of certificates.ts into the command. */
import type { Command } from 'commander'
import type { Runner } from './program.ts'
import { toJson } from './output.ts'
import { CallError } from './client.ts'
import { UsageError } from './settings.ts'

/** Adds the command. */
export function addCertificates(program: Command, runner: Runner): void {
  const more = (host: string, hosts: readonly string[]): readonly string[] => [...hosts, host]
  const none: readonly string[] = []
  program
    .command('certificates')
    .description('make the certificates of an installation; nothing that exists is overwritten')
    .requiredOption('--out <folder>', 'folder for the files')
    .option('--broker-host <host>', 'a name or address of the broker; may be repeated', more, none)
    .option('--webhook-host <host>', 'a name of the webhook; may be repeated', more, none)
    .option('--days <number>', 'life of the certificates, in days (the most that clients accept)')
    .action(async (options: CertificateOptions) => {
      // Loaded here because no other command needs the library behind it.
      const made = await import('./certificates.ts')
      const { out: dir, brokerHost, webhookHost, days = String(made.MAX_LEAF_DAYS) } = options
      if (!/^\d{1,5}$/.test(days)) throw new UsageError('--days must be a whole number')
      const result = made.writeCertificates({
        dir,
        brokerHosts: brokerHost.length === 0 ? made.BROKER_HOSTS : brokerHost,
        webhookHosts: webhookHost.length === 0 ? made.WEBHOOK_HOSTS : webhookHost,
        days: Number(days),
      })
      if ('problems' in result) throw new CallError(result.problems.join('; '))
      runner.print(runner.format() === 'json' ? toJson(result) : result.written.join('\n'))
    })
}

interface CertificateOptions {
  readonly out: string
  readonly brokerHost: readonly string[]
  readonly webhookHost: readonly string[]
  readonly days?: string
}
