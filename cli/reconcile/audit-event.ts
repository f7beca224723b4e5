/** An event of a cluster's audit log (audit.k8s.io/v1) as a {@link Call}. */
import { z } from 'zod'
import { microsOf, pathOf } from './facts.ts'
import type { Call, CalledFacts } from './facts.ts'

/** First part of every name that mode `issuer` makes (broker/credentials/tokens.ts); the broker itself is one of them. */
const ISSUED = 'nestgate:'
const ISSUED_BROKER = 'nestgate:broker'
/** By these the credential says which request it is of; the API server writes them down as it verified them. */
const REQUEST_EXTRA = 'nestgate.dev/request-id'
const REQUEST_GROUP = 'nestgate:request:'
const LAST_STAGES: ReadonlySet<string> = new Set(['ResponseComplete', 'Panic'])

/** What is left out is empty. */
const text = z
  .string()
  .nullish()
  .transform((value) => value ?? '')
const userSchema = z.object({
  username: text,
  groups: z.array(z.string()).nullish(),
  extra: z.record(z.string(), z.array(z.string())).nullish(),
})
const refFields = {
  ...{ resource: text, namespace: text, name: text, apiGroup: text, subresource: text },
}
const eventSchema = z.object({
  auditID: z.string(),
  stage: z.string(),
  requestURI: text,
  verb: text,
  user: userSchema.nullish(),
  impersonatedUser: userSchema.nullish(),
  objectRef: z.object(refFields).nullish(),
  responseStatus: z.object({ code: z.number().nullish() }).nullish(),
  requestReceivedTimestamp: z.string(),
  stageTimestamp: z.string(),
})
type Event = z.infer<typeof eventSchema>
type User = z.infer<typeof userSchema>

/** Whether a name is that of the broker's own account, in mode `impersonation`. */
export type IsBroker = (username: string) => boolean

/** Patterns of whole names; `*` stands for any text. */
export function brokerNames(patterns: readonly string[]): IsBroker {
  const expressions = patterns.map(
    (pattern) =>
      new RegExp(
        `^${pattern
          .split('*')
          .map((part) => RegExp.escape(part))
          .join('.*')}$`,
        'su',
      ),
  )
  return (username) => expressions.some((expression) => expression.test(username))
}

/** @returns undefined for what is no event */
export function readCall(value: unknown, isBroker: IsBroker): Call | undefined {
  const parsed = eventSchema.safeParse(value)
  if (!parsed.success) return undefined
  const event = parsed.data
  const receivedUs = microsOf(event.requestReceivedTimestamp)
  const atUs = microsOf(event.stageTimestamp)
  if (receivedUs === undefined || atUs === undefined) return undefined
  const { requestURI: uri, stage, auditID: auditId } = event
  const { who, actor } = whoOf(event, isBroker)
  return {
    who,
    id: who === 'ours' ? (saidId(actor) ?? auditId) : auditId,
    auditId,
    receivedUs,
    atUs,
    isLast: LAST_STAGES.has(stage),
    stage,
    facts: factsOf(event, actor),
    status: event.responseStatus?.code ?? undefined,
    uri,
  }
}

const NO_OBJECT = { resource: '', namespace: '', name: '', apiGroup: '', subresource: '' }

function factsOf({ verb, objectRef, requestURI }: Event, actor: User | undefined): CalledFacts {
  const { resource, namespace, name, apiGroup, subresource } = objectRef ?? NO_OBJECT
  const object = { resource, namespace, name, apiGroup, subresource }
  return { verb, ...object, path: pathOf(requestURI), user: actor?.username ?? '' }
}

function whoOf(
  { user, impersonatedUser }: Event,
  isBroker: IsBroker,
): { readonly who: Call['who']; readonly actor: User | undefined } {
  const name = user?.username ?? ''
  if (isBroker(name)) {
    const actor = impersonatedUser ?? undefined
    return actor === undefined ? { who: 'own', actor: user ?? undefined } : { who: 'ours', actor }
  }
  const actor = user ?? undefined
  if (name === ISSUED_BROKER) return { who: 'own', actor }
  return { who: name.startsWith(ISSUED) ? 'ours' : 'other', actor }
}

function saidId(actor: User | undefined): string | undefined {
  const group = actor?.groups?.find((name) => name.startsWith(REQUEST_GROUP))
  return actor?.extra?.[REQUEST_EXTRA]?.[0] ?? group?.slice(REQUEST_GROUP.length)
}

const REVIEWS: ReadonlySet<string> = new Set([
  'authentication.k8s.io/tokenreviews/',
  'authorization.k8s.io/subjectaccessreviews/',
  '/serviceaccounts/token',
])

/**
 * Whether it is one of the questions that the broker asks for itself: what a cluster serves, who somebody is and may do, a pod's description,
 * and its own token. What its account does beyond that is not the broker's doing.
 */
export function isOwnQuestion({ facts }: Call): boolean {
  const { verb, apiGroup, resource, subresource } = facts
  if (resource === '') return verb === 'get'
  if (verb === 'create') return REVIEWS.has(`${apiGroup}/${resource}/${subresource}`)
  return verb === 'get' && apiGroup === '' && resource === 'pods' && subresource === ''
}
