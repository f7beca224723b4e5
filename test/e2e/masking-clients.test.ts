/** Secrets do not travel, whatever a client says it accepts: encodings, tables, watches, and the libraries of Python and JavaScript. */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { eventually } from '../../scripts/run.ts'
import type { Answer, Ask } from './agents/answers.ts'
import {
  bodyOf,
  direct,
  fromPod,
  keep,
  MASKED,
  needles,
  prepareMasking,
} from './masking-support.ts'
import type { Looker } from './masking-support.ts'
import { admin, audit, closeBroker, facts, inPod, RESTRICTED } from './support.ts'

const api = `/api/v1/namespaces/${MASKED}`
const PROTOBUF = 'application/vnd.kubernetes.protobuf'
const TABLE = 'application/json;as=Table;v=v1;g=meta.k8s.io'
const PARTIAL = 'application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io'
const placeholderInBase64 = Buffer.from('nestgate-masked-1-').toString('base64')

interface Case {
  readonly path: string
  readonly accept: string
  readonly headers?: Readonly<Record<string, string>>
  readonly check: (answer: Answer, body: string) => void
}

interface Document {
  readonly kind: string
  readonly reason?: string
  readonly message?: string
  readonly items?: readonly { readonly data?: object }[]
  readonly rows?: readonly { readonly cells: readonly unknown[]; readonly object: Document }[]
}

const isJson = ({ status, headers }: Answer, body: string): Document => {
  expect(status, body).to.equal(200)
  expect(headers['content-type']).to.match(/^application\/json/)
  expect(headers['content-encoding']).to.equal(undefined)
  return JSON.parse(body) as Document
}
const isMasked = (answer: Answer, body: string): void => {
  const { kind } = isJson(answer, body)
  expect(kind).to.match(/List$|^Secret$/)
  expect(body).to.include(placeholderInBase64)
  expect(String(answer.headers['warning'])).to.match(/299 nestgate "masked \d+ fields/)
}
const isRefused = ({ status }: Answer, body: string): void => {
  expect(status).to.equal(406)
  const answer = JSON.parse(body) as Document
  expect(answer).to.include({ kind: 'Status' })
  expect(body).to.include('not_acceptable')
}
const isTable =
  (withObjects: boolean) =>
  (answer: Answer, body: string): void => {
    const { kind, rows = [] } = isJson(answer, body)
    expect(kind).to.equal('Table')
    expect(rows.map(({ cells }) => cells[0])).to.include('planted')
    expect(rows[0]?.object.kind).to.equal(withObjects ? 'Secret' : 'PartialObjectMetadata')
    expect(body.includes(placeholderInBase64)).to.equal(withObjects)
  }
/** Each line is an event. */
const isWatch =
  (kind: RegExp) =>
  (answer: Answer, body: string): void => {
    expect(answer.status, body).to.equal(200)
    const events = body.split('\n').filter((line) => line !== '')
    expect(events.length).to.be.greaterThan(0)
    for (const event of events)
      expect((JSON.parse(event) as { object: Document }).object.kind).to.match(kind)
  }

const webSocket = (protocol: string): Readonly<Record<string, string>> => ({
  ...{ connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' },
  'sec-websocket-key': Buffer.alloc(16, 'k').toString('base64'),
  ...(protocol === '' ? {} : { 'sec-websocket-protocol': protocol }),
})
const isNoUpgrade = ({ status }: Answer): void => {
  expect(status).to.equal(400)
}

const LIST = `${api}/secrets`
const WATCH = `${LIST}?watch=true&timeoutSeconds=2`
const CASES: Readonly<Record<string, Case>> = {
  json: { path: LIST, accept: 'application/json', check: isMasked },
  anything: { path: LIST, accept: '*/*', check: isMasked },
  one: { path: `${LIST}/planted`, accept: 'application/json', check: isMasked },
  pretty: { path: `${LIST}?pretty=true`, accept: 'application/json', check: isMasked },
  'only protobuf': { path: LIST, accept: PROTOBUF, check: isRefused },
  'a watch in protobuf': { path: WATCH, accept: `${PROTOBUF};stream=watch`, check: isRefused },
  'only CBOR': { path: LIST, accept: 'application/cbor', check: isRefused },
  'only YAML': { path: LIST, accept: 'application/yaml', check: isRefused },
  'protobuf before JSON': { path: LIST, accept: `${PROTOBUF},application/json`, check: isMasked },
  'CBOR before JSON': {
    path: LIST,
    accept: 'application/cbor, application/json;q=0.5',
    check: isMasked,
  },
  gzip: {
    path: LIST,
    accept: 'application/json',
    headers: { 'accept-encoding': 'gzip' },
    check: isMasked,
  },
  table: { path: LIST, accept: TABLE, check: isTable(false) },
  'table with objects': {
    path: `${LIST}?includeObject=Object`,
    accept: TABLE,
    check: isTable(true),
  },
  'table in protobuf or JSON': {
    path: `${LIST}?includeObject=Object`,
    accept: `${PROTOBUF};as=Table;v=v1;g=meta.k8s.io,${TABLE}`,
    check: isTable(true),
  },
  metadata: {
    path: LIST,
    accept: PARTIAL,
    check: (answer, body) => {
      expect(isJson(answer, body).kind).to.equal('PartialObjectMetadataList')
      expect(body).to.include('"applied"')
    },
  },
  watch: { path: WATCH, accept: 'application/json', check: isWatch(/^Secret$/) },
  'watch of tables': { path: WATCH, accept: TABLE, check: isWatch(/^Table$/) },
  'watch of tables with objects': {
    path: `${WATCH}&includeObject=Object`,
    accept: TABLE,
    check: isWatch(/^Table$/),
  },
  // an API server has watches and logs over WebSocket too: in frames, of which nothing could be masked
  ...Object.fromEntries(
    ['', 'base64.binary.k8s.io', 'binary.k8s.io', 'v4.channel.k8s.io'].flatMap((protocol) =>
      [WATCH, `${api}/pods/shop/log`, `${LIST}/planted`].map((path) => [
        `WebSocket ${protocol} to ${path}`,
        { path, accept: '*/*', headers: webSocket(protocol), check: isNoUpgrade },
      ]),
    ),
  ),
  'config maps': {
    path: `${api}/configmaps`,
    accept: 'application/json',
    check: (answer, body) => {
      expect(isJson(answer, body).kind).to.equal('ConfigMapList')
      expect(body).to.include('green').and.include('nestgate-masked-1-')
    },
  },
  'a log': {
    path: `${api}/pods/shop/log`,
    accept: '*/*',
    check: ({ status }, body) => {
      expect(status).to.equal(200)
      expect(body).to.match(/^connecting with password=/)
    },
  },
  'what is not there': {
    path: `${LIST}/missing`,
    accept: 'application/json',
    check: ({ status }, body) => {
      expect(status).to.equal(404)
      expect(JSON.parse(body)).to.include({ kind: 'Status', reason: 'NotFound' })
    },
  },
}

function asks(): readonly Ask[] {
  return Object.entries(CASES).map(([name, { path, accept, headers }]) => ({
    name,
    path,
    headers: { accept, ...headers },
  }))
}

for (const looker of [fromPod('http'), direct('http')])
  describe(`what is answered, ${looker.label}`, () => {
    let answers: Readonly<Record<string, Answer>>
    before(async () => {
      await prepareMasking()
      answers = await looker.ask(asks())
    })
    after(closeBroker)

    for (const [name, { check }] of Object.entries(CASES))
      it(`has no planted secret: ${name}`, () => {
        const answer = answers[name]
        if (answer === undefined) throw new Error('no answer')
        const body = bodyOf(answer)
        check(answer, body)
        expect(needles.in(Buffer.from(answer.body, 'base64'))).to.deep.equal([])
        expect(needles.in(Buffer.from(JSON.stringify(answer.headers)))).to.deep.equal([])
      })
  })

describe('what a direct client is answered', () => {
  before(prepareMasking)
  after(closeBroker)
  const looker: Looker = direct(facts.kubectl)

  it('has no planted secret, of all namespaces', async () => {
    const get = (name: string, ...args: string[]): { name: string; command: string[] } => ({
      name,
      command: ['kubectl', 'get', ...args, '-A', '-o', 'yaml'],
    })
    const { all, secrets } = await looker.run({
      commands: [get('all', 'all'), get('secrets', 'secrets')],
    })
    for (const came of [all, secrets]) {
      expect(came?.code, came?.stderr).to.equal(0)
      expect(needles.in(Buffer.from(`${came?.stdout}${came?.stderr}`))).to.deep.equal([])
    }
    expect(all?.stdout).to.include('name: nestgate-broker').and.include('DB_PASSWORD')
    expect(secrets?.stdout).to.include('name: planted').and.not.include('eyJhbGciOi')
  })

  it('has no token, where it makes one', async () => {
    const body = JSON.stringify({
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: { audiences: ['nowhere'] },
    })
    const headers = { 'content-type': 'application/json', accept: 'application/json' }
    const path = `${api}/serviceaccounts/default/token`
    const { token } = await looker.ask([{ name: 'token', method: 'POST', path, headers, body }])
    expect(token?.status, bodyOf(token)).to.equal(201)
    const { status } = JSON.parse(bodyOf(token)) as { status: { token: string } }
    expect(status.token).to.match(/^nestgate-masked-1-[0-9a-f]{18}$/)
  })
})

describe('what a kubelet says through the API server', () => {
  before(prepareMasking)
  after(closeBroker)

  it('has no planted secret: its pods, a log, its settings', async () => {
    const nodes = await admin(['get', 'nodes', '-o', 'jsonpath={.items[*].metadata.name}'])
    const node = `/api/v1/nodes/${nodes.split(' ')[0]}/proxy`
    const answers = await direct('http').ask([
      { name: 'pods', path: `${node}/pods` },
      { name: 'log', path: `${node}/containerLogs/${MASKED}/shop/web` },
      { name: 'configz', path: `${node}/configz` },
    ])
    for (const [name, answer] of Object.entries(answers)) {
      // a kubelet does not say of a log that it is text
      expect(answer.status, `${name}: ${bodyOf(answer)}`).to.equal(name === 'log' ? 502 : 200)
      expect(needles.in(Buffer.from(answer.body, 'base64')), name).to.deep.equal([])
    }
    expect(bodyOf(answers['pods'])).to.include('"DB_PASSWORD"').and.include('nestgate-masked-1-')
    expect(bodyOf(answers['log'])).to.include('answer_unmaskable')
  })
})

describe('what libraries see', () => {
  before(prepareMasking)
  after(closeBroker)
  const args = [MASKED, 'planted', 'shop', 'shop', 'shop']

  for (const [name, program] of [
    ['Python', ['python3', '/agents/see-secrets.py']],
    ['JavaScript', ['node', '/agents/see-secrets.ts']],
  ] as const)
    it(`has no planted secret: ${name}`, async () => {
      const ran = await inPod(RESTRICTED.name, 'scanner', [...program, ...args])
      keep(name, ran.stdout + ran.stderr)
      expect(ran.code, ran.stderr).to.equal(0)
      expect(ran.stdout)
        .to.match(/done\n$/)
        .and.include(placeholderInBase64)
      expect(needles.in(Buffer.from(ran.stdout + ran.stderr))).to.deep.equal([])
    })
})

describe('what the ledger says of masking', () => {
  before(prepareMasking)
  after(closeBroker)

  it('is names of fields, how many, and by which profile', async () => {
    const { one } = await direct('http').ask([{ name: 'one', path: `${LIST}/planted` }])
    const id = one?.headers['nestgate-request-id']
    if (typeof id !== 'string') throw new Error('no request id')
    const outcome = await eventually('the outcome', 10_000, async () => {
      const events = await audit({ requestId: id })
      return events.find(({ entry }) => entry['kind'] === 'outcome')
    })
    const hit = outcome.entry['masked'] as Masked | undefined
    expect(hit?.fields).to.include('Secret data.plain')
    expect(hit?.profiles).to.deep.equal(['standard'])
    expect(hit?.count).to.be.greaterThan(6)
  })
})

interface Masked {
  readonly profiles: readonly string[]
  readonly count: number
  readonly fields: readonly string[]
}
