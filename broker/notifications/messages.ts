/** What a notification says: who asks for what, by which rule. Never a body, an argument vector or a secret. */
import type { StoredApproval } from '../store/store.ts'
import type { NotificationEvent, TargetSettings } from './settings.ts'

/** A notification, the same for all receivers. `id` is the same whenever the same thing is told again. */
export interface Notification {
  readonly id: string
  readonly event: NotificationEvent
  /** Milliseconds since the epoch: when it happened. */
  readonly atMs: number
  readonly approval: StoredApproval
}

/** Longest text of one field of a Slack message. */
const MAX_FIELD = 300

/** The body for a receiver. */
export function bodyOf(notification: Notification, target: TargetSettings): string {
  return JSON.stringify(
    target.format === 'slack' ? slackMessage(notification, target) : payload(notification, target),
  )
}

/** Standard Webhooks, "Payload structure": type, timestamp, data. */
function payload({ event, atMs, approval }: Notification, target: TargetSettings): object {
  const { id, state, cluster, subject, agent, ancestors, rules, explanation } = approval
  const { verb, resource, namespace, name, createdAt, expiresAt, reviewer, reason, terms } =
    approval
  return {
    type: event,
    timestamp: new Date(atMs).toISOString(),
    data: {
      ...{ id, state, cluster, subject, agent, ancestors, verb, resource, namespace, name },
      ...{ rules, explanation, quorums: terms.quorums, createdAt, expiresAt, reviewer, reason },
      ...(target.consoleUrl === undefined ? {} : { url: target.consoleUrl + id }),
    },
  }
}

const TITLES: Readonly<Record<NotificationEvent, string>> = {
  'approval.pending': 'A request waits for approval',
  'approval.approved': 'A request was approved',
  'approval.denied': 'A request was denied',
  'approval.expired': 'Nobody decided on a request in time',
  'approval.cancelled': 'A request was withdrawn',
  'approval.revoked': 'An approval was revoked',
  'approval.unknown': 'What became of an approved request is not known',
  'breakglass.used': 'Break-glass was used and waits for its review',
  'breakglass.reviewed': 'A use of break-glass was reviewed',
}

/** Without a button: a decision binds to the broker's own login, not to a chat account. */
function slackMessage({ event, approval }: Notification, target: TargetSettings): object {
  const { id, cluster, subject, agent, verb, resource, namespace, name, explanation } = approval
  const object = [namespace, name].filter((part) => part !== '').join('/')
  const title = TITLES[event]
  const what = `${verb} ${resource} ${object} on ${cluster}`.replaceAll(/ +/g, ' ')
  const command = `nestgate approvals show ${id}`
  const link = target.consoleUrl === undefined ? '' : `\n<${target.consoleUrl}${id}|Open it>`
  const fields = [
    ['What', what],
    ['Who', agent === '' ? subject : `${agent} as ${subject}`],
    ['Why', explanation],
  ] as const
  return {
    text: `${title}: ${escaped(what)}`,
    blocks: [
      { type: 'section', text: { type: 'mrkdwn', text: `*${title}*${link}` } },
      {
        type: 'section',
        fields: fields.map(([label, value]) => ({
          type: 'mrkdwn',
          text: `*${label}*\n${escaped(value)}`,
        })),
      },
      { type: 'context', elements: [{ type: 'mrkdwn', text: `\`${command}\`` }] },
    ],
  }
}

/** Slack's three control characters; the text is whatever an agent called its things. Half a character would make the message invalid. */
function escaped(text: string): string {
  return text
    .slice(0, MAX_FIELD)
    .toWellFormed()
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
}
