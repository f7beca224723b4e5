/** `nestgate erase`: forgets a person in the ledger, whose entries and proofs stay as they are. */
import type { Command } from 'commander'
import { erasedSchema } from '../shared/wire.ts'
import { toJson } from './output.ts'
import type { Runner } from './program.ts'

/** Adds the command. The name is not repeated: it may end in a terminal's log. */
export function addErase(program: Command, runner: Runner): void {
  program
    .command('erase')
    .description(
      'remove what leads from the ledger’s pseudonyms to a person, for good; entries and proofs stay (role admin)',
    )
    .argument('<name>', 'the person’s name, exactly as the ledger shows it')
    .requiredOption('--reason <text>', 'why, for the ledger; without the name')
    .action((name: string, { reason }: { readonly reason: string }) =>
      runner.call(async (client, format) => {
        const erased = await client.post(erasedSchema, 'v1/ledger/erase', { name, reason })
        if (format === 'json') return toJson(erased)
        const { pseudonyms } = erased
        return pseudonyms === 0
          ? 'The ledger has no pseudonym of this name.'
          : `Erased; pseudonyms that lead nowhere now: ${pseudonyms}.`
      }),
    )
}
