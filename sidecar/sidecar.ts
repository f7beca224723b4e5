/** Puts one sidecar together from its configuration and opens its listeners. No decision is made here. */
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { performance } from 'node:perf_hooks'
import type { Log } from '../shared/json-log.ts'
import { createBodies } from './body.ts'
import { createBrokerClient } from './broker-client.ts'
import { createBrokerConnections } from './broker-connections.ts'
import { createCallers } from './caller/caller.ts'
import { createExeHashes } from './caller/exe-hash.ts'
import { openKernel } from './caller/kernel.ts'
import type { SidecarConfig } from './config.ts'
import { createForwarder } from './forward.ts'
import { createHolds } from './hold.ts'
import { listen } from './listeners.ts'
import { createRegistration } from './registration.ts'
import { serveRequest, serveUpgrade } from './request.ts'
import type { RequestDeps } from './request.ts'
import { createSigner } from './signer.ts'
import { createTokenSource } from './token.ts'

/** Where the kernel shows processes and sockets. */
const PROC_ROOT = '/proc'

/** A running sidecar. */
export interface Sidecar {
  readonly addresses: readonly AddressInfo[]
  /** Drains and closes everything; held requests are withdrawn. */
  close(): Promise<void>
}

/**
 * Starts a sidecar. It listens at once and registers with the broker in the background.
 *
 * @throws when an address is taken, or the broker's certificates cannot be read
 */
export async function startSidecar(config: SidecarConfig, log: Log): Promise<Sidecar> {
  const ca = config.brokerCaPem ?? readFileSync(config.brokerCaFile ?? '', 'utf8')
  const { origin, host } = new URL(config.brokerUrl)
  const closing = new AbortController()
  const now = (): number => performance.now()
  const connections = createBrokerConnections({ origin, ca })
  const broker = createBrokerClient(connections, config.cluster)
  const token = createTokenSource(config.tokenFile, now)
  const signer = createSigner(() => Date.now())
  const registration = createRegistration({ broker, token, signer, log })
  const callers = createCallers({
    procRoot: PROC_ROOT,
    ...openKernel(PROC_ROOT, log),
    hashes: createExeHashes(),
    unreadable: config.caller.unreadable,
    level: () => ({ kind: 'process' }),
    now,
  })
  const limitMs = config.holdLimitSeconds * 1000
  const holds = createHolds({ broker, token, log, limitMs, closing: closing.signal, now })
  const forwarder = createForwarder({ origin, agent: connections.agent })
  const deps: RequestDeps = {
    callers,
    token,
    signer,
    registration,
    holds,
    log,
    now,
    bodies: createBodies(),
    forwarder,
    upgrades: connections,
    brokerHost: host,
    prefix: `/clusters/${config.cluster}`,
  }
  const listeners = await listen(
    {
      callers,
      log,
      onRequest: (request, response) => void serveRequest(deps, request, response),
      onUpgrade: (request, socket, head) => void serveUpgrade(deps, request, socket, head),
    },
    config.listen.hosts,
    config.listen.port,
  )
  const registering = registration.start(closing.signal)
  return {
    addresses: listeners.addresses,
    async close(): Promise<void> {
      closing.abort()
      await listeners.close()
      await registering
      connections.close()
      callers.close()
    },
  }
}
