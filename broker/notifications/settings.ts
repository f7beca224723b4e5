/** Where people are told that something waits for them, as the operator configures it. */
import { z } from 'zod'

/** What can be told of. */
export const NOTIFICATION_EVENTS = [
  'approval.pending',
  'approval.approved',
  'approval.denied',
  'approval.expired',
  'approval.cancelled',
  'approval.revoked',
  'approval.unknown',
  'breakglass.used',
  'breakglass.reviewed',
] as const

/** See {@link NOTIFICATION_EVENTS}. */
export type NotificationEvent = (typeof NOTIFICATION_EVENTS)[number]

const text = z.string().min(1).max(2048)
const LOOPBACK = /^http:\/\/(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?(?:\/|$)/

const targetSchema = z
  .strictObject({
    /** Names it in the log. */
    name: z.string().regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'expected a DNS label'),
    /** https; http only on the loopback. The URL itself may be a secret, and is not logged; or: */
    url: text.optional(),
    /** a file that holds it. */
    urlFile: text.optional(),
    /** `standard`: Standard Webhooks. `slack`: what Slack, and what understands its incoming webhooks, takes. */
    format: z.enum(['standard', 'slack']),
    /** Signing secrets of `standard`, one a line, `whsec_` and base64: all sign, so that one can be replaced. */
    secretFile: text.optional(),
    /** Certificates that the receiver's own must be signed by, PEM; without it those that Node knows. */
    caFile: text.optional(),
    events: z
      .array(z.enum(NOTIFICATION_EVENTS))
      .min(1)
      .default(['approval.pending', 'approval.unknown', 'breakglass.used']),
    /** Only requests to these clusters. */
    clusters: z.array(text).min(1).optional(),
    /** Put before a request's id to make a link for people. */
    consoleUrl: text.optional(),
  })
  .superRefine((target, context) => {
    const problem = (path: string, message: string): void => {
      context.addIssue({ code: 'custom', path: [path], message })
    }
    if ((target.url === undefined) === (target.urlFile === undefined))
      problem('url', 'give either url or urlFile')
    if (target.url !== undefined && !isReceiver(target.url))
      problem('url', 'expected an https URL, or http on the loopback')
    if (target.format === 'standard' && target.secretFile === undefined)
      problem('secretFile', 'is needed to sign')
  })

/** Whether a notification may be sent there. */
export function isReceiver(url: string): boolean {
  return URL.canParse(url) && (url.startsWith('https://') || LOOPBACK.test(url))
}

/** All of them. */
export const notificationsSchema = z.array(targetSchema).max(20)

/** One receiver. */
export type TargetSettings = z.infer<typeof targetSchema>
