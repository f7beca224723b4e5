/** Puts one sidecar together from its configuration and opens its listeners. No decision is made here. */
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { performance } from 'node:perf_hooks'
import type { Log } from '../shared/json-log.ts'
import { refusalText } from '../shared/reasons.ts'
import { createBodies } from './body.ts'
import { createBrokerClient } from './broker-client.ts'
import type { BrokerClient } from './broker-client.ts'
import { createBrokerConnections } from './broker-connections.ts'
import type { BrokerConnections } from './broker-connections.ts'
import { createCallers } from './caller/caller.ts'
import type { Callers } from './caller/caller.ts'
import { createExeHashes } from './caller/exe-hash.ts'
import { openKernel } from './caller/kernel.ts'
import type { SidecarConfig } from './config.ts'
import { createForwarder } from './forward.ts'
import { createGuard } from './guard.ts'
import type { Guard, OwnProcess } from './guard.ts'
import { listenForHealth } from './health.ts'
import type { Health } from './health.ts'
import { createHolds } from './hold.ts'
import { listen } from './listeners.ts'
import type { TlsListener } from './listeners.ts'
import { createLoopbackCertificate } from './loopback-certificate.ts'
import { createMetrics } from './metrics.ts'
import { neighboursEnd } from './neighbours.ts'
import { createOutage } from './outage.ts'
import { hasNeighbours, outlive } from './outlive.ts'
import { findRiskyNeighbours, hasRawSockets } from './posture.ts'
import { createRegistration } from './registration.ts'
import { createRunning } from './running.ts'
import { serveRequest, serveUpgrade } from './request.ts'
import type { RequestDeps } from './request.ts'
import { writeServiceAccountFiles } from './service-account-files.ts'
import { createSigner } from './signer.ts'
import { createTokenSource } from './token.ts'
import { createWitness } from './witness.ts'
import type { Witness } from './witness.ts'

/** Where the kernel shows processes and sockets. */
const PROC_ROOT = '/proc'

/** A running sidecar. */
export interface Sidecar {
  readonly addresses: readonly AddressInfo[]
  /** Where health is told, if anywhere. */
  readonly health?: AddressInfo
  /** Goes on serving for as long as others of the pod may need it that are told to stop at the same time. */
  outliveNeighbours(): Promise<void>
  /**
   * Settles when it is over: true once the pod's other containers are through for good, false when this sidecar closes
   * before. A native sidecar is ended by the kubelet, and does not look.
   */
  readonly neighboursEnd: Promise<boolean>
  /** Drains and closes everything; held requests are withdrawn. */
  close(): Promise<void>
}

/**
 * Starts a sidecar. It listens at once, tests itself, and registers with the broker in the background.
 *
 * @throws when an address is taken, the broker's certificates cannot be read, or the files of in-cluster clients cannot be written
 */
export async function startSidecar(
  config: SidecarConfig,
  log: Log,
  own: OwnProcess,
): Promise<Sidecar> {
  const closing = new AbortController()
  const ending = new AbortController()
  const now = (): number => performance.now()
  const { guard, callers } = tellCallersApart(config, log, own, now)
  const { deps, connections } = assemble(config, { log, now, callers, guard, closing })
  const listeners = await listen(
    {
      callers,
      log,
      onRequest: (request, response, connection) =>
        void serveRequest(deps, request, response, connection),
      onUpgrade: (request, socket, head, connection) =>
        void serveUpgrade(deps, request, socket, head, connection),
    },
    config.listen.hosts,
    config.listen.port,
    serveInCluster(config),
  )
  const vkeys = config.ledgerKeys === '' ? [] : config.ledgerKeys.split(' ')
  const witness = createWitness({ connections, vkeys, log })
  const health = await startHealth(config, deps, witness, () => listeners.connections())
  const port = listeners.addresses[0]?.port ?? config.listen.port
  await guard.test(port)
  const background = [
    deps.registration.start(closing.signal),
    guard.watch(port, closing.signal),
    witness.watch(closing.signal),
  ]
  const visible = config.profile !== 'C'
  const openConnections = (): number => listeners.connections()
  return {
    addresses: listeners.addresses,
    ...(health === undefined ? {} : { health: health.address }),
    neighboursEnd: !config.outliveNeighbours
      ? Promise.resolve(false)
      : neighboursEnd({
          ...{ broker: deps.broker, token: deps.token, log },
          ...{ ending: ending.signal, closing: closing.signal },
          seemGone: () => (visible ? !hasNeighbours(PROC_ROOT) : openConnections() === 0),
        }),
    async outliveNeighbours(): Promise<void> {
      ending.abort()
      if (!config.outliveNeighbours) return
      await outlive({ visible, procRoot: PROC_ROOT, connections: openConnections, now })
    },
    async close(): Promise<void> {
      closing.abort()
      await listeners.close()
      await Promise.all(background)
      await health?.close()
      connections.close()
      callers.close()
    },
  }
}

/** The lookups of callers, and what watches over them; each asks the other. */
function tellCallersApart(
  config: SidecarConfig,
  log: Log,
  own: OwnProcess,
  now: () => number,
): Pick<Parts, 'guard' | 'callers'> {
  const guard: Guard = createGuard({
    own,
    profile: config.profile,
    posture: config.posture,
    survey: () => callers.survey(),
    neighbours: () => findRiskyNeighbours(PROC_ROOT),
    rawSockets: () => hasRawSockets(PROC_ROOT),
    log,
    now,
  })
  const callers: Callers = createCallers({
    procRoot: PROC_ROOT,
    ...openKernel(PROC_ROOT, log),
    hashes: createExeHashes(),
    unreadable: config.caller.unreadable,
    level: () => guard.level(),
    now,
  })
  return { guard, callers }
}

interface Parts {
  readonly log: Log
  readonly now: () => number
  readonly callers: Callers
  readonly guard: Guard
  readonly closing: AbortController
}

/** Everything that the way of a request needs. */
function assemble(
  config: SidecarConfig,
  { log, now, callers, guard, closing }: Parts,
): { deps: RequestDeps & { broker: BrokerClient }; connections: BrokerConnections } {
  const ca = config.brokerCaPem ?? readFileSync(config.brokerCaFile ?? '', 'utf8')
  const { origin, host } = new URL(config.brokerUrl)
  const connections = createBrokerConnections({ origin, ca })
  const broker = createBrokerClient(connections, config.cluster)
  const token = createTokenSource(config.tokenFile, now)
  const signer = createSigner(() => Date.now())
  const limitMs = config.holdLimitSeconds * 1000
  const deps = {
    broker,
    callers,
    guard,
    token,
    signer,
    log,
    now,
    registration: createRegistration({ broker, token, signer, log }),
    holds: createHolds({ broker, token, log, limitMs, closing: closing.signal, now }),
    metrics: createMetrics(),
    bodies: createBodies(),
    running: createRunning(),
    forwarder: createForwarder({ origin, agent: connections.agent }),
    upgrades: connections,
    brokerHost: host,
    outage: createOutage(config.brokerWaitSeconds * 1000, now),
    prefix: `/clusters/${config.cluster}`,
  }
  return { deps, connections }
}

/** Makes the certificate of the HTTPS listener and writes what in-cluster clients read, where they are served. */
function serveInCluster({ serviceAccount, listen }: SidecarConfig): TlsListener | undefined {
  if (serviceAccount === undefined) return undefined
  const { key, cert, ca } = createLoopbackCertificate(Date.now())
  writeServiceAccountFiles(serviceAccount.dir, ca, serviceAccount.namespace)
  return { host: '127.0.0.1', port: listen.tlsPort, key, cert }
}

function startHealth(
  { health }: SidecarConfig,
  { guard, registration, metrics, now }: RequestDeps,
  witness: Witness,
  connections: () => number,
): Promise<Health> | undefined {
  if (health === undefined) return undefined
  const startedAt = now()
  const problem = (): string | undefined => {
    const gate = guard.gate()
    if (gate !== undefined) return refusalText(gate)
    return registration.isReady() ? undefined : 'not registered with the broker'
  }
  const gauges = (): Record<string, number> => ({
    ...guard.gauges(),
    connections: connections(),
    registered: registration.isReady() ? 1 : 0,
    ledger_consistent: witness.state().problem === undefined ? 1 : 0,
    ledger_size: witness.state().size,
    resident_memory_bytes: process.memoryUsage.rss(),
    uptime_seconds: (now() - startedAt) / 1000,
  })
  const deps = { problem, metrics: () => metrics.text(gauges()) }
  return listenForHealth(deps, health.host, health.port)
}
