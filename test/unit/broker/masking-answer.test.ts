import { expect } from 'chai'
import { describe, it } from 'mocha'
import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'
import { gzipSync } from 'node:zlib'
import { fateOf } from '../../../broker/gateway/perform.ts'
import {
  createAnswerMasking,
  MAX_ERROR_TEXT_BYTES,
} from '../../../broker/masking/answers/answer.ts'
import type { AnswerTerms, MaskedBody } from '../../../broker/masking/answers/answer.ts'
import { createTextAnswer } from '../../../broker/masking/answers/text.ts'
import { maskedRecord, maskedWarning } from '../../../broker/masking/answers/told.ts'
import {
  isBomb,
  MAX_UNPACK_RATIO,
  UNPACK_FREE_BYTES,
  Unpacking,
} from '../../../broker/masking/answers/unpack.ts'
import { createPlaceholders } from '../../../broker/masking/placeholder.ts'
import type { MaskedAnswer } from '../../../broker/masking/types.ts'
import { entryColumns } from '../../../shared/audit-text.ts'
import { Fault } from '../../../shared/errors.ts'
import { STANDARD_MASKING } from '../../../shared/policy/masking.ts'

const JSON_TYPE = 'application/json'
const KEY = 'AKIAIOSFODNN7EXAMPLE'
const STARS = `AKIA${'*'.repeat(16)}`

const TERMS: AnswerTerms = {
  masking: STANDARD_MASKING,
  placeholders: createPlaceholders(Buffer.alloc(32, 1), 'test'),
  ...{ sort: 'objects', isPart: false, method: 'GET', isWatch: false, longRunning: false },
  ...{ write: false, ofSecrets: false },
}

/** How an answer is taken: what the fake JSON masker was made for, or `text`, or why not. */
function taken(
  terms: Partial<AnswerTerms>,
  status: number,
  type: string | undefined,
  more: IncomingHttpHeaders = {},
): string {
  const made: MaskedAnswer[] = []
  const masking = createAnswerMasking({
    ...{ ...TERMS, ...terms },
    createJson: (answer) => {
      made.push(answer)
      return { push: () => [], end: () => [], masked: { count: 0, fields: [], more: false } }
    },
  })
  const headers = { ...(type === undefined ? {} : { 'content-type': type }), ...more }
  const body = masking.begin(status, headers)
  const once = body.atOnce ? ' at once' : ''
  try {
    body.push(Buffer.from('x'))
  } catch (error) {
    expect((error as Fault).code).to.equal('answer_unmaskable')
    return body.bodiless ? 'nothing' : `refused: ${(error as Fault).message}`
  }
  const [answer] = made
  return answer === undefined
    ? `text${once}`
    : `${answer.shape}${answer.write ? ' written' : ''}${once}`
}

const NEITHER = 'refused: neither JSON nor text'
const ENCODED = 'refused: compressed in a way that was not asked for'

describe('how an answer is masked', () => {
  const ROWS: readonly (readonly [
    string,
    Partial<AnswerTerms>,
    number,
    string | undefined,
    string,
    IncomingHttpHeaders?,
  ])[] = [
    ['an object', {}, 200, JSON_TYPE, 'object'],
    ['what was written', { write: true, method: 'POST' }, 201, JSON_TYPE, 'object written'],
    ['JSON of another name', {}, 200, 'Application/Merge-Patch+JSON; Charset="UTF-8"', 'object'],
    [
      'a watch',
      { isWatch: true, longRunning: true },
      200,
      `${JSON_TYPE};stream=watch`,
      'watch at once',
    ],
    ['a watch that fails', { isWatch: true, longRunning: true }, 410, JSON_TYPE, 'object'],
    ['a log', { sort: 'log', isPart: true, longRunning: true }, 200, 'text/plain', 'text at once'],
    ['a log without a type', { sort: 'log', isPart: true }, 200, undefined, 'text'],
    ['a log that fails', { sort: 'log', longRunning: true }, 400, JSON_TYPE, 'object'],
    ['a log that fails in text', { sort: 'log', longRunning: true }, 500, 'text/plain', 'text'],
    ['a log of bytes', { sort: 'log' }, 200, 'application/octet-stream', NEITHER],
    ['a text of a part', { isPart: true }, 200, 'text/plain', 'text'],
    ['a page of a part', { isPart: true }, 200, 'text/html', NEITHER],
    ['a text of an object', {}, 200, 'text/plain', NEITHER],
    ['a node', { sort: 'kubelet', longRunning: true }, 200, JSON_TYPE, 'object'],
    ['a text of a node', { sort: 'kubelet', longRunning: true }, 200, 'text/plain', 'text at once'],
    ['a heap', { sort: 'other' }, 200, 'application/octet-stream', NEITHER],
    ['a page', { sort: 'other' }, 200, 'text/html; charset=utf-8', 'text'],
    ['a page of an error', {}, 502, 'text/html', 'text'],
    ['an error without a type', {}, 500, undefined, 'text'],
    ['an error in bytes', {}, 500, 'application/octet-stream', NEITHER],
    ['an error in two types', {}, 500, ', text/plain', NEITHER],
    ['nothing said', {}, 200, undefined, NEITHER],
    ['JSON lines', {}, 200, 'application/x-ndjson', NEITHER],
    ['UTF-16', {}, 200, `${JSON_TYPE}; charset=utf-16`, NEITHER],
    ['text in UTF-16', { sort: 'log' }, 200, 'text/plain; charset=utf-16', NEITHER],
    ['text in UTF-7', {}, 500, 'text/plain; charset=utf-7', NEITHER],
    ['identity', {}, 200, JSON_TYPE, 'object', { 'content-encoding': 'Identity' }],
    ['zstd', {}, 200, JSON_TYPE, ENCODED, { 'content-encoding': 'zstd' }],
    ['gzip that is not unpacked', {}, 200, JSON_TYPE, ENCODED, { 'content-encoding': 'gzip' }],
    ['a part', {}, 206, JSON_TYPE, 'refused: a part of an answer'],
    ['HEAD', { method: 'HEAD' }, 200, 'application/octet-stream', 'nothing'],
    ['204', {}, 204, undefined, 'nothing'],
    ['304', {}, 304, undefined, 'nothing'],
  ]
  for (const [name, terms, status, type, expected, more] of ROWS)
    it(`is ${expected} for ${name}`, () => {
      expect(taken(terms, status, type, more)).to.equal(expected)
    })

  const masked = (terms: Partial<AnswerTerms>, status: number, type?: string): MaskedBody =>
    createAnswerMasking({ ...TERMS, ...terms }).begin(
      status,
      type === undefined ? {} : { 'content-type': type },
    )

  it('lets pass what has no byte, whatever it says it is', () => {
    for (const type of [JSON_TYPE, 'application/octet-stream', undefined]) {
      const body = masked({}, 200, type)
      expect([body.push(Buffer.alloc(0)), body.end(), body.record()]).to.deep.equal([
        [],
        [],
        undefined,
      ])
    }
  })

  it('bounds texts of errors, and no other', () => {
    const line = Buffer.alloc(MAX_ERROR_TEXT_BYTES, 'text of a line\n')
    const error = masked({}, 500, 'text/plain')
    error.push(line)
    expect(() => error.push(Buffer.from('x'))).to.throw(Fault, 'too long')
    const log = masked({ sort: 'log' }, 200, 'text/plain')
    for (let i = 0; i < 4; i += 1) log.push(line)
    expect(Buffer.concat(log.end()).length).to.be.lessThan(line.length)
  })

  it('lets no header pass that says how long the answer was, or what of', () => {
    const { headers } = createAnswerMasking(TERMS).begin(200, {
      ...{ 'content-type': JSON_TYPE, 'content-length': '12', etag: '"x"', digest: 'x' },
      ...{ 'content-digest': 'x', 'accept-ranges': 'bytes', 'content-encoding': 'identity' },
      ...{ warning: `299 - "uses ${KEY} still"`, 'audit-id': 'a' },
    })
    expect(headers).to.deep.equal({
      ...{ 'content-type': JSON_TYPE, 'audit-id': 'a' },
      warning: `299 - "uses ${STARS} still"`,
    })
  })

  it('tells of a watch of Secrets in general, and of a log nothing', () => {
    const watch = { isWatch: true, longRunning: true }
    expect(masked({ ...watch, ofSecrets: true }, 200, JSON_TYPE).warning(false)).to.match(/watched/)
    expect(masked(watch, 200, JSON_TYPE).warning(false)).to.equal(undefined)
    const log = masked({ sort: 'log', longRunning: true }, 200, 'text/plain')
    log.push(Buffer.from(`${KEY} \n`))
    expect([log.warning(true), log.record()?.count]).to.deep.equal([undefined, 1])
  })
})

describe('a text that is masked', () => {
  it('counts a secret once, however it is cut, and names detectors', () => {
    const whole = Buffer.from(`one ${KEY} two ${KEY}\nthree`)
    for (let at = 0; at <= whole.length; at += 1) {
      const text = createTextAnswer('log')
      const pieces = [...text.push(whole.subarray(0, at)), ...text.push(whole.subarray(at))]
      const all = Buffer.concat([...pieces, ...text.end()]).toString()
      expect(all).to.equal(`one ${STARS} two ${STARS}\nthree`)
      expect(text.masked).to.deep.equal({
        ...{ count: 2, fields: ['log aws-access-key-id'], more: false },
      })
    }
  })

  it('counts a secret once that was given out before its end', () => {
    const text = createTextAnswer('log')
    const pem = '-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n'
    const first = [...text.push(Buffer.from(pem)), ...text.flush()]
    const second = [...text.push(Buffer.from('BKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n')), ...text.end()]
    expect(Buffer.concat([...first, ...second]).toString()).to.not.match(/MIIE|BKcw/)
    expect(text.masked.count).to.equal(1)
  })
})

describe('an approved request whose answer was not shown', () => {
  it('is one of which nothing is known, as it may have been carried out', () => {
    const bytes = { bytesToClient: 0, bytesToServer: 0 }
    expect(fateOf({ ...bytes, status: 502, reason: 'answer_unmaskable' })).to.equal('UNKNOWN')
    expect(fateOf({ ...bytes, status: 406, reason: 'not_acceptable' })).to.equal('FAILED')
    expect(fateOf({ ...bytes, status: 201 })).to.equal('SUCCEEDED')
  })
})

describe('what is said of what was hidden', () => {
  it('is a line with three names at most', () => {
    const told = (count: number, fields: readonly string[], more = false, isWhole = true) =>
      maskedWarning({ count, fields, more }, isWhole)
    const [one, two] = ['Secret data.password', 'Secret data.user']
    expect(told(0, [])).to.equal(undefined)
    expect(told(1, [one])).to.equal(`masked 1 field: ${one}`)
    expect(told(2, [one, two])).to.equal(`masked 2 fields: ${one}, ${two}`)
    expect(told(9, [one, two, 'a', 'b', 'c'])).to.equal(
      `masked 9 fields: ${one}, ${two}, a and 2 more`,
    )
    expect(told(90, [one, two, 'a', 'b'], true, false)).to.equal(
      `masked at least 90 fields: ${one}, ${two}, a and 1 or more more`,
    )
    expect(told(1, ['k'.repeat(500)])?.length).to.be.lessThan(100)
  })

  it('is an entry of the ledger, of bounded length', () => {
    const fields = ['k'.repeat(500)]
    const record = maskedRecord(['standard'], { count: 3, fields, more: true })
    expect(record).to.deep.include({ profiles: ['standard'], count: 3, more: true })
    expect(record?.fields[0]?.length).to.be.lessThan(200)
    expect(maskedRecord([], { count: 0, fields: [], more: false })).to.equal(undefined)
  })

  it('is read in a list of entries', () => {
    const masked = { profiles: ['standard'], count: 2, fields: ['Secret data.a', 'Secret data.b'] }
    const shown = (entry: object): string => entryColumns('outcome', { status: 200, ...entry })[2]
    expect(shown({ masked })).to.equal('200 (masked 2: Secret data.a, …)')
    expect(shown({ masked: { ...masked, count: 1, fields: ['Secret data.a'] } })).to.equal(
      '200 (masked 1: Secret data.a)',
    )
    expect(shown({ reason: 'killed' })).to.equal('200 killed')
  })
})

/** A connection that counts what is asked of it. */
function connection(): Dispatcher.DispatchController & { readonly asked: string[] } {
  const asked: string[] = []
  return {
    ...{ asked, aborted: false, paused: false, reason: null },
    abort: () => asked.push('abort'),
    pause: () => asked.push('pause'),
    resume: () => asked.push('resume'),
  }
}

describe('an answer that is unpacked', () => {
  const GZIP = { 'content-type': JSON_TYPE, 'content-encoding': 'gzip', 'content-length': '9' }

  it('is a bomb where it unpacks to far more than it was, beyond a bound', () => {
    expect(isBomb(1, UNPACK_FREE_BYTES)).to.equal(false)
    expect(isBomb(1, UNPACK_FREE_BYTES + 1)).to.equal(true)
    const packed = UNPACK_FREE_BYTES
    expect(isBomb(packed, packed * MAX_UNPACK_RATIO)).to.equal(false)
    expect(isBomb(packed, packed * MAX_UNPACK_RATIO + 1)).to.equal(true)
    expect(isBomb(2 ** 40, 2 ** 30 + 1)).to.equal(true)
  })

  it('can be broken off when all of it has come, and slows its connection down before', async () => {
    const real = connection()
    const seen: string[] = []
    let control: Dispatcher.DispatchController | undefined
    const broken = new Promise<Error>((resolve) => {
      const unpacking = new Unpacking({
        onRequestStart: (given) => (control = given),
        onResponseStart: (given, _status, headers) => {
          seen.push(Object.keys(headers).join())
          given.pause()
        },
        onResponseData: () => seen.push('data'),
        onResponseEnd: () => seen.push('end'),
        onResponseError: (_given, error) => {
          resolve(error)
        },
      })
      unpacking.onRequestStart(real, {})
      unpacking.onResponseStart(real, 200, GZIP)
      unpacking.onResponseData(real, gzipSync(Buffer.alloc(200_000, Math.random().toString())))
      for (let i = 0; i < 4; i += 1) unpacking.onResponseData(real, Buffer.alloc(64 * 1024))
      unpacking.onResponseEnd(real, {})
    })
    expect(control?.paused).to.equal(true)
    control?.abort(new Fault('client_left', 'the client left'))
    control?.abort(new Fault('revoked', 'again'))
    expect(await broken).to.have.property('code', 'client_left')
    expect(control?.aborted).to.equal(true)
    expect(seen).to.deep.equal(['content-type'])
    expect(real.asked).to.include('pause').and.to.not.include('abort')
  })

  it('is left as it is where it is not compressed', () => {
    const real = connection()
    const seen: string[] = []
    const unpacking = new Unpacking({
      onResponseStart: (_given, _status, headers) => seen.push(Object.keys(headers).join()),
      onResponseData: (_given, chunk) => seen.push(chunk.toString()),
      onResponseEnd: () => seen.push('end'),
    })
    unpacking.onRequestStart(real, {})
    unpacking.onResponseStart(real, 100, {})
    unpacking.onResponseStart(real, 200, { 'content-encoding': 'br', 'content-length': '1' })
    unpacking.onResponseData(real, Buffer.from('x'))
    unpacking.onResponseEnd(real, {})
    expect(seen).to.deep.equal(['', 'content-encoding,content-length', 'x', 'end'])
  })
})
