/**
 * A child process that appends without end, one entry after the other, and prints what became of each: `OK SEQ REQUEST_ID`, or
 * `FAILED REQUEST_ID CODE`; `REFUSED CODE` where the file could not be opened. Its parent kills it.
 */
import { writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { codeOf } from '../../shared/errors.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { intent } from './entries.ts'
import { open } from './sqlite-store.ts'

/** Pause after a failure, in milliseconds. */
const PAUSE_MS = 20
const store = await open(process.argv[2] ?? '').catch((error: unknown) => {
  writeSync(1, `REFUSED ${codeOf(error) ?? ''}\n`)
  process.exit(3)
})
writeSync(1, 'OPEN\n')
for (;;) {
  const requestId = newRequestId(Date.now())
  try {
    const seq = await store.append([intent({ requestId, agent: 'x'.repeat(4_000) })])
    writeSync(1, `OK ${seq} ${requestId}\n`)
  } catch (error) {
    writeSync(1, `FAILED ${requestId} ${codeOf(error) ?? ''}\n`)
    await sleep(PAUSE_MS)
  }
}
