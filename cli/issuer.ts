/** `nestgate issuer`: the keys that the broker signs its own tokens with (mode `issuer`), and replacing one that somebody else may have. */
import type { Command } from 'commander'
import { issuerKeysSchema, keyReplacedSchema } from '../shared/wire.ts'
import type { IssuerKeys, KeyReplaced } from '../shared/wire.ts'
import { plain, toJson, toTable } from './output.ts'
import type { Runner } from './program.ts'

const KEYS_HEAD = ['KEY', 'STATE', 'SINCE', 'CREATED']
const CLUSTERS_HEAD = ['CLUSTER', 'NEW KEY', 'PROBLEM']

/** Adds the commands. `replace` ends with 1 where a cluster did not take the new key. */
export function addIssuer(program: Command, runner: Runner): void {
  const issuer = program.command('issuer').description('the broker as issuer: its signing keys')
  issuer
    .command('show')
    .description('list the keys, and what each does now')
    .action(() =>
      runner.call(async (client, format) => {
        const found = await client.get(issuerKeysSchema, 'v1/issuer')
        return format === 'json' ? toJson(found) : keysText(found)
      }),
    )
  issuer
    .command('replace')
    .description('make a new key and forget all others, at once: for one that somebody may have')
    .action(() =>
      runner.call(async (client, format) => {
        const replaced = await client.post(keyReplacedSchema, 'v1/issuer/replace', {})
        if (replaced.clusters.some(({ outcome }) => outcome !== 'taken')) runner.fail()
        return format === 'json' ? toJson(replaced) : replacedText(replaced)
      }),
    )
}

function keysText({ url, keys }: IssuerKeys): string {
  const rows = keys.map(({ kid, state, since, created }) => [kid, state, since, created])
  return `${plain(url)}\n\n${toTable(KEYS_HEAD, rows)}`
}

function replacedText({ kid, clusters, notice }: KeyReplaced): string {
  const rows = clusters.map(({ name, outcome, problem = '' }) => [name, outcome, problem])
  const table = rows.length === 0 ? [] : [toTable(CLUSTERS_HEAD, rows)]
  return [`${plain(kid)} signs from now on.`, ...table, plain(notice)].join('\n\n')
}
