/**
 * A gateway over real sockets: a broker's listener in front, a real store behind, and an upstream (upstream.ts) as
 * witness. One sidecar has registered its key.
 */
import { openRecordings } from '../../broker/sessions/recordings/open.ts'
import { sessionsSchema } from '../../broker/sessions/recordings/settings.ts'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createApprovals } from '../../broker/approvals/approvals.ts'
import type { Approvals } from '../../broker/approvals/approvals.ts'
import { createPreviews } from '../../broker/approvals/preview.ts'
import { createTargets } from '../../broker/approvals/target.ts'
import { openConnection } from '../../broker/credentials/connection.ts'
import type { CredentialMode } from '../../broker/credentials/credential.ts'
import { openCredentialParts } from '../../broker/credentials/parts.ts'
import type { VaultSettings } from '../../broker/credentials/vault-client.ts'
import { createKinds } from '../../broker/discovery/kinds.ts'
import { createBodies, MAX_BODIES_BYTES } from '../../broker/gateway/body.ts'
import { createRunning } from '../../broker/gateway/running.ts'
import type { Running } from '../../broker/gateway/running.ts'
import { createGateway } from '../../broker/gateway/serve.ts'
import { createContainers } from '../../broker/identity/containers.ts'
import { createDirectClients } from '../../broker/identity/direct.ts'
import { createNaming } from '../../broker/identity/naming.ts'
import { createOidc } from '../../broker/identity/oidc.ts'
import { oidcSchema } from '../../broker/identity/oidc-config.ts'
import { createMatcher, createOwners } from '../../broker/identity/registrations.ts'
import type { Registration } from '../../broker/identity/registrations.ts'
import { checkByKeys, createTokenVerifier } from '../../broker/identity/service-account-tokens.ts'
import { createSidecars } from '../../broker/identity/sidecars.ts'
import { maskingKey } from '../../broker/masking/key.ts'
import type { MaskingKey } from '../../broker/masking/key.ts'
import { startServer } from '../../broker/server.ts'
import { openSqliteStore } from '../../broker/store/sqlite/client.ts'
import type { Store } from '../../broker/store/store.ts'
import { createLog } from '../../shared/log.ts'
import { createDecider } from '../../shared/policy/decide.ts'
import type { Decider } from '../../shared/policy/decision.ts'
import { readPolicySet } from '../../shared/policy/policy-set.ts'
import type { Certificates } from './certificates.ts'
import type { SidecarKey } from './sidecar-keys.ts'
import type { Upstream } from './upstream.ts'

/** A store whose appends can be delayed or made to fail. */
export interface Gate {
  hold: Promise<void> | undefined
  fail: boolean
}

/** See the head of the file. */
export interface RunningGateway {
  readonly port: number
  readonly store: Store
  readonly gate: Gate
  readonly approvals: Approvals
  readonly running: Running
  /** What stands for hidden values. */
  readonly masking: MaskingKey
  /** Puts another policy in force. */
  usePolicy(text: string): void
  close(): Promise<void>
}

/** Starts one for the cluster `test`. */
export async function startGateway(options: {
  readonly upstream: Upstream
  readonly certificates: Certificates
  readonly key: SidecarKey
  readonly token: string
  readonly policy: string
  readonly registrations?: readonly Registration[]
  /** As in the broker's configuration. */
  readonly oidc?: readonly object[]
  /** `impersonation` unless a test says otherwise. */
  readonly mode?: CredentialMode
  /** Of mode `issuer`: its keys are there. */
  readonly vault?: VaultSettings
}): Promise<RunningGateway> {
  const { upstream, certificates, key, token, registrations = [] } = options
  const log = createLog('test', 'silent')
  const now = Date.now
  const dir = await mkdtemp(join(tmpdir(), 'nestgate-gateway-'))
  await writeFile(join(dir, 'tls.crt'), certificates.cert)
  await writeFile(join(dir, 'tls.key'), certificates.key, { mode: 0o600 })
  const { mode, vault } = options
  const issuing = { url: 'https://broker.example/issuer', rotateAfterDays: 30 }
  const credentials = await openCredentialParts(
    mode === 'issuer'
      ? { ...issuing, ...(vault === undefined ? {} : { signer: { vault } }) }
      : undefined,
    { dataDir: dir, log, now, refusedTo: () => () => undefined, onKey: () => undefined },
  )
  const { tickets, issuer } = credentials
  const connection = await openConnection(
    {
      name: 'test',
      server: upstream.url,
      caFile: upstream.caFile,
      credential:
        issuer === undefined
          ? { tokenFile: upstream.tokenFile }
          : { issuer: { authorizerTokenSha256: '0'.repeat(64) } },
      serviceAccountTokens: { verify: 'jwks', issuer: upstream.issuer },
    },
    { tickets, log, now, ...(issuer === undefined ? {} : { issuer: issuer.parts }) },
  )
  const store = await openSqliteStore({ file: join(dir, 'nestgate.db'), log, now })
  const gate: Gate = { hold: undefined, fail: false }
  const gated: Store = {
    ...store,
    append: async (entries, payloads) => {
      if (gate.fail) throw new Error('disk full')
      await gate.hold
      return store.append(entries, payloads)
    },
  }
  const approvals = createApprovals({ store, log, now })
  const verifier = createTokenVerifier(checkByKeys(connection, upstream.issuer, now), now)
  const sidecars = createSidecars({ verifiers: new Map([['test', verifier]]), now })
  let decider = deciderOf(options.policy)
  const connections = new Map([['test', connection]])
  const running = createRunning()
  const containers = createContainers({ connections, log, now })
  const oidc = createOidc(oidcSchema.parse(options.oidc ?? []), { log, now })
  const recordings = await openRecordings(sessionsSchema.parse({}), {
    ...{ store: gated, dataDir: dir, log, now },
  })
  const masking = maskingKey(randomBytes(32))
  const gateway = createGateway({
    recordings,
    masking,
    clusters: { get: (name) => (name === 'test' ? { connection } : undefined) },
    sidecars,
    direct: createDirectClients(oidc),
    owners: createOwners(registrations),
    kinds: createKinds({ log, now }),
    targets: createTargets({ now }),
    previews: createPreviews({ now }),
    naming: createNaming({ matcher: createMatcher(registrations), containers, now }),
    decider: {
      get policyDigest() {
        return decider.policyDigest
      },
      decide: (facts) => decider.decide(facts),
    },
    bodies: createBodies(MAX_BODIES_BYTES),
    ...{ approvals, store: gated, running, log, now },
  })
  const server = await startServer({
    config: {
      listen: { host: '127.0.0.1', port: 0 },
      tls: { certFile: join(dir, 'tls.crt'), keyFile: join(dir, 'tls.key') },
    },
    gateway,
    api: (_request, response) => response.writeHead(404).end(),
    log,
  })
  const headers = { authorization: `Bearer ${token}`, 'nestgate-cluster': 'test' }
  await sidecars.register(
    { headers, rawHeaders: Object.entries(headers).flat() },
    await key.proof(),
  )
  return {
    port: server.port,
    store,
    gate,
    approvals,
    running,
    masking,
    usePolicy(text) {
      decider = deciderOf(text)
    },
    async close() {
      await server.close()
      approvals.close()
      await recordings.close()
      await store.close()
      await connection.close()
      credentials.close()
      await rm(dir, { recursive: true })
    },
  }
}

function deciderOf(text: string): Decider {
  const policy = readPolicySet([{ file: 'policy.yaml', text }])
  if ('problems' in policy) throw new Error(policy.problems.join())
  return createDecider(policy, { acceptVerdicts: ['exclusive'] })
}
