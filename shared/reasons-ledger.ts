/** Codes of the ledger, see reasons.ts. */
import type { ReasonInfo } from './reasons.ts'

export const LEDGER_REASONS = {
  ledger_unavailable: {
    status: 503,
    sentence: 'the ledger cannot be written, so nothing was forwarded',
    remedy: 'check the broker’s disk; the request can be sent again',
  },
  ledger_smaller: {
    status: 409,
    sentence: 'the ledger is smaller than the caller knows it',
    remedy:
      'ask again in a second; if it stays so, the ledger was put back to an earlier state: see docs/evidence.md',
  },
  entry_unknown: {
    status: 404,
    sentence: 'the ledger has no such entry, or its text was removed when its time was over',
    remedy: 'check the number; the ledger’s proofs stay good without the text',
  },
} as const satisfies Record<string, ReasonInfo>
