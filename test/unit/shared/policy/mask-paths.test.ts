import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import {
  MAX_PATH_LENGTH,
  MAX_PATH_STEPS,
  readMaskPath,
} from '../../../../shared/policy/mask-paths.ts'

const names = (...all: string[]): unknown => all.map((name) => (name === '*' ? 'any' : { name }))

describe('the path of a hidden field', () => {
  const good: readonly (readonly [string, unknown])[] = [
    ['data', names('data')],
    ['spec.auth.*.token', names('spec', 'auth', '*', 'token')],
    ['spec.users[*].password', names('spec', 'users', '*', 'password')],
    ['spec.items[*]', names('spec', 'items', '*')],
    ['spec.items[*][*].x', names('spec', 'items', '*', '*', 'x')],
    ['data["tls.key"]', names('data', 'tls.key')],
    ['["data"]["a\\"]\\u0041"].b', names('data', 'a"]A', 'b')],
    ['data["*"]', [{ name: 'data' }, { name: '*' }]],
    [
      'metadata.annotations["example.com/token"]',
      names('metadata', 'annotations', 'example.com/token'),
    ],
    ['metadata.*.x', names('metadata', '*', 'x')],
    ['*.token', names('*', 'token')],
    ['spec.x-y_0', names('spec', 'x-y_0')],
  ]
  for (const [text, steps] of good)
    it(`is read: ${text}`, () => {
      expect(readMaskPath(text)).to.deep.equal(steps)
    })

  const bad: readonly (readonly [string, string])[] = [
    ['', 'is empty'],
    ['spec..x', 'has no name between its dots (character 5)'],
    ['spec.', 'has no name between its dots (character 5)'],
    ['.spec', 'has no name between its dots (character 1)'],
    ['spec.[*]', 'has no name between its dots (character 5)'],
    ['$.spec', 'has "$" outside of ["…"] (character 1)'],
    ['spec.a b', 'has " " outside of ["…"] (character 7)'],
    ['spec.to*', 'has "*" outside of ["…"] (character 8)'],
    ['spec.*n', 'has "n" outside of ["…"] (character 7)'],
    ['spec.users[0]', 'names an item by its number'],
    ['spec.users[]', 'neither [*] nor ["NAME"]'],
    ["data['x']", 'neither [*] nor ["NAME"]'],
    ['data["x"', 'neither [*] nor ["NAME"]'],
    ['data["\\x"]', 'no JSON string'],
    ['data[""]', 'has an empty name'],
    ['data[*]x', 'has "x" outside of ["…"] (character 8)'],
    [Array.from({ length: MAX_PATH_STEPS + 1 }, () => 'a').join('.'), 'more than 32 steps'],
    ['a'.repeat(MAX_PATH_LENGTH + 1), 'longer than 512 characters'],
    ['*', 'hides apiVersion'],
    ['[*]', 'hides apiVersion'],
    ['kind', 'hides kind'],
    ['["apiVersion"]', 'hides apiVersion'],
    ['metadata', 'hides metadata.name'],
    ['metadata.*', 'hides metadata.name'],
    ['*.*', 'hides metadata.name'],
    ['*.uid', 'hides metadata.uid'],
    ['metadata.namespace', 'hides metadata.namespace'],
    ['metadata["resourceVersion"]', 'hides metadata.resourceVersion'],
  ]
  for (const [text, problem] of bad)
    it(`is refused: ${text.slice(0, 40)}`, () => {
      const read = readMaskPath(text)
      expect(read).to.have.property('problem').that.includes(problem)
    })

  it('may be as long as the bounds', () => {
    const most = Array.from({ length: MAX_PATH_STEPS }, () => 'a').join('.')
    expect(readMaskPath(most)).to.have.length(MAX_PATH_STEPS)
    expect(readMaskPath('a'.repeat(MAX_PATH_LENGTH))).to.have.length(1)
  })

  it('is the same in quotes, whatever its names are, and no text is too strange to be refused', () => {
    const step = fc.oneof(
      fc.constant('any' as const),
      fc.record({ name: fc.string({ minLength: 1, maxLength: 8, unit: 'binary' }) }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 6 }), (steps) => {
        const all = [{ name: 'spec' }, ...steps]
        const text = all.map((one) => (one === 'any' ? '[*]' : `[${JSON.stringify(one.name)}]`))
        expect(readMaskPath(text.join(''))).to.deep.equal(all)
      }),
    )
    const piece = fc.constantFrom(
      ...['.', '*', '[', ']', '"', '\\', 'a', '0', ' ', '$', '[*]', '["a"]', 'spec'],
    )
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const read = readMaskPath(pieces.join(''))
        expect('problem' in read ? read.problem : read)
          .to.have.property('length')
          .above(0)
      }),
      { numRuns: 2000 },
    )
  })
})
