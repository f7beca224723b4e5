/**
 * `node sidecar/wait-ready.ts`: exits 0 as soon as the sidecar of the same configuration is registered with the
 * broker, 1 when that takes more than a minute. The kubelet runs it inside the sidecar's container, because its own
 * probes do not reach the loopback address.
 */
import { get } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { messageOf } from '../shared/errors.ts'
import { commandLine, readSidecarConfig } from './config.ts'
import { READY_PATH } from './own-paths.ts'

/** How long it tries, in milliseconds. */
const LIMIT_MS = 60_000
/** Pause between two tries, in milliseconds. */
const PAUSE_MS = 200
/** How long one try may take, in milliseconds. */
const TRY_LIMIT_MS = 2000

function isReady(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get(
      { host: '127.0.0.1', port, path: READY_PATH, timeout: TRY_LIMIT_MS, agent: false },
      (response) => {
        response.resume()
        resolve(response.statusCode === 200)
      },
    )
    request.on('timeout', () => request.destroy())
    request.on('error', () => {
      resolve(false)
    })
  })
}

try {
  const { port } = readSidecarConfig(commandLine()).listen
  const until = Date.now() + LIMIT_MS
  while (!(await isReady(port))) {
    if (Date.now() > until) throw new Error('the sidecar did not become ready in time')
    await sleep(PAUSE_MS)
  }
} catch (error) {
  console.error(`wait-ready: ${messageOf(error)}`)
  process.exit(1)
}
