/** `nestgate connect` as it is called: what it takes, where it writes, and that nothing secret is printed. */
import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { parse } from 'yaml'
import { runCli } from '../../cli/program.ts'
import { CONNECT_GOLDEN_FOLDER } from '../support/connect-golden.ts'

interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

describe('nestgate connect', () => {
  let folder: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'nestgate-connect-'))
  })
  afterEach(() => {
    rmSync(folder, { recursive: true })
  })

  async function cli(...args: readonly string[]): Promise<Ran> {
    let out = ''
    let err = ''
    const code = await runCli({
      args: ['connect', ...args],
      env: {},
      now: Date.now,
      out: (text) => (out += text),
      err: (text) => (err += text),
    })
    return { code, out, err }
  }
  const ca = join(CONNECT_GOLDEN_FOLDER, 'ca.crt')
  const given = (mode: string, version: string): readonly string[] => [
    ...['prod', '--mode', mode, '--kubernetes-version', version, '--out', join(folder, 'prod')],
    ...['--broker-url', 'https://broker.example:8443', '--broker-ca', ca],
  ]
  const read = (name: string): string => readFileSync(join(folder, 'prod', name), 'utf8')

  it('writes a new token each time, and tells the broker its hash only', async () => {
    const tokens = []
    for (let time = 0; time < 2; time += 1) {
      const { code, out, err } = await cli(...given('issuer', '1.34'))
      expect([code, err]).to.deep.equal([0, ''])
      expect(out).to.contain('NEXT-STEPS.md first')
      const { users } = parse(read('authorizer.kubeconfig')) as {
        users: [{ user: { token: string } }]
      }
      const { token } = users[0].user
      expect(Buffer.from(token.replace('nestgate_', ''), 'base64url')).to.have.lengthOf(32)
      expect(read('broker-cluster.yaml')).to.contain(
        createHash('sha256').update(token).digest('hex'),
      )
      expect(out).not.to.contain(token)
      expect(statSync(join(folder, 'prod', 'authorizer.kubeconfig')).mode & 0o777).to.equal(0o600)
      tokens.push(token)
      rmSync(join(folder, 'prod'), { recursive: true })
    }
    expect(new Set(tokens).size).to.equal(2)
  })

  it('says what is left to be told of the API server', async () => {
    await cli(...given('issuer', '1.29'))
    expect(read('NEXT-STEPS.md')).to.contain('the address of the API server and the certificates')
    expect(read('broker-cluster.yaml')).to.contain('https://API-SERVER:6443')
  })

  it('takes names by commas or one by one', async () => {
    const names = ['--namespaces', 'a, b', '--namespaces', 'c', '--users', 'ci:x,ci:y']
    const { code } = await cli(...given('impersonation', '1.30'), ...names)
    expect(code).to.equal(0)
    for (const name of ['namespace: a', 'namespace: b', 'namespace: c', '- ci:x', '- ci:y'])
      expect(read('rbac.yaml')).to.contain(name)
  })

  it('prints the files as JSON for programs', async () => {
    const { out } = await cli(...given('issuer', '1.34'), '--output', 'json')
    const { written } = JSON.parse(out) as { written: string[] }
    expect(written).to.have.lengthOf(readdirSync(join(folder, 'prod')).length)
  })

  it('writes nothing when something is wrong', async () => {
    for (const [args, said] of [
      [['--users', 'system:admin'], 'system:'],
      [['--server', 'http://10.0.0.5'], 'https://'],
      [['--ca', join(folder, 'none')], 'cannot read'],
      [['--namespaces', ''], 'DNS label'],
    ] as const) {
      const { code, out, err } = await cli(...given('impersonation', '1.30'), ...args)
      expect([code, out]).to.deep.equal([2, ''])
      expect(err).to.contain(said)
    }
    expect(await cli('prod', '--mode', 'issuer')).to.include({ code: 2, out: '' })
    expect(readdirSync(folder)).to.deep.equal([])
  })

  it('overwrites nothing', async () => {
    await cli(...given('issuer', '1.34'))
    const before = read('authorizer.kubeconfig')
    const { code, out, err } = await cli(...given('issuer', '1.34'))
    expect([code, out]).to.deep.equal([1, ''])
    expect(err).to.contain('nothing is overwritten')
    expect(read('authorizer.kubeconfig')).to.equal(before)
  })
})
