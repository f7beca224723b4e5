/**
 * The admission policies' expressions on the cases of final-cases.ts: so that a change of what is injected is not forgotten there.
 */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { REASONS, isReason } from '../../../shared/reasons.ts'
import { FINAL_CASES, FINAL_SETTINGS, injected } from '../../support/final-cases.ts'
import type { FinalCase } from '../../support/final-cases.ts'
import { judge, policies } from '../../support/final-policies.ts'

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
