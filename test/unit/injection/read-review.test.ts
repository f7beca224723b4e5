/** The bytes of a review: read one way only, and within bounds whatever is in them. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { MAX_VALUES, readReview } from '../../../shared/injection/read-review.ts'

const problemOf = (text: string): string | undefined => {
  const read = readReview(Buffer.from(text))
  return 'problem' in read ? read.problem : undefined
}

describe('the bytes of a review', () => {
  const twice = [
    '{"a":1,"a":1}',
    '{"a":{"b":1,"c":{"b":2,"b":3}}}',
    '[{"x":1},{"y":1,"y":2}]',
    '{"a":1,"\\u0061":2}',
    '{"__proto__":1,"__proto__":2}',
    '{"a" : 1 , "a" :\n2}',
    '{"a:":1,"a:":2}',
  ]
  for (const text of twice)
    it(`are none with a key twice: ${JSON.stringify(text)}`, () => {
      expect(problemOf(text)).to.equal('a key is there twice')
    })

  const once = [
    '{"a":":","b":"\\":\\":","c":["a","a"]}',
    '{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}',
    '{"\\\\":1,"\\\\\\"":2,"\\\\\\\\":3}',
    '{"__proto__":{"constructor":1}}',
    '{"":"\\\\"}',
    '[]',
    '":"',
  ]
  for (const text of once)
    it(`are read with each key once: ${JSON.stringify(text)}`, () => {
      expect(problemOf(text)).to.equal(undefined)
    })

  it('have a bound on their values, so that no decoder lists millions of wrong ones', () => {
    const ones = (count: number): string => JSON.stringify(Array.from({ length: count }, () => 1))
    expect(problemOf(ones(MAX_VALUES))).to.equal(undefined)
    expect(problemOf(ones(MAX_VALUES + 1))).to.include('values')
    const pairs = JSON.stringify({ a: Array.from({ length: MAX_VALUES / 2 }, () => ({ b: 1 })) })
    expect(problemOf(pairs)).to.include('values')
  })
})
