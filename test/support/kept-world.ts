/**
 * A cluster in memory whose certificates are kept, with a clock of its own and, after each write, the invariants:
 * what the webhook may be serving is verified by what the API server may be trusting, and the broker's by the pods that were
 * injected so far. "May be": each of them learns of a change within LAG.
 */
import { X509Certificate } from 'node:crypto'
import { createLog } from '../../shared/log.ts'
import { keepSchema } from '../../cli/keep/config.ts'
import type { KeepConfig } from '../../cli/keep/config.ts'
import { settle } from '../../cli/keep/keeper.ts'
import type { KeeperDeps } from '../../cli/keep/keeper.ts'
import { createKeepMetrics } from '../../cli/keep/metrics.ts'
import { clusterObjects } from '../../cli/keep/objects.ts'
import type { InClusterApi } from '../../shared/in-cluster-api.ts'
import { fakeCluster } from './fake-cluster.ts'
import type { FakeCluster, Stored } from './fake-cluster.ts'

export const SECRETS = '/api/v1/namespaces/nestgate-system/secrets'
export const CONFIGURATION =
  '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/nestgate-webhook'
export const AUTHORITY = `${SECRETS}/nestgate-ca`
export const WEBHOOK = `${SECRETS}/nestgate-webhook-tls`
export const BROKER = `${SECRETS}/nestgate-broker-tls`
const MINUTE = 60_000
/** How late servers and the API server may learn of a change, in milliseconds; less than the time of settling. */
const LAG = 10 * MINUTE

export interface World {
  readonly cluster: FakeCluster
  readonly config: KeepConfig
  now: number
  /** What the invariants did not hold of. */
  readonly broken: string[]
  /** Certificates of authorities and servers that were written, in the order of their writing. */
  readonly history: { readonly path: string; readonly leaf: string }[]
  /** What pods were injected with. */
  readonly injected: string[]
  keeper(api?: InClusterApi): KeeperDeps
  /** Lets a time pass, with looks of these keepers on the way. */
  pass(ms: number, stepMs: number, keepers: readonly KeeperDeps[]): Promise<void>
  /** Looks at the invariants now. */
  check(): void
}

export function keptWorld(settings: object = {}): World {
  const cluster = fakeCluster()
  const config = keepSchema.parse({
    webhookConfigurations: [{ kind: 'MutatingWebhookConfiguration', name: 'nestgate-webhook' }],
    dnsNames: { webhook: ['nestgate-webhook.svc'], broker: ['nestgate-broker.svc', '::1'] },
    validity: {
      authorityDays: 4,
      authorityRenewBeforeDays: 1.5,
      leafDays: 1,
      renewBeforeDays: 0.3,
    },
    settleSeconds: 3600,
    ...settings,
  })
  const log = createLog('test', 'silent')
  const versions = new Map<string, { text: string; until: number }[]>()
  const world: World = {
    cluster,
    config,
    now: Date.UTC(2026, 0, 1),
    broken: [],
    history: [],
    injected: [],
    keeper: (api = cluster.client()) => ({
      config,
      objects: clusterObjects(api, config),
      metrics: createKeepMetrics(),
      log,
      now: () => world.now,
      signal: new AbortController().signal,
    }),
    async pass(ms, stepMs, keepers) {
      for (const end = world.now + ms; world.now < end;) {
        world.now += stepMs
        await Promise.all(keepers.map((one) => settle(one)))
        world.check()
      }
    },
    check() {
      const bundles = possible('bundle')
      for (const leaf of possible(WEBHOOK))
        for (const bundle of bundles)
          if (leaf !== '' && endOf(leaf) > world.now && !verifies(leaf, bundle, world.now))
            world.broken.push(`the webhook’s certificate at ${new Date(world.now).toISOString()}`)
      const first = (text: string): number => Math.min(...pems(text).map(({ ends }) => ends))
      for (const leaf of possible(BROKER))
        for (const bundle of world.injected)
          if (leaf !== '' && endOf(leaf) > world.now && first(bundle) > world.now)
            if (!verifies(leaf, bundle, world.now))
              world.broken.push(`the broker’s certificate at ${new Date(world.now).toISOString()}`)
    },
  }
  const note = (what: string, text: string): void => {
    const list = versions.get(what) ?? []
    const last = list.at(-1)
    if (last?.text === text) return
    if (last !== undefined) last.until = world.now + LAG
    versions.set(what, [...list, { text, until: Infinity }])
  }
  const possible = (what: string): readonly string[] =>
    (versions.get(what) ?? []).filter(({ until }) => until >= world.now).map(({ text }) => text)
  cluster.onWrite = (path) => {
    const data = cluster.data(path)
    if (path === CONFIGURATION) {
      const [webhook] = cluster.objects.get(path)?.webhooks ?? []
      const bundle = Buffer.from(webhook?.clientConfig.caBundle ?? '', 'base64').toString()
      if (bundle !== '') note('bundle', bundle)
    } else {
      if (path !== AUTHORITY) note(path, data['tls.crt'] ?? '')
      if (path === WEBHOOK && (data['ca.crt'] ?? '') !== '')
        world.injected.push(data['ca.crt'] ?? '')
      const leaf = data['tls.crt'] ?? ''
      if (leaf !== '' && world.history.findLast((one) => one.path === path)?.leaf !== leaf)
        world.history.push({ path, leaf })
    }
    world.check()
  }
  install(cluster)
  return world
}

/** What the chart installs: empty Secrets, and a configuration without a bundle. */
function install(cluster: FakeCluster): void {
  for (const path of [AUTHORITY, WEBHOOK, BROKER])
    cluster.put(path, {
      metadata: {
        name: path.split('/').at(-1),
        labels: { 'app.kubernetes.io/managed-by': 'Helm' },
      },
      type: 'Opaque',
    })
  cluster.put(CONFIGURATION, {
    metadata: { name: 'nestgate-webhook' },
    webhooks: ['one', 'two'].map((name) => ({ name, clientConfig: { url: 'https://x/y' } })),
  } satisfies Omit<Stored, 'metadata'> & { metadata: object })
}

interface Pem {
  readonly x509: X509Certificate
  readonly ends: number
}

export function pems(text: string): Pem[] {
  return (text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []).map(
    (block) => {
      const x509 = new X509Certificate(block)
      return { x509, ends: x509.validToDate.getTime() }
    },
  )
}

function endOf(chain: string): number {
  return pems(chain)[0]?.ends ?? 0
}

/** Whether a chain leads to one of these authorities, at that time; as TLS clients find out. */
export function verifies(chain: string, bundle: string, now: number): boolean {
  const [leaf, ...between] = pems(chain)
  const roots = pems(bundle)
  const good = ({ x509 }: Pem): boolean =>
    x509.validFromDate.getTime() <= now && now < x509.validToDate.getTime()
  const leads = (from: Pem, depth: number): boolean =>
    good(from) &&
    depth < 6 &&
    (roots.some((root) => good(root) && signs(root, from)) ||
      between.some((one) => one !== from && signs(one, from) && leads(one, depth + 1)))
  return leaf !== undefined && leads(leaf, 0)
}

function signs(issuer: Pem, of: Pem): boolean {
  return of.x509.checkIssued(issuer.x509) && of.x509.verify(issuer.x509.publicKey)
}
