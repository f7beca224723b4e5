/** Puts the parts of the webhook together: files and their watches, the cluster's version, the server. */
import { performance } from 'node:perf_hooks'
import { createInClusterApi } from '../shared/in-cluster-api.ts'
import { messageOf } from '../shared/errors.ts'
import type { Logger } from '../shared/log.ts'
import { expiryOf, loadKeyPair } from '../shared/key-pair.ts'
import type { KeyPair } from '../shared/key-pair.ts'
import { waitForFiles, watchFiles } from '../shared/watched-files.ts'
import { loadCaCertificates } from '../shared/injection/broker-authority.ts'
import { injectionSettings } from '../shared/injection/settings.ts'
import { createEventSink } from './events.ts'
import { learnMode } from './cluster-version.ts'
import type { Config } from '../shared/injection/config.ts'
import { createWebhookMetrics } from './metrics.ts'
import { startServer } from './server.ts'
import type { WebhookServer } from './server.ts'
import type { InjectionSettings, SidecarMode } from '../shared/injection/sidecar-spec.ts'

/** What a running webhook needs from outside. */
export interface WebhookDeps {
  readonly log: Logger
  /** How often certificates are read again, in milliseconds; see shared/watched-files.ts for the default. */
  readonly fileCheckMs?: number
  /** Time between two questions for the cluster's version, in milliseconds; see cluster-version.ts for the default. */
  readonly retryMs?: number
}

/** A running webhook. */
export interface Webhook {
  readonly port: number
  readonly close: () => Promise<void>
}

/**
 * Starts the webhook. It listens when this settles; it is ready when the cluster's version is known too.
 *
 * @throws Fault `certificate_invalid`, or the system's error, where a file or the address is not usable
 */
export async function startWebhook(config: Config, deps: WebhookDeps): Promise<Webhook> {
  const { log } = deps
  let server: WebhookServer | undefined
  const files = await watchCertificates(config, deps, (pair) => {
    server?.useKeyPair(pair)
  })
  const stopping = new AbortController()
  const mode = modeSource(config, deps, stopping.signal)
  const settings = (): InjectionSettings | undefined =>
    settingsNow(config, files.brokerCaPem(), mode())
  const clock = (): number => performance.now()
  const api = createInClusterApi(config.kubernetes, { signal: stopping.signal })
  const events = config.events.enabled
    ? createEventSink({ api, log, now: clock, date: () => new Date() })
    : undefined
  const stop = async (): Promise<void> => {
    events?.close()
    stopping.abort()
    files.stop()
    await api.close()
  }
  const state = (): { expires: number; ready: boolean } => ({
    expires: Math.floor(files.expires().getTime() / 1000),
    ready: settings() !== undefined,
  })
  const { exempt } = config
  const served = { log, settings, keyPair: files.keyPair, exempt, clock, state }
  try {
    server = await startServer(
      { ...served, metrics: createWebhookMetrics(), ...(events === undefined ? {} : { events }) },
      config.listen,
    )
  } catch (error) {
    await stop()
    throw error
  }
  const { port, close } = server
  log.info({ port, expires: files.expires() }, 'listening')
  return {
    port,
    close: async () => {
      await stop()
      await close()
    },
  }
}

/** The certificates that the webhook serves with and hands out, as they are now. */
interface Certificates {
  /** The pair to begin with. */
  readonly keyPair: KeyPair
  /** When the pair of now ends. */
  readonly expires: () => Date
  readonly brokerCaPem: () => string
  readonly stop: () => void
}

async function watchCertificates(
  config: Config,
  { log, fileCheckMs }: WebhookDeps,
  usePair: (pair: KeyPair) => void,
): Promise<Certificates> {
  const failed = (files: readonly string[], error: unknown): void => {
    log.error({ files, error: messageOf(error) }, 'files cannot be used; the ones before stay')
  }
  const interval = fileCheckMs === undefined ? {} : { intervalMs: fileCheckMs }
  const awaited = [config.sidecar.brokerCaFile, config.tls.certFile, config.tls.keyFile]
  await waitForFiles(awaited, (config.tls.waitSeconds ?? 0) * 1000, (missing) => {
    log.warn({ files: missing }, 'waiting for files')
  })
  let brokerCaPem: string
  const ca = await watchFiles({
    files: [config.sidecar.brokerCaFile],
    load: ([text = '']) => loadCaCertificates(text),
    changed: (value) => {
      brokerCaPem = value
      log.info('took a new CA for the broker')
    },
    failed,
    ...interval,
  })
  brokerCaPem = ca.first
  let expires: Date
  const keyPair = await watchFiles({
    files: [config.tls.certFile, config.tls.keyFile],
    secret: [config.tls.keyFile],
    load: ([cert = '', key = '']) => loadKeyPair(cert, key),
    changed: (pair) => {
      usePair(pair)
      expires = expiryOf(pair.cert)
      log.info({ expires }, 'took a new certificate')
    },
    failed,
    ...interval,
  })
  expires = expiryOf(keyPair.first.cert)
  return {
    keyPair: keyPair.first,
    expires: () => expires,
    brokerCaPem: () => brokerCaPem,
    stop: () => {
      ca.stop()
      keyPair.stop()
    },
  }
}

/** The mode now: as configured, or as learnt in the background. */
function modeSource(
  config: Config,
  deps: WebhookDeps,
  signal: AbortSignal,
): () => SidecarMode | undefined {
  const { mode: configured } = config.sidecar
  if (configured !== 'auto') return () => configured
  let learnt: SidecarMode | undefined
  void learnMode(config.kubernetes, { ...deps, signal }).then((mode) => {
    learnt = mode
  })
  return () => learnt
}

function settingsNow(
  config: Config,
  brokerCaPem: string,
  mode: SidecarMode | undefined,
): InjectionSettings | undefined {
  return mode === undefined ? undefined : injectionSettings(config, brokerCaPem, mode)
}
