/** Values put back into updates: at the place they were read from, of the object and version they were read of, and nowhere else. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { maskDocument } from '../../../broker/masking/objects/masker.ts'
import { createPlaceholders } from '../../../broker/masking/placeholder.ts'
import { restoreBody } from '../../../broker/masking/writes/restore.ts'
import type { Restored } from '../../../broker/masking/writes/restore.ts'
import { STANDARD_MASKING } from '../../../shared/policy/masking.ts'
import type { Masking } from '../../../shared/policy/masking.ts'
import { isRefusal } from '../../../shared/reasons.ts'
import type { Refusal } from '../../../shared/reasons.ts'

const placeholders = createPlaceholders(Buffer.alloc(32, 7), 'test')
const PLACEHOLDER = placeholders.of('uid-1')('somewhere')
const VALUE = 'aHVudGVyMg=='
const META = '"metadata":{"name":"s","uid":"uid-1","resourceVersion":"7"}'
const SECRET = `{"kind":"Secret","apiVersion":"v1",${META},"data":{"password":"${VALUE}","user":"cm9vdA=="}}\n`
const POD = (env: string): string =>
  `{"kind":"Pod","apiVersion":"v1",${META},"spec":{"containers":[{"name":"c","args":["-v","--password","hunter2"],"env":[${env}]}]}}`
const ENV = '{"name":"A","value":"x"},{"name":"DB_PASSWORD","value":"hunter2"}'

const shown = (object: string, masking: Masking = STANDARD_MASKING): string =>
  maskDocument(Buffer.from(object), {
    masking,
    placeholders,
    shape: 'object',
    write: false,
  }).bytes.toString()

/** As a client does it: what was shown is changed and sent. */
function sent(
  current: string,
  change: (text: string) => string = (text) => text,
  masking: Masking = STANDARD_MASKING,
): Restored | Refusal {
  const body = change(shown(current, masking))
  return restoreBody({
    body: Buffer.from(body),
    current: Buffer.from(current),
    masking,
    placeholders,
  })
}

function restored(result: Restored | Refusal): string {
  if (isRefusal(result)) throw new Error(`${result.refused}: ${result.detail ?? ''}`)
  return result.body.toString()
}

const refused = (result: Restored | Refusal): string =>
  isRefusal(result) ? `${result.refused} ${(result.fields ?? []).join()}`.trim() : 'restored'

describe('restoring', () => {
  it('gives back the very bytes, but for what the client changed', () => {
    expect(shown(SECRET)).not.to.contain(VALUE)
    expect(restored(sent(SECRET))).to.equal(SECRET)
    const change = (text: string): string =>
      text.replace(
        '"name":"s"',
        ' "name" : "s" , "labels":{"big":9007199254740993, "e\\u00e9":"\\ud83d\\ude00é"} ',
      )
    expect(restored(sent(SECRET, change))).to.equal(change(SECRET))
    const result = sent(SECRET, change)
    expect(isRefusal(result) ? [] : result.fields).to.deep.equal(['data.password', 'data.user'])
  })

  it('gives back numbers and what is no text as it was', () => {
    const masking: Masking = {
      ...STANDARD_MASKING,
      fields: [{ group: 'example.com', kind: 'Db', path: [{ name: 'spec' }, { name: 'pin' }] }],
    }
    const object = `{"apiVersion":"example.com/v1","kind":"Db",${META},"spec":{"pin":{"a":9007199254740993,"b":1.50,"c":"x\\u0041"}}}`
    expect(shown(object, masking)).not.to.contain('9007199254740993')
    expect(restored(sent(object, undefined, masking))).to.equal(object)
  })

  it('knows a body whose members have another order, and one without uid', () => {
    const { kind, apiVersion, metadata, data } = JSON.parse(shown(SECRET)) as Record<string, object>
    const sorted = JSON.stringify({ apiVersion, data, kind, metadata })
    expect(JSON.parse(restored(sent(SECRET, () => sorted)))).to.deep.equal(JSON.parse(SECRET))
    expect(restored(sent(SECRET, (text) => text.replace('"uid":"uid-1",', '')))).to.contain(VALUE)
  })

  it('knows what was shown in a list', () => {
    const list = `{"kind":"SecretList","apiVersion":"v1","metadata":{},"items":[${SECRET.replace('"kind":"Secret","apiVersion":"v1",', '')}]}`
    const { items } = JSON.parse(shown(list)) as { items: object[] }
    const body = JSON.stringify({ kind: 'Secret', apiVersion: 'v1', ...items[0] })
    expect(restored(sent(SECRET, () => body))).to.contain(VALUE)
  })

  it('leaves a value that the client gives, and what it takes away', () => {
    const changed = restored(
      sent(SECRET, (text) => text.replace(/"password":"[^"]*"/, '"password":"bmV3"')),
    )
    expect(JSON.parse(changed)).to.have.nested.include({
      'data.password': 'bmV3',
      'data.user': 'cm9vdA==',
    })
    const without = restored(sent(SECRET, (text) => text.replace(/"password":"[^"]*",/, '')))
    expect(without).not.to.contain(VALUE)
  })

  it('refuses another version, another object, and a body that does not say which', () => {
    for (const [from, to] of [
      ['"7"', '"8"'],
      ['"uid-1"', '"uid-2"'],
      ['"resourceVersion":"7"', '"x":"7"'],
      ['"7"', '7'],
    ] as const)
      expect(refused(sent(SECRET, (text) => text.replace(from, to))), to).to.equal(
        'placeholder_stale',
      )
  })

  it('refuses a placeholder at another place, of another object, in a key, or within a text', () => {
    const swap = (text: string): string =>
      text
        .replace('"password":', '"x":')
        .replace('"user":', '"password":')
        .replace('"x":', '"user":')
    expect(refused(sent(SECRET, swap))).to.equal('placeholder_written data.user,data.password')
    expect(
      refused(
        sent(SECRET, (text) =>
          text.replace('"name":"s"', `"name":"s","labels":{"a":"${PLACEHOLDER}"}`),
        ),
      ),
    ).to.equal('placeholder_written metadata.labels.a')
    const other = shown(SECRET.replace('uid-1', 'uid-9')).replace('uid-9', 'uid-1')
    expect(refused(sent(SECRET, () => other))).to.equal(
      'placeholder_written data.password,data.user',
    )
    expect(
      refused(sent(SECRET, (text) => text.replace('"user":', `"${PLACEHOLDER}":"", "user":`))),
    ).to.equal('placeholder_written data.(key)')
    expect(
      refused(sent(SECRET, (text) => text.replace(/"password":"/, '"password":"eHh4'))),
    ).to.equal('placeholder_written data.password')
  })

  it('refuses an update that would show the value: another name, another word before it, another kind', () => {
    expect(restored(sent(POD(ENV)))).to.equal(POD(ENV))
    const rename = (text: string): string => text.replace('DB_PASSWORD', 'HARMLESS')
    expect(refused(sent(POD(ENV), rename))).to.equal(
      'placeholder_written spec.containers[0].env[1].value',
    )
    const word = (text: string): string => text.replace('--password', '--verbose')
    expect(refused(sent(POD(ENV), word))).to.equal('placeholder_written spec.containers[0].args[2]')
    for (const kind of ['"ConfigMap"', '"Node"'])
      expect(refused(sent(SECRET, (text) => text.replace('"Secret"', kind))), kind).to.contain(
        'placeholder_written data.password',
      )
  })

  it('puts back copies of objects in annotations as a whole', () => {
    const copy = JSON.stringify(JSON.stringify({ kind: 'Secret', data: { password: VALUE } }))
    const object = SECRET.replace(
      '"name":"s"',
      `"name":"s","annotations":{"kubectl.kubernetes.io/last-applied-configuration":${copy}}`,
    )
      .replace('"uid":"uid-1",', '')
      .replace('"name":"s"', '"uid":"uid-1","name":"s"')
    expect(shown(object)).not.to.contain(VALUE)
    expect(restored(sent(object))).to.equal(object)
  })

  it('throws for an object that cannot be masked', () => {
    const update = { masking: STANDARD_MASKING, placeholders, body: Buffer.from(shown(SECRET)) }
    expect(() => restoreBody({ ...update, current: Buffer.from(`${SECRET.trim()}}`) })).to.throw()
  })
})
