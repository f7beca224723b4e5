/** A child process that records sessions without end, and prints each one's id and how many bytes of events are durable: `ID BYTES`. Its parent kills it. */
import { writeSync } from 'node:fs'
import { openRecordings } from '../../broker/sessions/recordings/open.ts'
import { sessionsSchema } from '../../broker/sessions/recordings/settings.ts'
import { facts, output, TERMS } from './recordings.ts'
import { open, SILENT } from './sqlite-store.ts'

const [dataDir = '', database = '', count = '3'] = process.argv.slice(2)
const store = await open(database)
const deps = { store, dataDir, log: SILENT, now: Date.now, chunkAgeMs: 10, progressMs: 50 }
const recordings = await openRecordings(sessionsSchema.parse({}), deps)

async function record(): Promise<never> {
  const { id, ...rest } = facts()
  const writer = await recordings.begin({ id, ...rest }, TERMS)
  for (let number = 0; ; number += 1) {
    // what it says tells where it stands, so that a gap shows
    writer.write(output(`${id} ${number} `.repeat(400), number))
    await writer.room()
    if (number % 20 !== 0) continue
    await new Promise((resolve) => setTimeout(resolve, 2))
    const size = await recordings.size(id)
    if (typeof size === 'number') writeSync(1, `${id} ${size}\n`)
  }
}
await Promise.all(Array.from({ length: Number(count) }, record))
