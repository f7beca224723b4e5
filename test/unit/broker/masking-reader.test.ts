import { expect } from 'chai'
import { JsonReader, MAX_DEPTH, MAX_TOKEN_BYTES } from '../../../broker/masking/json/reader.ts'
import { Utf8Check } from '../../../broker/masking/json/utf8.ts'

/** What the reader tells of a text that comes in pieces, as one line; its fault, where it has one. */
function read(pieces: readonly (string | Buffer)[], many = false): string {
  const told: string[] = []
  const reader = new JsonReader(
    {
      key: (bytes, start, end) => told.push(`k${bytes.toString('utf8', start, end)}`),
      text: (bytes, start, end) => told.push(`t${bytes.toString('utf8', start, end)}`),
      plain: (bytes, start, end) => told.push(`p${bytes.toString('utf8', start, end)}`),
      open: (_at, isArray) => told.push(isArray ? '[' : '{'),
      close: () => told.push('.'),
    },
    many,
  )
  try {
    let rest = Buffer.alloc(0)
    for (const piece of pieces) {
      rest = Buffer.concat([rest, Buffer.from(piece)])
      rest = rest.subarray(reader.read(rest, 0, false))
    }
    reader.read(rest, 0, true)
    return reader.isWhole ? told.join(' ') : 'fault: it ends too early'
  } catch (error) {
    return `fault: ${(error as Error).message}`
  }
}

describe('the reader of JSON', () => {
  const good: readonly [string, string][] = [
    ['{}', '{ .'],
    [' [ ] ', '[ .'],
    [
      '{"a":1,"b":[true,false,null],"c":{"a":"x"}}',
      '{ ka p1 kb [ ptrue pfalse pnull . kc { ka t"x" . .',
    ],
    [
      '[-0,1.5,1e9,1E+9,1.25e-3,9007199254740993,123456789012345678901234567890]',
      '[ p-0 p1.5 p1e9 p1E+9 p1.25e-3 p9007199254740993 p123456789012345678901234567890 .',
    ],
    [
      '"a\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\uD83D\\uDE00"',
      't"a\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\uD83D\\uDE00"',
    ],
    ['"\\ud800"', 't"\\ud800"'],
    ['"é€😀\u007f"', 't"é€😀\u007f"'],
    ['\t{ "a" : 1 ,\r\n "b" : "x" }\n', '{ ka p1 kb t"x" .'],
    ['17', 'p17'],
    ['null', 'pnull'],
    ['{"":1}', '{ k p1 .'],
    [
      '{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}',
      '{ ka { ka { ka p1 . . kb [ { ka p1 . { ka p2 . . .',
    ],
  ]
  for (const [text, expected] of good) {
    it(`reads ${text.slice(0, 40).trim()}`, () => {
      expect(read([text])).to.equal(expected)
    })

    it(`reads it however it is split: ${text.slice(0, 40).trim()}`, () => {
      const bytes = Buffer.from(text)
      for (let at = 0; at <= bytes.length; at++)
        expect(read([bytes.subarray(0, at), bytes.subarray(at)]), `at ${at}`).to.equal(expected)
      expect(read([...bytes].map((byte) => Buffer.from([byte])))).to.equal(expected)
    })
  }

  const bad: readonly [string, string][] = [
    ['', 'it ends too early'],
    ['{', 'it ends too early'],
    ['[1', 'it ends too early'],
    ['"a', 'it ends within a value'],
    ['"\\', 'it ends within a value'],
    ['"\\u00', 'it ends within a value'],
    ['{"a"', 'it ends too early'],
    ['{"a":}', 'there is no value where one should be'],
    ['{"a" 1}', 'a colon is missing'],
    ['{"a":1 "b":2}', 'a comma is missing'],
    ['{"a":1,}', 'a key is missing'],
    ['{,}', 'a key is missing'],
    ['{a:1}', 'a key is missing'],
    ["{'a':1}", 'a key is missing'],
    ['[1,]', 'there is no value where one should be'],
    ['[,1]', 'there is no value where one should be'],
    ['[1}', 'a comma is missing'],
    ['{"a":1]', 'a comma is missing'],
    [']', 'there is no value where one should be'],
    ['{} {}', 'something follows the value'],
    ['{}x', 'something follows the value'],
    ['01', 'there is no value where one should be'],
    ['1.', 'there is no value where one should be'],
    ['.5', 'there is no value where one should be'],
    ['+1', 'there is no value where one should be'],
    ['1e', 'there is no value where one should be'],
    ['0x10', 'there is no value where one should be'],
    ['NaN', 'there is no value where one should be'],
    ['-Infinity', 'there is no value where one should be'],
    ['True', 'there is no value where one should be'],
    ['nul', 'there is no value where one should be'],
    ['"a\nb"', 'a string has a control character'],
    ['"a\u0000b"', 'a string has a control character'],
    ['"\\x41"', 'a string has an escape that there is not'],
    ['"\\u00g0"', 'a string has an escape that there is not'],
    ['\ufeff{}', 'there is no value where one should be'],
    ['/* c */{}', 'there is no value where one should be'],
    ['{"a":1}\u0000', 'something follows the value'],
    ['{"a":1,"a":2}', 'an object has a key twice'],
    ['{"a":1,"\\u0061":2}', 'an object has a key twice'],
    ['{"é":1,"\\u00e9":2}', 'an object has a key twice'],
    ['{"\\ud800":1}', 'a key has half a character'],
    ['['.repeat(MAX_DEPTH + 1), 'it is nested too deeply'],
    [`{"a":${'9'.repeat(600)}}`, 'a number is too long'],
  ]
  for (const [text, why] of bad) {
    it(`refuses ${JSON.stringify(text.slice(0, 30))}: ${why}`, () => {
      expect(read([text])).to.equal(`fault: ${why}`)
      const bytes = Buffer.from(text)
      for (let at = 1; at < Math.min(bytes.length, 40); at++)
        expect(read([bytes.subarray(0, at), bytes.subarray(at)]), `at ${at}`).to.match(/^fault/)
    })
  }

  it('finds a key that stands twice among many, also behind objects and arrays within', () => {
    const keys = Array.from({ length: 200 }, (_none, at) => `"k${at}":{"x":[{"k${at}":1}],"y":2}`)
    expect(read([`{${keys.join(',')}}`])).not.to.match(/fault/)
    for (const again of [0, 3, 23, 24, 25, 199])
      expect(read([`{${keys.join(',')},"k${again}":1}`])).to.equal(
        'fault: an object has a key twice',
      )
  })

  it('reads one value after the other where there may be several, or none', () => {
    expect(read(['{"a":1}\n{"a":2}\n', '[]'], true)).to.equal('{ ka p1 . { ka p2 . [ .')
    expect(read([' \n'], true)).to.equal('')
    expect(read(['{"a":1}\n{"a"'], true)).to.equal('fault: it ends too early')
  })

  it('gives up on a value that is too long', () => {
    const piece = Buffer.alloc(1024 * 1024, 'a')
    const pieces = Array.from({ length: MAX_TOKEN_BYTES / piece.length + 1 }, () => piece)
    expect(read(['"', ...pieces])).to.equal('fault: a value is too long')
  })
})

describe('the check of UTF-8', () => {
  const takes = (pieces: readonly Buffer[]): boolean => {
    const check = new Utf8Check()
    try {
      for (const piece of pieces) check.push(piece)
      check.end()
      return true
    } catch {
      return false
    }
  }

  it('takes characters of each length, however they are split', () => {
    const bytes = Buffer.from('aé€😀z')
    for (let at = 0; at <= bytes.length; at++)
      expect(takes([bytes.subarray(0, at), bytes.subarray(at)]), `at ${at}`).to.equal(true)
    expect(takes([...bytes].map((byte) => Buffer.from([byte])))).to.equal(true)
  })

  for (const hex of [
    '80',
    'c0af',
    'e08080',
    'eda080',
    'f8888080',
    'ff',
    'c3',
    'e282',
    'f09f98',
    'c328',
  ])
    it(`refuses ${hex}, however it is split`, () => {
      const bytes = Buffer.from(`61${hex}`, 'hex')
      for (let at = 0; at <= bytes.length; at++)
        expect(takes([bytes.subarray(0, at), bytes.subarray(at)]), `at ${at}`).to.equal(false)
    })
})
