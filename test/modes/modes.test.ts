/**
 * The credential of one request on a real API server, in both modes: who the cluster's own audit log says it was, what a thief of
 * it can do, and what happens when the broker is not there.
 */
import { expect } from 'chai'
import { SignJWT, generateKeyPair } from 'jose'
import { after, before, describe, it } from 'mocha'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createPrivateKey, randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { openSigningKeys } from '../../broker/credentials/signing-keys.ts'
import type { SigningKeys } from '../../broker/credentials/signing-keys.ts'
import { claimsOf } from '../../broker/credentials/tokens.ts'
import { runCli } from '../../cli/program.ts'
import { eventually } from '../../scripts/run.ts'
import { createLog } from '../../shared/log.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { AGENTS, MODES, PEOPLE, PIPELINE, startModes, WORK } from './running.ts'
import type { Answer, AuditEvent, Line, ModeName, RunningModes } from './running.ts'

const MAPS = `/api/v1/namespaces/${WORK}/configmaps`
const WORKER = `system:serviceaccount:${AGENTS}:worker`

interface Entry {
  readonly kind: string
  readonly requestId?: string
  readonly event?: string
  readonly credential?: { readonly mode: string; readonly user: string; readonly groups?: string[] }
  readonly detail?: Readonly<Record<string, unknown>>
}

describe('the credential of one request, on a real API server', function () {
  this.timeout(120_000)
  this.slow(5_000)
  let modes: RunningModes
  let since: string
  before(async () => {
    since = new Date().toISOString()
    modes = await startModes()
  })
  after(() => modes.close())

  const ledger = async (query = ''): Promise<Entry[]> => {
    const { text } = await modes.api('otto', `/v1/audit/events?limit=200${query}`)
    return (JSON.parse(text) as { items: { entry: Entry }[] }).items.map(({ entry }) => entry)
  }
  const intentOf = async (requestId: string): Promise<Entry | undefined> =>
    (await ledger(`&requestId=${requestId}`)).find(({ kind }) => kind === 'intent')
  const create = (name: string): Line => ({ method: 'POST', body: { metadata: { name } } })

  describe('mode issuer', () => {
    it('names a pipeline, its request, and nothing else', async () => {
      const made = await modes.call('issued', MAPS, create('by-pipeline'))
      expect(made.status).to.equal(201)
      const { user, impersonatedUser, annotations } = await modes.audited(made.requestId)
      expect(user).to.deep.equal({
        username: `nestgate:subject:${PIPELINE}`,
        groups: [`nestgate:request:${made.requestId}`, 'system:authenticated'],
      })
      expect(impersonatedUser).to.equal(undefined)
      expect(annotations?.['authorization.k8s.io/reason']).to.equal(
        `nestgate: request ${made.requestId}`,
      )
      expect((await intentOf(made.requestId))?.credential).to.deep.equal({
        mode: 'issuer',
        user: `nestgate:subject:${PIPELINE}`,
      })
    })

    it('names an agent’s process, beside its pod’s account', async () => {
      const listed = await modes.agent('issued', MAPS)
      expect(listed.status, listed.text).to.equal(200)
      const { user } = await modes.audited(listed.requestId)
      expect(user.username).to.equal(`nestgate:serviceaccount:${AGENTS}:worker`)
      expect(user.groups).to.include(`nestgate:request:${listed.requestId}`)
      expect(user.groups?.filter((group) => group.startsWith('nestgate:process:'))).to.deep.equal([
        'nestgate:process:unregistered/no-container/curl',
      ])
    })

    it('gives no right that the actor has not by the cluster’s own roles', async () => {
      const refused = await modes.call('issued', '/api/v1/namespaces/kube-system/configmaps')
      expect(refused.status).to.equal(403)
      expect(refused.text).to.contain('no role of the cluster allows it')
    })

    it('knows patches, server-side applies that create, lists by name, watches and paths', async () => {
      const json = 'application/merge-patch+json'
      const patch = { method: 'PATCH', contentType: json, body: { data: { a: '1' } } }
      const apply = {
        method: 'PATCH',
        contentType: 'application/apply-patch+yaml',
        body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'applied' } },
      }
      const answers = [
        await modes.call('issued', `${MAPS}/by-pipeline`, patch),
        await modes.call('issued', `${MAPS}/applied?fieldManager=t`, apply),
        await modes.call('issued', `${MAPS}?fieldSelector=metadata.name%3Dapplied`),
        await modes.call('issued', `${MAPS}?watch=true&timeoutSeconds=1`),
        await modes.call('issued', `${MAPS}/applied`, { method: 'DELETE' }),
        await modes.call('issued', '/version'),
        await modes.call('issued', '/apis/apps/v1'),
      ]
      expect(answers.map(({ status }) => status)).to.deep.equal([200, 201, 200, 200, 200, 200, 200])
    })
  })

  describe('mode impersonation', () => {
    it('names a pipeline, its request and what it is bound to', async () => {
      const made = await modes.call('acted', MAPS, create('acted-on'))
      expect(made.status, made.text).to.equal(201)
      const { user, impersonatedUser } = await modes.audited(made.requestId)
      expect(user.username).to.equal('system:serviceaccount:nestgate-system:nestgate-broker')
      expect(impersonatedUser).to.deep.equal({
        username: PIPELINE,
        groups: ['system:authenticated'],
        extra: {
          'nestgate.dev/request-id': [made.requestId],
          'nestgate.dev/bind': [`CREATE /configmaps/ ${WORK}/acted-on`],
        },
      })
      expect((await intentOf(made.requestId))?.credential).to.deep.equal({
        mode: 'impersonation',
        user: PIPELINE,
      })
    })

    it('names an agent’s process', async () => {
      const made = await modes.agent('acted', MAPS, create('by-agent'))
      expect(made.status, made.text).to.equal(201)
      const { impersonatedUser } = await modes.audited(made.requestId)
      expect(impersonatedUser?.username).to.equal(WORKER)
      expect(impersonatedUser?.extra).to.deep.include({
        'nestgate.dev/process': ['unregistered/no-container/curl'],
      })
    })

    it('binds patches, applies and deletions too', async () => {
      const json = 'application/merge-patch+json'
      const patch = { method: 'PATCH', contentType: json, body: { data: { a: '1' } } }
      const apply = {
        method: 'PATCH',
        contentType: 'application/apply-patch+yaml',
        body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'applied' } },
      }
      const generated = { method: 'POST', body: { metadata: { generateName: 'g-' } } }
      const answers = [
        await modes.call('acted', `${MAPS}/acted-on`, patch),
        await modes.call('acted', `${MAPS}/applied?fieldManager=t`, apply),
        await modes.call('acted', MAPS, generated),
        await modes.call('acted', `${MAPS}/applied`, { method: 'DELETE' }),
      ]
      expect(
        answers.map(({ status }) => status),
        answers[2]?.text,
      ).to.deep.equal([200, 201, 201, 200])
    })
  })

  for (const mode of MODES) {
    describe(`in mode ${mode}`, () => {
      it('a granted group goes with the request, and its ledger entry says so', async () => {
        const path = `/api/v1/namespaces/${AGENTS}/configmaps`
        await modes.kubectl(['-n', AGENTS, 'create', 'configmap', 'granted']).catch(() => '')
        const body = { data: { by: mode } }
        const contentType = 'application/merge-patch+json'
        const done = await modes.call(mode, `${path}/granted`, {
          ...{ method: 'PATCH', contentType, body },
        })
        expect(done.status, done.text).to.equal(200)
        expect((await intentOf(done.requestId))?.credential?.groups).to.deep.equal(['deployers'])
        const { user, impersonatedUser } = await modes.audited(done.requestId)
        const own = mode === 'issued' ? user.groups : impersonatedUser?.groups
        const group = mode === 'issued' ? 'nestgate:group:deployers' : 'deployers'
        expect(own).to.include(group)
        // the same without the grant
        expect((await modes.call(mode, `${path}/other`)).status).to.equal(403)
      })

      it('a held request names who approved it', async () => {
        const name = `held-${mode}`
        await modes.kubectl(['-n', WORK, 'create', 'configmap', name])
        const waiting = modes.call(mode, `${MAPS}/${name}`, { method: 'DELETE' })
        const id = await eventually('the held request', 20_000, async () => {
          const { text } = await modes.api('sara', '/v1/approvals?state=PENDING')
          const { items } = JSON.parse(text) as { items: { id: string; cluster: string }[] }
          return items.find(({ cluster }) => cluster === mode)?.id
        })
        const approve = { method: 'POST', body: { reason: 'fine' } }
        expect((await modes.api('sara', `/v1/approvals/${id}/approve`, approve)).status).to.equal(
          200,
        )
        const done = await waiting
        expect([done.status, done.requestId]).to.deep.equal([200, id])
        const { user, impersonatedUser } = await modes.audited(id)
        if (mode === 'issued') expect(user.groups).to.include('nestgate:approver:sara')
        else expect(impersonatedUser?.extra?.['nestgate.dev/approver']).to.deep.equal(['sara'])
      })
    })
  }

  describe('altogether', () => {
    it('each request in the ledger is one record in the cluster’s audit log, and the other way round', async () => {
      const entries = await ledger('&kind=intent')
      const ours = entries.filter(({ credential }) => credential !== undefined)
      expect(ours.length).to.be.greaterThan(15)
      for (const { requestId = '', credential } of ours) {
        const { user, impersonatedUser } = await modes.audited(requestId)
        expect((impersonatedUser ?? user).username).to.equal(credential?.user)
      }
      const ids = new Set(
        (await ledger()).flatMap(({ requestId, detail }) => [
          requestId,
          ...(typeof detail?.['auditId'] === 'string' ? [detail['auditId']] : []),
        ]),
      )
      const acted = modes.auditLog().filter(isByUs)
      expect(acted.length).to.be.greaterThan(15)
      for (const { auditID, requestURI } of acted) expect([...ids], requestURI).to.include(auditID)
    })

    const nestgate = async (
      ...args: string[]
    ): Promise<{ code: number; out: string; err: string }> => {
      let [out, err] = ['', '']
      const tokenFile = join(modes.dir, 'otto-token')
      const caFile = join(modes.dir, 'otto-ca.crt')
      writeFileSync(tokenFile, PEOPLE.otto.token, { mode: 0o600 })
      writeFileSync(caFile, modes.brokerCa)
      const code = await runCli({
        args: [
          ...['--broker', modes.brokerUrl, '--token-file', tokenFile, '--ca-file', caFile],
          ...args,
        ],
        env: {},
        now: Date.now,
        out: (text) => (out += text),
        err: (text) => (err += text),
      })
      return { code, out, err }
    }

    const reconcile = (...ledger: string[]): ReturnType<typeof nestgate> =>
      nestgate(
        ...['reconcile', '--audit-log', join(modes.dir, 'cluster', 'logs', 'audit.jsonl')],
        ...['--cluster', ...MODES, '--skew', '0.5', '--format', 'json', ...ledger],
      )

    it('nestgate reconcile says the same of an export, in which people have pseudonyms', async () => {
      const file = join(modes.dir, 'ledger.jsonl')
      const exported = await nestgate('export', '--file', file)
      expect(exported.code, exported.err).to.equal(0)
      const { code, out, err } = await reconcile('--export', file)
      expect(code, out + err).to.equal(0)
      const { counts } = JSON.parse(out) as { counts: Record<string, number> }
      expect(counts['fits']).to.be.greaterThan(15)
      expect(counts['hidden']).to.be.within(1, counts['fits'] ?? 0)
    })

    it('nestgate reconcile says that ledger and audit log fit, and tells a call that is not in the ledger', async () => {
      const { code, out, err } = await reconcile('--since', since)
      expect(code, out + err).to.equal(0)
      const { counts } = JSON.parse(out) as { counts: Record<string, number> }
      expect(counts['fits']).to.be.greaterThan(15)
      const secret = readFileSync(join(modes.dir, 'broker-token'), 'utf8').trim()
      const stolen = { authorization: `Bearer ${secret}`, 'impersonate-user': PIPELINE }
      await modes.direct(MAPS, stolen)
      await sleep(1_000)
      // the ledger goes on, so that the call is within its time
      await ledger()
      await sleep(1_000)
      const after = await reconcile('--since', since)
      expect(after.code, after.err).to.equal(1)
      expect((JSON.parse(after.out) as { found: object }).found).to.deep.equal({
        missing_in_ledger: 1,
      })
    })
  })

  describe('a thief', () => {
    let keys: SigningKeys
    before(async () => {
      // the thief has everything: the broker's own keys
      const dir = join(modes.dir, 'data', 'issuer-keys')
      const log = createLog('test', 'silent')
      keys = await openSigningKeys({ dir, rotateAfterDays: 30 }, { log, now: Date.now })
    })
    after(() => {
      keys.close()
    })

    const forge = async (change: Record<string, unknown>, kid?: string): Promise<string> => {
      const facts = {
        ...{
          cluster: 'issued',
          subject: `subject:${PIPELINE}`,
          requestId: newRequestId(Date.now()),
        },
        ...{ grantGroups: [], process: undefined, approvers: [] },
      }
      const claims = { ...claimsOf(facts, `${modes.brokerUrl}/issuer`, Date.now()), ...change }
      const [file = ''] = readdirSync(join(modes.dir, 'data', 'issuer-keys'))
      const pem = readFileSync(join(modes.dir, 'data', 'issuer-keys', file), 'utf8')
      return new SignJWT(claims)
        .setProtectedHeader({ alg: 'ES256', typ: 'JWT', kid: kid ?? keys.current().kid })
        .sign(createPrivateKey(pem))
    }
    const use = (token: string, path: string, headers = {}): Promise<Answer> =>
      modes.direct(path, { authorization: `Bearer ${token}`, ...headers })

    const FORGED: readonly (readonly [string, () => Record<string, unknown>, string, number])[] = [
      ['a request that is not under way', () => ({}), MAPS, 403],
      [
        'the group system:masters',
        () => ({ marked_groups: ['system:masters'], groups: ['system:masters'] }),
        '/api/v1/secrets',
        403,
      ],
      ['the name system:admin', () => ({ sub: 'system:admin' }), '/api/v1/secrets', 403],
      ['the name of an account', () => ({ sub: WORKER }), MAPS, 403],
      [
        'the broker’s own name',
        () => ({ sub: 'broker' }),
        '/api/v1/namespaces/kube-system/pods/x',
        403,
      ],
      ['an hour of life', () => ({ exp: Math.floor(Date.now() / 1000) + 3600 }), MAPS, 403],
      ['another cluster’s audience', () => ({ aud: 'nestgate/acted' }), MAPS, 401],
      ['no audience', () => ({ aud: undefined }), MAPS, 401],
      ['another issuer', () => ({ iss: 'https://elsewhere.example' }), MAPS, 401],
      ['an end in the past', () => ({ iat: 1, nbf: 1, exp: 31 }), MAPS, 401],
      [
        'a beginning in the future',
        () => ({ nbf: Math.floor(Date.now() / 1000) + 3600 }),
        MAPS,
        401,
      ],
    ]
    for (const [what, change, path, status] of FORGED) {
      it(`with the signing key itself gets nothing by ${what}`, async () => {
        const answer = await use(await forge(change()), path)
        expect(answer.status, answer.text).to.equal(status)
      })
    }

    it('gets nothing with another key under a known id, or with none', async () => {
      const { privateKey } = await generateKeyPair('ES256')
      const header = { alg: 'ES256', typ: 'JWT', kid: keys.current().kid }
      const other = await new SignJWT({ sub: 'broker', aud: 'nestgate/issued' })
        .setProtectedHeader(header)
        .setIssuer(`${modes.brokerUrl}/issuer`)
        .setExpirationTime('30s')
        .sign(privateKey)
      const [, claims = ''] = (await forge({})).split('.')
      const none = Buffer.from('{"alg":"none","typ":"JWT"}').toString('base64url')
      for (const token of [other, `${none}.${claims}.`])
        expect((await use(token, MAPS)).status).to.equal(401)
    })

    it('of a token that is held back cannot use it for anything else, and twice not at all', async () => {
      // a watch is under way; its token is spent as soon as it has begun
      const before = modes.auditLog().length
      const name = randomUUID()
      const made = await modes.call('issued', MAPS, create(name))
      expect(made.status).to.equal(201)
      const replayed = await forge({
        jti: made.requestId,
        marked_groups: [`request:${made.requestId}`],
      })
      const again = await modes.direct(
        MAPS,
        { authorization: `Bearer ${replayed}` },
        create('again'),
      )
      expect(again.status).to.equal(403)
      expect(again.text).to.contain('no such request is under way')
      expect(modes.auditLog().length).to.be.greaterThan(before)
      // the API server is answered before that is written
      const isWritten = async (): Promise<boolean> =>
        (await ledger('&event=credential_refused')).some(
          ({ detail }) => detail?.['requestId'] === made.requestId,
        )
      for (let tries = 0; tries < 40 && !(await isWritten()); tries += 1) await sleep(50)
      expect(await isWritten()).to.equal(true)
    })

    it('of the broker’s token in mode impersonation can write nothing that is not under way', async () => {
      const secret = readFileSync(join(modes.dir, 'broker-token'), 'utf8').trim()
      const as = (more: Record<string, string>): Record<string, string> => ({
        authorization: `Bearer ${secret}`,
        'impersonate-user': PIPELINE,
        ...more,
      })
      const extra = (key: string): string => `impersonate-extra-nestgate.dev%2f${key}`
      const attempts = [
        as({}),
        as({ [extra('request-id')]: newRequestId(Date.now()) }),
        as({ [extra('bind')]: `CREATE /configmaps/ ${WORK}/stolen` }),
        as({ 'impersonate-user': WORKER }),
      ]
      for (const headers of attempts) {
        const answer = await modes.direct(MAPS, headers, create('stolen'))
        expect(answer.status, answer.text).to.equal(403)
        expect(answer.text).to.contain('nestgate: ')
      }
      const beyond = [
        { authorization: `Bearer ${secret}` },
        as({ 'impersonate-group': 'system:masters' }),
        as({ 'impersonate-user': 'system:admin' }),
        as({ 'impersonate-user': 'system:serviceaccount:kube-system:default' }),
        as({ 'impersonate-extra-scopes': 'all' }),
      ]
      for (const headers of beyond) {
        const answer = await modes.direct('/api/v1/secrets', headers)
        expect(answer.status, JSON.stringify(headers)).to.equal(403)
      }
    })

    it('cannot ask the broker about requests without the API server’s token', async () => {
      const review = {
        apiVersion: 'authorization.k8s.io/v1',
        kind: 'SubjectAccessReview',
        spec: {},
      }
      for (const headers of [{}, { authorization: 'Bearer x' }]) {
        const line = { method: 'POST', body: review, headers }
        const answer = await modes.api('root', '/v1/clusters/issued/authorize', line)
        expect(answer.status).to.equal(401)
      }
      const acted = await modes.api('root', '/v1/clusters/acted/authorize', {
        method: 'POST',
        body: review,
      })
      expect(acted.status).to.equal(401)
    })
  })

  describe('nestgate doctor', () => {
    const run = async (args: readonly string[]): Promise<{ code: number; text: string }> => {
      let text = ''
      const say = (said: string): void => {
        text += said
      }
      const code = await runCli({
        ...{ args: ['doctor', ...args], now: Date.now, out: say, err: say },
        env: {
          NESTGATE_BROKER_URL: modes.brokerUrl,
          NESTGATE_TOKEN: PEOPLE.root.token,
          NESTGATE_CA_FILE: join(modes.dir, 'ca.crt'),
        },
      })
      return { code, text }
    }
    const doctor = (mode: ModeName): ReturnType<typeof run> => run([mode])

    it('says of a cluster that nobody connected what is possible there, and how', async () => {
      const { host, port } = modes.apiServer
      const ca = join(modes.dir, 'cluster-ca.crt')
      const { code, text } = await run(['new', '--server', `https://${host}:${port}`, '--ca', ca])
      expect(code, text).to.equal(0)
      expect(text).to.match(/mode issuer: +possible: flags/)
      expect(text).to.contain('nestgate connect new --mode issuer --kubernetes-version 1.20')
      const other = await run([
        'new',
        '--server',
        `https://${host}:${port}`,
        '--ca',
        join(modes.dir, 'ca.crt'),
      ])
      expect(other.code, other.text).to.equal(1)
    })

    for (const mode of MODES) {
      it(`finds every trap of mode ${mode} closed, by trying`, async () => {
        const { code, text } = await doctor(mode)
        expect(text).to.contain('version:').and.to.contain('v1.20')
        expect(text, text).to.not.contain('FAILED')
        expect(code).to.equal(0)
        // each attempt shows something
        expect(text, text).to.contain(' 0 show nothing')
        if (process.env['NESTGATE_SHOW_DOCTOR'] !== undefined) console.log(text)
      })
    }

    it('finds a role that lets the broker be anybody, and writes that nothing binds', async () => {
      await modes.kubectl([
        'create',
        'clusterrole',
        'too-much',
        '--verb=impersonate',
        '--resource=users,groups',
      ])
      const account = '--serviceaccount=nestgate-system:nestgate-broker'
      await modes.kubectl([
        'create',
        'clusterrolebinding',
        'too-much',
        '--clusterrole=too-much',
        account,
      ])
      const hook = await modes.kubectl([
        'get',
        'validatingwebhookconfiguration',
        'nestgate-bind',
        '-o',
        'json',
      ])
      await modes.kubectl(['delete', 'validatingwebhookconfiguration', 'nestgate-bind'])
      try {
        const { code, text } = await eventually('the role in force', 20_000, async () => {
          const found = await doctor('acted')
          return /FAILED +to be the group/.test(found.text) ? found : undefined
        })
        expect(code).to.equal(1)
        expect(text).to.match(/FAILED +to be the group system:masters +200/)
        expect(text).to.match(/FAILED +a write by no request of ours +201/)
      } finally {
        await modes.kubectl(['delete', 'clusterrolebinding,clusterrole', 'too-much'])
        await modes.kubectl(['apply', '-f', '-'], hook)
      }
    })

    it('finds names of ours that a role was bound to', async () => {
      const name = 'nestgate:subject:nestgate-doctor'
      const role = ['create', 'clusterrolebinding', 'ours', '--clusterrole=cluster-admin']
      await modes.kubectl([...role, `--user=${name}`])
      try {
        const { code, text } = await eventually('the binding in force', 20_000, async () => {
          const found = await doctor('issued')
          return found.code === 1 ? found : undefined
        })
        expect(code).to.equal(1)
        expect(text).to.match(/FAILED +its token for another resource +200/)
      } finally {
        await modes.kubectl(['delete', 'clusterrolebinding', 'ours'])
      }
    })
  })

  describe('the broker', () => {
    it('renews its own token in mode impersonation, to one of ten minutes', async () => {
      const claims = await eventually('a renewed token', 60_000, () => {
        const [, part = ''] = readFileSync(join(modes.dir, 'broker-token'), 'utf8').split('.')
        const found = JSON.parse(Buffer.from(part, 'base64url').toString()) as {
          iat: number
          exp: number
        }
        return Promise.resolve(found.exp - found.iat === 600 ? found : undefined)
      })
      expect(claims.exp * 1000).to.be.greaterThan(Date.now())
      expect((await modes.call('acted', MAPS)).status).to.equal(200)
    })

    it('makes tokens that are worthless without it, and nobody else notices', async () => {
      const dir = join(modes.dir, 'data', 'issuer-keys')
      const [file = ''] = readdirSync(dir)
      const facts = {
        ...{
          cluster: 'issued',
          subject: `subject:${PIPELINE}`,
          requestId: newRequestId(Date.now()),
        },
        ...{ grantGroups: [], process: undefined, approvers: [] },
      }
      const token = await new SignJWT({
        ...claimsOf(facts, `${modes.brokerUrl}/issuer`, Date.now()),
      })
        .setProtectedHeader({ alg: 'ES256', typ: 'JWT', kid: await kidOf(dir) })
        .sign(createPrivateKey(readFileSync(join(dir, file), 'utf8')))
      await modes.stopBroker()
      try {
        const answer = await modes.direct(MAPS, { authorization: `Bearer ${token}` })
        expect(answer.status).to.be.oneOf([401, 403, 500])
        expect(await modes.kubectl(['-n', WORK, 'get', 'configmaps', '-o', 'name'])).to.contain(
          'by-agent',
        )
      } finally {
        await modes.startBroker()
      }
      expect((await modes.call('issued', MAPS)).status).to.equal(200)
    })
  })

  const kidOf = async (dir: string): Promise<string> => {
    const log = createLog('test', 'silent')
    const keys = await openSigningKeys({ dir, rotateAfterDays: 30 }, { log, now: Date.now })
    keys.close()
    return keys.current().kid
  }
})

/** Whether a record is of a request that the broker made in somebody's name; a thief's have no process, and no answer but no. */
function isByUs({ user, impersonatedUser, responseStatus }: AuditEvent): boolean {
  if (responseStatus?.code === 401 || user.username === undefined) return false
  if (user.username === 'nestgate:broker') return false
  const isActed = impersonatedUser?.extra?.['nestgate.dev/request-id'] !== undefined
  return isActed || user.username.startsWith('nestgate:')
}
