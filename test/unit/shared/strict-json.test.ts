/** Bodies are read one way only, or refused: JSON, YAML, and what is neither. */
import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import { readBody, readStrictYaml } from '../../../shared/kubernetes/body.ts'
import {
  MAX_JSON_DEPTH,
  MAX_JSON_VALUES,
  readStrictJson,
  readStrictJsonText,
} from '../../../shared/kubernetes/strict-json.ts'

const problem = (text: string): string | undefined => {
  const result = readStrictJsonText(text)
  return 'problem' in result ? result.problem : undefined
}

const asNumber = (_key: string, value: unknown): unknown =>
  typeof value === 'bigint' ? Number(value) : value

describe('strict JSON', () => {
  it('reads whatever JSON.stringify writes, as JSON.parse does', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = JSON.stringify(value)
        const read = readStrictJsonText(text)
        expect('value' in read && JSON.stringify(read.value, asNumber)).to.equal(
          JSON.stringify(JSON.parse(text)),
        )
      }),
      { numRuns: 500 },
    )
  })

  it('never reads what JSON.parse refuses', () => {
    const pieces = [
      '{',
      '}',
      '[',
      ']',
      ',',
      ':',
      '"a"',
      '"',
      '1',
      '-',
      '01',
      '1.',
      'true',
      ' ',
      '\\',
      'nul',
    ]
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...pieces), { maxLength: 8 }), (parts) => {
        const text = parts.join('')
        if (!('value' in readStrictJsonText(text))) return
        expect(() => JSON.parse(text) as unknown, text).not.to.throw()
      }),
      { numRuns: 3000 },
    )
  })

  const refused: readonly (readonly [string, string, RegExp])[] = [
    ['a key that is there twice', '{"a":1,"a":1}', /twice/],
    ['the same key by an escape', '{"data":1,"d\\u0061ta":2}', /twice/],
    ['a second prototype key', '{"__proto__":1,"__proto__":2}', /twice/],
    ['what follows the value', '{} {}', /follows/],
    ['a byte order mark', '\ufeff{}', /no JSON/],
    ['half a surrogate pair', '"\\ud800"', /surrogate/],
    ['a number without end', '1e999', /range/],
    ['a line break in a string', '"a\nb"', /control/],
    ['an unknown escape', '"\\x41"', /escape/],
    ['a trailing comma', '[1,]', /no JSON/],
    ['comments', '{/**/}', /key/],
    ['nothing', '', /no JSON/],
    ['nesting beyond the limit', '['.repeat(MAX_JSON_DEPTH + 2), /nested/],
    ['more values than the limit', `[${'0,'.repeat(MAX_JSON_VALUES)}0]`, /more than/],
  ]
  for (const [what, text, reason] of refused)
    it(`refuses ${what}`, () => {
      expect(problem(text)).to.match(reason)
    })

  it('refuses bytes that are not UTF-8', () => {
    expect(readStrictJson(Buffer.from([0x22, 0xff, 0x22]))).to.have.property('problem')
  })

  it('keeps integers to the last digit', () => {
    expect(
      readStrictJsonText('[9007199254740993,-9007199254740993,9007199254740991,1e3]'),
    ).to.deep.equal({
      value: [9007199254740993n, -9007199254740993n, 9007199254740991, 1000],
    })
  })

  it('gives objects no prototype to be confused by', () => {
    const read = readStrictJsonText('{"__proto__":{"a":1},"constructor":2}')
    if (!('value' in read)) throw new Error(read.problem)
    expect(Object.getPrototypeOf(read.value)).to.equal(null)
    expect(Object.keys(read.value as object)).to.deep.equal(['__proto__', 'constructor'])
  })
})

describe('strict YAML', () => {
  const yaml = (text: string): unknown => readStrictYaml(Buffer.from(text))

  for (const text of [
    'a: yes',
    'a: on',
    'y: 1',
    'a: 012',
    'a: 0o17',
    'a: 1:20',
    'a: 1_000',
    '<<: {a: 1}',
  ])
    it(`refuses what YAML 1.1 and 1.2 read differently: ${text}`, () => {
      expect(yaml(text))
        .to.have.property('problem')
        .that.matches(/quote it/)
    })

  for (const number of [
    '0o_0',
    '0O0',
    '0X0',
    '0x_F',
    '0B0',
    '-0o0',
    '+0o7',
    '-0b_1',
    '0_0',
    '.5_0',
  ])
    it(`refuses what Go reads as a number: ${number}`, () => {
      expect(yaml(`spec: {replicas: ${number}}`)).to.have.property('problem')
      expect(yaml(`${number}: a`)).to.have.property('problem')
      expect(yaml(`a: "${number}"`)).to.have.nested.property('value.a', number)
    })

  for (const text of ['10Gi', '1.2.3', '2001-01-01', '0x', '_1', '0b2', 'a1', '1-2'])
    it(`takes for text what is no number to anybody: ${text}`, () => {
      expect(yaml(`a: ${text}`)).to.have.nested.property('value.a', text)
    })

  for (const text of [
    'a: &x 1\nb: *x',
    'a: !!str 1',
    'a: !x 3',
    'a: 1\n---\nb: 2',
    'a: 1\na: 2',
    '? [1]\n: 2',
    'a: .inf',
    'a: .nan',
    '',
    '{"a":1,"a":2}',
  ])
    it(`refuses ${JSON.stringify(text)}`, () => {
      expect(yaml(text)).to.have.property('problem')
    })

  it('reads plain documents, and JSON', () => {
    const read = yaml(
      'metadata:\n  name: web\n  when: 2024-01-01T00:00:00Z\nlist: [1, 2.5, null, "on"]\n',
    )
    expect(JSON.parse(JSON.stringify(read))).to.deep.equal({
      value: {
        metadata: { name: 'web', when: '2024-01-01T00:00:00Z' },
        list: [1, 2.5, null, 'on'],
      },
    })
    expect(yaml('{"a":9007199254740993}')).to.deep.equal(
      readStrictJsonText('{"a":9007199254740993}'),
    )
  })

  it('does not expand a bomb', () => {
    const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefgh'
      .split('')
      .map(
        (key, at) =>
          `${key}: &${key} [${Array(9)
            .fill(`*${'abcdefg'[at] ?? ''}`)
            .join(',')}]`,
      )
      .join('\n')}`
    const started = performance.now()
    expect(yaml(bomb)).to.have.property('problem')
    expect(performance.now() - started).to.be.below(500)
  })
})

describe('a body by its content type', () => {
  const of = (type: string, text: string): unknown => readBody(Buffer.from(text), type)

  it('is JSON where none is named, as kube-apiserver assumes', () => {
    expect(of('', '{"a":1}')).to.have.property('state', 'read')
    expect(of('Application/JSON; charset=utf-8', '{"a":1}')).to.have.property('state', 'read')
  })

  it('is not looked into where it is of another type', () => {
    for (const type of ['application/vnd.kubernetes.protobuf', 'application/cbor', 'text/plain'])
      expect(of(type, '{"a":1,"a":2}')).to.deep.equal({ state: 'opaque', contentType: type })
  })

  it('is refused where it can be read in two ways', () => {
    expect(of('application/json', '{"a":1,"a":2}')).to.have.property('refused', 'body_ambiguous')
    expect(of('application/apply-patch+yaml', 'a: yes')).to.have.property(
      'refused',
      'body_ambiguous',
    )
  })
})
