/** What the credentials of all clusters share: the requests under way, and where the broker is an issuer, its keys. Only wiring. */
import { join } from 'node:path'
import type { Logger } from '../../shared/log.ts'
import { createAccessReviews } from './access.ts'
import { createAuthorizer } from './authorizer.ts'
import type { Authorizer } from './authorizer.ts'
import type { IssuerParts } from './issuer-credential.ts'
import { createOwnCalls } from './own-calls.ts'
import type { Refused } from './refused-record.ts'
import { openSigningKeys } from './signing-keys.ts'
import type { SigningKeys } from './signing-keys.ts'
import { createTickets } from './tickets.ts'
import type { Tickets } from './tickets.ts'
import { createTokenMaker } from './tokens.ts'
import { openVaultKeys } from './vault-keys.ts'
import type { VaultSettings } from './vault-client.ts'

/** The broker as issuer. */
export interface Issuer {
  /** As in `iss`. */
  readonly url: string
  readonly keys: SigningKeys
  readonly parts: IssuerParts
  readonly authorizer: Authorizer
}

/** See the head of the file. */
export interface CredentialParts {
  readonly tickets: Tickets
  /** Undefined where the broker is none. */
  readonly issuer: Issuer | undefined
  /** Told of what admission was refused. */
  readonly onRefused: (refused: Refused) => void
  close(): void
}

/** How the broker is an issuer; see broker/config.ts. */
export interface IssuerSettings {
  readonly url: string
  readonly keysDir?: string | undefined
  /** A key service, in place of `keysDir`. */
  readonly signer?: { readonly vault: VaultSettings } | undefined
  readonly rotateAfterDays: number
}

/** Where keys are unless the configuration says otherwise. */
const KEYS_DIR = 'issuer-keys'

/**
 * @param settings - undefined where the broker is no issuer
 * @param deps - `dataDir` is the broker's own folder; `now` in milliseconds since the epoch; `refusedTo` makes who is told of what was
 *   refused, once for each kind of asker
 * @returns rejects when the keys cannot be used
 */
export async function openCredentialParts(
  settings: IssuerSettings | undefined,
  deps: {
    readonly dataDir: string
    readonly log: Logger
    readonly now: () => number
    readonly refusedTo: () => (refused: Refused) => void
    readonly onKey: (kid: string) => void
  },
): Promise<CredentialParts> {
  const { dataDir, log, now, refusedTo, onKey } = deps
  const onRefused = refusedTo()
  const tickets = createTickets(now)
  if (settings === undefined)
    return { tickets, issuer: undefined, onRefused, close: () => undefined }
  const { url, keysDir, signer, rotateAfterDays } = settings
  const keyDeps = { log, now, onRotated: onKey }
  const dir = keysDir ?? join(dataDir, KEYS_DIR)
  const keys =
    signer === undefined
      ? await openSigningKeys({ dir, rotateAfterDays }, keyDeps)
      : await openVaultKeys(signer.vault, keyDeps)
  const access = createAccessReviews(now)
  const ownCalls = createOwnCalls(now)
  const maker = createTokenMaker(url, keys, now)
  return {
    tickets,
    onRefused,
    issuer: {
      ...{ url, keys },
      parts: { maker, tickets, access, ownCalls },
      authorizer: createAuthorizer({ tickets, access, ownCalls, onRefused: refusedTo() }),
    },
    close: () => {
      keys.close()
    },
  }
}
