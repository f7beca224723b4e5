/** Names of people behind the pseudonyms of entries (broker/ledger/personal.ts), as readings of the ledger give them. */
import { isRecord } from '../../shared/config-source.ts'
import { PSEUDONYM_PREFIX, pseudonymsIn, showPersonal } from '../ledger/personal.ts'
import { MAX_NAMES } from './bounds.ts'

/** What is known of pseudonyms; forgets all when it is full. */
export class Names {
  readonly #known = new Map<string, string>()

  /** An entry with its names. @returns undefined where a pseudonym in it was not met before */
  shown(entry: unknown): unknown {
    if (!isRecord(entry)) return entry
    return pseudonymsIn(entry).every((one) => this.#known.has(one))
      ? showPersonal(entry, (pseudonym) => this.#known.get(pseudonym))
      : undefined
  }

  /** Takes from an entry as it is stored, and as a reading gives it, who is who. One who was erased keeps the pseudonym. */
  learn(stored: unknown, read: unknown): void {
    if (typeof stored === 'string') {
      if (!stored.startsWith(PSEUDONYM_PREFIX) || typeof read !== 'string') return
      if (this.#known.size >= MAX_NAMES) this.#known.clear()
      this.#known.set(stored, read)
    } else if (Array.isArray(stored)) {
      const others: readonly unknown[] = Array.isArray(read) ? read : []
      stored.forEach((one, at) => {
        this.learn(one, others[at])
      })
    } else if (isRecord(stored) && isRecord(read))
      for (const [key, value] of Object.entries(stored)) this.learn(value, read[key])
  }
}
