/**
 * The keys of sidecars: in memory, and behind it in the store, so that every broker, and one that was started again, knows
 * them. What is in memory is compared with the store now and then: a pod may have registered another key elsewhere.
 */
import { calculateJwkThumbprint, importJWK } from 'jose'
import type { CryptoKey } from 'jose'
import { z } from 'zod'
import type { Store } from '../store/store.ts'

/** Keys kept; the one longest unused goes first, and is read again. */
const MAX_KEYS = 50_000
/** How long a key in memory is taken for the pod's own without a look into the store, in milliseconds. */
export const KEY_FRESH_MS = 10_000
/** How long it is remembered that a pod has no other key than the known one, or none, in milliseconds. */
export const KEY_MISSING_MS = 1_000
/** Stored keys that are older are removed at start, in milliseconds: pods rarely live longer, and one that does registers again. */
export const KEY_MAX_AGE_MS = 30 * 24 * 60 * 60 * 1000
/** Records of one page, and pages, when old keys are removed. */
const SWEEP_PAGE = 500
const MAX_SWEEP_PAGES = 200

/** A public key as it is stored. */
const storedSchema = z.object({
  kty: z.literal('OKP'),
  crv: z.literal('Ed25519'),
  x: z.string(),
})

/** A public key (RFC 8037). */
export type SidecarJwk = z.infer<typeof storedSchema>

/** A pod's key. */
export interface RegisteredKey {
  readonly keyId: string
  readonly key: CryptoKey
  readonly jwk: SidecarJwk
}

/** Makes a key usable; undefined for one that is not a public key. Rejects with what jose throws. */
export async function usableKey({ kty, crv, x }: SidecarJwk): Promise<RegisteredKey | undefined> {
  const jwk = { kty, crv, x }
  const key = await importJWK(jwk, 'EdDSA')
  if (key instanceof Uint8Array) return undefined
  return { keyId: await calculateJwkThumbprint(jwk), key, jwk }
}

interface Kept {
  readonly own: RegisteredKey | undefined
  /** When the store was looked into; what is known only here never was. */
  readonly lookedMs: number
}

/** See the head of the file. */
export class SidecarKeys {
  readonly #keys = new Map<string, Kept>()
  readonly #looks = new Map<string, Promise<RegisteredKey | undefined>>()
  readonly #stored: ((name: string) => Promise<unknown>) | undefined
  readonly #now: () => number

  /** @param stored - body of the record of that name; without it keys are in memory alone */
  constructor(stored: ((name: string) => Promise<unknown>) | undefined, now: () => number) {
    this.#stored = stored
    this.#now = now
  }

  /** The key of a pod, `CLUSTER/POD_UID`. Rejects with what the store throws. */
  async get(name: string): Promise<RegisteredKey | undefined> {
    const kept = this.#keys.get(name)
    const freshMs = kept?.own === undefined ? KEY_MISSING_MS : KEY_FRESH_MS
    if (kept === undefined || this.#age(kept) > freshMs) return this.#look(name)
    return kept.own
  }

  /** Another key of the pod than `old`, which did not fit; undefined where there is none. */
  async other(name: string, old: RegisteredKey): Promise<RegisteredKey | undefined> {
    const kept = this.#keys.get(name)
    const isFresh = kept !== undefined && this.#age(kept) <= KEY_MISSING_MS
    const found = isFresh ? kept.own : await this.#look(name)
    return found?.keyId === old.keyId ? undefined : found
  }

  /** The pod has registered it here. */
  put(name: string, own: RegisteredKey | undefined): void {
    this.#keys.delete(name)
    const oldest = this.#keys.size >= MAX_KEYS ? this.#keys.keys().next() : undefined
    if (oldest?.done === false) this.#keys.delete(oldest.value)
    this.#keys.set(name, { own, lookedMs: this.#now() })
  }

  #age({ lookedMs }: Kept): number {
    return this.#now() - lookedMs
  }

  /** Requests that come together share one look. */
  #look(name: string): Promise<RegisteredKey | undefined> {
    const stored = this.#stored
    if (stored === undefined) return Promise.resolve(this.#keys.get(name)?.own)
    const running = this.#looks.get(name)
    if (running !== undefined) return running
    const look = this.#read(name, stored).finally(() => this.#looks.delete(name))
    this.#looks.set(name, look)
    return look
  }

  async #read(
    name: string,
    stored: (name: string) => Promise<unknown>,
  ): Promise<RegisteredKey | undefined> {
    const before = this.#keys.get(name)
    const parsed = storedSchema.safeParse(await stored(name))
    const own = parsed.success ? await usableKey(parsed.data) : undefined
    // registered here meanwhile: that is newer than what was read
    if (this.#keys.get(name) !== before) return this.#keys.get(name)?.own
    this.put(name, own)
    return own
  }
}

/** Removes stored keys of pods that registered long ago; a bounded number. @returns how many */
export async function sweepSidecarKeys(store: Store, nowMs: number): Promise<number> {
  const dated = z.object({ at: z.iso.datetime() })
  let removed = 0
  let after: string | undefined
  for (let page = 0; page < MAX_SWEEP_PAGES; page += 1) {
    const filter = after === undefined ? {} : { after }
    const records = await store.records('sidecar_key', filter, SWEEP_PAGE)
    const old = records.filter(({ body }) => {
      const parsed = dated.safeParse(body)
      return !parsed.success || Date.parse(parsed.data.at) < nowMs - KEY_MAX_AGE_MS
    })
    const changes = old.map(({ id, version }) => {
      return { kind: 'sidecar_key', id, version, body: undefined } as const
    })
    if (changes.length > 0 && (await store.put(changes, []))) removed += changes.length
    if (records.length < SWEEP_PAGE) break
    after = records.at(-1)?.id
  }
  return removed
}
