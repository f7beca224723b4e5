/** Entry point of the sidecar: `node sidecar/main.ts [--config FILE]`. Only wires; exits 1 when it cannot start. */
import { commandLine } from '../shared/config.ts'
import { messageOf } from '../shared/errors.ts'
import { createLog } from '../shared/log.ts'
import { closeOnSignal } from '../shared/shutdown.ts'
import { readSidecarConfig } from './config.ts'
import { startSidecar } from './sidecar.ts'

try {
  const config = readSidecarConfig(commandLine())
  const log = createLog('nestgate-sidecar', config.log.level)
  const sidecar = await startSidecar(config, log)
  closeOnSignal(log, [() => sidecar.close()])
  const { cluster, profile } = config
  log.info({ addresses: sidecar.addresses, cluster, profile }, 'listening')
} catch (error) {
  console.error(`nestgate-sidecar: ${messageOf(error)}`)
  process.exit(1)
}
