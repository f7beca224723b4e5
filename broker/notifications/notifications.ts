/**
 * Tells people that something waits for them. Listens to what happens to held requests, and hands it to each receiver that
 * wants to know. A message's id is made of the request and what happened, which happens once to each, so a broker that
 * restarts and announces again what still waits does not send another message, but the same one again.
 */
import type { ApprovalState } from '../../shared/wire.ts'
import type { ApprovalEvent } from '../approvals/types.ts'
import type { StoredApproval } from '../store/store.ts'
import { createDelivery } from './deliveries.ts'
import type { DeliveryDeps } from './deliveries.ts'
import type { Notification } from './messages.ts'
import type { NotificationEvent, TargetSettings } from './settings.ts'

/** See the head of the file. */
export interface Notifications {
  /** Something happened to a held request. Never throws. */
  tell(event: ApprovalEvent): void
  /** Announces again what waits at the start of a broker. */
  announce(approvals: readonly StoredApproval[]): void
  close(): Promise<void>
}

/** @param targets - the configured receivers */
export function createNotifications(
  targets: readonly TargetSettings[],
  deps: DeliveryDeps,
): Notifications {
  const receivers = targets.map((target) => ({ target, delivery: createDelivery(target, deps) }))
  const send = (event: NotificationEvent, approval: StoredApproval): void => {
    const notification = notificationOf(event, approval, deps.now())
    for (const { target, delivery } of receivers) {
      const wanted = target.clusters === undefined || target.clusters.includes(approval.cluster)
      if (wanted && target.events.includes(event)) delivery.push(notification)
    }
  }
  return {
    tell({ from, approval }): void {
      const event = eventOf(from, approval)
      if (event !== undefined) send(event, approval)
    },
    announce(approvals): void {
      for (const approval of approvals) {
        if (approval.state === 'PENDING') send('approval.pending', approval)
        else if (approval.review === 'open') send('breakglass.used', approval)
      }
    },
    async close() {
      await Promise.all(receivers.map(({ delivery }) => delivery.close()))
    },
  }
}

/** What a change means to people; undefined for steps that are nobody's to act on. */
function eventOf(from: string, approval: StoredApproval): NotificationEvent | undefined {
  const { state, breakGlass, review } = approval
  if (breakGlass && from === 'RECEIVED') return 'breakglass.used'
  if (breakGlass && review === 'closed' && from === state) return 'breakglass.reviewed'
  if (from === state) return undefined
  // an approval that repeats an earlier one was nobody's decision
  return from === 'RECEIVED' && state === 'APPROVED' ? undefined : EVENTS[state]
}

const EVENTS: Readonly<Partial<Record<ApprovalState, NotificationEvent>>> = {
  PENDING: 'approval.pending',
  APPROVED: 'approval.approved',
  DENIED: 'approval.denied',
  EXPIRED: 'approval.expired',
  CANCELLED: 'approval.cancelled',
  REVOKED: 'approval.revoked',
  UNKNOWN: 'approval.unknown',
}

/** A restart announces the same thing, whatever changed meanwhile. */
function notificationOf(
  event: NotificationEvent,
  approval: StoredApproval,
  nowMs: number,
): Notification {
  const began = event === 'approval.pending' || event === 'breakglass.used'
  const atMs = began ? Date.parse(approval.createdAt) : nowMs
  return { id: `msg_${approval.id}_${event.replace('.', '_')}`, event, atMs, approval }
}
