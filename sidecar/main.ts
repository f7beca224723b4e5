/** Entry point of the sidecar: `node sidecar/main.ts [--config FILE]`. Only wires; exits 1 when it cannot start. */
import { messageOf } from '../shared/errors.ts'
import { createJsonLog } from '../shared/json-log.ts'
import type { Log } from '../shared/json-log.ts'
import { closeOnSignal } from '../shared/shutdown.ts'
import { commandLine, readSidecarConfig } from './config.ts'
import { keepSmall } from './memory.ts'
import { loadNative } from './native.ts'
import { startSidecar } from './sidecar.ts'

/**
 * Before there is anything to be read in this process: a neighbour with its user id could otherwise trace it. Whether it
 * is forbidden now.
 */
function forbidDumps(log: Log): boolean {
  try {
    return loadNative().forbidDumps()
  } catch (error) {
    log.error({ error: messageOf(error) }, 'there is no way to the system’s own calls')
    return false
  }
}

try {
  const config = readSidecarConfig(commandLine())
  const log = createJsonLog('nestgate-sidecar', config.log.level)
  const own = { pid: process.pid, isTraceable: !forbidDumps(log) }
  keepSmall(log)
  const sidecar = await startSidecar(config, log, own)
  const end = closeOnSignal(log, [() => sidecar.close()], () => sidecar.outliveNeighbours())
  void sidecar.neighboursEnd.then((haveEnded) => {
    if (!haveEnded) return
    log.info('the pod’s other containers are through')
    end()
  })
  const { cluster, profile } = config
  log.info({ addresses: sidecar.addresses, cluster, profile }, 'listening')
} catch (error) {
  console.error(`nestgate-sidecar: ${messageOf(error)}`)
  process.exit(1)
}
