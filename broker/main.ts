/** The broker: reads its configuration and its policy, opens the store and the ways to the clusters, listens. Only wiring. */
import { join } from 'node:path'
import { messageOf } from '../shared/errors.ts'
import { commandLine } from '../shared/config.ts'
import { createLog } from '../shared/log.ts'
import type { DeciderOptions } from '../shared/policy/decide.ts'
import { DEFAULT_TERMS } from '../shared/policy/terms.ts'
import { closeOnSignal } from '../shared/shutdown.ts'
import { createApi } from './api/api.ts'
import { createApprovals } from './approvals/approvals.ts'
import { createPreviews } from './approvals/preview.ts'
import { createTargets } from './approvals/target.ts'
import { readBrokerConfig } from './config.ts'
import type { BrokerConfig, ClusterConfig } from './config.ts'
import { openConnection } from './credentials/connection.ts'
import type { ClusterConnection } from './credentials/connection.ts'
import { createKinds } from './discovery/kinds.ts'
import { createBodies, MAX_BODIES_BYTES } from './gateway/body.ts'
import { createRunning } from './gateway/running.ts'
import { createGateway } from './gateway/serve.ts'
import type { Entry } from './ledger/entry.ts'
import { createContainers } from './identity/containers.ts'
import { createDirectClients } from './identity/direct.ts'
import { createNaming } from './identity/naming.ts'
import { createOidc } from './identity/oidc.ts'
import { createPeople } from './identity/people.ts'
import { createMatcher, createOwners } from './identity/registrations.ts'
import {
  checkByKeys,
  checkByReview,
  createTokenVerifier,
} from './identity/service-account-tokens.ts'
import type { TokenVerifier } from './identity/service-account-tokens.ts'
import { createSidecars } from './identity/sidecars.ts'
import { openPolicy } from './policy/source.ts'
import type { LivePolicy, PolicySummary } from './policy/source.ts'
import { startServer } from './server.ts'
import { openSqliteStore } from './store/sqlite/client.ts'

/** Version of the software, as package.json has it. */
const VERSION = '0.1.0'
const now = Date.now

async function main(): Promise<void> {
  const config = readBrokerConfig(commandLine())
  const { oidc: issuers } = config
  const log = createLog('nestgate-broker', config.log.level)
  const policy = await openPolicy({
    paths: [config.policyFile],
    options: policyOptions(config),
    log,
    now,
    onChange: (old, fresh) => {
      void record(policyEntry('policy_loaded', fresh, { old: old.digest }))
    },
    onRejected: (kept, problems) => {
      void record(policyEntry('policy_rejected', kept, { problems: problems.length }))
    },
  })
  const connections = new Map<string, ClusterConnection>()
  const verifiers = new Map<string, TokenVerifier>()
  for (const cluster of config.clusters) {
    const connection = await openConnection(cluster, now)
    connections.set(cluster.name, connection)
    verifiers.set(cluster.name, verifierFor(cluster, connection))
  }
  const store = await openSqliteStore({ file: join(config.dataDir, 'nestgate.db'), log, now })
  const record = (entry: Entry): Promise<unknown> =>
    store.append([entry]).catch((error: unknown) => {
      log.error({ error: messageOf(error) }, 'an entry about the broker could not be written')
    })
  const approvals = createApprovals({ store, log, now })
  await approvals.recover()
  const sidecars = createSidecars({ verifiers, now })
  const containers = createContainers({ connections, log, now })
  const naming = createNaming({ matcher: createMatcher(config.agents), containers, now })
  const direct = createDirectClients(createOidc(issuers, { log, now }))
  const running = createRunning()
  const gateway = createGateway({
    clusters: { get: (name) => asCluster(connections.get(name)) },
    ...{ sidecars, direct, naming, owners: createOwners(config.agents) },
    ...{ kinds: createKinds({ log, now }), decider: policy.decider },
    ...{ approvals, targets: createTargets({ now }), previews: createPreviews({ now }) },
    ...{ store, bodies: createBodies(MAX_BODIES_BYTES), running, log, now },
  })
  const people = createPeople(config.people, direct)
  const api = createApi({ approvals, store, sidecars, people, policy, issuers, log, now })
  await store.append([startedEntry(config, policy)])
  const server = await startServer({ config, gateway, api, log, now })
  const { rules } = policy.status()
  log.info({ port: server.port, clusters: [...connections.keys()], rules }, 'listening')
  closeOnSignal(log, [
    ...[...connections.values()].map((connection) => (): Promise<void> => connection.close()),
    (): Promise<void> => store.close(),
    // what the listener cut still writes its outcome
    (): Promise<void> => running.close(),
    (): Promise<void> => server.close(),
    // closed before the server: it wakes the polls that the server would wait for
    (): void => {
      approvals.close()
    },
    (): Promise<void> => policy.close(),
  ])
}

function policyOptions({ acceptVerdicts, approvals, clusters }: BrokerConfig): DeciderOptions {
  const scopes = clusters.flatMap(({ name, policies }) =>
    policies === undefined ? [] : [[name, policies] as const],
  )
  const { pendingSeconds } = approvals
  return { acceptVerdicts, scopes: new Map(scopes), terms: { ...DEFAULT_TERMS, pendingSeconds } }
}

function asCluster(
  connection: ClusterConnection | undefined,
): { readonly connection: ClusterConnection } | undefined {
  return connection === undefined ? undefined : { connection }
}

function verifierFor(
  { serviceAccountTokens: tokens }: ClusterConfig,
  connection: ClusterConnection,
): TokenVerifier {
  const check =
    tokens.verify === 'jwks'
      ? checkByKeys(connection, tokens.issuer, now)
      : checkByReview(connection, now)
  return createTokenVerifier(check, now)
}

function policyEntry(
  event: 'policy_loaded' | 'policy_rejected',
  { digest, rules }: PolicySummary,
  more: Readonly<Record<string, string | number>>,
): Entry {
  const detail = { policyDigest: digest, rules, ...more }
  return { kind: 'system', event, actor: 'broker', detail }
}

function startedEntry(config: BrokerConfig, policy: LivePolicy): Entry {
  const { digest, rules } = policy.status()
  return {
    kind: 'system',
    event: 'broker_started',
    actor: 'broker',
    detail: {
      version: VERSION,
      policyDigest: digest,
      rules,
      clusters: config.clusters.map(({ name }) => name).join(','),
    },
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`nestgate broker: ${messageOf(error)}\n`)
  process.exit(1)
})
