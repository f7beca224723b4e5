/** Mode `impersonation`: the broker's own credential in the cluster, and somebody else's name. */
import { Fault } from '../../shared/errors.ts'
import { identityOf } from './actor.ts'
import type { ClusterCredential, CredentialHeaders } from './credential.ts'
import { impersonationHeaders } from './impersonation.ts'
import type { Tickets } from './tickets.ts'

/**
 * @param cluster - its name
 * @param own - headers that authenticate the broker itself; none with a client certificate
 */
export function impersonationCredential(
  tickets: Tickets,
  cluster: string,
  own: () => Promise<CredentialHeaders>,
): ClusterCredential {
  return {
    mode: 'impersonation',
    own,
    async make(need) {
      const { user } = identityOf(need.actor, need.grantGroups)
      const identity = impersonationHeaders(need)
      const ticket = tickets.open(cluster, need)
      if (ticket === undefined) throw new Fault('identity_empty', 'too many requests are under way')
      const over = (): void => {
        tickets.close(ticket)
      }
      try {
        // identity last, so that nothing can take its place
        return { headers: { ...(await own()), ...identity }, user, over }
      } catch (error) {
        over()
        throw error
      }
    },
  }
}
