/** The operations by which the ledger is checked, and what lies beside its entries is read or forgotten. */
import { z } from 'zod'
import { capturedPayloadSchema, erasedSchema, erasureSchema } from '../../../shared/wire.ts'
import type { Operation } from './operation.ts'

/** Query of `GET /v1/ledger/consistency`. */
const consistencySchema = z.strictObject({ from: z.string().regex(/^(0|[1-9]\d*)$/) })
/** Answer of `GET /v1/ledger/keys`. */
const ledgerKeysSchema = z.object({
  origin: z.string(),
  keys: z.array(z.object({ vkey: z.string(), since: z.string(), until: z.string().optional() })),
})

/** See operations.ts. */
export const LEDGER_OPERATIONS: readonly Operation[] = [
  {
    ...{ method: 'get', path: '/ledger/checkpoint', id: 'showCheckpoint', tag: 'ledger' },
    ...{ summary: 'The checkpoint that was signed last (C2SP tlog-checkpoint)' },
    ...{ caller: 'anybody', answer: { texts: ['text/plain'] } },
  },
  {
    ...{ method: 'get', path: '/ledger/cosigned', id: 'showCosigned', tag: 'ledger' },
    ...{
      summary: 'The newest checkpoint of each witness, with its signature (C2SP tlog-cosignature)',
    },
    ...{ caller: 'anybody', answer: { texts: ['text/plain'] } },
  },
  {
    ...{ method: 'get', path: '/ledger/keys', id: 'showLedgerKeys', tag: 'ledger' },
    ...{ summary: 'Keys that sign, or signed, the ledger', caller: 'anybody' },
    answer: { json: ledgerKeysSchema },
  },
  {
    ...{ method: 'get', path: '/ledger/consistency', id: 'showConsistency', tag: 'ledger' },
    ...{ summary: 'That the last checkpoint begins with an earlier size (C2SP tlog-witness)' },
    ...{ caller: 'anybody', query: consistencySchema, answer: { texts: ['text/plain'] } },
  },
  {
    ...{ method: 'get', path: '/ledger/proof/{seq}', id: 'showProof', tag: 'ledger' },
    ...{ summary: 'That an entry is in the ledger (C2SP tlog-proof)', caller: ['auditor'] },
    answer: { texts: ['text/plain'] },
  },
  {
    ...{ method: 'get', path: '/ledger/tile/entries/{path}', id: 'showBundle', tag: 'ledger' },
    ...{ summary: 'Entries as they are stored (C2SP tlog-tiles)', caller: ['auditor'] },
    answer: { texts: ['application/octet-stream'] },
  },
  {
    ...{ method: 'get', path: '/ledger/tile/{path}', id: 'showTile', tag: 'ledger' },
    ...{ summary: 'Hashes of the tree (C2SP tlog-tiles)', caller: 'anybody' },
    answer: { texts: ['application/octet-stream'] },
  },
  {
    ...{ method: 'post', path: '/ledger/erase', id: 'erasePerson', tag: 'ledger' },
    ...{ summary: 'Forget a person: entries and proofs stay', caller: ['admin'] },
    ...{ body: erasureSchema, answer: { json: erasedSchema } },
  },
  {
    ...{ method: 'get', path: '/audit/payloads/{sha256}', id: 'showPayload', tag: 'audit' },
    ...{ summary: 'A captured body, masked', caller: ['auditor'] },
    answer: { json: capturedPayloadSchema },
  },
]
