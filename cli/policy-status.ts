/** `nestgate policy status`: which policy a broker decides by, and what keeps a newer one from it. */
import type { Command } from 'commander'
import { policyStatusSchema } from '../shared/wire.ts'
import { plain, toDetails, toJson } from './output.ts'
import type { Runner } from './program.ts'

/** Adds the command. It fails while the broker's files have problems, so that a pipeline can wait for its change. */
export function addPolicyStatus(policy: Command, runner: Runner): void {
  policy
    .command('status')
    .description('tell which policy the broker decides by, and what is wrong with its files')
    .action(() =>
      runner.call(async (client, format) => {
        const status = await client.get(policyStatusSchema, 'v1/policy')
        const { digest, rules, loadedAt, warnings, problems } = status
        if (problems.length > 0) runner.fail()
        if (format === 'json') return toJson(status)
        return [
          toDetails([
            ['Digest', digest],
            ['Rules', String(rules)],
            ['Since', loadedAt],
            ['Files', problems.length === 0 ? 'in force' : 'have problems; not in force'],
          ]),
          ...problems.map((problem) => plain(`problem: ${problem}`)),
          ...warnings.map((warning) => plain(`warning: ${warning}`)),
        ].join('\n')
      }),
    )
}
