/** What must hold of previews for any object: nothing hidden comes through, and nothing is rounded. */
import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import { parse } from 'yaml'
import { conceal } from '../../broker/approvals/conceal.ts'
import { canonicalText, readJson, yamlText } from '../../broker/approvals/json-tree.ts'
import type { Json } from '../../broker/approvals/json-tree.ts'
import { difference, objectText } from '../../broker/approvals/preview-text.ts'

const read = (value: unknown): Json => {
  const json = readJson(JSON.stringify(value))
  if (json === undefined) throw new Error('no JSON')
  return json
}
/** Long and odd enough to stand in a text for no other reason. */
const secretValue = fc
  .string({ minLength: 12, maxLength: 40, unit: 'grapheme-ascii' })
  .map((text) => `zq-${Buffer.from(text).toString('hex')}-qz`)
const key = fc.stringMatching(/^[a-z][a-z0-9.-]{0,12}$/).filter((text) => !/zq-|-qz/.test(text))
const data = fc.dictionary(key, secretValue, { maxKeys: 6 })

describe('previews of any object', () => {
  it('show no value of a Secret, before or after, nor its length', () => {
    fc.assert(
      fc.property(data, data, fc.boolean(), (before, after, nested) => {
        const secret = (values: object): object => {
          const one = { apiVersion: 'v1', kind: 'Secret', data: values, stringData: values }
          return nested ? { kind: 'List', items: [{ spec: { template: one } }] } : one
        }
        const how = { secret: false, withStatus: false }
        const old = conceal(read(secret(before)), how)
        const young = conceal(read(secret(after)), { ...how, before: old.places })
        const { text } = difference(old.shown, young.shown)
        const all = `${text}${objectText(old.shown)}${objectText(young.shown)}`
        for (const value of [...Object.values(before), ...Object.values(after)]) {
          expect(all).not.to.include(value)
        }
        expect(all).not.to.match(/zq-|-qz/)
      }),
    )
  })

  it('show a difference exactly where a hidden value differs', () => {
    fc.assert(
      fc.property(data, fc.dictionary(key, fc.boolean(), { maxKeys: 6 }), (before, changes) => {
        const after = Object.fromEntries(
          Object.entries(before).map(([name, value]) => [
            name,
            Object.hasOwn(changes, name) ? `${value}!` : value,
          ]),
        )
        const how = { secret: true, withStatus: false }
        const old = conceal(read({ data: before }), how)
        const young = conceal(read({ data: after }), { ...how, before: old.places })
        const shown = JSON.parse(canonicalText(young.shown)) as { data: Record<string, string> }
        for (const name of Object.keys(before)) {
          const changed = before[name] !== after[name]
          expect(shown.data[name]).to.equal(changed ? '*** (changed)' : '***')
        }
      }),
    )
  })

  it('say the same whatever the order of keys, and keep every digit', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.bigInt({ min: 0n, max: 10n ** 30n }), (value, number) => {
        const text = `{"a":${JSON.stringify(value)},"n":${number}}`
        const turned = `{"n":${number},"a":${JSON.stringify(value)}}`
        const [one, other] = [readJson(text), readJson(turned)]
        if (one === undefined || other === undefined) throw new Error('no JSON')
        expect(canonicalText(one)).to.equal(canonicalText(other))
        expect(yamlText(one)).to.equal(yamlText(other))
        expect(canonicalText(one)).to.include(`"n":${number}`)
        expect(yamlText(one)).to.match(new RegExp(`^n: ${number}$`, 'm'))
        // -0 is another number only in JavaScript
        expect(parse(yamlText(read({ a: value })))).to.deep.equal(
          JSON.parse(JSON.stringify({ a: value })),
        )
      }),
    )
  })

  it('have no control character but the end of a line, and never grow beyond their size', () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' })),
        (values) => {
          const text = objectText(read({ data: values }))
          expect(text).not.to.match(/[^\P{Cc}\n\t]|\p{Bidi_Control}/u)
          expect(Buffer.byteLength(text)).to.be.lessThan(64 * 1024 + 1)
        },
      ),
    )
  })
})
