/**
 * The requests that are under way upstream: what the authorizer and admission compare an API server's questions with. In
 * memory only: a broker that restarts has no request under way, so that every credential of its predecessor is worthless.
 */
import type { CredentialNeed } from './credential.ts'

/** How long a request may take from its credential's making to its authorization, in milliseconds: the life of a token. */
export const TICKET_LIFE_MS = 30_000
/** Questions about one request beside the one for the request itself. */
export const MAX_SIDE_QUESTIONS = 64
/** Requests under way; far above what the gateway lets run at once. */
const MAX_TICKETS = 100_000

/** A request under way. */
export interface Ticket {
  readonly cluster: string
  readonly need: CredentialNeed
  readonly expiresAtMs: number
  /** How often an API server asked about the request itself. */
  uses: number
  sideQuestions: number
  /** How often it asked whether the object, or the session, may be created beside that. */
  creations: number
}

/** See the head of the file. */
export interface Tickets {
  /** Undefined where there are too many. */
  open(cluster: string, need: CredentialNeed): Ticket | undefined
  /** The request of that id, where it is under way there now. */
  find(cluster: string, requestId: string): Ticket | undefined
  close(ticket: Ticket): void
  readonly size: number
}

/** @param now - milliseconds since the epoch */
export function createTickets(now: () => number): Tickets {
  const tickets = new Map<string, Ticket>()
  /** Those that nobody closed: the oldest come first. */
  const sweep = (): void => {
    for (const [id, { expiresAtMs }] of tickets) {
      if (expiresAtMs > now()) return
      tickets.delete(id)
    }
  }
  return {
    open(cluster, need) {
      sweep()
      if (tickets.size >= MAX_TICKETS || tickets.has(need.requestId)) return undefined
      const expiresAtMs = now() + TICKET_LIFE_MS
      const ticket = { cluster, need, expiresAtMs, uses: 0, sideQuestions: 0, creations: 0 }
      tickets.set(need.requestId, ticket)
      return ticket
    },
    find(cluster, requestId) {
      const ticket = tickets.get(requestId)
      return ticket?.cluster === cluster && ticket.expiresAtMs > now() ? ticket : undefined
    },
    close(ticket) {
      const { requestId } = ticket.need
      if (tickets.get(requestId) === ticket) tickets.delete(requestId)
    },
    get size() {
      return tickets.size
    },
  }
}
