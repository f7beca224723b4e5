/** The broker's own API on a real socket, with a real store behind it, and people and pods to call it. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { mkdtemp, rm } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createApi } from '../../broker/api/api.ts'
import type { ApiDeps } from '../../broker/api/api.ts'
import type { SidecarAuthenticator } from '../../broker/api/sidecar-routes.ts'
import type { CheckpointSource } from '../../broker/audit/export/range.ts'
import { openCredentialParts } from '../../broker/credentials/parts.ts'
import type {
  CredentialParts,
  IssuerSettings as OwnIssuer,
} from '../../broker/credentials/parts.ts'
import type { Refused } from '../../broker/credentials/refused-record.ts'
import { createApprovals } from '../../broker/approvals/approvals.ts'
import type { Approvals } from '../../broker/approvals/approvals.ts'
import type { DirectClients } from '../../broker/identity/direct.ts'
import type { IssuerSettings } from '../../broker/identity/oidc-config.ts'
import { createPeople } from '../../broker/identity/people.ts'
import { createClusters } from '../../broker/clusters/registry.ts'
import type { Clusters } from '../../broker/clusters/registry.ts'
import type { ClusterSettings } from '../../broker/clusters/settings.ts'
import type { PolicyStatus } from '../../broker/policy/source.ts'
import type { Person, PersonSettings } from '../../broker/identity/people.ts'
import type { Role } from '../../broker/identity/roles.ts'
import type { Store } from '../../broker/store/store.ts'
import { bearerToken } from '../../shared/headers.ts'
import { refuse } from '../../shared/reasons.ts'
import { connectionDeps } from './connections.ts'
import type { Checkpoints } from '../../broker/ledger/checkpoints.ts'
import { signed } from './ledger.ts'
import { newFile, open, SILENT } from './sqlite-store.ts'

export interface ApiServer {
  readonly url: string
  readonly store: Store
  readonly approvals: Approvals
  readonly credentials: CredentialParts
  readonly clusters: Clusters
  readonly checkpoints: Checkpoints
  /** What was refused to API servers. */
  readonly refused: readonly Refused[]
  close(): Promise<void>
}

const person = (name: string, role: Role, more: Partial<Person> = {}): PersonSettings => ({
  ...{ name, roles: [role], ...more },
  tokenSha256: createHash('sha256').update(`token-${name}`).digest('hex'),
})

/** Tokens `pod-1` and `pod-2` are those of two pods of cluster `main`; `far-pod-1` is pod-1 of another cluster. */
const sidecars: SidecarAuthenticator = {
  authenticate({ headers }) {
    const match = /^(far-)?(pod-[12])$/.exec(bearerToken(headers) ?? '')
    const podUid = match?.[2]
    if (podUid === undefined) return Promise.resolve(refuse('credentials_invalid'))
    const cluster = match?.[1] === undefined ? 'main' : 'far'
    return Promise.resolve({ cluster, namespace: 'shop', podName: `name-of-${podUid}`, podUid })
  },
  async register(message, proof) {
    const pod = await sidecars.authenticate(message)
    if ('refused' in pod) return pod
    if (proof !== 'good') return refuse('credentials_invalid', 'the proof is not good')
    return { podUid: pod.podUid, keyId: 'key-1', jwk: { kty: 'OKP', crv: 'Ed25519', x: 'x' } }
  },
}

const NO_POLICY = { digest: '0'.repeat(64), rules: 0, loadedAt: 0, warnings: [], problems: [] }

/** What else the API may have. */
export interface ApiExtras {
  readonly direct?: DirectClients
  readonly issuers?: readonly IssuerSettings[]
  /** Without it no cluster can be registered. */
  readonly clusterSecretsDir?: string
  /** Clusters of the configuration. */
  readonly clusters?: readonly ClusterSettings[]
  readonly policy?: Partial<PolicyStatus>
  /** The broker as issuer; its keys are in a folder of this API unless they are said to be in Vault. */
  readonly issuer?: Pick<OwnIssuer, 'url' | 'signer'>
  /** What access reviews need beside the store. */
  readonly accessReview?: NonNullable<ApiDeps['accessReview']>
  /** Sessions and their recordings. */
  readonly sessions?: ApiDeps['sessions']
  /** Who signs checkpoints. */
  readonly checkpoints?: CheckpointSource | undefined
  /** Without it the API speaks plain HTTP. */
  readonly tls?: { readonly cert: string; readonly key: string }
}

/** What a test's own source signs, and all else as it is. */
function over(own: Checkpoints, source: CheckpointSource): Checkpoints {
  return {
    ...{ origin: source.origin, keys: source.keys },
    vkeys: () => own.vkeys(),
    current: () => source.current(),
    published: () => own.published(),
    inclusion: (...args) => own.inclusion(...args),
    consistency: (...args) => own.consistency(...args),
    subscribe: (tell) => {
      own.subscribe(tell)
    },
    close: () => {
      own.close()
    },
  }
}

/**
 * Starts it.
 *
 * @param wrap - puts another store before the real one
 * @param more - what person `brief` is, beside a reviewer
 * @param extras - issuers of people, how to sign in with them, and the policy in force
 */
export async function startApi(
  wrap: (store: Store) => Store = (store) => store,
  more: Partial<Person> = {},
  {
    direct,
    issuers = [],
    clusterSecretsDir,
    clusters: fixed = [],
    policy: inForce = {},
    issuer,
    checkpoints: source,
    accessReview,
    sessions,
    tls,
  }: ApiExtras = {},
): Promise<ApiServer> {
  const { file, remove } = newFile()
  const store = await open(file)
  const approvals = createApprovals({ store, log: SILENT, now: Date.now })
  const known = [
    person('alice', 'reviewer'),
    person('bob', 'reviewer', { groups: ['sre'] }),
    person('eve', 'reviewer', { groups: ['security'], names: ['oidc:eve'] }),
    person('brief', 'reviewer', more),
    person('carol', 'auditor'),
    person('root', 'admin'),
  ]
  const people = createPeople(known, direct)
  const policy = {
    status: () => ({ ...NO_POLICY, ...inForce }),
  }
  const refused: Refused[] = []
  const dataDir = await mkdtemp(join(tmpdir(), 'nestgate-api-'))
  const settings = issuer === undefined ? undefined : { ...issuer, rotateAfterDays: 30 }
  const credentials = await openCredentialParts(settings, {
    ...{ dataDir, log: SILENT, now: Date.now, onKey: () => undefined },
    refusedTo: () => (one) => refused.push(one),
  })
  const parts = credentials.issuer === undefined ? {} : { issuer: credentials.issuer.parts }
  const clusters = createClusters({ ...connectionDeps(), tickets: credentials.tickets, ...parts })
  for (const cluster of fixed) await clusters.put(cluster, 'file')
  const own = await signed(store)
  const checkpoints = source === undefined ? own : over(own, source)
  const api = createApi({
    policy,
    checkpoints,
    mirrors: { cosigned: () => [checkpoints.published().note] },
    clusters,
    clusterSecretsDir,
    credentials,
    approvals,
    store: wrap(store),
    people,
    sidecars,
    neighbours: { stateOf: () => Promise.resolve('running') },
    issuers,
    log: SILENT,
    now: Date.now,
    ...(accessReview === undefined ? {} : { accessReview }),
    ...(sessions === undefined ? {} : { sessions }),
  })
  const server = tls === undefined ? createServer(api) : createTlsServer(tls, api)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${(server.address() as AddressInfo).port}`,
    store,
    ...{ approvals, checkpoints, credentials, clusters, refused },
    async close() {
      approvals.close()
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
      await clusters.close()
      credentials.close()
      await rm(dataDir, { recursive: true, force: true })
      await store.close()
      remove()
    },
  }
}
