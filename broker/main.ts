/** The broker: reads its configuration and its policy, opens the store and the ways to the clusters, listens. Only wiring. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf } from '../shared/errors.ts'
import { commandLine, ConfigError } from '../shared/config.ts'
import { createLog } from '../shared/log.ts'
import { closeOnSignal } from '../shared/shutdown.ts'
import { createApi } from './api/api.ts'
import { createApprovals } from './approvals/approvals.ts'
import { readBrokerConfig } from './config.ts'
import type { BrokerConfig, ClusterConfig } from './config.ts'
import { openConnection } from './credentials/connection.ts'
import type { ClusterConnection } from './credentials/connection.ts'
import { createBodies, MAX_BODIES_BYTES } from './gateway/body.ts'
import { createRunning } from './gateway/running.ts'
import { createGateway } from './gateway/serve.ts'
import type { Entry } from './ledger/entry.ts'
import { createContainers } from './identity/containers.ts'
import { createNaming } from './identity/naming.ts'
import { createPeople } from './identity/people.ts'
import { createMatcher } from './identity/registrations.ts'
import {
  checkByKeys,
  checkByReview,
  createTokenVerifier,
} from './identity/service-account-tokens.ts'
import type { TokenVerifier } from './identity/service-account-tokens.ts'
import { createSidecars } from './identity/sidecars.ts'
import { createDecider } from './policy/decide.ts'
import { readPolicy } from './policy/language.ts'
import type { PolicyDocument } from './policy/language.ts'
import { startServer } from './server.ts'
import { openSqliteStore } from './store/sqlite/client.ts'

/** Version of the software, as package.json has it. */
const VERSION = '0.1.0'
const now = Date.now

async function main(): Promise<void> {
  const config = readBrokerConfig(commandLine())
  const policy = await loadPolicy(config.policyFile)
  const log = createLog('nestgate-broker', config.log.level)
  const connections = new Map<string, ClusterConnection>()
  const verifiers = new Map<string, TokenVerifier>()
  for (const cluster of config.clusters) {
    const connection = await openConnection(cluster, now)
    connections.set(cluster.name, connection)
    verifiers.set(cluster.name, verifierFor(cluster, connection))
  }
  const store = await openSqliteStore({ file: join(config.dataDir, 'nestgate.db'), log, now })
  const approvals = createApprovals({ store, log, now })
  await approvals.recover()
  const sidecars = createSidecars({ verifiers, now })
  const containers = createContainers({ connections, log, now })
  const naming = createNaming({ matcher: createMatcher(config.agents), containers, now })
  const decider = createDecider(policy, config.acceptVerdicts)
  const running = createRunning()
  const bodies = createBodies(MAX_BODIES_BYTES)
  const { pendingSeconds } = config.approvals
  const ways = { connections, sidecars, naming, decider, pendingSeconds }
  const gateway = createGateway({ ...ways, approvals, store, bodies, running, log, now })
  const api = createApi({
    approvals,
    store,
    sidecars,
    people: createPeople(config.people),
    log,
    now,
  })
  await store.append([startedEntry(config, policy)])
  const server = await startServer({ config, gateway, api, log, now })
  log.info(
    { port: server.port, clusters: [...connections.keys()], rules: policy.rules.length },
    'listening',
  )
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
  ])
}

async function loadPolicy(file: string): Promise<PolicyDocument> {
  const policy = readPolicy(await readFile(file, 'utf8'))
  if ('problems' in policy)
    throw new ConfigError(policy.problems.map((problem) => `${file}:${problem}`))
  return policy
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

function startedEntry(config: BrokerConfig, policy: PolicyDocument): Entry {
  return {
    kind: 'system',
    event: 'broker_started',
    actor: 'broker',
    detail: {
      version: VERSION,
      policyDigest: policy.digest,
      rules: policy.rules.length,
      clusters: config.clusters.map(({ name }) => name).join(','),
    },
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`nestgate broker: ${messageOf(error)}\n`)
  process.exit(1)
})
