/** Writes beside hidden values: placeholders are refused or restored, what is not touched stays, and no answer tells whether a guess was right. */
import { expect } from 'chai'
import { after, before, beforeEach, describe, it } from 'mocha'
import { eventually } from '../../scripts/run.ts'
import type { Answer, Ask } from './agents/answers.ts'
import {
  base64,
  bodyOf,
  fromPod,
  keptSecret,
  MASKED,
  needles,
  newSecretLike,
  PLANTED,
  prepareMasking,
  RESTORED,
  stored,
} from './masking-support.ts'
import { admin, audit, closeBroker } from './support.ts'

const looker = fromPod('kubectl-new')
const pathOf = (namespace: string): string => `/api/v1/namespaces/${namespace}/secrets/kept`
const TYPES = {
  json: 'application/json-patch+json',
  merge: 'application/merge-patch+json',
  strategic: 'application/strategic-merge-patch+json',
  apply: 'application/apply-patch+yaml',
} as const

interface Secret {
  readonly metadata: Readonly<Record<string, unknown>>
  readonly data: Readonly<Record<string, string>>
}

const accept = 'application/json'
const get = (namespace: string): Ask => ({
  name: 'get',
  path: pathOf(namespace),
  headers: { accept },
})
const put = (namespace: string, body: object, query = ''): Ask => ({
  name: 'put',
  method: 'PUT',
  path: `${pathOf(namespace)}${query}`,
  headers: { accept, 'content-type': 'application/json' },
  body: JSON.stringify(body),
})
const patch = (type: keyof typeof TYPES, body: object, query = '', namespace = MASKED): Ask => ({
  name: 'patch',
  method: 'PATCH',
  path: `${pathOf(namespace)}${query}`,
  headers: { accept, 'content-type': TYPES[type] },
  body: JSON.stringify(body),
})

async function only(ask: Ask): Promise<Answer> {
  const { [ask.name]: answer } = await looker.ask([ask])
  if (answer === undefined) throw new Error('no answer')
  expect(needles.in(Buffer.from(answer.body, 'base64')), bodyOf(answer)).to.deep.equal([])
  return answer
}

async function seen(namespace: string): Promise<Secret> {
  const answer = await only(get(namespace))
  expect(answer.status, bodyOf(answer)).to.equal(200)
  return JSON.parse(bodyOf(answer)) as Secret
}

function reset(): Promise<string> {
  const list = { apiVersion: 'v1', kind: 'List', items: [MASKED, RESTORED].map(keptSecret) }
  return admin(['replace', '--force', '-f', '-'], JSON.stringify(list))
}

/** Nothing comes of a request. */
async function expectRefused(ask: Ask, status: number, code: string, word?: string): Promise<void> {
  const namespace = ask.path.includes(RESTORED) ? RESTORED : MASKED
  const before = await stored('kept', namespace)
  const answer = await only(ask)
  const body = bodyOf(answer)
  expect(answer.status, body).to.equal(status)
  expect(JSON.parse(body)).to.include({ kind: 'Status', status: 'Failure', code: status })
  expect(body).to.include(code)
  if (word !== undefined) expect(body).to.include(word)
  expect(await stored('kept', namespace)).to.deep.equal(before)
}

describe('a write with a placeholder', () => {
  before(prepareMasking)
  beforeEach(reset)
  after(closeBroker)

  it('by PUT of what was read is refused with 422, and names the field', async () => {
    const secret = await seen(MASKED)
    expect(Buffer.from(secret.data['password'] ?? '', 'base64').toString()).to.match(
      /^nestgate-masked-1-[0-9a-f]{18}$/,
    )
    await expectRefused(put(MASKED, secret), 422, 'placeholder_written', 'data.password')
  })

  it('by kubectl replace of what kubectl got is refused, and says so', async () => {
    const before = await stored('kept', MASKED)
    const own = `kubectl-new -n ${MASKED}`
    const pipe = `${own} get secret kept -o yaml | ${own} replace -f -`
    const { replace } = await looker.run({
      commands: [{ name: 'replace', command: ['sh', '-c', pipe] }],
    })
    expect(replace?.code).to.equal(1)
    expect(replace?.stderr).to.include('data.password')
    expect(await stored('kept', MASKED)).to.deep.equal(before)
  })

  for (const type of ['merge', 'strategic'] as const)
    it(`by ${type} patch is refused`, async () => {
      const { data } = await seen(MASKED)
      const ask = patch(type, { data: { password: data['password'] } })
      await expectRefused(ask, 422, 'placeholder_written', 'data.password')
      const plain = Buffer.from(data['password'] ?? '', 'base64').toString()
      const other = patch(type, { stringData: { other: `x${plain}` } })
      await expectRefused(other, 422, 'placeholder_written', 'stringData.other')
    })

  it('by JSON patch is refused', async () => {
    const { data } = await seen(MASKED)
    const ask = patch('json', [{ op: 'add', path: '/data/other', value: data['password'] }])
    await expectRefused(ask, 422, 'placeholder_written')
  })

  it('into another kind is refused, in base64 at any place of it', async () => {
    const { data } = await seen(MASKED)
    const plain = Buffer.from(data['password'] ?? '', 'base64').toString()
    for (const value of [plain, Buffer.from(`xy${plain}`).toString('base64')]) {
      const body = {
        ...{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'copied' } },
        data: { key: value },
      }
      const answer = await only({
        name: 'create',
        method: 'POST',
        path: `/api/v1/namespaces/${MASKED}/configmaps`,
        headers: { accept, 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
      expect(answer.status, bodyOf(answer)).to.equal(422)
      expect(bodyOf(answer)).to.include('data.key')
    }
  })
})

describe('a write of something else', () => {
  before(prepareMasking)
  beforeEach(reset)
  after(closeBroker)

  for (const namespace of [MASKED, RESTORED])
    for (const type of ['merge', 'strategic'] as const)
      it(`keeps the value: ${type} patch in ${namespace}`, async () => {
        const colour = Buffer.from('red').toString('base64')
        const answer = await only(patch(type, { data: { colour } }, '', namespace))
        expect(answer.status, bodyOf(answer)).to.equal(200)
        const planted = namespace === RESTORED ? PLANTED.restored : PLANTED.kept
        const { data } = await stored('kept', namespace)
        expect(data).to.deep.equal({ password: base64(planted), colour })
      })
})

describe('an update where a rule restores', () => {
  before(prepareMasking)
  beforeEach(reset)
  after(closeBroker)

  it('keeps the true value, changes the rest, and is in the ledger', async () => {
    const secret = await seen(RESTORED)
    const changed = {
      ...secret,
      metadata: { ...secret.metadata, labels: { changed: 'yes' } },
      data: { ...secret.data, colour: Buffer.from('red').toString('base64') },
    }
    const answer = await only(put(RESTORED, changed))
    expect(answer.status, bodyOf(answer)).to.equal(200)
    const { data, metadata } = await stored('kept', RESTORED)
    expect(data).to.deep.equal({
      password: base64(PLANTED.restored),
      colour: Buffer.from('red').toString('base64'),
    })
    expect(metadata.labels).to.deep.equal({ changed: 'yes' })
    const id = answer.headers['nestgate-request-id']
    if (typeof id !== 'string') throw new Error('no request id')
    const outcome = await eventually('the outcome', 10_000, async () => {
      const events = await audit({ requestId: id })
      return events.find(({ entry }) => entry['kind'] === 'outcome')
    })
    expect(outcome.entry['restored']).to.deep.equal(['data.password'])
  })

  it('of an older version is 409', async () => {
    const secret = await seen(RESTORED)
    await admin(['-n', RESTORED, 'label', 'secret', 'kept', 'newer=yes'])
    await expectRefused(put(RESTORED, secret), 409, 'placeholder_stale')
  })

  it('of another object of the same name is 409', async () => {
    const secret = await seen(RESTORED)
    await reset()
    const { metadata } = await stored('kept', RESTORED)
    const moved = { ...secret.metadata, resourceVersion: metadata.resourceVersion }
    const ask = put(RESTORED, { ...secret, metadata: moved })
    await expectRefused(ask, 409, 'placeholder_stale')
  })

  it('with the placeholder of another field is refused', async () => {
    const secret = await seen(RESTORED)
    const { colour, password } = secret.data
    const swapped = { ...secret, data: { colour: password, password: colour } }
    await expectRefused(put(RESTORED, swapped), 422, 'placeholder_written')
  })
})

describe('a question about a hidden value', () => {
  before(prepareMasking)
  beforeEach(reset)
  after(closeBroker)

  const right = base64(PLANTED.kept)
  const wrong = Buffer.from(newSecretLike(PLANTED.kept)).toString('base64')

  const POINTERS: Readonly<Record<string, object>> = {
    'test of the value': { op: 'test', path: '/data/password', value: right },
    'test of what has it': { op: 'test', path: '/data', value: { password: right } },
    'copy of the value': { op: 'copy', from: '/data/password', path: '/metadata/annotations' },
    'copy of what has it': { op: 'copy', from: '/data', path: '/metadata/annotations' },
    'copy of all': { op: 'copy', from: '', path: '/metadata/annotations' },
    move: { op: 'move', from: '/data/password', path: '/metadata/annotations' },
  }
  for (const [name, operation] of Object.entries(POINTERS))
    it(`is refused: JSON patch, ${name}`, async () => {
      await expectRefused(patch('json', [operation]), 403, 'mask_oracle')
      await expectRefused(patch('json', [operation], '?dryRun=All'), 403, 'mask_oracle')
    })

  const applied = (password: string): object => ({
    ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'kept', namespace: MASKED } },
    data: { password },
  })

  it('is refused: server-side apply without force', async () => {
    const query = '?fieldManager=guess'
    for (const guess of [right, wrong]) {
      await expectRefused(patch('apply', applied(guess), query), 403, 'mask_oracle')
      await expectRefused(patch('apply', applied(guess), `${query}&dryRun=All`), 403, 'mask_oracle')
    }
  })

  /** Header fields that differ between any two answers. */
  const OWN = new Set(['date', 'audit-id', 'nestgate-request-id'])
  const withoutTimes = (answer: Answer): string => {
    const headers = Object.entries(answer.headers).filter(([name]) => !OWN.has(name))
    const body = bodyOf(answer).replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, 'TIME')
    return JSON.stringify([answer.status, headers, body])
  }

  const GUESSES: Readonly<Record<string, (guess: string) => Promise<Ask>>> = {
    'merge patch': (password) =>
      Promise.resolve(patch('merge', { data: { password } }, '?dryRun=All')),
    'strategic patch': (password) =>
      Promise.resolve(patch('strategic', { data: { password } }, '?dryRun=All')),
    'JSON patch': (value) => {
      const operation = { op: 'replace', path: '/data/password', value }
      return Promise.resolve(patch('json', [operation], '?dryRun=All'))
    },
    PUT: async (password) => {
      const secret = await seen(MASKED)
      const colour = Buffer.from('green').toString('base64')
      return put(MASKED, { ...secret, data: { password, colour } }, '?dryRun=All')
    },
    'PUT without a version': (password) => {
      const colour = Buffer.from('green').toString('base64')
      const { metadata, ...rest } = keptSecret(MASKED) as { metadata: object }
      return Promise.resolve(
        put(MASKED, { ...rest, metadata, data: { password, colour } }, '?dryRun=All'),
      )
    },
    'server-side apply with force': (password) =>
      Promise.resolve(
        patch('apply', applied(password), '?fieldManager=guess&force=true&dryRun=All'),
      ),
  }
  for (const [name, ask] of Object.entries(GUESSES))
    it(`is answered alike for a right and a wrong guess, by dry run: ${name}`, async () => {
      const before = await stored('kept', MASKED)
      const answers = [await only(await ask(right)), await only(await ask(wrong))]
      const [one, other] = answers.map(withoutTimes)
      expect(answers[0]?.status, bodyOf(answers[0])).to.equal(200)
      expect(one).to.equal(other)
      expect(await stored('kept', MASKED)).to.deep.equal(before)
    })
})
