/**
 * The admission policies that the chart gives for the settings of final-cases.ts, evaluated by another CEL than Kubernetes': fast, and
 * everywhere. test/modern/final-state.test.ts has them on Kubernetes' own code, which decides.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseAllDocuments } from 'yaml'
import { NAMESPACE, USERS } from './final-cases.ts'
import type { FinalCase } from './final-cases.ts'
import { evaluator } from './kubernetes-cel.ts'
import type { Json } from './pod-admission.ts'

const RENDERED = join(import.meta.dirname, '../golden/chart/final-state/expected.yaml')

/** A ValidatingAdmissionPolicy; what is read of it. */
export interface Policy {
  readonly kind: string
  readonly metadata: { readonly name: string }
  readonly spec: {
    readonly matchConstraints: {
      readonly resourceRules: readonly {
        readonly operations: readonly string[]
        readonly resources: readonly string[]
      }[]
    }
    readonly matchConditions?: readonly { readonly expression: string }[]
    readonly variables: readonly { readonly name: string; readonly expression: string }[]
    readonly validations: readonly {
      readonly expression: string
      readonly message: string
      readonly messageExpression: string
    }[]
  }
}

/** All of them. */
export const policies = parseAllDocuments(readFileSync(RENDERED, 'utf8'))
  .map((document) => document.toJS() as Policy | null)
  .filter((object): object is Policy => object?.kind === 'ValidatingAdmissionPolicy')

function requestOf(one: FinalCase): Json {
  const [, subResource] = one.resource.split('/')
  const { extra, ...who } = { extra: undefined, ...USERS[one.user ?? 'author'] }
  return {
    ...{ operation: one.operation, namespace: NAMESPACE, name: 'web' },
    ...(subResource && { subResource }),
    userInfo: { ...who, ...(extra && { extra }) },
  }
}

/** The first refusal's message, or undefined; whoever asks may not bypass. Throws where an expression fails. */
export function judge({ spec }: Policy, one: FinalCase): string | undefined {
  const labels = { ...(one.level && { 'nestgate.dev/identity': one.level }) }
  const bindings: Json = {
    ...{ object: one.object, oldObject: one.oldObject ?? null, request: requestOf(one) },
    namespaceObject: { metadata: { labels } },
  }
  const cel = evaluator(bindings)
  if ((spec.matchConditions ?? []).some(({ expression }) => cel.value(expression) !== true))
    return undefined
  for (const { name, expression } of spec.variables)
    cel.define(name, expression.startsWith('authorizer.') ? 'false' : expression)
  for (const { expression, messageExpression } of spec.validations) {
    const result = cel.value(expression)
    if (result === true) continue
    if (result !== false) throw new Error(`${expression}: ${JSON.stringify(result)}`)
    return String(cel.value(messageExpression))
  }
  return undefined
}
