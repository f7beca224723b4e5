/** The broker's own issuer, authorizer and credentials, behind a listener of their own: what an API server asks, and what it is sent. */
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import express from 'express'
import { apiServerRoutes } from '../../broker/api/api-server-routes.ts'
import { issuerRoutes } from '../../broker/api/issuer-routes.ts'
import type { ClusterSettings } from '../../broker/clusters/settings.ts'
import type { Clusters } from '../../broker/clusters/registry.ts'
import type { Actor } from '../../broker/credentials/actor.ts'
import { callOf } from '../../broker/credentials/api-call.ts'
import type { ApiCall } from '../../broker/credentials/api-call.ts'
import { openConnection } from '../../broker/credentials/connection.ts'
import type { ClusterConnection } from '../../broker/credentials/connection.ts'
import type { CredentialHeaders, RequestCredential } from '../../broker/credentials/credential.ts'
import { openCredentialParts } from '../../broker/credentials/parts.ts'
import type { Issuer } from '../../broker/credentials/parts.ts'
import type { Refused } from '../../broker/credentials/refused-record.ts'
import { createLog } from '../../shared/log.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { makeCertificates } from '../support/certificates.ts'

/** The cluster of these tests. */
export const CLUSTER = 'blue'
/** The service account that acts unless a test says otherwise. */
export const WORKER: Actor = {
  kind: 'serviceAccount',
  namespace: 'agents',
  serviceAccount: 'worker',
}

/** What a credential is wanted for. */
export interface Wanted {
  readonly method: string
  readonly target: string
  readonly contentType?: string
  readonly actor?: Actor
  readonly grantGroups?: readonly string[]
  readonly approvers?: readonly string[]
  /** In place of the operations that the call has. */
  readonly operations?: readonly string[]
}

/** A credential with its id. */
export type Made = RequestCredential & { readonly requestId: string }

/** See the head of the file. */
export interface Broker {
  /** Scheme, host and port. */
  readonly url: string
  readonly ca: string
  readonly issuer: Issuer
  readonly refused: readonly Refused[]
  /** The way to the cluster; settings as in the broker's configuration. */
  connect(settings: ClusterSettings): Promise<void>
  make(wanted: Wanted): Promise<Made>
  /** What the broker itself goes with. */
  own(): Promise<CredentialHeaders>
  /** Takes no connections until {@link Broker.up}. */
  down(): Promise<void>
  up(): Promise<void>
  /** Takes connections, and answers nothing. */
  hang(isHanging: boolean): void
  close(): Promise<void>
}

/** Starts one. */
export async function startBroker(): Promise<Broker> {
  const dataDir = await mkdtemp(join(tmpdir(), 'nestgate-broker-'))
  const log = createLog('test', 'silent')
  const now = Date.now
  const { ca, cert, key } = makeCertificates({ hosts: ['127.0.0.1'] })
  const app = express()
  const server = createServer({ cert, key }, app)
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const url = `https://127.0.0.1:${port}`
  const refused: Refused[] = []
  const credentials = await openCredentialParts(
    { url: `${url}/issuer`, rotateAfterDays: 30 },
    { dataDir, log, now, refusedTo: () => (one) => refused.push(one), onKey: () => undefined },
  )
  const { issuer, tickets } = credentials
  if (issuer === undefined) throw new Error('no issuer')
  let cluster: { settings: ClusterSettings; connection: ClusterConnection } | undefined
  const clusters = {
    get: () => cluster,
    settingsOf: () => cluster?.settings,
  } as unknown as Pick<Clusters, 'get' | 'settingsOf'>
  let isHanging = false
  app.use((_request, _response, next) => {
    if (!isHanging) next()
  })
  app.use(issuerRoutes(issuer))
  app.use('/v1', apiServerRoutes({ clusters, credentials }, express.json()))
  return {
    ...{ url, ca, issuer, refused },
    async connect(settings) {
      const deps = { tickets, issuer: issuer.parts, log, now }
      cluster = { settings, connection: await openConnection(settings, deps) }
    },
    async own() {
      if (cluster === undefined) throw new Error('not connected')
      return cluster.connection.credential.own()
    },
    async make({ method, target, contentType, operations, ...wanted }) {
      if (cluster === undefined) throw new Error('not connected')
      const requestId = newRequestId(now())
      const call: ApiCall = callOf(method, target, contentType)
      const made = await cluster.connection.credential.make({
        ...{ requestId, process: 'planner', approvers: [], grantGroups: [], actor: WORKER },
        ...wanted,
        call: operations === undefined ? call : { ...call, operations },
      })
      return { ...made, requestId }
    },
    async down() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
    hang(hangs) {
      isHanging = hangs
    },
    async up() {
      await once(server.listen(port, '127.0.0.1'), 'listening')
    },
    async close() {
      server.closeAllConnections()
      server.close()
      credentials.close()
      await cluster?.connection.close()
      await rm(dataDir, { recursive: true })
    },
  }
}
