/** Injects what stands in documents, by the very review that the webhook makes. Pure. */
import { z } from 'zod'
import { Fault } from '../../shared/errors.ts'
import { valueAt } from '../../shared/injection/patch.ts'
import type { Path } from '../../shared/injection/patch.ts'
import type { InjectionSettings, WantedLevel } from '../../shared/injection/sidecar-spec.ts'
import { reviewObject } from '../kube/pod-review.ts'
import type { PodReview } from '../kube/pod-review.ts'
import { EditedDocument, valueOf } from './documents.ts'
import type { InputDocument } from './documents.ts'
import { targetsOf } from './targets.ts'
import type { Target } from './targets.ts'

/** Namespace of what names none; also kubectl's. */
const DEFAULT_NAMESPACE = 'default'

/** What documents are injected with. */
export interface Injection {
  readonly settings: InjectionSettings
  readonly level: WantedLevel
  /** Namespace of objects that name none. */
  readonly namespace?: string
}

/** What came of a text. */
export interface InjectedDocuments {
  /** The text with everything injected; documents without pods as they were. */
  readonly text: string
  /** The value of each document that has one. */
  readonly values: readonly unknown[]
  /** The patch of each pod or template, as the webhook encodes it; empty where nothing changes. */
  readonly patches: readonly string[]
  readonly warnings: readonly string[]
  /** Why pods were refused: place, code, path and remedy. Where there is one, the rest is of no use. */
  readonly refusals: readonly string[]
}

const operationSchema = z.union([
  z.object({ op: z.enum(['add', 'replace']), path: z.string(), value: z.unknown() }),
  z.object({ op: z.literal('remove'), path: z.string() }),
])

/** Injects every pod and template of the documents. @throws Fault `patch_invalid` where what comes out is not right */
export function injectDocuments(
  documents: readonly InputDocument[],
  injection: Injection,
): InjectedDocuments {
  const parts = documents.map((document, index) =>
    injectDocument(document, injection, documents.length > 1 ? `document ${index + 1}, ` : ''),
  )
  return {
    text: parts.map(({ text }) => text).join(''),
    values: parts.map(({ value }) => value).filter((value) => value !== null),
    patches: parts.flatMap(({ patches }) => patches),
    warnings: parts.flatMap(({ warnings }) => warnings),
    refusals: parts.flatMap(({ refusals }) => refusals),
  }
}

interface Part {
  readonly text: string
  readonly value: unknown
  readonly patches: readonly string[]
  readonly warnings: readonly string[]
  readonly refusals: readonly string[]
}

function injectDocument(document: InputDocument, injection: Injection, place: string): Part {
  const original = valueOf(document.parsed)
  const { targets, unknown } = targetsOf(original)
  const patches: string[] = []
  const refusals: string[] = []
  const warnings = unknown.map(
    (title) => `${place}${title} is of no known kind: its pods are injected when they are created`,
  )
  let edited: EditedDocument | undefined
  for (const target of targets) {
    const review = reviewTarget(original, target, injection)
    const where = `${place}${target.title}`
    warnings.push(...review.warnings.map((text) => `${where}: ${text}`))
    if (review.refusal !== undefined) refusals.push(`${where}: ${review.refusal}`)
    patches.push(review.patch)
    if (review.patch === '') continue
    edited ??= new EditedDocument(document)
    edited.apply(target.path, z.array(operationSchema).parse(JSON.parse(review.patch)))
  }
  if (edited === undefined)
    return { text: document.text, value: original, patches, warnings, refusals }
  const { value, text } = edited
  if (refusals.length === 0) checkAgain(value, targets, injection)
  return { text, value, patches, warnings, refusals }
}

/** The webhook reviews the pod again when it is created: it must find nothing left to do. */
function checkAgain(value: unknown, targets: readonly Target[], injection: Injection): void {
  for (const target of targets) {
    const { patch, refusal } = reviewTarget(value, target, injection)
    if (refusal !== undefined || patch !== '')
      throw new Fault('patch_invalid', `${target.title} would be changed again`)
  }
}

function reviewTarget(document: unknown, target: Target, injection: Injection): PodReview {
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: valueAt(document, [...target.path, 'metadata']),
    spec: valueAt(document, [...target.path, 'spec']),
  }
  const namespace = target.namespace ?? injection.namespace ?? DEFAULT_NAMESPACE
  const review = reviewObject(pod, namespace, injection.settings, injection.level)
  const inDocument = (text: string): string => withPrefix(text, target.path)
  return {
    ...review,
    warnings: review.warnings.map(inDocument),
    ...(review.refusal === undefined ? {} : { refusal: inDocument(review.refusal) }),
  }
}

/** Paths of a pod as paths of the document that it stands in. */
function withPrefix(text: string, path: Path): string {
  if (path.length === 0) return text
  const prefix = path.map((key) => (typeof key === 'number' ? `[${key}]` : `.${key}`)).join('')
  return text.replace(/(?<![\w.])(?=(?:spec|metadata)[.[])/g, `${prefix.slice(1)}.`)
}
