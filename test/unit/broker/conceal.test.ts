import { expect } from 'chai'
import { describe, it } from 'mocha'
import { conceal, withoutHidden } from '../../../broker/approvals/conceal.ts'
import type { Concealment } from '../../../broker/approvals/conceal.ts'
import { canonicalText, readJson } from '../../../broker/approvals/json-tree.ts'
import type { Json } from '../../../broker/approvals/json-tree.ts'

const PLAIN: Concealment = { secret: false, withStatus: false }
const json = (value: object): Json => readJson(JSON.stringify(value)) ?? null
const shown = (value: object, how: Concealment = PLAIN): unknown =>
  JSON.parse(canonicalText(conceal(json(value), how).shown))
const pair = (before: object, after: object, how: Concealment = PLAIN): unknown => {
  const { places } = conceal(json(before), how)
  return shown(after, { ...how, before: places })
}

describe('objects as reviewers see them', () => {
  it('hide the values of Secrets by their kind, wherever one stands', () => {
    const secret = { kind: 'Secret', data: { a: 'YQ==' }, stringData: { b: 'plain' }, type: 'x' }
    const hidden = { kind: 'Secret', data: { a: '***' }, stringData: { b: '***' }, type: 'x' }
    expect(shown(secret)).to.deep.equal(hidden)
    expect(shown({ kind: 'List', items: [secret] })).to.deep.equal({
      kind: 'List',
      items: [hidden],
    })
    expect(shown({ kind: 'Secret', data: 'odd' })).to.deep.equal({ kind: 'Secret', data: '***' })
    expect(shown({ kind: 'ConfigMap', data: { a: 'b' } })).to.deep.equal({
      kind: 'ConfigMap',
      data: { a: 'b' },
    })
  })

  it('hide what a patch of a Secret writes, though it names no kind', () => {
    const how = { ...PLAIN, secret: true }
    expect(shown({ data: { a: 'YQ==', gone: null } }, how)).to.deep.equal({
      data: { a: '***', gone: null },
    })
    expect(
      shown(
        [
          { op: 'replace', path: '/data/a', value: 'YQ==' },
          { op: 'remove', path: '/x' },
        ],
        how,
      ),
    ).to.deep.equal([
      { op: 'replace', path: '/data/a', value: '***' },
      { op: 'remove', path: '/x' },
    ])
  })

  it('hide variables whose names promise a secret, in objects and in patches', () => {
    const env = (...pairs: [string, string][]): object => ({
      spec: { containers: [{ name: 'c', env: pairs.map(([name, value]) => ({ name, value })) }] },
    })
    expect(shown(env(['API_TOKEN', 'x'], ['MODE', 'fast'], ['dbPassword', 'y']))).to.deep.equal(
      env(['API_TOKEN', '***'], ['MODE', 'fast'], ['dbPassword', '***']),
    )
    expect(
      shown([
        { op: 'add', path: '/spec/containers/0/env/-', value: { name: 'KEY', value: 'x' } },
        { op: 'replace', path: '/spec/containers/0/env/0/value', value: 'x' },
      ]),
    ).to.deep.equal([
      { op: 'add', path: '/spec/containers/0/env/-', value: { name: 'KEY', value: '***' } },
      { op: 'replace', path: '/spec/containers/0/env/0/value', value: '***' },
    ])
  })

  it('leave out kubectl’s own copy and the server’s bookkeeping', () => {
    const last = 'kubectl.kubernetes.io/last-applied-configuration'
    expect(
      shown({
        metadata: {
          name: 'x',
          uid: 'u',
          resourceVersion: '1',
          managedFields: [],
          annotations: { [last]: 'secret', other: 'kept' },
        },
        spec: { uid: 'kept' },
        status: { phase: 'Running' },
      }),
    ).to.deep.equal({
      metadata: { name: 'x', annotations: { other: 'kept' } },
      spec: { uid: 'kept' },
    })
    expect(
      shown([{ op: 'add', path: `/metadata/annotations`, value: { [last]: 's' } }]),
    ).to.deep.equal([{ op: 'add', path: '/metadata/annotations', value: {} }])
    expect(shown({ status: { a: 1 } }, { ...PLAIN, withStatus: true })).to.deep.equal({
      status: { a: 1 },
    })
  })

  it('tell changed from unchanged values, and not how long they are', () => {
    const secret = (data: object): object => ({ kind: 'Secret', data })
    expect(
      pair(
        secret({ same: 'a', other: 'b' }),
        secret({ same: 'a', other: 'a much longer one', n: '' }),
      ),
    ).to.deep.equal(secret({ same: '***', other: '*** (changed)', n: '*** (new)' }))
  })

  it('compare variables by name, also where the same name comes twice', () => {
    const env = (...values: [string, string][]): object => ({
      env: values.map(([name, value]) => ({ name, value })),
    })
    expect(
      pair(env(['A_KEY', '1'], ['B_KEY', '2']), env(['B_KEY', '2'], ['A_KEY', '1'])),
    ).to.deep.equal(env(['B_KEY', '***'], ['A_KEY', '***']))
    expect(
      pair(env(['A_KEY', '1'], ['A_KEY', '2']), env(['A_KEY', '2'], ['A_KEY', '2'])),
    ).to.deep.equal(env(['A_KEY', '*** (changed)'], ['A_KEY', '***']))
  })

  it('take hidden values out of what the API server says', () => {
    const { places } = conceal(json({ name: 'TOKEN', value: 'tok-123' }), PLAIN)
    expect(withoutHidden('Invalid value: "tok-123"', [places])).to.equal('Invalid value: "***"')
  })
})
