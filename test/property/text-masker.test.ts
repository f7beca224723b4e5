/** What a masker makes of a stream does not depend on how the stream was split, and nothing is lost or moved by it. */
import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import { MAX_HELD_BYTES, createTextMasker } from '../../broker/masking/detectors/masker.ts'
import type { MaskedRegion, TextMasker } from '../../broker/masking/detectors/masker.ts'
import { DETECTORS } from '../../broker/masking/detectors/table.ts'
import { HARMLESS, SECRETS } from '../unit/broker/masking/cases.ts'

const CASES = [...SECRETS.map(([, text]) => text.replaceAll(/<<|>>/g, '')), ...HARMLESS]
const LINE_ENDS = new Set([0x0a, 0x0d])

interface Whole {
  readonly bytes: Buffer
  readonly regions: readonly MaskedRegion[]
}

/** All that comes out, with regions that touch joined. */
function masked(pieces: readonly Buffer[], masker: TextMasker = createTextMasker()): Whole {
  const out: Buffer[] = []
  const regions: MaskedRegion[] = []
  let at = 0
  let taken = 0
  const take = ({ bytes, regions: found }: Whole): void => {
    for (const { offset, length, detector } of found) {
      const last = regions.at(-1)
      const from = at + offset
      if (last?.detector === detector && last.offset + last.length === from)
        regions[regions.length - 1] = { ...last, length: last.length + length }
      else regions.push({ offset: from, length, detector })
    }
    out.push(bytes)
    at += bytes.length
  }
  for (const piece of pieces) {
    // The masker may keep nothing of a piece that is written over later.
    const lent = Buffer.from(piece)
    const decided = masker.push(lent)
    take({ bytes: Buffer.from(decided.bytes), regions: decided.regions })
    lent.fill(0)
    taken += piece.length
    if (masker.held > MAX_HELD_BYTES || masker.held !== taken - at)
      throw new Error(`${masker.held} bytes kept back, of ${taken - at}`)
  }
  take(masker.flush())
  expect(masker.held).to.equal(0)
  return { bytes: Buffer.concat(out), regions }
}

function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b)
  return [0, ...places].map((from, index) => bytes.subarray(from, places[index] ?? bytes.length))
}

function expectSame(found: Whole, whole: Whole): void {
  expect(found.bytes.toString('latin1')).to.equal(whole.bytes.toString('latin1'))
  expect(JSON.stringify(found.regions)).to.equal(JSON.stringify(whole.regions))
}

/** Only what a region covers differs, and there all but line ends are asterisks. */
function expectFaithful(input: Buffer, { bytes, regions }: Whole): void {
  expect(bytes.length).to.equal(input.length)
  const covered = Buffer.from(input)
  for (const { offset, length } of regions)
    for (let at = offset; at < offset + length; at++)
      if (!LINE_ENDS.has(covered[at] ?? 0)) covered[at] = 0x2a
  expect(bytes.equals(covered)).to.equal(true)
}

const keywords = DETECTORS.flatMap(({ keywords: words }) => words)
const fragment = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...CASES) },
  { weight: 3, arbitrary: fc.constantFrom(...keywords) },
  {
    weight: 4,
    arbitrary: fc.constantFrom(
      ...[
        '=',
        ': ',
        '"',
        "'",
        '\\',
        '\\"',
        ' ',
        '\n',
        '\r\n',
        '-',
        '--',
        '-----',
        '@',
        ':',
        '.',
        '$',
      ],
      ...[
        '\u001b[m',
        '\u001b[01;31m\u001b[K',
        '\u001b[',
        'eyJ',
        'aB3dE5gH7jK9',
        'x'.repeat(70),
        'é',
      ],
      ...['PRIVATE KEY-----', ' -p', 'login a password ', 'a'.repeat(300), 'Zz09'.repeat(40)],
    ),
  },
  { weight: 1, arbitrary: fc.string({ maxLength: 40 }) },
)
const stream = fc.array(fragment, { maxLength: 14 }).map((parts) => Buffer.from(parts.join('')))

describe('a text masker', () => {
  it('makes the same of each text in one piece, byte by byte, and in two pieces at each place', () => {
    for (const text of CASES) {
      const bytes = Buffer.from(text)
      const whole = masked([bytes])
      expectFaithful(bytes, whole)
      expectSame(masked(Array.from(bytes, (byte) => Buffer.of(byte))), whole)
      for (let at = 0; at <= bytes.length; at++)
        expectSame(masked([bytes.subarray(0, at), bytes.subarray(at)]), whole)
    }
  })

  it('makes the same of all texts behind each other, however they are split', () => {
    const bytes = Buffer.from(CASES.join('\n'))
    const whole = masked([bytes])
    expect(whole.regions.length).to.be.at.least(SECRETS.length)
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length), { maxLength: 40 }), (cuts) => {
        expectSame(masked(split(bytes, cuts)), whole)
      }),
      { numRuns: 60 },
    )
  })

  it('makes the same of texts made of pieces of secrets, however they are split', () => {
    fc.assert(
      fc.property(stream, fc.array(fc.nat(), { maxLength: 12 }), (bytes, cuts) => {
        const whole = masked([bytes])
        expectFaithful(bytes, whole)
        expectSame(masked(split(bytes, cuts)), whole)
        expectSame(masked(Array.from(bytes, (byte) => Buffer.of(byte))), whole)
      }),
      { numRuns: 2000 },
    )
  })

  it('masks as much where it is flushed at any place, but for what the end of the text decides', () => {
    // Whether these are secrets shows only behind them, or by a second form.
    const undecided = ['token', 'private-key', 'password-hash', 'authorization']
    for (const [detector, marked] of SECRETS) {
      if (undecided.includes(detector)) continue
      const bytes = Buffer.from(marked.replaceAll(/<<|>>/g, ''))
      const whole = masked([bytes]).bytes
      for (let cut = 0; cut <= bytes.length; cut++) {
        const masker = createTextMasker()
        const first = [masker.push(bytes.subarray(0, cut)), masker.flush()]
        const last = [masker.push(bytes.subarray(cut)), masker.flush()]
        const out = Buffer.concat([...first, ...last].map((piece) => piece.bytes))
        const open = out.findIndex((byte, at) => whole[at] === 0x2a && byte !== 0x2a)
        expect(open, `${marked}, cut at ${cut}`).to.equal(-1)
      }
    }
  })

  it('loses nothing where it is flushed at any place', () => {
    fc.assert(
      fc.property(stream, fc.array(fc.nat(), { maxLength: 6 }), (bytes, cuts) => {
        const masker = createTextMasker()
        const pieces = split(bytes, cuts).flatMap((piece) => [masker.push(piece), masker.flush()])
        const out = Buffer.concat(pieces.map((piece) => piece.bytes))
        expect(out.length).to.equal(bytes.length)
        expect(out.every((byte, at) => byte === bytes[at] || byte === 0x2a)).to.equal(true)
      }),
      { numRuns: 200 },
    )
  })

  it('takes any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2000 }), fc.array(fc.nat()), (some, cuts) => {
        const bytes = Buffer.from(some)
        expectSame(masked(split(bytes, cuts)), masked([bytes]))
      }),
    )
  })
})
