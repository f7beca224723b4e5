/**
 * Every place other than the client's answer where a secret could come to rest. A value is planted in each of the forms in
 * which secrets come, held, shown to reviewers, captured, performed, refused by the API server and recorded, by a real
 * broker; then it is looked for, plain and encoded, in all that the broker wrote and says.
 */
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import { CHANNEL, openChannels } from '../support/remote-clients.ts'
import { startSessionWorld } from '../support/session-world.ts'
import type { SessionWorld } from '../support/session-world.ts'

const SLOW_MS = 120_000
const LIMIT_MS = 15_000
/** What the client sends. */
const SENT = 'Pl4nted-hunter2-Zq'
/** What is stored in the cluster, and comes only from there. */
const STORED = 'St0red-hunter3-Xw'
/** What the API server quotes, and the broker has seen nowhere else. */
const QUOTED = 'Qu0ted-hunter4-Kv'
/** Stands beside the secrets, and has to be found: or nothing was looked through. */
const CANARY = 'canary-of-masking'
const DRY_RUN = 'dryRun=All'

const base64 = (text: string): string => Buffer.from(text).toString('base64')
const N = '/api/v1/namespaces/agents'
const JSON_TYPE = 'application/json'
/** What answers show is no matter here: even to whom all is shown, nothing may be kept. */
const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: read, match: {verbs: [get, list], resources: ['*']}, effect: allow}
- {id: write, match: {verbs: [create, update, patch, delete], resources: [secrets, configmaps, pods]}, effect: hold, capture: {}, mask: none}
- {id: exec, match: {verbs: [connect], resources: [pods/exec]}, effect: hold}
- {id: proxy, match: {verbs: [connect], resources: [services/proxy]}, effect: hold}
`

interface Form {
  readonly what: string
  readonly method: string
  readonly path: string
  readonly type?: string
  readonly body?: object | string
}

const create = (what: string, resource: string, body: object): Form => ({
  ...{
    what,
    method: 'POST',
    path: `${N}/${resource}`,
    body: { metadata: { name: 'x', labels: { c: CANARY } }, ...body },
  },
})
const pod = (container: object): object => ({
  ...{
    apiVersion: 'v1',
    kind: 'Pod',
    spec: { containers: [{ name: 'c', image: 'i', ...container }] },
  },
})
const secret = (more: object): object => ({ apiVersion: 'v1', kind: 'Secret', ...more })
const config = (data: object): object => ({ apiVersion: 'v1', kind: 'ConfigMap', data })
const lastApplied = JSON.stringify(secret({ stringData: { a: SENT } }))

const FORMS: readonly Form[] = [
  create('plain, of a Secret', 'secrets', secret({ stringData: { a: SENT } })),
  create('in base64', 'secrets', secret({ data: { a: base64(SENT) } })),
  create('in base64 twice', 'secrets', secret({ data: { a: base64(base64(SENT)) } })),
  create('in last-applied', 'configmaps', {
    ...config({}),
    metadata: {
      name: 'x',
      annotations: {
        'kubectl.kubernetes.io/last-applied-configuration': lastApplied,
        'kapp.k14s.io/original': lastApplied,
        note: CANARY,
      },
    },
  }),
  create('in a variable', 'pods', pod({ env: [{ name: 'DB_PASSWORD', value: SENT }] })),
  create('behind --password', 'pods', pod({ args: ['--password', SENT, '--note', CANARY] })),
  create(
    'in a URL',
    'pods',
    pod({ env: [{ name: 'DB', value: `postgres://app:${SENT}@db/shop` }] }),
  ),
  create(
    'in a ConfigMap',
    'configmaps',
    config({ DB_PASSWORD: SENT, 'app.ini': `a=b\npassword=${SENT}\n`, c: CANARY }),
  ),
  create('inside JSON in a string', 'configmaps', {
    ...config({ c: CANARY }),
    metadata: { name: 'x', annotations: { other: JSON.stringify({ deep: lastApplied }) } },
  }),
  {
    ...{ what: 'in YAML', method: 'POST', path: `${N}/secrets`, type: 'application/yaml' },
    body: `apiVersion: v1\nkind: Secret\nmetadata:\n  name: x\n  labels:\n    c: ${CANARY}\nstringData:\n  a: ${SENT}\n`,
  },
  {
    ...{
      what: 'in a patch of a Secret',
      method: 'PATCH',
      path: `${N}/secrets/s?fieldValidation=Strict&fieldManager=password%3D${SENT}`,
    },
    ...{ type: 'application/merge-patch+json', body: { foo: 1, stringData: { a: SENT } } },
  },
  {
    ...{
      what: 'in operations on a pod',
      method: 'PATCH',
      path: `${N}/pods/p`,
      type: 'application/json-patch+json',
    },
    body: [
      { op: 'add', path: '/spec/containers/0/args/-', value: '--token' },
      { op: 'add', path: '/spec/containers/0/args/-', value: SENT },
      { op: 'replace', path: '/spec/containers/0/env/0/value', value: SENT },
    ],
  },
  { what: 'in the object that goes', method: 'DELETE', path: `${N}/secrets/s` },
  {
    what: 'in the query of a proxy',
    method: 'POST',
    path: `${N}/services/web/proxy/login?api_key=${SENT}&c=${CANARY}`,
  },
]

/** All texts by which one of the values would be known again. */
function encodings(value: string): readonly string[] {
  const once = base64(value)
  // in the midst of something longer, at each alignment
  const within = [0, 1, 2].map((pad) =>
    Buffer.from(`${'x'.repeat(pad)}${value}`)
      .toString('base64')
      .slice(pad === 0 ? 0 : 4, -4),
  )
  return [
    ...[value, once.replaceAll('=', ''), base64(once).replaceAll('=', ''), ...within],
    ...[Buffer.from(value).toString('hex'), value.slice(0, 12), value.slice(-12)],
    createHash('sha256').update(value).digest('hex'),
  ]
}

function expectNowhere(text: string, where: string): void {
  for (const value of [SENT, STORED, QUOTED])
    for (const form of encodings(value))
      if (text.includes(form)) {
        const at = text.indexOf(form)
        throw new Error(`${form} is in ${where}: ${text.slice(Math.max(0, at - 120), at + 60)}`)
      }
}

/** An API server that has a Secret, a ConfigMap and a pod, and quotes what is stored. */
function answer(incoming: IncomingMessage, response: ServerResponse, body: string): void {
  const { method = '', url = '' } = incoming
  const say = (status: number, value: object): void => {
    response.writeHead(status, { 'content-type': JSON_TYPE }).end(JSON.stringify(value))
  }
  const stored = storedAt(url)
  if (url.includes('/proxy/')) say(200, {})
  else if (method === 'GET') {
    if (/\/x(?:\?|$)/.test(url)) say(404, { kind: 'Status', code: 404 })
    else say(200, stored)
  } else if (method === 'PATCH' && url.includes('Strict')) {
    const message = `"" is invalid: patch: Invalid value: ${JSON.stringify(JSON.stringify(stored))}: strict decoding error: unknown field "foo"`
    const causes = [{ reason: 'FieldValueInvalid', field: 'patch', message: message.slice(22) }]
    say(422, {
      kind: 'Status',
      status: 'Failure',
      reason: 'Invalid',
      code: 422,
      message,
      details: { causes },
    })
  } else if (method === 'PATCH') {
    const message = `Pod "p" is invalid: spec: Forbidden: pod updates may not change fields other than x\n  core.PodSpec{\n- Value: "${QUOTED}",\n+ Value: "${SENT}",\n}`
    say(422, { kind: 'Status', status: 'Failure', reason: 'Invalid', code: 422, message })
  } else
    say(method === 'POST' ? 201 : 200, body.startsWith('{') ? (JSON.parse(body) as object) : stored)
}

function storedAt(url: string): object {
  const metadata = { name: 's', uid: 'u', resourceVersion: '1', annotations: { c: CANARY } }
  if (url.includes('/pods/'))
    return {
      ...pod({ env: [{ name: 'API_TOKEN', value: STORED }], args: ['--password', STORED] }),
      metadata,
    }
  return { ...secret({ data: { a: base64(STORED), b: base64(base64(STORED)) } }), metadata }
}

describe('a planted secret', () => {
  let world: SessionWorld
  let client: Agent
  const previews = new Map<string, string>()

  before(async function () {
    this.timeout(SLOW_MS)
    world = await startSessionWorld(POLICY)
    client = new Agent({ connect: { ca: world.ca } })
    world.upstream.onRequest = answer
  })
  after(async function () {
    this.timeout(SLOW_MS)
    await client.destroy()
    await world.close()
  })

  /** Waits until a request is held, keeps what a reviewer sees of it, and approves. */
  async function approve(what: string): Promise<void> {
    const endMs = performance.now() + LIMIT_MS
    while (performance.now() < endMs) {
      await sleep(20)
      const { text } = await world.api('reviewer', '/v1/approvals?state=PENDING')
      const [held] = (JSON.parse(text) as { items: { id: string }[] }).items
      if (held === undefined) continue
      const shown = await world.api('reviewer', `/v1/approvals/${held.id}`)
      previews.set(what, `${text}\n${shown.text}`)
      const said = await world.api('reviewer', `/v1/approvals/${held.id}/approve`, {
        reason: 'seen',
      })
      expect(said.status, said.text).to.equal(200)
      return
    }
    throw new Error(`${what} was not held`)
  }

  async function send({ what, method, path, type = JSON_TYPE, body }: Form): Promise<string> {
    const { headers = {}, port } = world.address('')
    const sent = request(`https://127.0.0.1:${port}/clusters/test${path}`, {
      ...{ method: method as 'POST', dispatcher: client },
      headers: {
        ...headers,
        'user-agent': `test password=${SENT}`,
        ...(body === undefined ? {} : { 'content-type': type }),
      },
      ...(body === undefined
        ? {}
        : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    await Promise.all([sent, approve(what)])
    const reply = await sent
    return `${reply.statusCode} ${await reply.body.text()}`
  }

  for (const form of FORMS)
    it(`${form.what} reaches the API server, and no reviewer`, async () => {
      world.upstream.seen.length = 0
      await send(form)
      const reached = world.upstream.seen.map(({ url, body }) => `${url} ${body}`).join('\n')
      if (form.method !== 'DELETE')
        expect(encodings(SENT).some((each) => reached.includes(each))).to.equal(true)
      // at least once as a dry run for the reviewer, where that can be
      if (/secrets|configmaps|pods/.test(form.path) && form.method !== 'DELETE')
        expect(reached).to.contain(DRY_RUN)
      expectNowhere(previews.get(form.what) ?? '', 'what a reviewer reads')
    }).timeout(SLOW_MS)

  it('in a command line reaches the program, and neither reviewer nor recording', async () => {
    world.kubelet.programs.set('mysql', async (io) => {
      await io.stdout(`${CANARY}\nPGPASSWORD=${SENT}\n`)
      return 0
    })
    const words = ['mysql', '--password', SENT, `-p${SENT}`, `mysql://u:${SENT}@h/`, CANARY]
    const query = `${words.map((word) => `command=${encodeURIComponent(word)}`).join('&')}&stdout=1`
    const opened = openChannels(world.address('exec', query), 'v5.channel.k8s.io')
    await Promise.all([opened, approve('exec')])
    const session = await opened
    await session.closed
    expect(session.bytes(CHANNEL.stdout).toString()).to.contain(SENT)
    expect(world.kubelet.last().query.getAll('command')).to.deep.equal(words)
    const seen = previews.get('exec') ?? ''
    expectNowhere(seen, 'what a reviewer reads of a command')
    // whoever decides sees the rest of it
    expect(seen).to.contain('mysql').and.to.contain('--password').and.to.contain(CANARY)
    expect(JSON.stringify(await world.settled())).to.contain(CANARY)
    const recording = world.recording(session.requestId)
    const printed = JSON.stringify(recording, (_key, value: unknown) =>
      value instanceof Uint8Array ? Buffer.from(value).toString('latin1') : value,
    )
    expectNowhere(printed, 'the recording')
  }).timeout(SLOW_MS)

  it('is masked in answers, of which the ledger says what was hidden and not what it was', async () => {
    const { headers = {}, port } = world.address('')
    for (const path of ['secrets/s', 'pods/p']) {
      const url = `https://127.0.0.1:${port}/clusters/test${N}/${path}`
      const reply = await request(url, { dispatcher: client, headers })
      expect(reply.statusCode).to.equal(200)
      expectNowhere(await reply.body.text(), `the answer to ${path}`)
    }
  })

  it('is in no file of the broker, database and journal included', () => {
    const names = readdirSync(world.dataDir, { recursive: true, withFileTypes: true })
    const files = names.filter((entry) => entry.isFile())
    let found = 0
    for (const { parentPath, name } of files) {
      const text = readFileSync(join(parentPath, name)).toString('latin1')
      expectNowhere(text, name)
      if (text.includes(CANARY)) found++
    }
    expect(files.map(({ name }) => name)).to.include('nestgate.db-wal')
    expect(found).to.be.greaterThan(0)
  })

  it('is in nothing that the broker says: its log, and its API to whoever may ask the most', async () => {
    expect(world.said()).not.to.equal('')
    expectNowhere(world.said(), 'the log')
    const ask = async (path: string): Promise<string> => {
      const { status, text } = await world.api('auditor', path)
      expect(status, `${path}: ${text.slice(0, 200)}`).to.equal(200)
      expectNowhere(text, path)
      return text
    }
    const events = await ask('/v1/audit/events?limit=1000')
    expect(events).to.contain(CANARY)
    expect(events.split('"kind":"intent"').length).to.be.greaterThan(FORMS.length)
    const hashes = new Set(
      [...events.matchAll(/"sha256":"([0-9a-f]{64})"/g)].map(([, hash]) => hash),
    )
    expect(hashes.size).to.be.greaterThan(8)
    let captured = ''
    for (const hash of hashes) captured += await ask(`/v1/audit/payloads/${hash}`)
    expect(captured).to.contain(CANARY).and.to.contain('***')
    for (const format of ['jsonl', 'kubernetes', 'ocsf', 'csv'])
      await ask(`/v1/audit/export?format=${format}`)
    await ask('/v1/sessions')
    const { text } = await world.api('reviewer', '/v1/approvals?limit=1000')
    expectNowhere(text, 'the list of approvals')
  })
})
