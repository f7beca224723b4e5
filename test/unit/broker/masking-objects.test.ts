import { gzipSync } from 'node:zlib'
import { expect } from 'chai'
import { createJsonMasker, maskDocument } from '../../../broker/masking/objects/masker.ts'
import { MAX_WAITING_BYTES } from '../../../broker/masking/objects/output.ts'
import { createPlaceholders, PLACEHOLDER } from '../../../broker/masking/placeholder.ts'
import type { MaskedAnswer, MaskedFields } from '../../../broker/masking/types.ts'
import { STANDARD_MASKING } from '../../../shared/policy/masking.ts'
import type { FieldMask, Masking } from '../../../shared/policy/masking.ts'

const SECRET = 'pLanTed7Qx94'
const BASE64 = Buffer.from(SECRET).toString('base64')
const placeholders = createPlaceholders(Buffer.alloc(32, 7), 'test')
const ANSWER: MaskedAnswer = {
  masking: STANDARD_MASKING,
  placeholders,
  shape: 'object',
  write: false,
}

interface Masked {
  readonly text: string
  readonly value: unknown
  readonly masked: MaskedFields
}

function mask(document: unknown, how: Partial<MaskedAnswer> = {}): Masked {
  const input = typeof document === 'string' ? document : JSON.stringify(document)
  const { bytes, masked } = maskDocument(Buffer.from(input), { ...ANSWER, ...how })
  const text = bytes.toString()
  return { text, value: how.shape === 'watch' ? undefined : JSON.parse(text), masked }
}

/** The fields that are named as hidden, and nothing of the value left. */
function hides(
  document: unknown,
  fields: readonly string[],
  how: Partial<MaskedAnswer> = {},
): void {
  const { text, masked } = mask(document, how)
  expect(masked.fields).to.deep.equal(fields)
  expect(text).not.to.contain(SECRET)
  expect(text).not.to.contain(BASE64)
}

function stays(document: unknown, how: Partial<MaskedAnswer> = {}): void {
  const input = typeof document === 'string' ? document : JSON.stringify(document)
  const { text, masked } = mask(input, how)
  expect(text).to.equal(input)
  expect(masked).to.deep.equal({ count: 0, fields: [], more: false })
}

function masking(fields: readonly FieldMask[], everywhere = false): Partial<MaskedAnswer> {
  const profile: Masking = { profiles: ['x'], fields, everywhere, restore: false }
  return { masking: profile }
}

const secret = (more: object = {}): object => ({
  kind: 'Secret',
  apiVersion: 'v1',
  metadata: { name: 'db', uid: 'u-1' },
  data: { password: BASE64 },
  type: 'Opaque',
  ...more,
})

describe('masking of objects', () => {
  it('hides the values of Secrets, as base64 where base64 is due, and keeps their keys', () => {
    const { value, masked } = mask(secret({ stringData: { user: SECRET } }))
    const { data, stringData } = value as Record<string, Record<string, string>>
    expect(Buffer.from(data?.['password'] ?? '', 'base64').toString()).to.match(PLACEHOLDER)
    expect(stringData?.['user']).to.match(PLACEHOLDER)
    expect(masked).to.deep.equal({
      count: 2,
      fields: ['Secret data.password', 'Secret stringData.user'],
      more: false,
    })
  })

  it('hides whatever stands below data, and leaves null', () => {
    const odd = { data: { a: 17, b: true, c: null, d: { e: [SECRET] } } }
    const { text } = mask(secret(odd))
    expect(text).not.to.match(/17|true/)
    expect(text).to.contain('"c":null')
    hides(secret({ data: SECRET }), ['Secret data'])
  })

  it('keeps registries’ files readable as JSON', () => {
    const { value } = mask(secret({ data: { '.dockerconfigjson': BASE64 } }))
    const { data } = value as { data: Record<string, string> }
    const file = Buffer.from(data['.dockerconfigjson'] ?? '', 'base64').toString()
    expect(JSON.parse(file)).to.have.property('auths')
    expect(file).to.match(PLACEHOLDER)
  })

  it('says the same of one field each time, and nothing of its value', () => {
    const of = (value: string): string => mask(secret({ data: { password: value } })).text
    expect(of(BASE64)).to.equal(of('b3RoZXI='))
    const elsewhere = mask(secret({ metadata: { uid: 'u-2' } })).text
    expect(PLACEHOLDER.exec(atob(/"password":"([^"]*)"/.exec(elsewhere)?.[1] ?? ''))).not.to.equal(
      null,
    )
    expect(elsewhere.slice(elsewhere.indexOf('data'))).not.to.equal(
      of(BASE64).slice(of(BASE64).indexOf('data')),
    )
  })

  describe('tells by kind', () => {
    const lists: readonly [string, unknown, readonly string[]][] = [
      [
        'an item without a kind',
        { kind: 'SecretList', apiVersion: 'v1', items: [{ metadata: {}, data: { a: BASE64 } }] },
        ['Secret data.a'],
      ],
      [
        'a List of several kinds',
        {
          kind: 'List',
          apiVersion: 'v1',
          items: [{ kind: 'ConfigMap', data: { a: 'x' } }, secret()],
        },
        ['Secret data.password'],
      ],
      [
        'lists in lists',
        { kind: 'List', items: [{ kind: 'SecretList', items: [{ data: { a: BASE64 } }] }] },
        ['Secret data.a'],
      ],
      [
        'a kind that comes late',
        { apiVersion: 'v1', data: { a: BASE64 }, kind: 'Secret' },
        ['Secret data.a'],
      ],
      [
        'an item whose kind never comes',
        { apiVersion: 'v1', items: [{ data: { a: BASE64 } }], kind: 'SecretList' },
        ['Secret data.a'],
      ],
      ['an object that says no kind', { stringData: { a: SECRET } }, ['Secret stringData.a']],
      [
        'a Secret within another object',
        { kind: 'ManifestWork', apiVersion: 'work/v1', spec: { manifests: [secret()] } },
        ['ManifestWork spec.manifests[].data.password'],
      ],
      [
        '… whose kind comes late',
        { kind: 'X', spec: { a: { data: { a: BASE64 }, kind: 'Secret' } } },
        ['X spec.a.data.a'],
      ],
      [
        'rows of a table',
        { kind: 'Table', columnDefinitions: [], rows: [{ cells: ['db', 1], object: secret() }] },
        ['Secret data.password'],
      ],
      [
        'any group',
        { kind: 'Secret', apiVersion: 'example.com/v1', data: { a: BASE64 } },
        ['Secret data.a'],
      ],
    ]
    for (const [what, document, fields] of lists)
      it(what, () => {
        hides(document, fields)
      })

    it('a key that is spelled by escapes', () => {
      hides(`{"\\u006bind":"Secret","d\\u0061ta":{"a":"${BASE64}"}}`, ['Secret data.a'])
      hides(`{"kind":"S\\u0065cret","data":{"a":"${BASE64}"}}`, ['Secret data.a'])
    })

    it('data of other kinds is theirs', () => {
      stays({ kind: 'ControllerRevision', apiVersion: 'apps/v1', data: { spec: { a: BASE64 } } })
      stays({
        kind: 'ExternalSecret',
        spec: { data: [{ secretKey: 'a' }], target: { data: { a: 'x' } } },
      })
      stays({ apiVersion: 'x/v1', data: { a: BASE64 }, kind: 'Dashboard' })
    })

    it('an item that says too late that it is a Secret refuses the answer', () => {
      const lie = {
        kind: 'ConfigMapList',
        apiVersion: 'v1',
        items: [{ data: { a: BASE64 }, kind: 'Secret' }],
      }
      expect(() => mask(lie)).to.throw('another kind than its list')
    })

    it('watches whose kinds change', () => {
      const events = [
        { type: 'ADDED', object: { kind: 'ConfigMap', apiVersion: 'v1', data: { a: 'x' } } },
        { type: 'MODIFIED', object: secret() },
        { type: 'BOOKMARK', object: { kind: 'Secret', apiVersion: 'v1', metadata: {} } },
        { type: 'ADDED', object: { apiVersion: 'v1', data: { a: BASE64 }, kind: 'Secret' } },
        { type: 'ERROR', object: { kind: 'Status', message: `password=${SECRET}` } },
      ]
      const { text, masked } = mask(events.map((event) => `${JSON.stringify(event)}\n`).join(''), {
        shape: 'watch',
      })
      expect(masked.fields).to.deep.equal([
        'Secret data.password',
        'Secret data.a',
        'Status message',
      ])
      expect(text).not.to.contain(SECRET)
      expect(
        text
          .trim()
          .split('\n')
          .map((line) => (JSON.parse(line) as { type: string }).type),
      ).to.deep.equal(events.map(({ type }) => type))
    })
  })

  describe('elsewhere', () => {
    const pod = (container: object): object => ({
      kind: 'Pod',
      apiVersion: 'v1',
      spec: { containers: [container] },
    })
    const annotated = (name: string, value: string, kind = 'Deployment'): object => ({
      kind,
      apiVersion: 'v1',
      metadata: { annotations: { [name]: value } },
    })
    const LAST = 'kubectl.kubernetes.io/last-applied-configuration'
    const rows: readonly [string, unknown, readonly string[]][] = [
      [
        'a variable whose name promises a secret',
        pod({ env: [{ name: 'DB_PASSWORD', value: SECRET }] }),
        ['Pod spec.containers[].env[].value'],
      ],
      [
        'a variable that holds one',
        pod({ env: [{ name: 'URL', value: `postgres://u:${SECRET}@h/d` }] }),
        ['Pod spec.containers[].env[].value'],
      ],
      [
        'a header of a probe',
        pod({
          livenessProbe: { httpGet: { httpHeaders: [{ name: 'Authorization', value: SECRET }] } },
        }),
        ['Pod spec.containers[].livenessProbe.httpGet.httpHeaders[].value'],
      ],
      [
        'words of a command',
        pod({ args: ['--password', SECRET], command: ['sh', '-c', `run --token=${SECRET}`] }),
        ['Pod spec.containers[].args[]', 'Pod spec.containers[].command[]'],
      ],
      [
        'pods within custom resources',
        {
          kind: 'Rollout',
          spec: {
            template: { spec: { containers: [{ env: [{ name: 'API_KEY', value: SECRET }] }] } },
          },
        },
        ['Rollout spec.template.spec.containers[].env[].value'],
      ],
      [
        'a copy of a Secret',
        annotated(LAST, `${JSON.stringify(secret())}\n`),
        [`Deployment metadata.annotations.${LAST}: Secret data.password`],
      ],
      [
        'a copy in a copy',
        annotated(LAST, JSON.stringify(annotated(LAST, JSON.stringify(secret())))),
        [
          `Deployment metadata.annotations.${LAST}: Deployment metadata.annotations.${LAST}: Secret data.password`,
        ],
      ],
      [
        'what should be a copy and is none',
        annotated(LAST, `{"data":{"a":"${SECRET}"`),
        [`Deployment metadata.annotations.${LAST}`],
      ],
      [
        'other annotations',
        annotated('x', `password=${SECRET}`),
        ['Deployment metadata.annotations.x'],
      ],
      [
        'a ConfigMap’s text',
        { kind: 'ConfigMap', data: { 'a.conf': `user=u\npassword=${SECRET}\n` } },
        ['ConfigMap data.a.conf'],
      ],
      [
        '… its bytes',
        {
          kind: 'ConfigMap',
          binaryData: { a: Buffer.from(`password=${SECRET}`).toString('base64') },
        },
        ['ConfigMap binaryData.a'],
      ],
      [
        '… whose kind comes late',
        { data: { a: `password=${SECRET}` }, kind: 'ConfigMap' },
        ['ConfigMap data.a'],
      ],
      [
        'a token that was asked for',
        { kind: 'TokenRequest', apiVersion: 'authentication.k8s.io/v1', status: { token: SECRET } },
        ['TokenRequest status.token'],
      ],
      [
        'a token that is asked about',
        { kind: 'TokenReview', apiVersion: 'authentication.k8s.io/v1', spec: { token: SECRET } },
        ['TokenReview spec.token'],
      ],
      [
        'what is said of a failure',
        {
          kind: 'Status',
          message: `Secret "db" is invalid: Invalid value: "${SECRET}"`,
          details: { causes: [{ message: `Invalid value: "${SECRET}": no` }] },
        },
        ['Status message', 'Status details.causes[].message'],
      ],
      ['an event', { kind: 'Event', message: `failed: password=${SECRET}` }, ['Event message']],
      [
        'an event whose kind comes late',
        { message: `password=${SECRET}`, kind: 'Event' },
        ['object message'],
      ],
    ]
    for (const [what, document, fields] of rows)
      it(`hides ${what}`, () => {
        hides(document, fields)
      })

    it('hides what conditions say', () => {
      const conditions = [{ type: 'Ready', message: `dial: password=${SECRET}` }]
      hides({ kind: 'X', status: { conditions } }, ['X status.conditions[].message'])
    })

    it('hides compressed values of ConfigMaps: nobody can look into them', () => {
      const release = gzipSync(SECRET).toString('base64')
      const twice = Buffer.from(release).toString('base64')
      for (const data of [{ release }, { release: twice }])
        expect(mask({ kind: 'ConfigMap', data }).masked.count).to.equal(1)
      expect(mask({ kind: 'ConfigMap', binaryData: { release } }).masked.count).to.equal(1)
    })

    it('leaves copies that hold nothing byte for byte', () => {
      stays(annotated(LAST, '{ "kind":"Service",  "spec":{"a":1.50} }\n', 'Service'))
      stays(annotated('x', '{"not json', 'Service'))
    })

    it('hides by span: the rest of the text stays', () => {
      const { text } = mask({
        kind: 'ConfigMap',
        data: { a: `é user=u\npassword=${SECRET}\nhost=h "q"` },
      })
      expect(text).to.match(/"é user=u\\npassword=nestgate-masked-1-[0-9a-f]{18}\\nhost=h \\"q\\""/)
    })

    it('hides who managed which field in answers to writes of Secrets', () => {
      const managed = {
        metadata: { managedFields: [{ manager: 'kubectl', fieldsV1: {} }], uid: 'u' },
      }
      expect(mask(secret(managed), { write: true }).text).to.contain('"managedFields":[],"uid":"u"')
      expect(mask(secret(managed)).text).to.contain('kubectl')
      stays({ kind: 'Pod', ...managed }, { write: true })
    })
  })

  describe('fields of a profile', () => {
    const fields: readonly FieldMask[] = [
      {
        group: 'example.com',
        kind: 'Store',
        path: [{ name: 'spec' }, { name: 'auth' }, 'any', { name: 'token' }],
      },
      { group: 'example.com', kind: 'Store', path: [{ name: 'data' }] },
    ]
    const store = (more: object = {}): object => ({
      apiVersion: 'example.com/v1',
      kind: 'Store',
      spec: { auth: { a: { token: SECRET, other: 'x' }, b: [{ token: SECRET }] } },
      ...more,
    })

    it('are hidden by path, with all below', () => {
      const below: FieldMask = {
        group: 'example.com',
        kind: 'Store',
        path: [{ name: 'spec' }, { name: 'auth' }, { name: 'b' }],
      }
      hides(
        store(),
        ['Store spec.auth.a.token', 'Store spec.auth.b[].token'],
        masking([...fields, below]),
      )
    })

    it('are hidden in objects whose kind comes late, and not in those of other groups', () => {
      const late = { data: { a: [SECRET, 1] }, apiVersion: 'example.com/v1', kind: 'Store' }
      hides(late, ['Store data.a[]'], masking(fields))
      stays({ ...store(), apiVersion: 'other.com/v1' }, masking(fields))
    })

    it('are hidden within other objects, where keys are in order', () => {
      const late = { apiVersion: 'example.com/v1', data: { a: SECRET }, kind: 'Store' }
      hides({ kind: 'X', spec: { template: late } }, ['X spec.template.data.a'], masking(fields))
    })

    it('strict: detectors look at every text', () => {
      const spec = { kind: 'X', spec: { note: `password=${SECRET}` } }
      stays(spec)
      hides(spec, ['X spec.note'], masking([], true))
    })
  })

  it('leaves every other byte as it came', () => {
    const odd = ` {\n "kind" : "Pod", "z":9007199254740993 , "a":[1.50,-0,1E+2] ,"\\u00e9":"\\u2028\\/", "metadata":{"generation":12345678901234567890}}\r\n `
    stays(odd)
    const around = mask(
      ` {"kind":"Secret",\t"z":1.0, "data":{ "a" : "${BASE64}" },"y":9007199254740993}`,
    ).text
    expect(around).to.match(
      /^ \{"kind":"Secret",\t"z":1\.0, "data":\{ "a" : "[A-Za-z0-9]{48}" \},"y":9007199254740993\}$/,
    )
  })

  it('gives the same however the answer is split', () => {
    const document = Buffer.from(
      JSON.stringify({
        apiVersion: 'v1',
        items: [secret(), { data: { é: BASE64 }, kind: 'Secret' }],
        kind: 'List',
      }),
    )
    const whole = maskDocument(document, ANSWER).bytes.toString()
    for (let at = 0; at <= document.length; at++) {
      const masker = createJsonMasker(ANSWER)
      const pieces = [
        ...masker.push(document.subarray(0, at)),
        ...masker.push(document.subarray(at)),
        ...masker.end(),
      ]
      expect(Buffer.concat(pieces).toString(), `at ${at}`).to.equal(whole)
    }
  })

  it('gives out what it has read, so that a watch does not wait', () => {
    const masker = createJsonMasker({ ...ANSWER, shape: 'watch' })
    const event = `${JSON.stringify({ type: 'ADDED', object: secret() })}\n`
    expect(Buffer.concat(masker.push(Buffer.from(event))).toString()).to.match(
      /^\{"type":"ADDED".*\}\n$/,
    )
  })

  it('does not wait for a kind for ever', () => {
    const masker = createJsonMasker(ANSWER)
    masker.push(Buffer.from('{"data":{'))
    const more = (at: number): Buffer => Buffer.from(`"k${at}":"${'a'.repeat(1024 * 1024)}",`)
    expect(() => {
      for (let at = 0; at <= MAX_WAITING_BYTES / (1024 * 1024); at++) masker.push(more(at))
    }).to.throw('a kind comes too late')
  })

  describe('long lists of kinds without secrets', () => {
    const item = (at: number, more: object = {}): object => ({
      metadata: { name: `s${at}`, uid: `u${at}`, ...more },
      spec: { ports: [{ name: 'http', port: 80 }] },
    })
    const copy = {
      annotations: { 'kubectl.kubernetes.io/last-applied-configuration': JSON.stringify(secret()) },
    }
    const list = (last: object): string =>
      JSON.stringify({
        kind: 'ServiceList',
        apiVersion: 'v1',
        metadata: {},
        items: [...Array.from({ length: 1500 }, (_none, at) => item(at)), last, item(9999)],
      })

    for (const size of [1, 7, 1000, 65_536, 1_000_000])
      it(`pass as they are, but for copies of Secrets, in pieces of ${size}`, () => {
        const input = Buffer.from(list(item(1, copy)))
        const masker = createJsonMasker(ANSWER)
        const out: Buffer[] = []
        for (let at = 0; at < input.length; at += size)
          out.push(...masker.push(input.subarray(at, at + size)))
        out.push(...masker.end())
        const text = Buffer.concat(out).toString()
        expect(text).not.to.contain(BASE64)
        expect(masker.masked.count).to.equal(1)
        expect(masker.masked.fields.join()).to.match(
          /^Service metadata\.annotations.*: Secret data\.password$/,
        )
        expect(text.replace(/bmVzdGdhdGUt[A-Za-z0-9]{36}/, BASE64)).to.equal(input.toString())
      })

    it('must be whole', () => {
      const input = list(item(1))
      for (const cut of [input.length - 1, input.length - 2, input.length - 100, 80_000]) {
        const masker = createJsonMasker(ANSWER)
        expect(() => {
          masker.push(Buffer.from(input.slice(0, cut)))
          masker.end()
        }, `cut at ${cut}`).to.throw('it ends too early')
      }
    })
  })
})
