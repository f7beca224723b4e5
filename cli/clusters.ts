/** `nestgate clusters`: which clusters the broker knows and how they are; registering them, for admins. */
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import type { z } from 'zod'
import { messageOf } from '../shared/errors.ts'
import { clusterListSchema, clusterStatusSchema, removedSchema } from '../shared/wire.ts'
import { plain, toJson, toTable } from './output.ts'
import type { Runner } from './program.ts'
import { UsageError } from './settings.ts'

type Status = z.infer<typeof clusterStatusSchema>

const HEAD = ['NAME', 'STATE', 'SOURCE', 'SERVER', 'POLICIES', 'PROBLEM']

interface Options {
  readonly server: string
  readonly ca: string
  readonly tokenFile?: string
  readonly certFile?: string
  readonly keyFile?: string
  readonly issuer?: string
  readonly policies?: readonly string[]
}

/** Adds the commands. */
export function addClusters(program: Command, runner: Runner): void {
  const clusters = program.command('clusters').description('the clusters of the broker')
  clusters
    .command('list')
    .description('list them, and how they are')
    .action(() =>
      runner.call(async (client, format) => {
        const { items } = await client.get(clusterListSchema, 'v1/clusters')
        return format === 'json' ? toJson(items) : toTable(HEAD, items.map(toRow))
      }),
    )
  for (const [verb, description] of [
    ['add', 'register a cluster'],
    ['update', 'change a registered cluster; everything is given anew'],
  ] as const)
    clusters
      .command(verb)
      .description(description)
      .argument('<name>', 'name in /clusters/NAME/')
      .requiredOption('--server <url>', 'address of its API server')
      .requiredOption('--ca <file>', 'certificates that its own must come from')
      .option(
        '--token-name <name>',
        'file with the broker’s token there, in the broker’s folder of secrets',
      )
      .option('--cert-name <name>', 'or: file with its client certificate')
      .option('--key-name <name>', 'and with its key')
      .option(
        '--issuer <url>',
        'check sidecars’ tokens by this issuer’s keys, not by asking the cluster',
      )
      .option('--policies <names...>', 'policies that hold for it; all when left out')
      .action((name: string, given: Record<string, string>) =>
        runner.call(async (client, format) => {
          const body = bodyOf(name, readOptions(given))
          const path = verb === 'add' ? 'v1/clusters' : `v1/clusters/${encodeURIComponent(name)}`
          const status =
            verb === 'add'
              ? await client.post(clusterStatusSchema, path, body)
              : await client.put(clusterStatusSchema, path, body)
          return format === 'json' ? toJson(status) : toTable(HEAD, [toRow(status)])
        }),
      )
  clusters
    .command('remove')
    .description('forget a registered cluster; what is open to it is cut')
    .argument('<name>', 'its name')
    .action((name: string) =>
      runner.call(async (client, format) => {
        const path = `v1/clusters/${encodeURIComponent(name)}`
        const removed = await client.delete(removedSchema, path)
        return format === 'json' ? toJson(removed) : plain(`${removed.name} removed`)
      }),
    )
}

function readOptions(given: Readonly<Record<string, unknown>>): Options {
  const { server, ca, tokenName, certName, keyName, issuer, policies } = given
  const text = (value: unknown): { readonly value?: string } =>
    typeof value === 'string' ? { value } : {}
  const { value: tokenFile } = text(tokenName)
  const { value: certFile } = text(certName)
  const { value: keyFile } = text(keyName)
  return {
    server: String(server),
    ca: String(ca),
    ...(tokenFile === undefined ? {} : { tokenFile }),
    ...(certFile === undefined ? {} : { certFile }),
    ...(keyFile === undefined ? {} : { keyFile }),
    ...(typeof issuer === 'string' ? { issuer } : {}),
    ...(Array.isArray(policies) ? { policies: policies.map(String) } : {}),
  }
}

function bodyOf(name: string, options: Options): object {
  const { server, tokenFile, certFile, keyFile, issuer, policies } = options
  const byToken = tokenFile !== undefined
  if (byToken === (certFile !== undefined && keyFile !== undefined))
    throw new UsageError('give --token-name, or --cert-name and --key-name')
  return {
    name,
    server,
    ca: readAuthority(options.ca),
    credential: byToken ? { tokenFile } : { certFile, keyFile },
    serviceAccountTokens:
      issuer === undefined ? { verify: 'tokenReview' } : { verify: 'jwks', issuer },
    ...(policies === undefined ? {} : { policies }),
  }
}

function readAuthority(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new UsageError(`cannot read ${file}: ${messageOf(error)}`)
  }
}

function toRow({ name, state, source, server, policies, problem }: Status): readonly string[] {
  return [name, state, source, server, policies?.join(',') ?? '*', problem ?? '']
}
