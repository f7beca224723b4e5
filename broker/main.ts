/** The broker: reads its configuration and its policy, opens the store and the ways to the clusters, listens. Only wiring. */
import { messageOf } from '../shared/errors.ts'
import { commandLine } from '../shared/config.ts'
import { createLog } from '../shared/log.ts'
import type { Logger } from '../shared/log.ts'
import type { DeciderOptions } from '../shared/policy/decide.ts'
import { DEFAULT_TERMS } from '../shared/policy/terms.ts'
import { closeOnSignal } from '../shared/shutdown.ts'
import { createApi } from './api/api.ts'
import type { ApiDeps } from './api/api.ts'
import { createPreviews } from './approvals/preview.ts'
import { createTargets } from './approvals/target.ts'
import { readBrokerConfig } from './config.ts'
import { createClusters, MAX_CLUSTERS, usable } from './clusters/registry.ts'
import type { Clusters } from './clusters/registry.ts'
import { placed, registeredSchema } from './clusters/settings.ts'
import type { BrokerConfig } from './config.ts'
import { openCredentialParts } from './credentials/parts.ts'
import type { CredentialParts } from './credentials/parts.ts'
import { refusedRecorder } from './credentials/refused-record.ts'
import { createKinds } from './discovery/kinds.ts'
import type { Kinds } from './discovery/kinds.ts'
import { createBodies, MAX_BODIES_BYTES } from './gateway/body.ts'
import { createRunning } from './gateway/running.ts'
import { createGateway } from './gateway/serve.ts'
import { openHeldRequests } from './held-requests.ts'
import type { Entry } from './ledger/entry.ts'
import { openLedger } from './ledger/parts.ts'
import { openMaskingKey } from './masking/key.ts'
import { createContainers } from './identity/containers.ts'
import { createNeighbours } from './identity/neighbours.ts'
import { createDirectClients } from './identity/direct.ts'
import { createNaming } from './identity/naming.ts'
import type { Naming } from './identity/naming.ts'
import { createOidc } from './identity/oidc.ts'
import { createPeople } from './identity/people.ts'
import { createMatcher, createOwners } from './identity/registrations.ts'
import { createSidecars } from './identity/sidecars.ts'
import type { Sidecars } from './identity/sidecars.ts'
import { sweepSidecarKeys } from './identity/sidecar-keys.ts'
import { openPolicy } from './policy/source.ts'
import type { LivePolicy, PolicySummary } from './policy/source.ts'
import { startServer } from './server.ts'
import { openStore } from './store/open.ts'
import { openRecordings } from './sessions/recordings/open.ts'
import type { Store } from './store/store.ts'

/** Version of the software, as package.json has it. */
const VERSION = '0.1.0'
const now = Date.now

async function main(): Promise<void> {
  const config = readBrokerConfig(commandLine())
  const log = createLog('nestgate-broker', config.log.level)
  const kinds = createKinds({ log, now })
  // what changes before there is a ledger stands in its first entry
  let record: (entry: Entry) => void = () => undefined
  const credentials = await openCredentials(config, log, (entry) => {
    record(entry)
  })
  const clusters = createClusters(waysTo(credentials, log, kinds))
  const policy = await startPolicy(config, clusters, log, (entry) => {
    record(entry)
  })
  const store = await openStore(config, log, now)
  record = recorder(store, log)
  const kept = { store, dataDir: config.dataDir, log, now }
  const ledger = await openLedger(config.ledger, kept)
  const recordings = await openRecordings(config.sessions, kept)
  const masking = await openMaskingKey(config.masking, config.dataDir)
  const held = await openHeldRequests(config, { store, log, now })
  const { approvals } = held
  await openClusters(config, store, clusters, log)
  const sidecars = sidecarsOf(clusters, store, log)
  const direct = createDirectClients(createOidc(config.oidc, { log, now }))
  const running = createRunning()
  const gateway = createGateway({
    ...{ clusters, kinds, sidecars, direct, naming: namingOf(config, clusters, log) },
    ...{ owners: createOwners(config.agents), decider: policy.decider },
    ...{ approvals, targets: createTargets({ now }), previews: createPreviews({ now }) },
    ...{ recordings, masking, store, bodies: createBodies(MAX_BODIES_BYTES), running, log, now },
  })
  const api = createApi({
    ...{ approvals, store, sidecars, people: createPeople(config.people, direct), policy },
    ...{ clusters, clusterSecretsDir: config.clusterSecretsDir, issuers: config.oidc },
    ...{ credentials, checkpoints: ledger.checkpoints, mirrors: ledger.mirrors, log, now },
    neighbours: createNeighbours({ get: (name) => usable(clusters, name)?.connection }),
    accessReview: reviewsOf(config, policy, clusters),
    sessions: recordings,
  })
  await store.append([startedEntry(config, policy, credentials)])
  const server = await startServer({ config, gateway, api, log })
  const names = clusters.list().map(({ name }) => name)
  log.info({ port: server.port, clusters: names, rules: policy.status().rules }, 'listening')
  closeOnSignal(log, [
    ...closers(clusters, credentials, store),
    (): Promise<void> => held.presence.close(),
    ledger.close,
    (): Promise<void> => recordings.close(),
    // what the listener cut still writes its outcome
    (): Promise<void> => running.close(),
    (): Promise<void> => server.close(),
    // closed before the server: it wakes the polls that the server would wait for
    (): void => {
      approvals.close()
    },
    (): Promise<void> => policy.close(),
    (): Promise<void> => held.notifications.close(),
  ])
}

/** What others rest on: closed last, which is first in the list (shared/shutdown.ts). */
function closers(
  clusters: Clusters,
  credentials: CredentialParts,
  store: Store,
): Parameters<typeof closeOnSignal>[1] {
  return [
    (): Promise<void> => clusters.close(),
    (): void => {
      credentials.close()
    },
    (): Promise<void> => store.close(),
  ]
}

function waysTo(
  { tickets, issuer }: CredentialParts,
  log: Logger,
  kinds: Kinds,
): Parameters<typeof createClusters>[0] {
  const shared = { tickets, log, now, onForget: kinds.forget }
  return issuer === undefined ? shared : { ...shared, issuer: issuer.parts }
}

/** What credentials are made of; what is refused to one of them, and each key that begins, is evidence. */
function openCredentials(
  { issuer, dataDir }: BrokerConfig,
  log: Logger,
  record: (entry: Entry) => void,
): Promise<CredentialParts> {
  return openCredentialParts(issuer, {
    ...{ dataDir, log, now },
    refusedTo: () => refusedRecorder(record, log, now),
    onKey: (kid) => {
      record({ kind: 'system', event: 'issuer_key_made', actor: 'broker', detail: { kid } })
    },
  })
}

/** Writes entries that nothing waits for. */
function recorder(store: Store, log: Logger): (entry: Entry) => void {
  return (entry) => {
    store.append([entry]).catch((error: unknown) => {
      log.error({ error: messageOf(error) }, 'an entry about the broker could not be written')
    })
  }
}

function startPolicy(
  config: BrokerConfig,
  clusters: Clusters,
  log: Logger,
  record: (entry: Entry) => void,
): Promise<LivePolicy> {
  return openPolicy({
    paths: [config.policyFile],
    options: policyOptions(config, clusters),
    log,
    now,
    onChange: (old, fresh) => {
      record(policyEntry('policy_loaded', fresh, { old: old.digest }))
    },
    onRejected: (kept, problems) => {
      record(policyEntry('policy_rejected', kept, { problems: problems.length }))
    },
  })
}

function namingOf({ agents }: BrokerConfig, clusters: Clusters, log: Logger): Naming {
  const connections = { get: (name: string) => usable(clusters, name)?.connection }
  const containers = createContainers({ connections, log, now })
  return createNaming({ matcher: createMatcher(agents), containers, now })
}

/** Their keys are of any broker; old ones go, and nothing waits for that. */
function sidecarsOf(clusters: Clusters, store: Store, log: Logger): Sidecars {
  sweepSidecarKeys(store, now()).catch((error: unknown) => {
    log.error({ error: messageOf(error) }, 'old keys of sidecars could not be removed')
  })
  const verifiers = { get: (name: string) => usable(clusters, name)?.verifier }
  const stored = async (name: string): Promise<unknown> =>
    (await store.record('sidecar_key', name))?.body
  return createSidecars({ verifiers, stored, now })
}

/** What access reviews are made of, beside the ledger. */
function reviewsOf(
  config: BrokerConfig,
  policy: LivePolicy,
  clusters: Clusters,
): NonNullable<ApiDeps['accessReview']> {
  const { scopes, acceptVerdicts } = policyOptions(config, clusters)
  return { policy: () => policy.policy(), scopes, acceptVerdicts, registrations: config.agents }
}

function policyOptions(
  { acceptVerdicts, approvals: { pendingSeconds } }: BrokerConfig,
  clusters: Clusters,
): DeciderOptions {
  const scopes = { get: (cluster: string) => clusters.policiesOf(cluster) }
  return { acceptVerdicts, scopes, terms: { ...DEFAULT_TERMS, pendingSeconds } }
}

/** Opens the clusters of the configuration, and those that were registered; none of them holds up the start. */
async function openClusters(
  { clusters: configured, clusterSecretsDir }: BrokerConfig,
  store: Store,
  clusters: Clusters,
  log: Logger,
): Promise<void> {
  await Promise.all(configured.map((settings) => clusters.put(settings, 'file')))
  const fixed = new Set(configured.map(({ name }) => name))
  for (const { body } of await store.records('cluster', {}, MAX_CLUSTERS)) {
    const parsed = registeredSchema.safeParse(body)
    if (!parsed.success || clusterSecretsDir === undefined || fixed.has(parsed.data.name)) {
      log.error({ cluster: parsed.data?.name }, 'a registered cluster is left out')
    } else await clusters.put(placed(parsed.data, clusterSecretsDir), 'api')
  }
}

function policyEntry(
  event: 'policy_loaded' | 'policy_rejected',
  { digest, rules }: PolicySummary,
  more: Readonly<Record<string, string | number>>,
): Entry {
  const detail = { policyDigest: digest, rules, ...more }
  return { kind: 'system', event, actor: 'broker', detail }
}

function startedEntry(
  config: BrokerConfig,
  policy: LivePolicy,
  { issuer }: CredentialParts,
): Entry {
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
      ...(issuer === undefined
        ? {}
        : {
            issuerKids: issuer.keys
              .list()
              .map(({ kid }) => kid)
              .join(','),
          }),
    },
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`nestgate broker: ${messageOf(error)}\n`)
  process.exit(1)
})
