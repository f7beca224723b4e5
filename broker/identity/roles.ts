/** What a person may do in the broker's own API: `reviewer` decides on held requests, `auditor` reads the ledger, `admin` both, and changes clusters. */
export const ROLES = ['reviewer', 'auditor', 'admin'] as const

/** See {@link ROLES}. */
export type Role = (typeof ROLES)[number]
