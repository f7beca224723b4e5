/** Messages in the forms that Kubernetes 1.20 and later give them; see the sources named in status-text.ts. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { maskStatusText } from '../../../../broker/masking/objects/status-text.ts'

const SECRET = 'aHVudGVyMi1wbGFudGVk'
const quoted = (value: object): string => JSON.stringify(JSON.stringify(value))

function hides(text: string, kept: string, secret = false, field = ''): void {
  expect(text).to.contain(SECRET)
  expect(maskStatusText(text, secret, field)).to.equal(kept)
}

describe('texts of Status', () => {
  it('lose the patched object that an answer to a patch of an unknown field quotes, whatever the kind', () => {
    const object = quoted({ apiVersion: 'v1', data: { a: SECRET, 'b"}': '\\' } })
    const tail = ': strict decoding error: unknown field "foo"'
    hides(
      `"" is invalid: patch: Invalid value: ${object}${tail}`,
      `"" is invalid: patch: Invalid value: …${tail}`,
    )
    hides(`Invalid value: ${object}${tail}`, `Invalid value: …${tail}`)
    // cut off within the quotes
    hides(`Invalid value: ${object.slice(0, 75)}`, 'Invalid value: …')
  })

  it('lose what json-iterator quotes of the object', () => {
    hides(
      `v1.Secret.ObjectMeta: v1.ObjectMeta.Labels: ReadString: expects " or n, but found 5, error found in #10 byte of ...|"a|...|a":5}}|..., bigger context ...|{"data":{"p":"${SECRET}"},"labels":{"a":5}}|...`,
      'v1.Secret.ObjectMeta: v1.ObjectMeta.Labels: ReadString: expects " or n, but found 5, error found in #10 byte of ...|…|...',
    )
    hides(`error found in #3 byte of ...|"p":"${SECRET}`, 'error found in #3 byte of ...|…')
  })

  it('lose objects and maps that are printed whole', () => {
    hides(
      `Object 'Kind' is missing in '{"data":{"p":"it's ${SECRET}"}}'`,
      `Object 'Kind' is missing in '…'`,
    )
    hides(
      `map: map[value:${SECRET}] does not contain declared merge key: name`,
      'map: … does not contain declared merge key: name',
    )
    hides(`unknown patch type: x in map: map[$patch:x a:${SECRET}]`, 'unknown patch type: …')
    hides(`precondition failed for: map[a:${SECRET}]`, 'precondition failed for: …')
    hides(
      `patch:\n{"a":1}\nconflicts with changes made from original to current:\n{"a":"${SECRET}"}\n`,
      'patch:\n…',
    )
  })

  it('lose the dumps of immutable fields, and differences to the stored object', () => {
    hides(
      `Job.batch "j" is invalid: spec.template: Invalid value: core.PodTemplateSpec{Spec:core.PodSpec{Env:[]core.EnvVar{core.EnvVar{Name:"A", Value:"}: ${SECRET}"}}}}: field is immutable`,
      'Job.batch "j" is invalid: spec.template: Invalid value: …: field is immutable',
    )
    hides(
      `Pod "p" is invalid: spec: Forbidden: pod updates may not change fields other than \`spec.containers[*].image\`\n  core.PodSpec{\n- \tValue: "${SECRET}",\n+ \tValue: "x",\n  }\n`,
      'Pod "p" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`\n…',
    )
    hides(
      `failed to create typed patch object (ns/s; v1, Kind=Secret): .data.a: expected string, got &value.valueUnstructured{Value:map[string]interface {}{"b":"${SECRET}"}}`,
      'failed to create typed patch object (ns/s; v1, Kind=Secret): .data.a: expected string, got …',
    )
    hides(`expected map, got &{${SECRET}}`, 'expected map, got …')
  })

  it('lose quoted values of what is secret, and keep those of what is none', () => {
    const texts: readonly (readonly [string, string])[] = [
      [
        `Secret "s" is invalid: type: Invalid value: "${SECRET}": field is immutable`,
        'Secret "s" is invalid: type: Invalid value: …: field is immutable',
      ],
      [
        `a: Unsupported value: "${SECRET}": supported values: "x"`,
        'a: Unsupported value: …: supported values: "x"',
      ],
      [
        `a: Duplicate value: "${SECRET}", b: Not found: "x"`,
        'a: Duplicate value: …, b: Not found: …',
      ],
      [`a: Invalid value: ${SECRET}: no`, 'a: Invalid value: …: no'],
      [
        `yaml: line 2: cannot unmarshal !!str \`${SECRET}\` into int`,
        'yaml: line 2: cannot unmarshal !!str … into int',
      ],
      [`parsing time "${SECRET}" as "2006"`, 'parsing time … as "2006"'],
      [
        `strconv.ParseInt: parsing "${SECRET}": invalid syntax`,
        'strconv.ParseInt: parsing …: invalid syntax',
      ],
    ]
    for (const [text, kept] of texts) {
      hides(text, kept, true)
      expect(maskStatusText(text, false), text).to.equal(text)
    }
  })

  it('lose values of fields whose names promise a secret', () => {
    hides(
      `X "x" is invalid: spec.auth.token: Invalid value: "${SECRET}": too odd`,
      'X "x" is invalid: spec.auth.token: Invalid value: …: too odd',
    )
    const own = `Invalid value: "${SECRET}": too odd`
    hides(own, 'Invalid value: …: too odd', false, 'spec.containers[0].env[1].value')
    hides(own, 'Invalid value: …: too odd', false, 'stringData[db-password]')
    expect(maskStatusText(own, false, 'spec.replicas')).to.equal(own)
  })

  it('go by the detectors besides', () => {
    hides(
      `admission webhook "w" denied the request: password=${SECRET}`,
      `admission webhook "w" denied the request: password=${'*'.repeat(SECRET.length)}`,
    )
  })

  it('keep what quotes nothing', () => {
    for (const text of [
      'secrets "db" not found',
      'Operation cannot be fulfilled on secrets "db": the object has been modified; please apply your changes to the latest version and try again',
      'Deployment.apps "d" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal to 0, spec.x: Invalid value: "A_B": a lowercase RFC 1123 label]',
      'pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "x"',
      'json: cannot unmarshal string into Go struct field Secret.data of type map[string][]uint8',
      'illegal base64 data at input byte 4',
    ])
      expect(
        maskStatusText(text, true)
          .replace('Invalid value: …: must', 'Invalid value: -1: must')
          .replace('…: a low', '"A_B": a low'),
      ).to.equal(text)
  })

  it('take time linear in the text', () => {
    const started = performance.now()
    for (const piece of [
      'Invalid value: "',
      'Invalid value: a',
      'a: Invalid value: {',
      '...|',
      'map: map[',
      'expected map, got "x" ',
      'Forbidden: \n',
      '\\"',
    ])
      maskStatusText(piece.repeat(200_000), true)
    expect(performance.now() - started).to.be.lessThan(10_000)
  })
})
