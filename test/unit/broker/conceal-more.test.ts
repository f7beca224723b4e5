/** The places and forms in which a secret comes, and that a reviewer sees of none of them more than that it is there. */
import { gzipSync } from 'node:zlib'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { conceal, concealmentOf } from '../../../broker/approvals/conceal.ts'
import type { Concealment } from '../../../broker/approvals/conceal.ts'
import { canonicalText, readJson } from '../../../broker/approvals/json-tree.ts'
import type { Json } from '../../../broker/approvals/json-tree.ts'
import { STANDARD_MASKING } from '../../../shared/policy/masking.ts'
import type { FieldMask } from '../../../shared/policy/masking.ts'

const SECRET = 'hunter2-planted'
const BASE64 = Buffer.from(SECRET).toString('base64')
const TWICE = Buffer.from(BASE64).toString('base64')
const TOKEN = 'ghp_0123456789abcdefghijABCDEFGHIJ456789'
const PLAIN: Concealment = { secret: false, withStatus: false }
const json = (value: unknown): Json => readJson(JSON.stringify(value)) ?? null
const shown = (value: unknown, how: Concealment = PLAIN): unknown =>
  JSON.parse(canonicalText(conceal(json(value), how).shown))
const text = (value: unknown, how?: Concealment): string => JSON.stringify(shown(value, how))

const info = (
  apiGroup: string,
  resource: string,
  subresource = '',
): Parameters<typeof concealmentOf>[0] => ({
  info: {
    ...{ isResourceRequest: true, verb: 'patch', apiVersion: 'v1', namespace: 'n', name: 'x' },
    ...{ apiGroup, resource, subresource },
  },
})

function hidesAll(value: unknown, how?: Concealment): void {
  const planted = [SECRET, BASE64, TWICE, TOKEN]
  const given = JSON.stringify(value)
  expect(
    planted.some((each) => given.includes(each)),
    given,
  ).to.equal(true)
  const seen = text(value, how)
  for (const each of planted) expect(seen).not.to.include(each)
}

describe('what reviewers see', () => {
  it('has no value of a Secret in a list that says its kind once, in a text, or in a template', () => {
    hidesAll({
      kind: 'SecretList',
      items: [{ data: { a: BASE64 } }, { stringData: { b: SECRET } }],
    })
    hidesAll({ kind: 'X', spec: { note: JSON.stringify({ kind: 'Secret', data: { a: TWICE } }) } })
    hidesAll({
      kind: 'X',
      spec: JSON.stringify({ x: JSON.stringify({ kind: 'Secret', data: { a: BASE64 } }) }),
    })
    hidesAll({
      kind: 'ConfigMap',
      data: { m: `---\napiVersion: v1\nkind: Secret\nstringData:\n  a: ${SECRET}\n` },
    })
    hidesAll({
      kind: 'ExternalSecret',
      spec: { template: { type: 'Opaque', data: { a: SECRET } } },
    })
    expect(shown({ kind: 'X', spec: { type: 'fast', data: { a: 'kept' } } })).to.deep.equal({
      ...{ kind: 'X', spec: { type: 'fast', data: { a: 'kept' } } },
    })
  })

  it('has no text that is JSON too deep to be looked into', () => {
    let deep = JSON.stringify({ kind: 'Secret', data: { a: SECRET } })
    for (let level = 0; level < 9; level++) deep = JSON.stringify([deep])
    hidesAll({ kind: 'X', deep })
  })

  it('has no copy that an applier keeps', () => {
    const annotations = {
      'kubectl.kubernetes.io/last-applied-configuration': SECRET,
      'kapp.k14s.io/original': SECRET,
      'kopf.zalando.org/last-handled-configuration': SECRET,
      'objectset.rio.cattle.io/applied': SECRET,
      'other.io/copy': JSON.stringify({ kind: 'Secret', data: { a: BASE64 } }),
    }
    hidesAll({ kind: 'X', metadata: { annotations } })
    const path = '/metadata/annotations/kapp.k14s.io~1original'
    hidesAll([{ op: 'add', path, value: SECRET }])
  })

  it('has no secret of variables, headers and commands, in objects and patches', () => {
    hidesAll({
      env: [
        { name: 'DB_PASSWORD', value: SECRET },
        { name: 'A', value: `https://u:${SECRET}@h/` },
      ],
    })
    hidesAll({ httpHeaders: [{ name: 'X-Api-Key', value: SECRET }] })
    hidesAll({ args: ['--password', SECRET], command: ['mysql', `-p${SECRET}`] })
    hidesAll({ command: ['sh', '-c', `export PGPASSWORD=${SECRET}`] })
    const at = '/spec/containers/0'
    const add = (path: string, value: unknown): object => ({
      op: 'add',
      path: `${at}${path}`,
      value,
    })
    hidesAll([add('/args', ['--token', SECRET])])
    hidesAll([add('/args/-', '--token'), add('/args/-', SECRET)])
    hidesAll([add('', { args: ['--password', SECRET] })])
    hidesAll([add('/readinessProbe/httpGet/httpHeaders/0/value', SECRET)])
    expect(shown({ args: ['--verbose', 'a**b', '--name', 'x'] })).to.deep.equal({
      args: ['--verbose', 'a**b', '--name', 'x'],
    })
  })

  it('has nothing of a ConfigMap that a name promises or a detector finds', () => {
    const config = (data: object, binaryData: object = {}): object => ({
      kind: 'ConfigMap',
      data,
      binaryData,
    })
    hidesAll(config({ DB_PASSWORD: SECRET }))
    hidesAll(config({ 'app.ini': `host=db\npassword=${SECRET}\n` }))
    hidesAll(config({}, { x: Buffer.from(`token: ${TOKEN}`).toString('base64'), y: TOKEN }))
    const packed = gzipSync(Buffer.from(SECRET)).toString('base64')
    expect(shown(config({}, { p: packed }))).to.deep.equal(config({}, { p: '***' }))
    expect(shown(config({ p: packed }))).to.deep.equal(config({ p: '***' }))
    expect(shown(config({ 'app.ini': `a=b\npassword=${SECRET}\nc=d` }))).to.deep.equal(
      config({ 'app.ini': 'a=b\npassword=***\nc=d' }),
    )
    // patches say no kind
    const how = concealmentOf(info('', 'configmaps'))
    hidesAll({ data: { DB_PASSWORD: SECRET } }, how)
    hidesAll([{ op: 'add', path: '/data/DB_PASSWORD', value: SECRET }], how)
    hidesAll([{ op: 'replace', path: '/data', value: { DB_PASSWORD: SECRET } }], how)
    hidesAll([{ op: 'replace', path: '', value: { data: { DB_PASSWORD: SECRET } } }], how)
  })

  it('has no token of TokenRequest and TokenReview', () => {
    hidesAll({ kind: 'TokenRequest', status: { token: SECRET } })
    hidesAll(
      { spec: { token: SECRET } },
      concealmentOf(info('authentication.k8s.io', 'tokenreviews')),
    )
    hidesAll(
      { status: { token: SECRET } },
      { ...concealmentOf(info('', 'serviceaccounts', 'token')), withStatus: true },
    )
  })

  it('has nothing that detectors find in base64, once or twice', () => {
    const line = Buffer.from(`password=${SECRET}`).toString('base64')
    const again = Buffer.from(line).toString('base64')
    expect(
      shown({ a: line, b: again, c: Buffer.from('nothing of interest').toString('base64') }),
    ).to.deep.equal({
      ...{ a: '***', b: '***', c: Buffer.from('nothing of interest').toString('base64') },
    })
  })

  it('says of a text whether what is hidden in it changed', () => {
    const of = (password: string): object => ({
      kind: 'ConfigMap',
      data: { f: `a\npassword=${password}` },
    })
    const { places } = conceal(json(of(SECRET)), PLAIN)
    expect(shown(of(SECRET), { ...PLAIN, before: places })).to.deep.equal({
      ...{ kind: 'ConfigMap', data: { f: 'a\npassword=***' } },
    })
    expect(shown(of('another-one'), { ...PLAIN, before: places })).to.deep.equal({
      ...{ kind: 'ConfigMap', data: { f: 'a\npassword=*** (changed)' } },
    })
  })
})

describe('fields that an operator hides', () => {
  const field = (...path: readonly (string | null)[]): FieldMask => ({
    ...{ group: 'x.io', kind: 'Db', path: path.map((name) => (name === null ? 'any' : { name })) },
  })
  const masking = {
    ...STANDARD_MASKING,
    fields: [
      field('spec', 'users', null, 'pin'),
      field('spec', 'auth', null, 'code'),
      field('status', 'box'),
    ],
  }
  const how = { ...concealmentOf(info('x.io', 'dbs'), masking), withStatus: true }
  const spec = {
    users: [
      { name: 'a', pin: 1 },
      { name: 'b', pin: SECRET },
    ],
    auth: { one: { code: SECRET, other: 'kept' } },
    pin: 'kept',
  }
  const hidden = {
    users: [
      { name: 'a', pin: '***' },
      { name: 'b', pin: '***' },
    ],
    auth: { one: { code: '***', other: 'kept' } },
    pin: 'kept',
  }

  it('are hidden by kind, at any depth, with all that is below', () => {
    const db = (value: object, status: object): object => ({
      ...{ apiVersion: 'x.io/v1', kind: 'Db', spec: value, status },
    })
    expect(shown(db(spec, { box: { deep: SECRET } }), how)).to.deep.equal(
      db(hidden, { box: '***' }),
    )
    const list = (item: object): object => ({
      apiVersion: 'x.io/v1',
      kind: 'DbList',
      items: [item],
    })
    expect(shown(list({ spec }), how)).to.deep.equal(list({ spec: hidden }))
    const other = { apiVersion: 'y.io/v1', kind: 'Db', spec }
    expect(shown(other, how)).to.deep.equal(other)
  })

  it('are hidden in patches, which say no kind', () => {
    expect(shown({ spec }, how)).to.deep.equal({ spec: hidden })
    const op = (path: string, value: unknown): object => ({ op: 'add', path, value })
    expect(
      shown(
        [
          op('/spec', spec),
          op('/spec/users/0/pin', SECRET),
          op('/spec/auth/one', { code: SECRET, a: 1 }),
          op('/status/box/deep', SECRET),
          op('', { spec }),
          op('/spec/pin', 'kept'),
        ],
        how,
      ),
    ).to.deep.equal([
      op('/spec', hidden),
      op('/spec/users/0/pin', '***'),
      op('/spec/auth/one', { code: '***', a: 1 }),
      op('/status/box/deep', '***'),
      op('', { spec: hidden }),
      op('/spec/pin', 'kept'),
    ])
  })
})
