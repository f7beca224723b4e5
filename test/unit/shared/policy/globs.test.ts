import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import { namePattern, pathPattern } from '../../../../shared/policy/globs.ts'

/** The meaning of a pattern, as a regular expression. */
function plainly(word: string, one: string): RegExp {
  const source = word
    .split(/(\*+)/)
    .map((part) => (part === '*' ? one : part.startsWith('*') ? '.*' : RegExp.escape(part)))
    .join('')
  return new RegExp(`^${source}$`, 'su')
}

const word = fc.string({ unit: fc.constantFrom('a', 'b', '/', '*', '*', '.', '\n'), maxLength: 9 })
const text = fc.string({ unit: fc.constantFrom('a', 'b', '/', '.', '\n'), maxLength: 9 })

describe('patterns', () => {
  it('match what their regular expressions match', () => {
    let matched = 0
    fc.assert(
      fc.property(word, text, (pattern, name) => {
        const path = plainly(pattern, '[^/]*').test(name)
        if (path) matched += 1
        expect(pathPattern(pattern).test(name), `path ${pattern} ${name}`).to.equal(path)
        expect(namePattern(pattern).test(name), `name ${pattern} ${name}`).to.equal(
          plainly(pattern, '.*').test(name),
        )
      }),
      { numRuns: 20_000 },
    )
    expect(matched).to.be.above(1000)
  })

  it('take no longer for texts that are made to take long', () => {
    const from = performance.now()
    const stars = `${'a*'.repeat(100)}b`
    expect(namePattern(stars).test('a'.repeat(3_000_000))).to.equal(false)
    for (const pattern of [stars, `${'**a'.repeat(20)}b`, `${'**/*a'.repeat(20)}b`])
      expect(pathPattern(pattern).test('/a'.repeat(256))).to.equal(false)
    expect(performance.now() - from).to.be.below(500)
  })
})
