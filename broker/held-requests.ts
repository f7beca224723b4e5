/** The held requests, who tells people of them, and what other brokers have to do with it: wired once, for main.ts. */
import type { Logger } from '../shared/log.ts'
import { createApprovals } from './approvals/approvals.ts'
import type { Approvals } from './approvals/types.ts'
import type { BrokerConfig } from './config.ts'
import { createNotifications } from './notifications/notifications.ts'
import type { Notifications } from './notifications/notifications.ts'
import { brokerName, openPresence, presentAlone } from './presence.ts'
import type { Presence } from './presence.ts'
import type { Store } from './store/store.ts'

/** Held requests that are announced when their broker has ended, at most; the newest. */
const MAX_ANNOUNCED = 1_000

/** See the head of the file; each part is to be closed. */
export interface HeldRequests {
  readonly approvals: Approvals
  readonly notifications: Notifications
  readonly presence: Presence
}

/**
 * Takes over what brokers that have ended left behind, now and whenever one ends.
 *
 * @throws Fault `store_failed`
 */
export async function openHeldRequests(
  config: BrokerConfig,
  deps: { readonly store: Store; readonly log: Logger; readonly now: () => number },
): Promise<HeldRequests> {
  const id = brokerName()
  const approvals = createApprovals({ ...deps, broker: id })
  const notifications = createNotifications(config.notifications, deps)
  approvals.subscribe((event) => {
    if (event.elsewhere !== true) notifications.tell(event)
  })
  const left = { approvals, notifications }
  const onGone = (gone: string): Promise<void> => takeOver(left, (name) => name === gone)
  const presence =
    config.store.postgres === undefined
      ? presentAlone(id)
      : await openPresence({ ...deps, id, onGone })
  await takeOver(left, (name) => !presence.isThere(name))
  return { ...left, presence }
}

/** What ran, and what waits and may not have been told. */
async function takeOver(
  { approvals, notifications }: Omit<HeldRequests, 'presence'>,
  gone: (broker: string | undefined) => boolean,
): Promise<void> {
  await approvals.recover(gone)
  for (const filter of [{ states: ['PENDING'] }, { review: 'open' }] as const) {
    const open = await approvals.list(filter, MAX_ANNOUNCED)
    notifications.announce(open.filter(({ progress }) => gone(progress.broker)))
  }
}
