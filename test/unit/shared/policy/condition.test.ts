import { expect } from 'chai'
import { describe, it } from 'mocha'
import { MAX_MAPPED } from '../../../../shared/policy/condition-weave.ts'
import { compileCondition, MAX_EXPRESSION_LENGTH } from '../../../../shared/policy/condition.ts'
import type { Condition, ConditionInput } from '../../../../shared/policy/condition.ts'

const INPUT: ConditionInput = {
  request: {
    verb: 'patch',
    actions: ['scale'],
    apiGroup: 'apps',
    resource: 'deployments',
    subresource: 'scale',
    namespace: 'shop',
    name: 'web',
    path: '/apis/apps/v1/namespaces/shop/deployments/web/scale',
    labels: {},
    parameters: { dryRun: false, replicas: 3, fieldManager: undefined },
  },
  object: {
    spec: { replicas: 3, ratio: 0.5, template: { spec: { containers: [{ image: 'a' }] } } },
  },
  process: { agent: 'scanner', uid: 1000, exe: '/bin/sh' },
  subject: undefined,
  cluster: 'prod',
  now: Date.UTC(2026, 10, 25, 3),
}

function compiled(text: string): Condition {
  const condition = compileCondition(text)
  if ('problems' in condition) throw new Error(condition.problems.join('; '))
  return condition
}

function evaluate(text: string, change: Partial<ConditionInput> = {}): unknown {
  return compiled(text).evaluate({ ...INPUT, ...change })
}

function problems(text: string): string {
  const condition = compileCondition(text)
  return 'problems' in condition ? condition.problems.join('; ') : ''
}

/** @returns the result, and the milliseconds it took: the best of two, because the machine is shared */
function timed(text: string, object: unknown): { value: unknown; ms: number } {
  const condition = compiled(text)
  let ms = Infinity
  let value: unknown
  for (let round = 0; round < 2; round += 1) {
    const from = performance.now()
    value = condition.evaluate({ ...INPUT, object })
    ms = Math.min(ms, performance.now() - from)
  }
  return { value, ms }
}

describe('a condition', () => {
  const rows: readonly (readonly [string, unknown])[] = [
    ['request.verb == "patch" && request.namespace in ["shop", "till"]', true],
    ['request.parameters.replicas > 2 && object.spec.replicas == 3', true],
    ['object.spec.replicas == 4', false],
    ['object.spec.ratio < 1.0', true],
    ['has(request.parameters.fieldManager)', false],
    ['has(process.sha256)', false],
    ['process.uid == 1000 && process.exe.startsWith("/bin/")', true],
    ['object.spec.template.spec.containers.all(c, c.image.matches("^[a-z]$"))', true],
    ['object.spec.template.spec.containers.exists(c, has(c.securityContext))', false],
    ['"scale" in request.actions', true],
    ['now > timestamp("2026-11-25T00:00:00Z") && now.getHours() < 6', true],
    ['cluster == "prod"', true],
    ['size(object.spec.template.spec.containers.map(c, c.image)) == 1', true],
  ]
  for (const [text, value] of rows) {
    it(`${text} is ${String(value)}`, () => {
      expect(evaluate(text)).to.equal(value)
    })
  }

  it('is an error where it fails or is no boolean', () => {
    for (const text of [
      'object.metadata.name == "x"',
      '"text"',
      'request.parameters.fieldManager == "x"',
      'object.spec.replicas + "x" == "3x"',
      'int("x") == 1',
    ]) {
      expect(evaluate(text), text).to.have.property('error').that.is.a('string')
    }
    expect(evaluate('object.spec == 1', { object: [] })).to.have.property('error')
    expect(evaluate('object == 1', { object: null })).to.equal(false)
    // As in CEL, and other than in the library by itself: a JSON patch has no fields that could be missing.
    expect(evaluate('!has(object.spec)', { object: [{ op: 'remove' }] })).to.have.property('error')
    expect(evaluate('!has(object.spec.template)', { object: {} })).to.have.property('error')
    expect(evaluate('!has(object.spec)', { object: {} })).to.equal(true)
  })

  it('says what it asks for', () => {
    expect(compiled('process.uid == 0 && has(object.x)').uses).to.deep.include({
      process: true,
      subject: false,
      object: true,
    })
    expect(compiled('subject.name == "x"').uses).to.deep.include({ subject: true, object: false })
  })

  it('knows what of the request comes from the body', () => {
    const asks = (text: string): readonly boolean[] => {
      const { ofBody, name } = compiled(text).uses
      return [ofBody, name]
    }
    for (const text of [
      'request.labels.a == "b"',
      'request.labels["a"] == "b"',
      'has(request.labels.a)',
      '"a" in request.labels',
      'has(request.parameters.replicas) && request.parameters.replicas > 10',
      'request.parameters["replicas"] > 10',
      '"replicas" in request.parameters',
      'request.parameters.exists(k, k == "replicas")',
    ])
      expect(asks(text), text).to.deep.equal([true, false])
    expect(asks('request.name == "x"')).to.deep.equal([false, true])
    for (const text of ['request["name"] == "x"', 'request == request', 'request.exists(k, true)'])
      expect(asks(text), text).to.deep.equal([true, true])
    for (const text of [
      'request.verb == "get" && request.namespace == "x"',
      'has(request.parameters.proxyPath) && request.parameters.proxyPath == "/"',
      'request.parameters.command.exists(word, word == "replicas")',
      '"evict" in request.actions',
      'process.container == "x"',
    ])
      expect(asks(text), text).to.deep.equal([false, false])
  })

  it('takes a body’s own keys for nothing but keys', () => {
    const object = JSON.parse(
      '{"$typeName": "google.protobuf.Any", "constructor": {"name": 1}, "__proto__": {"a": 1}, "n": null}',
    ) as unknown
    expect(evaluate('object["$typeName"] == "google.protobuf.Any"', { object })).to.equal(true)
    expect(evaluate('object.constructor.name == 1', { object })).to.equal(true)
    expect(evaluate('object["__proto__"].a == 1', { object })).to.equal(true)
    expect(evaluate('has(object.toString)', { object })).to.equal(false)
    expect(evaluate('object.n == null', { object })).to.equal(true)
    expect(evaluate('object.exists(k, k == "n")', { object })).to.equal(true)
  })
})

describe('compileCondition', () => {
  const rows: readonly (readonly [string, string, string])[] = [
    ['a syntax error', 'request.verb ==', 'expecting'],
    ['an unknown variable', 'objct.spec == 1', 'unknown variable objct'],
    ['an unknown field', 'request.verbs == "get"', 'request has no field verbs'],
    ['an unknown function', 'request.verb.lower() == "get"', 'unknown function lower'],
    ['our own counting functions', 'request.verb.cost() == "x"', 'unknown function cost'],
    ['an expression that is too long', `"${'x'.repeat(MAX_EXPRESSION_LENGTH)}" == ""`, 'longer'],
    ['deep nesting', `${'('.repeat(900)}true${')'.repeat(900)}`, 'deep'],
    ['deep calls', `${'size('.repeat(60)}"x"${')'.repeat(60)} == 1`, 'deep'],
    [
      'loops in loops in loops',
      'object.a.all(x, x.all(y, y.all(z, z == 1)))',
      'more than 2 loops in one another',
    ],
    ['many loops', Array(9).fill('object.a.all(x, true)').join('&&'), 'more than 8 loops'],
    ['a loop variable that hides one', 'object.a.all(process, true)', 'is there already'],
    ['a pattern that is not written out', 'request.name.matches(object.p)', 'written out'],
    ['a broken pattern', 'request.name.matches("(")', 'matches: '],
    ['a pattern that RE2 has not', 'request.name.matches("(?=x)")', 'matches: '],
    ['messages', 'google.protobuf.Duration{seconds: 1} == now', 'messages'],
  ]
  for (const [what, text, message] of rows) {
    it(`refuses ${what}`, () => {
      expect(problems(text)).to.contain(message)
    })
  }
})

describe('the cost of a condition', () => {
  const many = Array.from({ length: 700_000 }, () => 1)
  const LIMIT_MS = 400

  it('is linear in the text for regular expressions that others take ages for', () => {
    for (const pattern of [
      '^(a+)+$',
      '^(a|aa)+$',
      '^(a|a?)+$',
      '(.*a){12}$',
      '(.{0,900}b){1,1}c',
    ]) {
      const text = `object.s.matches("${pattern}")`
      const { value, ms } = timed(text, { s: `${'a'.repeat(20_000)}!` })
      expect(value, pattern).to.equal(false)
      expect(ms, pattern).to.be.below(LIMIT_MS)
    }
  })

  const bombs: readonly (readonly [string, string, unknown])[] = [
    ['a loop over a long list', 'object.a.exists(x, x == 2)', { a: many }],
    [
      'a loop whose error another operand swallows',
      'object.a.exists(x, x == 2) || true',
      { a: many },
    ],
    ['a loop in a loop', 'object.a.exists(x, object.a.exists(y, x == 2 && y == 2))', { a: many }],
    [
      'a loop in a loop that ends at once',
      'object.a.all(x, object.a.exists(y, true))',
      { a: many },
    ],
    [
      'an error that every step swallows',
      'object.a.exists(x, object.a.all(y, y.z == x.z))',
      { a: many },
    ],
    [
      'a comparison in a loop',
      'object.b.exists(x, object.a == object.c)',
      { a: many, b: many.slice(0, 9000), c: [...many] },
    ],
    [
      'a membership in a loop',
      'object.b.exists(x, 2 in object.a)',
      { a: many, b: many.slice(0, 9000) },
    ],
    ['a long map', 'size(object.a.map(x, x)) == 0', { a: many.slice(0, MAX_MAPPED + 1) }],
    [
      'a search for a long text',
      'object.a.contains(object.b)',
      { a: 'a'.repeat(1_500_000), b: `${'a'.repeat(700_000)}b` },
    ],
    [
      'a search in a loop',
      'object.b.exists(x, object.a.contains("ab"))',
      { a: 'a'.repeat(1_500_000), b: many.slice(0, 9000) },
    ],
    [
      'the size of a text in a loop',
      'object.b.exists(x, size(object.a) == 0)',
      { a: 'a'.repeat(1_500_000), b: many.slice(0, 9000) },
    ],
    [
      'a regular expression over a long text',
      'object.a.matches("(a|b)*c")',
      { a: 'a'.repeat(1_500_000) },
    ],
    [
      'regular expressions in a loop',
      'object.b.exists(x, object.a.matches("^(.*a){12}b$"))',
      { a: 'a'.repeat(60_000), b: many.slice(0, 9000) },
    ],
  ]
  for (const [what, text, object] of bombs) {
    it(`is bounded for ${what}`, () => {
      const { value, ms } = timed(text, object)
      expect(value).to.have.property('error').that.contains('costs more than it may')
      expect(ms).to.be.below(LIMIT_MS)
    })
  }

  it('is nothing for what a condition does not look at', () => {
    const big = { spec: { replicas: 1 }, data: many }
    expect(timed('object.spec.replicas == 1', big).ms).to.be.below(5)
  })
})
