/**
 * Entry point of the webhook: `node webhook/main.ts --config FILE`. Only wires; `review.ts` has the way of a
 * review. Ends with status 1 where it cannot start, and says why on standard error.
 */
import { messageOf } from '../shared/errors.ts'
import { createLog } from '../shared/log.ts'
import { closeOnSignal } from '../shared/shutdown.ts'
import { readWebhookConfig } from '../shared/injection/config.ts'
import { startWebhook } from './start.ts'

try {
  // eslint-disable-next-line no-restricted-properties -- the entry point hands the environment to config.ts
  const config = readWebhookConfig({ argv: process.argv.slice(2), env: process.env })
  const log = createLog('nestgate-webhook', config.log.level)
  const webhook = await startWebhook(config, { log })
  closeOnSignal(log, [webhook.close])
} catch (error) {
  process.stderr.write(`nestgate-webhook: ${messageOf(error)}\n`)
  process.exitCode = 1
}
