/**
 * The broker's listener: HTTPS, HTTP/1.1. `/clusters/…` and `/return/clusters/…` go to the gateway without passing a framework, because
 * its raw target must not be touched; everything else goes to the API.
 */
import { createServer } from 'node:https'
import type { Server, ServerOptions } from 'node:https'
import type { RequestListener } from 'node:http'
import type { Logger } from '../shared/log.ts'
import { messageOf } from '../shared/errors.ts'
import { expiryOf, loadKeyPair } from '../shared/key-pair.ts'
import { refuse } from '../shared/reasons.ts'
import { statusAnswer } from '../shared/status.ts'
import { endSocket, responseHead } from '../shared/upgrade.ts'
import { waitForFiles, watchFiles } from '../shared/watched-files.ts'
import type { BrokerConfig } from './config.ts'
import type { Gateway } from './gateway/serve.ts'
import { isClusterTarget } from './gateway/parse.ts'

/** A client must have sent its headers within this time, in milliseconds. */
const HEADERS_TIMEOUT_MS = 10_000
/** … and its whole request within this one. Answers have no limit: watches and sessions are long. */
const REQUEST_TIMEOUT_MS = 60_000
/** Idle connections of sidecars are kept this long, in milliseconds. */
const KEEP_ALIVE_MS = 120_000
const MAX_HEADER_BYTES = 64 * 1024
/** Oldest TLS version that is spoken. */
const MIN_TLS = 'TLSv1.2'
/** How long running answers may go on after the end was asked for, in milliseconds. */
const DRAIN_MS = 10_000

/** A listener that is up. */
export interface RunningServer {
  readonly port: number
  close(): Promise<void>
}

/**
 * Listens. A certificate that is replaced on disk is served to new connections (within FILE_CHECK_INTERVAL_MS); one
 * without its key is not. Rejects when the certificate cannot be used or the address is taken.
 */
export async function startServer(deps: {
  readonly config: Pick<BrokerConfig, 'listen' | 'tls'>
  readonly gateway: Gateway
  readonly api: RequestListener
  readonly log: Logger
  /** How often the certificate is read again, in milliseconds. */
  readonly fileCheckMs?: number
}): Promise<RunningServer> {
  const { config, gateway, api, log } = deps
  const { certFile, keyFile, waitSeconds = 0 } = config.tls
  await waitForFiles([certFile, keyFile], waitSeconds * 1000, (missing) => {
    log.warn({ files: missing }, 'waiting for files')
  })
  // the first look is long after the server is there
  const certificate = await watchFiles({
    files: [certFile, keyFile],
    secret: [keyFile],
    load: ([cert = '', key = '']) => loadKeyPair(cert, key),
    changed: (pair) => {
      server.setSecureContext({ ...pair, minVersion: MIN_TLS })
      log.info({ expires: expiryOf(pair.cert) }, 'took a new certificate')
    },
    failed: (files, error) => {
      log.error({ files, error: messageOf(error) }, 'files cannot be used; the ones before stay')
    },
    ...(deps.fileCheckMs === undefined ? {} : { intervalMs: deps.fileCheckMs }),
  })
  const options: ServerOptions = {
    ...certificate.first,
    minVersion: MIN_TLS,
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: HEADERS_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
  }
  const server = createServer(options, (request, response) => {
    if (isClusterTarget(request.url)) gateway.request(request, response)
    else api(request, response)
  })
  server.on('upgrade', (request, socket, head) => {
    if (isClusterTarget(request.url)) gateway.upgrade(request, socket, head)
    else {
      const answer = statusAnswer(refuse('upgrade_unsupported'))
      socket.on('error', () => socket.destroy())
      endSocket(socket, responseHead(answer.status, 'Bad Request', { connection: 'close' }))
    }
  })
  try {
    await listen(server, config.listen)
  } catch (error) {
    certificate.stop()
    throw error
  }
  const address = server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : config.listen.port,
    close: () => {
      certificate.stop()
      return drain(server)
    },
  }
}

function listen(server: Server, { host, port }: BrokerConfig['listen']): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

/** Stops accepting, lets running answers end, then cuts what is left. */
function drain(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => {
      resolve()
    })
    server.closeIdleConnections()
    setTimeout(() => {
      server.closeAllConnections()
      resolve()
    }, DRAIN_MS).unref()
  })
}
