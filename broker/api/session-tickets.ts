/**
 * Tickets by which a browser reads one session in the name of the person who asked for it. A ticket is 256 random bits; what is kept is its SHA-256,
 * in memory alone, so that it is good at the broker that made it and ends with it.
 */
import { createHash, randomBytes } from 'node:crypto'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { Person } from '../identity/people.ts'

/** A ticket must be used within this time, in milliseconds … */
export const FIRST_USE_MS = 5 * 60_000
/** … and is good for this long after its first use, but no longer than what the person signed in with. */
export const USE_MS = 60 * 60_000
/** Tickets of one person at once; the oldest goes where one more is asked for. */
export const MAX_TICKETS_OF_PERSON = 32
/** Tickets at once. */
export const MAX_TICKETS = 1024
/** Begins each ticket: so it is never taken for a person's token, and is found where it has been spilt. */
const PREFIX = 'nestgate-ticket-'
const FORM = /^nestgate-ticket-[\w-]{43}$/
const TICKET_BYTES = 32

/** A ticket that was made. It is said once. */
export interface Issued {
  readonly ticket: string
  /** When it must have been used, milliseconds since the epoch. */
  readonly expiresAtMs: number
}

interface Ticket {
  readonly person: Person
  readonly session: string
  expiresAtMs: number
  used: boolean
}

/** See the head of this file. */
export class SessionTickets {
  /** By the hash of the ticket, the oldest first. */
  readonly #tickets = new Map<string, Ticket>()
  readonly #now: () => number

  /** @param now - milliseconds since the epoch */
  constructor(now: () => number) {
    this.#now = now
  }

  /** Makes a ticket for one session. @returns `broker_busy` where other people have too many */
  issue(person: Person, session: string): Issued | Refusal {
    this.#forgetOld()
    const own = [...this.#tickets].filter(([, one]) => one.person.name === person.name)
    const [[oldest] = []] = own
    if (own.length >= MAX_TICKETS_OF_PERSON && oldest !== undefined) this.#tickets.delete(oldest)
    if (this.#tickets.size >= MAX_TICKETS)
      return refuse('broker_busy', `${MAX_TICKETS} pages are open already`)
    const ticket = PREFIX + randomBytes(TICKET_BYTES).toString('base64url')
    const expiresAtMs = this.#bounded(person, FIRST_USE_MS)
    this.#tickets.set(hashOf(ticket), { person, session, expiresAtMs, used: false })
    return { ticket, expiresAtMs }
  }

  /** Uses a ticket. @returns whose it is, and until when; undefined where it is not good for this session now */
  use(ticket: string, session: string): Person | undefined {
    const found = this.#tickets.get(hashOf(ticket))
    if (found?.session !== session || this.#now() >= found.expiresAtMs) return undefined
    if (!found.used) {
      found.used = true
      found.expiresAtMs = this.#bounded(found.person, USE_MS)
    }
    return { ...found.person, expiresAtMs: found.expiresAtMs }
  }

  #bounded({ expiresAtMs = Infinity }: Person, ms: number): number {
    return Math.min(this.#now() + ms, expiresAtMs)
  }

  #forgetOld(): void {
    const now = this.#now()
    for (const [hash, { expiresAtMs }] of this.#tickets)
      if (now >= expiresAtMs) this.#tickets.delete(hash)
  }
}

/** Whether a bearer token has the form of a ticket. */
export function isTicket(token: string): boolean {
  return FORM.test(token)
}

function hashOf(ticket: string): string {
  return createHash('sha256').update(ticket).digest('hex')
}
