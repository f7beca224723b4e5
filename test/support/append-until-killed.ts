/** A child process that appends without end and prints each acknowledged entry: `SEQ REQUEST_ID`. Its parent kills it. */
import { writeSync } from 'node:fs'
import { newRequestId } from '../../shared/request-id.ts'
import { intent } from './entries.ts'
import { open } from './sqlite-store.ts'

const WRITERS = 16
const store = await open(process.argv[2] ?? '')

async function write(): Promise<never> {
  for (;;) {
    const requestId = newRequestId(Date.now())
    const seq = await store.append([intent({ requestId })])
    writeSync(1, `${seq} ${requestId}\n`)
  }
}
await Promise.all(Array.from({ length: WRITERS }, write))
