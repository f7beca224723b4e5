/** Entry point of the sidecar: `node sidecar/main.ts [--config FILE]`. Only wires; exits 1 when it cannot start. */
import { messageOf } from '../shared/errors.ts'
import { createJsonLog } from '../shared/json-log.ts'
import { closeOnSignal } from '../shared/shutdown.ts'
import { commandLine, readSidecarConfig } from './config.ts'
import { startSidecar } from './sidecar.ts'

try {
  const config = readSidecarConfig(commandLine())
  const log = createJsonLog('nestgate-sidecar', config.log.level)
  const sidecar = await startSidecar(config, log)
  closeOnSignal(log, [() => sidecar.close()])
  const { cluster, profile } = config
  log.info({ addresses: sidecar.addresses, cluster, profile }, 'listening')
} catch (error) {
  console.error(`nestgate-sidecar: ${messageOf(error)}`)
  process.exit(1)
}
