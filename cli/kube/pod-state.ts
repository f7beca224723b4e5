/** What a stored pod has against it: by content, and by what injecting it again would change. Pure. */
import { z } from 'zod'
import { isRecord } from '../../shared/config.ts'
import { valueAt } from '../../shared/injection/patch.ts'
import { podSchema } from '../../shared/injection/pod.ts'
import type { Pod } from '../../shared/injection/pod.ts'
import { SIDECAR_NAME, STATUS_ANNOTATION, statusText } from '../../shared/injection/sidecar-spec.ts'
import type { InjectionSettings, WantedLevel } from '../../shared/injection/sidecar-spec.ts'
import { checkTokens, findTokenVolumes } from '../../shared/injection/tokens.ts'
import { refusalText } from '../../shared/reasons.ts'
import { reviewObject } from './pod-review.ts'

/** Variable of the sidecar with the authority that it trusts. */
const CA_VARIABLE = 'NESTGATE_BROKER_CA_PEM'

/**
 * `no_sidecar`: older than the label, or let through. `api_token`: a credential for the API is in it. The others: the sidecar is
 * not the one that pods get now, by image, authority, revision, form (version and mode), or otherwise.
 */
export type PodProblemCode =
  | 'no_sidecar'
  | 'api_token'
  | 'sidecar_image'
  | 'sidecar_ca'
  | 'sidecar_revision'
  | 'sidecar_form'
  | 'sidecar_differs'

/** A thing that a pod has against it. */
export interface PodProblem {
  readonly code: PodProblemCode
  readonly said: string
}

/** How a pod of a namespace is injected now. */
export interface PodContext {
  readonly namespace: string
  readonly level: WantedLevel
  /** With an empty `brokerCaPem` where the authority is not known: then it is not compared. */
  readonly settings: InjectionSettings
}

const statusSchema = z.object({
  version: z.number(),
  mode: z.string(),
  revision: z.string().default(''),
})
const NO_STATUS = { version: 0, mode: 'unknown', revision: '' }

/** Everything that a pod has against it. */
export function problemsOf(raw: unknown, context: PodContext): readonly PodProblem[] {
  const pod = podSchema.safeParse(raw)
  if (!pod.success || !isRecord(raw))
    return [{ code: 'sidecar_differs', said: 'it cannot be read' }]
  const tokens = tokenProblems(pod.data, context.settings)
  const sidecar = sidecarOf(raw)
  if (sidecar === undefined)
    return [{ code: 'no_sidecar', said: 'it was created without a sidecar' }, ...tokens]
  const known = sidecarProblems(raw, sidecar, context.settings)
  if (known.length > 0) return [...tokens, ...known]
  return tokens.length > 0 ? tokens : differences(raw, sidecar, context)
}

function tokenProblems(pod: Pod, settings: InjectionSettings): readonly PodProblem[] {
  const found = findTokenVolumes(pod, settings.apiAudiences)
  const refusal = checkTokens(pod, found, settings)
  if (refusal !== undefined)
    return [{ code: 'api_token', said: `${refusal.refused}: ${refusalText(refusal)}` }]
  const [index] = found.tokenVolumes
  if (index === undefined) return []
  return [{ code: 'api_token', said: `spec.volumes[${index}] has a token for the API server` }]
}

function sidecarOf(raw: unknown): unknown {
  for (const list of ['initContainers', 'containers']) {
    const found = namedIn(valueAt(raw, ['spec', list]), SIDECAR_NAME)
    if (found !== undefined) return found
  }
  return undefined
}

function sidecarProblems(
  raw: unknown,
  sidecar: unknown,
  settings: InjectionSettings,
): readonly PodProblem[] {
  const problems: PodProblem[] = []
  const image = valueAt(sidecar, ['image'])
  if (image !== settings.image)
    problems.push({ code: 'sidecar_image', said: `its sidecar is ${String(image)}` })
  const ca = caOf(sidecar)
  if (settings.brokerCaPem !== '' && ca !== settings.brokerCaPem)
    problems.push({ code: 'sidecar_ca', said: 'its sidecar trusts another authority' })
  return [...problems, ...formProblems(raw, settings)]
}

function formProblems(raw: unknown, settings: InjectionSettings): readonly PodProblem[] {
  const problems: PodProblem[] = []
  const status = statusOf(valueAt(raw, ['metadata', 'annotations', STATUS_ANNOTATION])) ?? NO_STATUS
  const wanted = statusOf(statusText(settings, { kind: 'C' })) ?? NO_STATUS
  if (status.revision !== wanted.revision)
    problems.push({ code: 'sidecar_revision', said: `it is of revision "${status.revision}"` })
  if (status.version !== wanted.version || status.mode !== wanted.mode)
    problems.push({
      code: 'sidecar_form',
      said: `its form is ${status.version} ${status.mode}, and now it is ${wanted.version} ${wanted.mode}`,
    })
  return problems
}

function namedIn(list: unknown, name: string): unknown {
  if (!Array.isArray(list)) return undefined
  const items: readonly unknown[] = list
  return items.find((one) => valueAt(one, ['name']) === name)
}

function statusOf(text: unknown): z.output<typeof statusSchema> | undefined {
  try {
    return typeof text === 'string' ? statusSchema.parse(JSON.parse(text)) : undefined
  } catch {
    return undefined
  }
}

function caOf(sidecar: unknown): string | undefined {
  const value = valueAt(namedIn(valueAt(sidecar, ['env']), CA_VARIABLE), ['value'])
  return typeof value === 'string' ? value : undefined
}

/** A pod is right when injecting it again changes nothing (docs/decisions/0008-injector.md). */
function differences(
  raw: Record<string, unknown>,
  sidecar: unknown,
  { namespace, level, settings }: PodContext,
): readonly PodProblem[] {
  const { spec } = raw
  // what `kubectl debug` puts in later has none of our variables, and is judged when it comes
  const rest = isRecord(spec) ? { ...spec, ephemeralContainers: undefined } : {}
  const known =
    settings.brokerCaPem === '' ? { ...settings, brokerCaPem: caOf(sidecar) ?? '' } : settings
  const { patch, refusal } = reviewObject({ ...raw, spec: rest }, namespace, known, level)
  if (refusal !== undefined) return [{ code: 'sidecar_differs', said: refusal }]
  if (patch === '') return []
  return [{ code: 'sidecar_differs', said: 'injecting it again would change it' }]
}
