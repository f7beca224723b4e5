/** Objects beside pods by which a pod would be got round: Secrets with tokens, and the namespace's own labels. */
import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import { isRefusal, refuse } from '../../reasons.ts'
import type { Refusal } from '../../reasons.ts'
import { readBoth, readObject } from './request.ts'
import type { Caller, FinalRequest } from './request.ts'

const TOKEN_TYPE = 'kubernetes.io/service-account-token'
/** By these the token controller knows whose token it is to make. */
const OWNER_ANNOTATIONS = [
  'kubernetes.io/service-account.name',
  'kubernetes.io/service-account.uid',
] as const
/**
 * The token controller works under its process's own name (cmd/kube-controller-manager, startServiceAccountTokenController): it
 * fills in every such Secret, and before 1.24 makes one for each service account.
 */
const TOKEN_CONTROLLER = 'system:kube-controller-manager'

const texts = z.record(z.string(), z.string()).nullish()
const secretSchema = z.object({
  type: z.string().nullish(),
  data: z.record(z.string(), z.unknown()).nullish(),
  metadata: z.object({ annotations: texts }).nullish(),
})

type Secret = z.infer<typeof secretSchema>

/** Judges a new Secret: `token_secret_made`, or undefined. */
export function judgeSecretCreated(request: FinalRequest): Refusal | undefined {
  const secret = readObject(secretSchema, request.object, 'object')
  if (isRefusal(secret)) return secret
  return isTokenOf(secret, request.caller) ? refuse('token_secret_made', 'type') : undefined
}

/**
 * Judges a change: whose token it is, and what is in it, stays. An emptied Secret would be filled anew by the token controller,
 * for whomever its annotations name. Labels and finalizers of one that is there already may change.
 */
export function judgeSecretUpdated(request: FinalRequest): Refusal | undefined {
  const secrets = readBoth(secretSchema, request)
  if (isRefusal(secrets)) return secrets
  const { before, after } = secrets
  if (!isTokenOf(after, request.caller)) return undefined
  if (before.type !== after.type) return refuse('token_secret_made', 'type')
  if (!isDeepStrictEqual(before.data ?? {}, after.data ?? {}))
    return refuse('token_secret_made', 'data')
  const changed = OWNER_ANNOTATIONS.find((key) => ownerOf(before, key) !== ownerOf(after, key))
  if (changed === undefined) return undefined
  return refuse('token_secret_made', `metadata.annotations['${changed}']`)
}

function isTokenOf({ type }: Secret, { username }: Caller): boolean {
  return type === TOKEN_TYPE && username !== TOKEN_CONTROLLER
}

function ownerOf(
  { metadata }: Secret,
  key: (typeof OWNER_ANNOTATIONS)[number],
): string | undefined {
  return metadata?.annotations?.[key]
}

const INJECT = 'nestgate.dev/inject'
const IDENTITY = 'nestgate.dev/identity'
const REVISION = 'nestgate.dev/rev'

const namespaceSchema = z.object({ metadata: z.object({ labels: texts }) })

/** Judges a changed namespace that was injected: `namespace_unlabelled` where it would not be, or less strictly; or undefined. */
export function judgeNamespace(request: FinalRequest): Refusal | undefined {
  const namespaces = readBoth(namespaceSchema, request)
  if (isRefusal(namespaces)) return namespaces
  const before = namespaces.before.metadata.labels ?? {}
  const after = namespaces.after.metadata.labels ?? {}
  if (before[INJECT] !== 'enabled') return undefined
  const changed = [
    ...(after[INJECT] === 'enabled' ? [] : [INJECT]),
    ...(strictness(after[IDENTITY]) < strictness(before[IDENTITY]) ? [IDENTITY] : []),
    // Of a revision that is not installed, no webhook feels concerned.
    ...(after[REVISION] === before[REVISION] ? [] : [REVISION]),
  ][0]
  if (changed === undefined) return undefined
  return refuse('namespace_unlabelled', `metadata.labels['${changed}']`)
}

/** What is neither of the two is no demand at all: see the webhook configurations. */
function strictness(identity: string | undefined): number {
  if (identity === 'process') return 2
  return identity === 'container' ? 0 : 1
}
