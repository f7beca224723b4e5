/**
 * A child process that holds, approves, claims and finishes without end, and prints each claim that it was
 * granted, `CLAIMED ID`, and each end that was acknowledged, `ENDED ID`. Its parent kills it.
 */
import { writeSync } from 'node:fs'
import { createApprovals } from '../../broker/approvals/approvals.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { facts } from './entries.ts'
import { open, SILENT } from './sqlite-store.ts'

const CLIENTS = 8
const store = await open(process.argv[2] ?? '')
const approvals = createApprovals({ store, log: SILENT, now: Date.now })

async function repeat(): Promise<never> {
  for (;;) {
    const held = facts()
    const { id } = held
    await approvals.ask(held, [])
    await approvals.decide({ id, reviewer: 'alice', approve: true, reason: 'x' })
    const claimed = await approvals.claim(held)
    if (isRefusal(claimed)) throw new Error(claimed.refused)
    writeSync(1, `CLAIMED ${id}\n`)
    // what a request takes: the kill comes in here more often than not
    await new Promise((resolve) => setTimeout(resolve, 20))
    await approvals.finish(id, 'SUCCEEDED')
    writeSync(1, `ENDED ${id}\n`)
  }
}
await Promise.all(Array.from({ length: CLIENTS }, repeat))
