/**
 * The admission policies' expressions on the cases of final-cases.ts, by another CEL than Kubernetes': so that a change of what is
 * injected is not forgotten there. test/modern/final-state.test.ts has the same on Kubernetes' own code, which decides.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { parseAllDocuments } from 'yaml'
import { REASONS, isReason } from '../../../shared/reasons.ts'
import {
  FINAL_CASES,
  FINAL_SETTINGS,
  NAMESPACE,
  USERS,
  injected,
} from '../../support/final-cases.ts'
import type { FinalCase } from '../../support/final-cases.ts'
import { evaluator } from '../../support/kubernetes-cel.ts'
import type { Json } from '../../support/pod-admission.ts'

const RENDERED = join(import.meta.dirname, '../../golden/chart/final-state/expected.yaml')

interface Policy {
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

const policies = parseAllDocuments(readFileSync(RENDERED, 'utf8'))
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

/** The first refusal, or undefined; whoever asks may not bypass. */
function judge({ spec }: Policy, one: FinalCase): string | undefined {
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

describe('the admission policies', () => {
  for (const one of FINAL_CASES.filter(({ user }) => user !== 'ops')) {
    const code = one.policyCode ?? one.code
    it(`${code === undefined ? 'let through' : `refuse (${code})`}: ${one.name}`, () => {
      const asked = policies.filter(({ spec }) =>
        spec.matchConstraints.resourceRules.some(
          ({ operations, resources }) =>
            operations.includes(one.operation) && resources.includes(one.resource),
        ),
      )
      expect(asked).to.have.lengthOf(1)
      const message = asked.map((policy) => judge(policy, one))[0]
      expect(
        message === undefined ? undefined : /^nestgate: (\w+): /.exec(message)?.[1],
        message,
      ).to.equal(code)
    })
  }

  for (const mode of ['native', 'container'] as const)
    for (const profile of ['P', 'R'] as const)
      it(`let through what is injected in mode ${mode}, profile ${profile}`, () => {
        const object = injected(profile, { ...FINAL_SETTINGS, mode })
        const one: FinalCase = { name: '', operation: 'CREATE', resource: 'pods', object }
        expect(
          policies
            .map((policy) =>
              policy.metadata.name === 'nestgate-pods' ? judge(policy, one) : undefined,
            )
            .join(''),
        ).to.equal('')
      })

  for (const { metadata, spec } of policies)
    it(`say the sentence and the remedy of each code: ${metadata.name}`, () => {
      for (const { message, messageExpression } of spec.validations) {
        const code = /^nestgate: (\w+): /.exec(message)?.[1]
        if (!isReason(code)) throw new Error(message)
        const { sentence, remedy } = REASONS[code]
        expect(message).to.equal(`nestgate: ${code}: ${sentence}`)
        expect(messageExpression)
          .to.contain(`'nestgate: ${code}: ${sentence}: `)
          .and.to.contain(`; ${remedy}'`)
      }
    })
})
