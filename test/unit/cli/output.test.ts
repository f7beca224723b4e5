import { expect } from 'chai'
import { describe, it } from 'mocha'
import { plain, toDetails, toJson, toTable } from '../../../cli/output.ts'

/** What agents could put into names to deceive whoever reads them, and how it is shown. */
const HOSTILE: readonly [string, string, string][] = [
  ['an escape sequence', '\u001b[2J\u001b[1;1H', '\\x1b[2J\\x1b[1;1H'],
  ['a one-byte control sequence introducer', '\u009b31m', '\\x9b31m'],
  ['a line break', 'a\r\nAPPROVED', 'a\\x0d\\x0aAPPROVED'],
  ['a tab, a backspace, a bell', '\t\b\u0007', '\\x09\\x08\\x07'],
  ['NUL and DEL', '\u0000\u007f', '\\x00\\x7f'],
  ['text from right to left', 'a\u202egnp.exe', 'a\\u{202e}gnp.exe'],
  ['isolates', '\u2066x\u2069', '\\u{2066}x\\u{2069}'],
  ['invisible characters', 'ad\u200bmin\ufeff\u00ad', 'ad\\u{200b}min\\u{feff}\\xad'],
  ['line separators', '\u2028\u2029', '\\u{2028}\\u{2029}'],
  ['tag characters', '\u{e0041}', '\\u{e0041}'],
  ['half a character', 'a\ud800', 'a\\u{d800}'],
]

describe('what nestgate prints', () => {
  for (const [what, text, shown] of HOSTILE) {
    it(`shows ${what} as escapes in tables and details`, () => {
      expect(plain(text)).to.equal(shown)
      expect(toTable(['NAME'], [[text]])).to.equal(
        `NAME${' '.repeat(Math.max(0, shown.length - 4))}`.trimEnd() + `\n${shown}`,
      )
      expect(toDetails([['Name', text]])).to.equal(`Name:  ${shown}`)
    })

    it(`has JSON that holds ${what} unchanged, but not as such`, () => {
      const json = toJson({ [text]: text })
      expect(JSON.parse(json)).to.deep.equal({ [text]: text })
      expect(json).to.match(/^[\x20-\x7e\n]*$/)
    })
  }

  it('leaves ordinary text alone, in any script', () => {
    for (const text of ['größe', '名前', 'имя', '😀', 'a-b_c/d:e'])
      expect(plain(text)).to.equal(text)
  })

  it('lines columns up and cuts long cells', () => {
    const table = toTable(
      ['A', 'LONGER'],
      [
        ['x', 'y'],
        ['second', 'z'.repeat(100)],
      ],
    )
    expect(table).to.equal(`A       LONGER\nx       y\nsecond  ${'z'.repeat(59)}…`)
  })

  it('leaves out details without a value', () => {
    expect(
      toDetails([
        ['A', '1'],
        ['Reason', undefined],
        ['Long', '2'],
        ['C', ''],
      ]),
    ).to.equal('A:     1\nLong:  2')
  })
})
