import { expect } from 'chai'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { openPolicy } from '../../broker/policy/source.ts'
import type { LivePolicy, PolicySummary } from '../../broker/policy/source.ts'
import { ConfigError } from '../../shared/config-source.ts'
import type { Facts } from '../../shared/policy/facts.ts'
import { HEAD, processFacts, requestOf } from '../support/policies.ts'
import { SILENT } from '../support/sqlite-store.ts'

const POLL_MS = 20
const rule = (id: string, effect = 'allow'): string =>
  `${HEAD}- {id: ${id}, match: {verbs: [get], resources: [pods]}, effect: ${effect}}\n`

const FACTS: Facts = {
  cluster: 'prod',
  process: processFacts(),
  subject: undefined,
  request: requestOf('GET', '/api/v1/namespaces/x/pods/p'),
}

describe('the policy in force', () => {
  let folder = ''
  let policy: LivePolicy | undefined
  let changes: (readonly [PolicySummary, PolicySummary])[] = []

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'nestgate-policy-'))
    changes = []
  })
  afterEach(async () => {
    await policy?.close()
    policy = undefined
    rmSync(folder, { recursive: true, force: true })
  })

  async function open(paths: readonly string[], pollMs = 60_000): Promise<LivePolicy> {
    policy = await openPolicy({
      paths,
      options: { acceptVerdicts: ['exclusive'] },
      log: SILENT,
      now: () => 1000,
      onChange: (old, fresh) => changes.push([old, fresh]),
      pollMs,
    })
    return policy
  }
  const write = (name: string, text: string): void => {
    writeFileSync(join(folder, name), text)
  }

  it('refuses to start with any problem, and names all of them', async () => {
    write('a.yaml', rule('a', 'permit'))
    write('b.yaml', 'kind: x\n')
    for (const paths of [[folder], [join(folder, 'none.yaml')]]) {
      const error = await open(paths).then(
        () => undefined,
        (thrown: unknown) => thrown,
      )
      expect(error).to.be.instanceOf(ConfigError)
      if (paths[0] === folder)
        expect(String(error)).to.contain('a.yaml:4').and.to.contain('b.yaml:1')
    }
  })

  it('changes with its files, all at once, and says so', async () => {
    write('a.yaml', rule('a'))
    write('ignored.txt', 'x')
    const live = await open([folder])
    const first = live.status()
    expect(first).to.deep.include({ rules: 1, loadedAt: 1000, problems: [], warnings: [] })
    expect(live.decider.decide(FACTS)).to.deep.include({
      effect: 'allow',
      policyDigest: first.digest,
    })
    write('b.yaml', rule('b', 'hold'))
    expect(live.decider.decide(FACTS).effect).to.equal('allow')
    await live.look()
    expect(live.decider.decide(FACTS).effect).to.equal('hold')
    expect(live.decider.policyDigest).to.equal(live.status().digest).and.not.to.equal(first.digest)
    expect(changes).to.deep.equal([
      [
        { digest: first.digest, rules: 1 },
        { digest: live.status().digest, rules: 2 },
      ],
    ])
    await live.look()
    expect(changes).to.have.length(1)
  })

  it('stays the last good one while the files have problems, and says which', async () => {
    write('a.yaml', rule('a'))
    const live = await open([folder])
    const { digest } = live.status()
    for (const bad of [rule('a', 'permit'), '{', `${rule('a')}- {id: a}\n`]) {
      write('a.yaml', bad)
      await live.look()
      expect(live.status().problems, bad).not.to.have.length(0)
      expect(live.status().digest).to.equal(digest)
      expect(live.decider.decide(FACTS).effect).to.equal('allow')
    }
    rmSync(join(folder, 'a.yaml'))
    await live.look()
    expect(live.status().problems.join()).to.contain('has no *.yaml file')
    rmSync(folder, { recursive: true })
    await live.look()
    expect(live.status().problems.join()).to.contain('ENOENT')
    expect(live.decider.decide(FACTS).effect).to.equal('allow')
    mkdirSync(folder)
    write('a.yaml', rule('a'))
    await live.look()
    expect(live.status()).to.deep.include({ problems: [], digest })
    expect(changes).to.deep.equal([])
  })

  it('follows the link by which kubelet swaps a ConfigMap, without being told', async () => {
    const swap = (version: string, files: Record<string, string>): void => {
      mkdirSync(join(folder, version))
      for (const [name, text] of Object.entries(files)) write(join(version, name), text)
      symlinkSync(version, join(folder, '..tmp'))
      renameSync(join(folder, '..tmp'), join(folder, '..data'))
    }
    swap('..1', { 'a.yaml': rule('a') })
    symlinkSync('..data/a.yaml', join(folder, 'a.yaml'))
    const live = await open([folder], POLL_MS)
    expect(live.decider.decide(FACTS).rules).to.deep.equal(['a'])
    swap('..2', { 'a.yaml': rule('a2'), 'b.yaml': rule('b') })
    for (let waited = 0; changes.length === 0 && waited < 5000; waited += POLL_MS)
      await sleep(POLL_MS)
    expect(live.decider.decide(FACTS).rules).to.deep.equal(['a2', 'b'])
  })

  it('tells what is probably not meant', async () => {
    write('a.yaml', rule('a').replace('get', 'read'))
    const live = await open([join(folder, 'a.yaml')])
    expect(live.status().warnings).to.have.length(1)
  })
})
