/** Whatever a program writes: a viewer's terminal gets the sequences of a short list, and the same ones however the output came in pieces. */
import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import { MAX_REPEAT, createNeutraliser } from '../../shared/recording/neutralise.ts'

/** A strict reader of its own: text, or one of the allowed sequences, in full; nothing else. */
const ALLOWED = new RegExp(
  [
    // text without controls, format characters, separators, surrogates
    String.raw`[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]+`,
    String.raw`[\b\t\r\n\x0e\x0f]`,
    String.raw`\x1b[78DEHM]`,
    String.raw`\x1b[()][B0]`,
    String.raw`\x1b\[(?:\d{0,4})[@A-GILMPSTXZ${'`'}adegb]`,
    String.raw`\x1b\[(?:\d{0,4})(?:;\d{0,4})?[Hfr]`,
    String.raw`\x1b\[\??[012]?[JK]`,
    String.raw`\x1b\[\d{1,4}K`,
    String.raw`\x1b\[[\d;:]*m`,
    String.raw`\x1b\[[su]`,
    String.raw`\x1b\[4(?:;4)*[hl]`,
    String.raw`\x1b\[\?(?:6|7|25|47|104[789])(?:;(?:6|7|25|47|104[789]))*[hl]`,
  ].join('|'),
  'uy',
)

function unallowed(text: string): string | undefined {
  let at = 0
  while (at < text.length) {
    ALLOWED.lastIndex = at
    const [match] = ALLOWED.exec(text) ?? []
    if (match === undefined) return JSON.stringify(text.slice(at, at + 40))
    const [, repeated] = /\[(\d+)b$/.exec(match) ?? []
    if (Number(repeated ?? 0) > MAX_REPEAT) return match
    at += match.length
  }
  return undefined
}

const piece = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string({
    unit: fc.constantFrom(
      ...Array.from('\u001b[]()P_^X\\;:?>!$ 0123456789hlmJKHbcntqrsu\u0007\r\n'),
    ),
  }),
  fc.constantFrom(
    '\u001b',
    '\u001b[',
    '\u009b',
    '\u001b]',
    '\u009d',
    '\u001bP',
    '\u001b\\',
    '\u0018',
  ),
  fc.constantFrom(
    '\u001b[?1049h',
    '\u001b[6n',
    '\u001b]52;c;AA==\u0007',
    '\u001bc',
    '\u202e',
    '\ud800',
  ),
  fc
    .tuple(
      fc.constantFrom('', '?', '>', '=', '<'),
      fc.array(fc.nat(100_000), { maxLength: 6 }),
      fc.constantFrom('', ' ', '!', '$', '"', "'", '*'),
      fc.integer({ min: 0x40, max: 0x7e }),
    )
    .map(
      ([prefix, values, between, final]) =>
        `\u001b[${prefix}${values.join(';')}${between}${String.fromCharCode(final)}`,
    ),
)
const output = fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join(''))

describe('neutralising', () => {
  it('leaves only what is allowed', () => {
    fc.assert(
      fc.property(output, (text) => {
        expect(unallowed(createNeutraliser().text(text))).to.equal(undefined)
      }),
      { numRuns: 2000 },
    )
  })

  it('does not depend on where the output is cut, and each piece is whole', () => {
    fc.assert(
      fc.property(output, fc.array(fc.nat(200)), (text, cuts) => {
        // whole characters: what decodes bytes never halves one
        const characters = Array.from(text.toWellFormed())
        const pieces: string[] = []
        let from = 0
        for (const to of [...cuts.sort((a, b) => a - b), characters.length]) {
          pieces.push(characters.slice(from, to).join(''))
          from = Math.max(from, to)
        }
        const neutraliser = createNeutraliser()
        const shown = pieces.map((piece) => neutraliser.text(piece))
        expect(shown.join('')).to.equal(createNeutraliser().text(text.toWellFormed()))
        for (const one of shown) expect(unallowed(one)).to.equal(undefined)
      }),
      { numRuns: 1000 },
    )
  })

  it('changes nothing of plain text', () => {
    const plain = fc
      .string({ unit: 'grapheme' })
      .filter(
        (text) => !/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Default_Ignorable_Code_Point}]/u.test(text),
      )
    fc.assert(
      fc.property(fc.array(plain), (lines) => {
        const text = lines.join('\r\n\t')
        expect(createNeutraliser().text(text)).to.equal(text)
      }),
    )
  })

  it('ends every sequence within its bound', () => {
    fc.assert(
      fc.property(output, (text) => {
        const neutraliser = createNeutraliser()
        neutraliser.text(text)
        expect(neutraliser.text(`${'x'.repeat(5000)}SEEN`)).to.match(/SEEN$/)
      }),
    )
  })
})
