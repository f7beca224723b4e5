/** A text in lines that somebody made to be slow, or to hide it. */
import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import {
  finder,
  LineSearch,
  MAX_LINE_LENGTH,
  plainLine,
} from '../../../broker/api/session-lines.ts'

/** Longer than any of these takes, shorter than anything that is not linear. */
const SLOW_MS = 2_000

describe('searching lines', () => {
  it('finds what indexOf finds', () => {
    const few = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 60 })
    const needle = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 6 })
    fc.assert(
      fc.property(few, needle, (line, text) => {
        expect(finder(text)(line)).to.equal(line.indexOf(text))
      }),
    )
  })

  it('is the same wherever the output is cut', () => {
    const line = 'x\u001b[31mne\u001b]0;t\u0007ed\u200ble €\u202e y'
    const bytes = Buffer.from(`one\n${line}\nthree`)
    for (let cut = 0; cut <= bytes.length; cut += 1) {
      const search = new LineSearch('needle €', false)
      const found = [bytes.subarray(0, cut), bytes.subarray(cut)].flatMap((part) =>
        search.take({ name: 'stdout', atUs: 5, bytes: part }),
      )
      expect([...found, ...search.end()], String(cut)).to.deep.equal([
        { atUs: 5, stream: 'stdout', line: 2, text: 'xneedle € y' },
      ])
    }
  })

  it('finds what lies across two parts of a line without end', () => {
    for (let i = 0; i < 10; i += 1) {
      const search = new LineSearch('needle', false)
      const first = Buffer.from(`${'a'.repeat(MAX_LINE_LENGTH - 5 + i)}nee`)
      const parts = [first, Buffer.from('dle\n')]
      const found = parts.flatMap((bytes) => search.take({ name: 'stdout', atUs: 1, bytes }))
      expect(
        [...found, ...search.end()].map(({ line }) => line),
        String(i),
      ).to.deep.equal([1])
    }
  })

  it('takes time by the length of the line alone', () => {
    const begun = performance.now()
    const long = MAX_LINE_LENGTH * 2
    finder(`${'a'.repeat(255)}b`)('a'.repeat(long))
    for (const part of [
      '\u001b[',
      '\u001b[1;',
      '\u001b]',
      '\u001bP\u001b',
      '\u009b',
      '\u001b \u001b/',
      '\u001b[ ',
    ])
      plainLine(part.repeat(long / part.length))
    for (const tail of ['1', ';', ' ', '\u001b', ''])
      plainLine(`\u001b[${'1;'.repeat(long / 2)}${' '.repeat(long)}${tail}`)
    expect(performance.now() - begun).to.be.below(SLOW_MS)
  })

  it('leaves nothing that a terminal obeys, or that cannot be seen', () => {
    fc.assert(
      fc.property(
        fc.string({
          unit: fc.constantFrom(
            '\u001b',
            '[',
            ']',
            '1',
            ';',
            'm',
            '\u0007',
            '\\',
            'a',
            '\u009b',
            '\u202e',
            '\u0000',
          ),
        }),
        (line) => {
          expect(plainLine(line)).not.to.match(/[\p{Cc}\p{Cf}]/u)
        },
      ),
    )
  })
})
