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
  readonly tokenName?: string
  readonly refresh?: string
  readonly certName?: string
  readonly keyName?: string
  readonly authorizerSha256?: string
  readonly issuer?: string
  readonly boundNamespaces?: readonly string[]
  readonly boundUsers?: readonly string[]
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
  addChanges(clusters, runner)
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

/** `add` and `update`: all is given, each time. */
function addChanges(clusters: Command, runner: Runner): void {
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
      .option('--refresh <account>', 'whose token that is, NAMESPACE/NAME: the broker renews it')
      .option('--cert-name <name>', 'or: file with its client certificate')
      .option('--key-name <name>', 'and with its key')
      .option(
        '--authorizer-sha256 <hash>',
        'or, mode issuer: of the token of its API server (nestgate connect)',
      )
      .option(
        '--issuer <url>',
        'check sidecars’ tokens by this issuer’s keys, not by asking the cluster',
      )
      .option('--bound-namespaces <names...>', 'where its admission asks the broker: of agents')
      .option('--bound-users <names...>', 'and users')
      .option('--policies <names...>', 'policies that hold for it; all when left out')
      .action((name: string, options: Options) =>
        runner.call(async (client, format) => {
          const body = bodyOf(name, options)
          const path = verb === 'add' ? 'v1/clusters' : `v1/clusters/${encodeURIComponent(name)}`
          const status =
            verb === 'add'
              ? await client.post(clusterStatusSchema, path, body)
              : await client.put(clusterStatusSchema, path, body)
          return format === 'json' ? toJson(status) : toTable(HEAD, [toRow(status)])
        }),
      )
}

function bodyOf(name: string, options: Options): object {
  const { server, issuer, policies, boundNamespaces, boundUsers } = options
  const bound = {
    ...(boundNamespaces === undefined ? {} : { namespaces: boundNamespaces }),
    ...(boundUsers === undefined ? {} : { users: boundUsers }),
  }
  return {
    name,
    server,
    ca: readAuthority(options.ca),
    credential: credentialOf(options),
    serviceAccountTokens:
      issuer === undefined ? { verify: 'tokenReview' } : { verify: 'jwks', issuer },
    ...(policies === undefined ? {} : { policies }),
    ...(Object.keys(bound).length === 0 ? {} : { bound }),
  }
}

/** One of the three kinds, and nothing of another. */
function credentialOf(options: Options): object {
  const { tokenName, refresh, certName, keyName, authorizerSha256 } = options
  const kinds = [tokenName ?? refresh, certName ?? keyName, authorizerSha256].filter(
    (kind) => kind !== undefined,
  )
  if (kinds.length === 1) {
    if (authorizerSha256 !== undefined)
      return { issuer: { authorizerTokenSha256: authorizerSha256 } }
    if (certName !== undefined && keyName !== undefined)
      return { certFile: certName, keyFile: keyName }
    if (tokenName !== undefined) return { tokenFile: tokenName, ...refreshOf(refresh) }
  }
  throw new UsageError('give --token-name, or --cert-name and --key-name, or --authorizer-sha256')
}

function refreshOf(account: string | undefined): object {
  if (account === undefined) return {}
  const [namespace, serviceAccount, more] = account.split('/')
  if (serviceAccount === undefined || more !== undefined)
    throw new UsageError('--refresh is NAMESPACE/NAME of a service account')
  return { refresh: { namespace, serviceAccount } }
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
