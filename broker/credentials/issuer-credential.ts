/** Mode `issuer`: a token of our own for each request, and one for half a minute for what the broker itself must know. */
import { Fault } from '../../shared/errors.ts'
import type { AccessReviews } from './access.ts'
import { identityOf, tokenSubject } from './actor.ts'
import type { AskedConnection } from './cluster-json.ts'
import type { ClusterCredential } from './credential.ts'
import { OWN_SUBJECT } from './own-calls.ts'
import type { OwnCalls } from './own-calls.ts'
import type { Tickets } from './tickets.ts'
import { PREFIX } from './tokens.ts'
import type { TokenMaker } from './tokens.ts'

/** What all clusters of this mode share. */
export interface IssuerParts {
  readonly maker: TokenMaker
  readonly tickets: Tickets
  readonly access: AccessReviews
  readonly ownCalls: OwnCalls
}

/** @param connection - the way to the cluster, for questions about its roles */
export function issuerCredential(
  { maker, tickets, access, ownCalls }: IssuerParts,
  connection: AskedConnection,
): ClusterCredential {
  const cluster = connection.name
  let own: { readonly id: string; readonly token: Promise<string> } | undefined
  return {
    mode: 'issuer',
    async own() {
      const id = ownCalls.idFor(cluster)
      if (own?.id !== id) {
        const nobody = { grantGroups: [], process: undefined, approvers: [] }
        const token = maker.make({ cluster, subject: OWN_SUBJECT, requestId: id, ...nobody })
        own = { id, token }
        token.catch(() => {
          own = undefined
        })
      }
      return { authorization: `Bearer ${await own.token}` }
    },
    async make(need) {
      const { requestId, actor, grantGroups, process, approvers, call } = need
      const subject = tokenSubject(actor)
      const identity = identityOf(actor, grantGroups)
      const ticket = tickets.open(cluster, need)
      if (ticket === undefined) throw new Fault('identity_empty', 'too many requests are under way')
      // asked now, so that the answer is there when the API server asks
      void access.check(connection, identity, call.attributes)
      try {
        const facts = { cluster, subject, requestId, grantGroups, process, approvers }
        const token = await maker.make(facts)
        return {
          headers: { authorization: `Bearer ${token}`, 'audit-id': requestId },
          user: PREFIX + subject,
          over: () => {
            tickets.close(ticket)
          },
        }
      } catch (error) {
        tickets.close(ticket)
        throw error
      }
    },
  }
}
