/** The end of a process: on SIGTERM or SIGINT everything that was opened is closed, last opened first, within a bound. */
import { messageOf } from './errors.ts'
import type { Log } from './json-log.ts'

/** How long closing may take before the process ends anyway, in milliseconds; below Kubernetes' default grace of 30 s. */
const SHUTDOWN_LIMIT_MS = 20_000

/** Closes what it was made for; settles when done. */
export type Closer = () => Promise<void> | void

/**
 * Runs `closers` in reverse order at the first SIGTERM or SIGINT, then exits 0; exits 1 if a closer fails
 * or the time runs out.
 *
 * @param ready - waited for first, without a limit; a second signal ends this waiting. Never rejects
 * @returns closes without a signal, and without that waiting
 */
export function closeOnSignal(
  log: Log,
  closers: readonly Closer[],
  ready: () => Promise<void> = () => Promise.resolve(),
): () => void {
  let state: 'open' | 'waiting' | 'closing' = 'open'
  const close = (): void => {
    if (state === 'closing') return
    state = 'closing'
    setTimeout(() => {
      log.error('shutdown took too long')
      process.exit(1)
    }, SHUTDOWN_LIMIT_MS).unref()
    void runAll(log, closers).then((clean) => process.exit(clean ? 0 : 1))
  }
  const hear = (signal: NodeJS.Signals): void => {
    log.info({ signal }, 'shutting down')
    if (state !== 'open') {
      close()
      return
    }
    state = 'waiting'
    void ready().then(close)
  }
  process.on('SIGTERM', hear)
  process.on('SIGINT', hear)
  return close
}

async function runAll(log: Log, closers: readonly Closer[]): Promise<boolean> {
  let clean = true
  for (const closer of closers.toReversed()) {
    try {
      await closer()
    } catch (error) {
      clean = false
      log.error({ error: messageOf(error) }, 'closing failed')
    }
  }
  return clean
}
