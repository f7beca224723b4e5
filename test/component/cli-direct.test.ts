/**
 * `nestgate kubeconfig` and `nestgate credential --from`: real kubectls, the oldest and the newest of this machine, with the kubeconfigs
 * that it writes, against an HTTPS server that records what arrives; and a stand-in for GitHub's runner.
 */
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { Server } from 'node:https'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { after, before, beforeEach, describe, it } from 'mocha'
import { SignJWT } from 'jose'
import { parse } from 'yaml'
import { makeCertificates } from '../support/certificates.ts'
import { refuse } from '../../shared/reasons.ts'
import { statusAnswer } from '../../shared/status.ts'
import { CLI, DISCOVERY, kubectls, run, sendJson, withNestgate } from '../support/kubectl.ts'
import type { Run } from '../support/kubectl.ts'

const SLOW_MS = 60_000
const BEARER = 'runner-request-token'

interface Arrived {
  readonly method: string
  readonly url: string
  readonly authorization: string | undefined
}
interface Kubeconfig {
  readonly clusters: readonly { readonly cluster: Readonly<Record<string, unknown>> }[]
  readonly users: readonly { readonly user: Readonly<Record<string, unknown>> }[]
}

function jwt(claims: object, endsInS = 300): Promise<string> {
  const now = Math.floor(Date.now() / 1000)
  return new SignJWT({ aud: 'nestgate', ...claims })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime(now + endsInS)
    .sign(new TextEncoder().encode('0'.repeat(32)))
}

describe('nestgate for direct clients', () => {
  const certificates = makeCertificates({ hosts: ['127.0.0.1'] })
  let folder: string
  let caFile: string
  let path: string
  let server: Server
  let origin: string
  const arrived: Arrived[] = []
  let answer: (request: IncomingMessage, response: ServerResponse) => void

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nestgate-direct-'))
    caFile = join(folder, 'ca.crt')
    writeFileSync(caFile, certificates.ca)
    path = withNestgate(folder)
    server = createServer(
      { cert: certificates.cert, key: certificates.key },
      (request, response) => {
        const { method = '', url = '', headers } = request
        arrived.push({ method, url, authorization: headers.authorization })
        answer(request, response)
      },
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    origin = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  after(() => {
    server.closeAllConnections()
    server.close()
    rmSync(folder, { recursive: true })
  })
  beforeEach(() => {
    arrived.length = 0
    answer = (_request, response) => response.writeHead(404).end()
  })

  const nestgate = (args: readonly string[], env: Record<string, string> = {}): Promise<Run> =>
    run(process.execPath, [CLI, ...args], { HOME: folder, ...env })
  const write = (args: readonly string[], env: Record<string, string> = {}): Promise<Run> =>
    nestgate(['kubeconfig', '--cluster', 'prod', ...args], {
      NESTGATE_BROKER_URL: origin,
      NESTGATE_CA_FILE: caFile,
      ...env,
    })
  /** Answers as a runner that gives a token. */
  const give =
    (token: string) =>
    (_request: IncomingMessage, response: ServerResponse): void => {
      response.writeHead(200, { 'content-type': 'application/json' })
      response.end(JSON.stringify({ count: 1, value: token }))
    }
  const runner = (): Record<string, string> => ({
    ACTIONS_ID_TOKEN_REQUEST_URL: `${origin}/token?api-version=2.0`,
    ACTIONS_ID_TOKEN_REQUEST_TOKEN: BEARER,
    NESTGATE_ISSUER_CA_FILE: caFile,
  })

  describe('a kubeconfig', () => {
    const configOf = ({ out }: Run): Kubeconfig => parse(out) as Kubeconfig
    const userOf = (result: Run): unknown => configOf(result).users[0]?.user

    it('leads to the cluster at the broker, and trusts what the broker is signed by', async () => {
      const result = await write(['--for', 'person'])
      expect(result.code).to.equal(0)
      expect(configOf(result).clusters[0]?.cluster).to.deep.equal({
        server: `${origin}/clusters/prod`,
        'certificate-authority-data': Buffer.from(certificates.ca).toString('base64'),
      })
    })

    it('leads where held requests come back, if that is wanted', async () => {
      const result = await write(['--for', 'person', '--approval', 'return'])
      expect(configOf(result).clusters[0]?.cluster['server']).to.equal(
        `${origin}/return/clusters/prod`,
      )
    })

    it('has a person sign in by nestgate, at this broker', async () => {
      expect(
        userOf(await write(['--for', 'person'], { NESTGATE_TOKEN: 'secret-token' })),
      ).to.deep.equal({
        exec: {
          apiVersion: 'client.authentication.k8s.io/v1',
          command: 'nestgate',
          args: ['credential'],
          env: [{ name: 'NESTGATE_BROKER_URL', value: origin }],
          interactiveMode: 'Never',
          provideClusterInfo: false,
          installHint: 'Sign in: nestgate login',
        },
      })
    })

    it('has a job ask its CI system', async () => {
      const github = await write(['--for', 'ci', '--ci', 'github', '--audience', 'prod'])
      expect(userOf(github))
        .to.have.nested.property('exec.args')
        .that.deep.equals(['credential', '--from', 'github', '--audience', 'prod'])
      const gitlab = await write(['--for', 'ci', '--ci', 'gitlab', '--variable', 'MY_TOKEN'])
      expect(userOf(gitlab))
        .to.have.nested.property('exec.args')
        .that.deep.equals(['credential', '--from', 'gitlab', '--variable', 'MY_TOKEN'])
    })

    it('has an agent’s token where it is, and does not read it', async () => {
      const file = join(folder, 'not-there-yet')
      const result = await write(['--for', 'agent', '--token-file', file])
      expect(userOf(result)).to.deep.equal({ tokenFile: file })
      expect(userOf(await write(['--for', 'agent'], { NESTGATE_TOKEN_FILE: file }))).to.deep.equal({
        tokenFile: file,
      })
    })

    it('is for its owner alone, and overwrites nothing', async () => {
      const file = join(folder, 'kubeconfig-own')
      expect(await write(['--for', 'person', '--out', file])).to.deep.equal({
        ...{ code: 0, out: `${file}\n`, err: '' },
      })
      expect(statSync(file).mode & 0o777).to.equal(0o600)
      const before = readFileSync(file, 'utf8')
      const again = await write(['--for', 'person', '--approval', 'return', '--out', file])
      expect(again).to.include({ code: 1, out: '' })
      expect(again.err).to.contain('exists')
      expect(readFileSync(file, 'utf8')).to.equal(before)
    })

    it('never leaves TLS unverified', async () => {
      for (const args of [
        ['--for', 'person'],
        ['--for', 'ci', '--ci', 'gitlab'],
      ]) {
        const { out } = await write(args)
        expect(out).to.contain('server: https://').and.not.contain('insecure')
      }
      const plain = await write(['--for', 'person'], { NESTGATE_BROKER_URL: 'http://127.0.0.1:1' })
      expect(plain).to.include({ code: 2, out: '' })
      expect(plain.err).to.contain('https://')
    })

    for (const [what, args, said] of [
      ['a cluster that is none', ['--cluster', '../x', '--for', 'person'], 'name of a cluster'],
      ['nobody', [], '--for'],
      ['a job of no CI system', ['--for', 'ci'], 'github or gitlab'],
      ['a job of an unknown one', ['--for', 'ci', '--ci', 'x'], 'github, gitlab'],
      ['an agent without a token', ['--for', 'agent'], '--token-file'],
      ['a person with a CI system', ['--for', 'person', '--ci', 'github'], '--for ci'],
      ['GitHub with a variable', ['--for', 'ci', '--ci', 'github', '--variable', 'A'], 'gitlab'],
    ] as const)
      it(`is not for ${what}`, async () => {
        const { code, out, err } = await write(args)
        expect([code, out]).to.deep.equal([2, ''])
        expect(err).to.contain(said)
      })

    it('does not take a key for an authority', async () => {
      const file = join(folder, 'with-key.pem')
      writeFileSync(file, certificates.ca + certificates.key)
      const { code, out, err } = await write(['--for', 'person', '--ca-file', file])
      expect([code, out]).to.deep.equal([2, ''])
      expect(err).to.contain('nothing secret').and.not.contain('PRIVATE')
    })
  })

  describe('the token of a GitHub job', () => {
    it('is asked of the runner, for the audience, and printed with its end', async () => {
      const token = await jwt({ sub: 'repo:shop' })
      answer = give(token)
      const result = await nestgate(['credential', '--from', 'github'], runner())
      expect({ code: result.code, err: result.err }).to.deep.equal({ code: 0, err: '' })
      const { exp } = JSON.parse(
        Buffer.from(token.split('.')[1] ?? '', 'base64url').toString(),
      ) as {
        exp: number
      }
      expect(JSON.parse(result.out)).to.deep.equal({
        apiVersion: 'client.authentication.k8s.io/v1',
        kind: 'ExecCredential',
        status: { expirationTimestamp: new Date(exp * 1000).toISOString(), token },
      })
      expect(arrived).to.deep.equal([
        {
          method: 'GET',
          url: '/token?api-version=2.0&audience=nestgate',
          authorization: `Bearer ${BEARER}`,
        },
      ])
    })

    it('is for another audience where one is given, which cannot add parameters', async () => {
      answer = give(await jwt({ aud: 'a&b=c' }))
      const { code } = await nestgate(
        ['credential', '--from', 'github', '--audience', 'a&b=c'],
        runner(),
      )
      expect([code, arrived[0]?.url]).to.deep.equal([
        0,
        '/token?api-version=2.0&audience=a%26b%3Dc',
      ])
    })

    it('is asked for again where the runner is out of order', async () => {
      const token = await jwt({})
      answer = (request, response) => {
        if (arrived.length < 2) response.writeHead(503).end()
        else give(token)(request, response)
      }
      expect(await nestgate(['credential', '--from', 'github'], runner())).to.include({ code: 0 })
      expect(arrived).to.have.lengthOf(2)
    }).timeout(SLOW_MS)

    it('says what the workflow lacks', async () => {
      const lacking = await nestgate(['credential', '--from', 'github'])
      expect(lacking).to.include({ code: 2, out: '' })
      expect(lacking.err).to.contain('permissions: { id-token: write }')
      answer = (_request, response) => response.writeHead(403).end('no')
      const refused = await nestgate(['credential', '--from', 'github'], runner())
      expect(refused.err).to.contain('permissions: { id-token: write }')
    })

    for (const [what, reply] of [
      [
        'a redirect',
        (response: ServerResponse) => response.writeHead(302, { location: `${origin}/x` }).end(),
      ],
      ['no JSON', (response: ServerResponse) => response.end('<html>')],
      ['no token', (response: ServerResponse) => response.end('{"value":"hello"}')],
      ['a number', (response: ServerResponse) => response.end('{"value":7}')],
    ] as const)
      it(`is not taken from ${what}`, async () => {
        answer = (_request, response) => reply(response)
        const { code, out, err } = await nestgate(['credential', '--from', 'github'], runner())
        expect([code, out]).to.deep.equal([1, ''])
        expect(err)
          .to.match(/GitHub/)
          .and.not.contain(BEARER)
        expect(arrived.map(({ url }) => url)).not.to.include('/x')
      }).timeout(SLOW_MS)

    it('is not taken from an answer without end', async () => {
      const value = await jwt({})
      answer = (_request, response) => {
        response.end(JSON.stringify({ value, more: 'x'.repeat(100_000) }))
      }
      const { code, out, err } = await nestgate(['credential', '--from', 'github'], runner())
      expect([code, out]).to.deep.equal([1, ''])
      expect(err).to.contain('GitHub').and.not.contain(value)
    }).timeout(SLOW_MS)

    it('is not taken when it has ended, or is for somebody else', async () => {
      answer = give(await jwt({}, -5))
      const ended = await nestgate(['credential', '--from', 'github'], runner())
      expect([ended.code, ended.out]).to.deep.equal([1, ''])
      expect(ended.err).to.contain('has ended')
      const other = await jwt({ aud: 'https://github.com/shop' })
      answer = give(other)
      const { code, out, err } = await nestgate(['credential', '--from', 'github'], runner())
      expect([code, out]).to.deep.equal([1, ''])
      expect(err).to.contain('audience').and.not.contain(other)
    })

    it('is not asked for without TLS, nor of a runner whose certificate is not good', async () => {
      const plain = { ...runner(), ACTIONS_ID_TOKEN_REQUEST_URL: 'http://127.0.0.1:9/token' }
      const { code, err } = await nestgate(['credential', '--from', 'github'], plain)
      expect([code, err.includes('https')]).to.deep.equal([2, true])
      const other = join(folder, 'other-issuer-ca.crt')
      writeFileSync(other, makeCertificates({ hosts: ['127.0.0.1'] }).ca)
      const result = await nestgate(['credential', '--from', 'github'], {
        ...runner(),
        ...{ NESTGATE_ISSUER_CA_FILE: other, NODE_TLS_REJECT_UNAUTHORIZED: '0' },
      })
      expect(result.code).to.equal(1)
      expect(arrived).to.deep.equal([])
    }).timeout(SLOW_MS)

    it('is never told in a message, and nor is what it is asked with', async () => {
      const odd = `${BEARER}\nx`
      const { code, out, err } = await nestgate(['credential', '--from', 'github'], {
        ...runner(),
        ACTIONS_ID_TOKEN_REQUEST_TOKEN: odd,
      })
      expect([code, out]).to.deep.equal([2, ''])
      expect(err).to.contain('malformed').and.not.contain(BEARER)
    }).timeout(SLOW_MS)
  })

  describe('the token of a GitLab job', () => {
    it('is in the variable that the pipeline’s file names', async () => {
      const token = await jwt({ sub: 'project_path:shop' })
      for (const [args, variable] of [
        [[], 'NESTGATE_ID_TOKEN'],
        [['--variable', 'MY_TOKEN', '--audience', 'nestgate'], 'MY_TOKEN'],
      ] as const) {
        const result = await nestgate(['credential', '--from', 'gitlab', ...args], {
          [variable]: token,
        })
        expect(JSON.parse(result.out)).to.have.nested.property('status.token', token)
        expect(JSON.parse(result.out)).to.have.nested.property('status.expirationTimestamp')
      }
    })

    it('says what the pipeline’s file lacks', async () => {
      const { code, err } = await nestgate(['credential', '--from', 'gitlab', '--audience', 'prod'])
      expect(code).to.equal(2)
      expect(err).to.contain('id_tokens: { NESTGATE_ID_TOKEN: { aud: prod } }')
    })

    for (const [what, value] of [
      ['is no token', () => Promise.resolve('hello')],
      ['is not expanded', () => Promise.resolve('$CI_JOB_JWT')],
      ['has ended', () => jwt({}, -5)],
      ['is for somebody else', () => jwt({ aud: 'vault' })],
      ['has no end', () => Promise.resolve('e30.e30.e30')],
    ] as const)
      it(`is refused when it ${what}`, async () => {
        const token = await value()
        const args = ['credential', '--from', 'gitlab', '--audience', 'nestgate']
        const { code, out, err } = await nestgate(args, { NESTGATE_ID_TOKEN: token })
        expect([code, out]).to.deep.equal([1, ''])
        expect(err).not.to.contain(token)
      })

    it('is not looked for in a variable whose name is none', async () => {
      const args = ['credential', '--from', 'gitlab', '--variable', 'A B']
      expect(await nestgate(args, { 'A B': await jwt({}) })).to.include({ code: 2, out: '' })
    })
  })

  if (kubectls().length === 0)
    console.error('NOT RUN: kubeconfigs with a real kubectl: there is none here')
  for (const kubectl of kubectls())
    describe(`${kubectl.split('/').at(-1) ?? ''} with such a kubeconfig`, () => {
      const get = async (
        file: string,
        env: Record<string, string> = {},
        verb: readonly string[] = ['version'],
      ): Promise<Run> =>
        run(kubectl, ['--kubeconfig', file, ...verb], { PATH: path, HOME: folder, ...env })
      const fresh = async (
        args: readonly string[],
        env: Record<string, string> = {},
      ): Promise<string> => {
        const file = join(mkdtempSync(join(folder, 'config-')), 'kubeconfig')
        expect(await write([...args, '--out', file], env)).to.include({ code: 0 })
        return file
      }
      const serve = (_request: IncomingMessage, response: ServerResponse): void => {
        sendJson(response, { major: '1', minor: '30', gitVersion: 'v1.30.0' })
      }
      const atCluster = (): readonly Arrived[] =>
        arrived.filter(({ url }) => url.includes('/clusters/'))

      it('sends the GitHub job’s token to the cluster’s address', async () => {
        const token = await jwt({ sub: 'repo:shop' })
        answer = (request, response) => {
          if (request.url?.startsWith('/token') === true) give(token)(request, response)
          else serve(request, response)
        }
        const file = await fresh(['--for', 'ci', '--ci', 'github'])
        const result = await get(file, runner())
        expect(result).to.include({ code: 0 })
        expect(result.out).to.contain('v1.30.0')
        expect(atCluster()).to.deep.equal([
          {
            method: 'GET',
            url: '/clusters/prod/version?timeout=32s',
            authorization: `Bearer ${token}`,
          },
        ])
      }).timeout(SLOW_MS)

      it('sends the GitLab job’s, where held requests come back', async () => {
        answer = serve
        const token = await jwt({})
        const file = await fresh(['--for', 'ci', '--ci', 'gitlab', '--approval', 'return'])
        expect(await get(file, { NESTGATE_ID_TOKEN: token })).to.include({ code: 0 })
        expect(atCluster()).to.deep.equal([
          {
            method: 'GET',
            url: '/return/clusters/prod/version?timeout=32s',
            authorization: `Bearer ${token}`,
          },
        ])
      }).timeout(SLOW_MS)

      it('sends the agent’s token of its file, as it is now', async () => {
        answer = serve
        const tokenFile = join(folder, 'agent-token')
        const file = await fresh(['--for', 'agent', '--token-file', tokenFile])
        for (const token of ['first', 'second']) {
          writeFileSync(tokenFile, token)
          expect(await get(file)).to.include({ code: 0 })
        }
        expect(arrived.map(({ authorization }) => authorization)).to.deep.equal([
          'Bearer first',
          'Bearer second',
        ])
      }).timeout(SLOW_MS)

      it('sends a person’s token by the plugin', async () => {
        answer = serve
        const file = await fresh(['--for', 'person'])
        expect(await get(file, { NESTGATE_TOKEN: 'my-token' })).to.include({ code: 0 })
        expect(arrived.map(({ authorization }) => authorization)).to.deep.equal(['Bearer my-token'])
      }).timeout(SLOW_MS)

      it('shows what the pipeline’s file lacks, and sends nothing', async () => {
        answer = serve
        const file = await fresh(['--for', 'ci', '--ci', 'gitlab'])
        const { code, err } = await get(file)
        expect(code).to.equal(1)
        expect(err).to.contain('id_tokens: { NESTGATE_ID_TOKEN:')
        expect(arrived).to.deep.equal([])
      }).timeout(SLOW_MS)

      it('sends nothing to a broker whose certificate is another’s', async () => {
        answer = serve
        const other = join(folder, 'other-ca.crt')
        writeFileSync(other, makeCertificates({ hosts: ['127.0.0.1'] }).ca)
        const file = await fresh(['--for', 'ci', '--ci', 'gitlab', '--ca-file', other])
        const { code, err } = await get(file, { NESTGATE_ID_TOKEN: await jwt({}) })
        expect(code).to.equal(1)
        expect(err).to.contain('certificate')
        expect(arrived).to.deep.equal([])
      }).timeout(SLOW_MS)

      it('fails at once with the policy’s sentence, and with the id of what waits', async () => {
        const file = await fresh(['--for', 'ci', '--ci', 'gitlab', '--approval', 'return'])
        const env = { NESTGATE_ID_TOKEN: await jwt({}) }
        const verb = ['delete', 'deployment', 'web', '--namespace', 'shop']
        for (const [code, detail] of [
          ['policy_denied', 'rule "no-till" denies delete deployments.apps: hands off'],
          [
            'approval_pending',
            'request 01a20a06-af7f-7b7b-a775-ed1b1dee08e4: nestgate approvals show',
          ],
        ] as const) {
          const refusal = statusAnswer(refuse(code, detail), 'id')
          answer = ({ method, url = '' }, response) => {
            const found = DISCOVERY[url.replace(/^\/return\/clusters\/prod|\?.*$/g, '')]
            if (method === 'GET' && found !== undefined) sendJson(response, found)
            else
              response
                .writeHead(refusal.status, { 'content-type': refusal.contentType })
                .end(refusal.body)
          }
          const result = await get(file, env, verb)
          expect([result.code, result.out]).to.deep.equal([1, ''])
          expect(arrived.at(-1)).to.include({
            method: 'DELETE',
            url: '/return/clusters/prod/apis/apps/v1/namespaces/shop/deployments/web',
          })
          expect(result.err).to.contain('Error from server (Forbidden)').and.contain(detail)
        }
      }).timeout(SLOW_MS)
    })
})
