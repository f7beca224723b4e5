/**
 * The broker's listener: HTTPS, HTTP/1.1. `/clusters/…` and `/return/clusters/…` go to the gateway without passing a framework, because
 * its raw target must not be touched; everything else goes to the API.
 */
import { createServer } from 'node:https'
import type { Server } from 'node:https'
import type { RequestListener } from 'node:http'
import type { Logger } from '../shared/log.ts'
import { messageOf } from '../shared/errors.ts'
import { refuse } from '../shared/reasons.ts'
import { statusAnswer } from '../shared/status.ts'
import { responseHead } from '../shared/upgrade.ts'
import { watchFile } from '../shared/watched-file.ts'
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
/** How often the certificate files are looked at, in milliseconds. */
const CERTIFICATE_LOOK_MS = 10_000
/** How long running answers may go on after the end was asked for, in milliseconds. */
const DRAIN_MS = 10_000

/** A listener that is up. */
export interface RunningServer {
  readonly port: number
  close(): Promise<void>
}

/** Listens. Rejects when the certificate cannot be read or the address is taken. */
export async function startServer(deps: {
  readonly config: Pick<BrokerConfig, 'listen' | 'tls'>
  readonly gateway: Gateway
  readonly api: RequestListener
  readonly log: Logger
  readonly now: () => number
}): Promise<RunningServer> {
  const { config, gateway, api, log } = deps
  const certificate = certificateSource(config.tls, deps.now)
  const options = {
    ...(await certificate.read()),
    minVersion: 'TLSv1.2' as const,
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
      socket.end(responseHead(answer.status, 'Bad Request', { connection: 'close' }))
    }
  })
  const timer = setInterval(() => {
    certificate.read().then(
      (pair) => {
        server.setSecureContext(pair)
      },
      (error: unknown) => {
        log.error({ error: messageOf(error) }, 'the certificate could not be read again')
      },
    )
  }, CERTIFICATE_LOOK_MS)
  timer.unref()
  await listen(server, config.listen)
  const address = server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : config.listen.port,
    close: () => {
      clearInterval(timer)
      return drain(server)
    },
  }
}

function certificateSource(
  tls: BrokerConfig['tls'],
  now: () => number,
): { read(): Promise<{ cert: string; key: string }> } {
  const cert = watchFile(tls.certFile, now)
  const key = watchFile(tls.keyFile, now)
  return {
    async read(): Promise<{ cert: string; key: string }> {
      return { cert: await cert.read(), key: await key.read() }
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
