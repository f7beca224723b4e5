/**
 * A broker in a process of its own: it says that it is there, holds, approves and claims one request, and lets another
 * one of a direct client wait, prints both ids, and does nothing more. Its parent kills it.
 */
import { writeSync } from 'node:fs'
import { createApprovals } from '../../broker/approvals/approvals.ts'
import { brokerName, openPresence } from '../../broker/presence.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { facts } from './entries.ts'
import { openPostgres } from './postgres.ts'
import { SILENT } from './sqlite-store.ts'

const [url = '', beatMs = ''] = process.argv.slice(2)
const store = await openPostgres(url)
const id = brokerName()
const shared = { store, log: SILENT, now: Date.now }
const onGone = (): Promise<void> => Promise.resolve()
await openPresence({ ...shared, id, onGone, beatMs: Number(beatMs) })
const approvals = createApprovals({ ...shared, broker: id })
const [held, waiting] = [facts(), facts({ podUid: undefined, callerKey: 'person' })]
await approvals.ask(held, [])
await approvals.decide({ id: held.id, reviewer: 'alice', approve: true, reason: 'x' })
const claimed = await approvals.claim(held)
if (isRefusal(claimed)) throw new Error(claimed.refused)
await approvals.ask(waiting, [])
writeSync(1, `${held.id} ${waiting.id}\n`)
setInterval(() => undefined, 60_000)
