/** Label selectors as the API server reads them (apimachinery, metav1.LabelSelector). */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { selects, selectsAll } from '../../../cli/kube/selector.ts'
import type { Labels } from '../../../cli/kube/selector.ts'

describe('a label selector', () => {
  const expression = (operator: string, values?: string[]): Parameters<typeof selects>[0] => ({
    matchExpressions: [{ key: 'a', operator, values }],
  })
  const cases: readonly (readonly [string, Parameters<typeof selects>[0], Labels, boolean])[] = [
    ['nothing', undefined, { a: '1' }, true],
    ['an equal label', { matchLabels: { a: '1' } }, { a: '1', b: '2' }, true],
    ['another value', { matchLabels: { a: '1' } }, { a: '2' }, false],
    ['In, one of them', expression('In', ['1', '2']), { a: '2' }, true],
    ['In, none of them', expression('In', ['1']), { a: '2' }, false],
    ['In, no label', expression('In', ['1']), {}, false],
    ['NotIn, one of them', expression('NotIn', ['1']), { a: '1' }, false],
    ['NotIn, none of them', expression('NotIn', ['1']), { a: '2' }, true],
    ['NotIn, no label', expression('NotIn', ['1']), {}, true],
    ['Exists', expression('Exists'), { a: '' }, true],
    ['Exists, no label', expression('Exists'), { b: '' }, false],
    ['DoesNotExist', expression('DoesNotExist'), { b: '' }, true],
    ['DoesNotExist, a label', expression('DoesNotExist'), { a: '' }, false],
    ['an operator of later', expression('Like', ['1']), { a: '1' }, false],
    ['both, one fails', { ...expression('Exists'), matchLabels: { b: '1' } }, { a: '1' }, false],
  ]
  for (const [what, selector, labels, expected] of cases) {
    it(`with ${what} ${expected ? 'takes' : 'leaves'} ${JSON.stringify(labels)}`, () => {
      expect(selects(selector, labels)).to.equal(expected)
    })
  }

  it('that is empty takes everything, and no other does', () => {
    expect([undefined, null, {}, { matchLabels: {} }].map((one) => selectsAll(one))).to.deep.equal(
      Array.from({ length: 4 }, () => true),
    )
    expect(selectsAll({ matchLabels: { a: '1' } })).to.equal(false)
    expect(selectsAll(expression('Exists'))).to.equal(false)
  })
})
