/**
 * The masker of answers against a second opinion (test/support/masking-oracle.ts) that reads whole documents and shares no code with it:
 * on generated objects, on a corpus of true ones, and on what mutations make of both.
 */
import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import { readAnswers } from '../support/masking-corpus.ts'
import { STANDARD_MASKING } from '../../shared/policy/masking.ts'
import type { Masking } from '../../shared/policy/masking.ts'
import {
  replacedByOracle,
  differenceOf,
  disagreement,
  runMasker,
} from '../support/masking-compare.ts'
import type { Made } from '../support/masking-compare.ts'
import { fuzz } from '../support/masking-fuzz.ts'
import { leaks } from '../support/masking-leaks.ts'
import { answers, MARK } from '../support/masking-objects.ts'
import type { GeneratedAnswer } from '../support/masking-objects.ts'
import { expectMasking } from '../support/masking-oracle.ts'
import type { Asked } from '../support/masking-oracle.ts'

/** Files up to this size are cut at each pair of places. */
const SMALL_BYTES = 330
/** The long runs are those of scripts/fuzz-masking.ts. */
const EXECUTIONS = 6000
/** The same inputs each time: new ones are for the long runs. */
const SEED = 9
/** An operator's profile: of the generated widgets. */
const WIDGETS: Masking = {
  ...STANDARD_MASKING,
  profiles: ['standard', 'widgets'],
  fields: [
    {
      group: 'example.com',
      kind: 'Widget',
      path: [{ name: 'auth' }, 'any', { name: 'token' }],
    },
  ],
}
const STRICT: Masking = { ...WIDGETS, profiles: ['strict', 'widgets'], everywhere: true }

const askedOf = (
  { shape, write }: Omit<GeneratedAnswer, 'bytes'>,
  masking: Masking = WIDGETS,
): Asked => ({ masking, shape, write, aboutSecrets: true })

/** The whole text where it can be shown. */
function expectAgreement(bytes: Buffer, made: Made, asked: Asked): void {
  const differs = disagreement(bytes, made, asked)
  if (differs !== undefined) throw new Error(`${differs}\n${JSON.stringify(bytes.toString())}`)
}

function expectSame(made: Made, whole: Made, where: string): void {
  expect(made.outcome, where).to.equal(whole.outcome)
  if (made.outcome === 'masked' && whole.outcome === 'masked') {
    expect(made.bytes.toString('latin1'), where).to.equal(whole.bytes.toString('latin1'))
    expect(made.masked, where).to.deep.equal(whole.masked)
  }
}

function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b)
  return [0, ...places].map((from, index) => bytes.subarray(from, places[index] ?? bytes.length))
}

describe('the oracle of masking', () => {
  it('hides every planted value of generated objects, and finds its own work right', () => {
    fc.assert(
      fc.property(answers, (answer) => {
        const asked = askedOf(answer)
        const expected = expectMasking(answer.bytes, asked)
        if (expected.outcome === 'refused') throw new Error(expected.why)
        const replaced = replacedByOracle(answer.bytes, expected.edits, true)
        expect(leaks(replaced, MARK), replaced.toString()).to.equal(false)
        expect(differenceOf(answer.bytes, replaced, expected.edits)).to.equal(undefined)
        JSON.parse(`[${answer.shape === 'object' ? replaced.toString() : ''}]`)
      }),
      { numRuns: 300 },
    )
  })

  it('hides every planted value of the corpus', () => {
    for (const { name, bytes, ...answer } of readAnswers()) {
      const expected = expectMasking(bytes, askedOf(answer))
      if (expected.outcome === 'refused') throw new Error(`${name}: ${expected.why}`)
      const replaced = replacedByOracle(bytes, expected.edits, true)
      expect(leaks(replaced, MARK), replaced.toString()).to.equal(false)
      expect(leaks(bytes, MARK), name).to.equal(!name.startsWith('harmless-'))
    }
  })

  it('finds a planted value in each encoding', () => {
    const base64 = (text: string): string => Buffer.from(text).toString('base64')
    const forms = [
      ...[MARK, JSON.stringify({ a: MARK }), base64(MARK), base64(`a${MARK}`), base64(`ab${MARK}`)],
      ...[base64(base64(`xx${MARK}`)), JSON.stringify(base64(JSON.stringify({ a: base64(MARK) })))],
      `"${Array.from(MARK, (unit) => `\\u00${unit.charCodeAt(0).toString(16)}`).join('')}`,
      Buffer.from(MARK).toString('hex'),
    ]
    for (const form of forms)
      expect(leaks(Buffer.from(`{"x":"${form}"}`), MARK), form).to.equal(true)
    expect(leaks(Buffer.from('{"x":"nothing of that kind is in here"}'), MARK)).to.equal(false)
  })
})

describe('the masker of answers', () => {
  it('replaces in generated objects what the oracle replaces, and leaves all other bytes', () => {
    fc.assert(
      fc.property(answers, fc.constantFrom(WIDGETS, WIDGETS, STRICT), (answer, masking) => {
        const asked = askedOf(answer, masking)
        const made = runMasker([answer.bytes], asked)
        expectAgreement(answer.bytes, made, asked)
        expect(leaks(made.bytes, MARK), made.bytes.toString()).to.equal(false)
      }),
      { numRuns: 600 },
    )
  }).timeout(60_000)

  it('makes the same of generated objects however they are split', () => {
    fc.assert(
      fc.property(answers, fc.array(fc.nat(), { maxLength: 30 }), (answer, cuts) => {
        const asked = askedOf(answer)
        const whole = runMasker([answer.bytes], asked)
        expectSame(runMasker(split(answer.bytes, cuts), asked), whole, 'split')
        const bytes = Array.from(answer.bytes, (byte) => Buffer.of(byte))
        expectSame(runMasker(bytes, asked), whole, 'byte by byte')
      }),
      { numRuns: 100 },
    )
  }).timeout(60_000)

  it('lets nothing out of what breaks off', () => {
    fc.assert(
      fc.property(answers, fc.nat(), (answer, cut) => {
        const asked = askedOf(answer)
        const bytes = answer.bytes.subarray(0, cut % (answer.bytes.length + 1))
        const made = runMasker([bytes], asked)
        expectAgreement(bytes, made, asked)
        expect(leaks(made.bytes, MARK), made.bytes.toString()).to.equal(false)
      }),
      { numRuns: 300 },
    )
  })

  it('agrees with the oracle on what mutations make of the corpus', () => {
    const { findings, executions } = fuzz(readAnswers(), SEED, (count) => count < EXECUTIONS)
    const told = findings.map(
      ({ input, what }) => `${JSON.stringify(input.bytes.toString())}: ${what}`,
    )
    expect(told.join('\n'), `seed ${SEED}`).to.equal('')
    expect(executions).to.be.greaterThan(EXECUTIONS - 1)
  }).timeout(60_000)

  for (const { name, bytes, ...answer } of readAnswers()) {
    const asked = askedOf(answer)

    it(`agrees with the oracle on ${name}`, () => {
      for (const masking of [WIDGETS, STRICT]) {
        const how = askedOf(answer, masking)
        const made = runMasker([bytes], how)
        expectAgreement(bytes, made, how)
        expect(leaks(made.bytes, MARK)).to.equal(false)
      }
    })

    it(`makes the same of ${name} in two pieces, cut at each byte, and byte by byte`, () => {
      const whole = runMasker([bytes], asked)
      for (let at = 0; at <= bytes.length; at++)
        expectSame(runMasker([bytes.subarray(0, at), bytes.subarray(at)], asked), whole, `${at}`)
      expectSame(
        runMasker(
          Array.from(bytes, (byte) => Buffer.of(byte)),
          asked,
        ),
        whole,
        'bytes',
      )
    }).timeout(60_000)

    if (bytes.length > SMALL_BYTES) continue
    it(`makes the same of ${name} in three pieces, cut at each pair of bytes`, () => {
      const whole = runMasker([bytes], asked)
      for (let at = 0; at <= bytes.length; at++)
        for (let to = at; to <= bytes.length; to++) {
          const pieces = [bytes.subarray(0, at), bytes.subarray(at, to), bytes.subarray(to)]
          expectSame(runMasker(pieces, asked), whole, `${at}, ${to}`)
        }
    }).timeout(60_000)
  }
})
