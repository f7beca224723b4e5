import { expect } from 'chai'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'mocha'
import { runCli } from '../../cli/program.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { intent } from '../support/entries.ts'
import { HEAD } from '../support/policies.ts'

const ROOT = new URL('../../', import.meta.url).pathname
const STARTERS = join(ROOT, 'manifests', 'policies')
const MASKING = join(ROOT, 'docs', 'policies', 'masking.yaml')

interface Run {
  readonly code: number
  readonly out: string
  readonly err: string
}

let env: Record<string, string> = {}

async function cli(...args: readonly string[]): Promise<Run> {
  let out = ''
  let err = ''
  const code = await runCli({
    args,
    env,
    now: Date.now,
    out: (text) => (out += text),
    err: (text) => (err += text),
  })
  return { code, out, err }
}

describe('the starter policies', () => {
  const files = readdirSync(STARTERS).map((name) => join(STARTERS, name))
  // Each by itself, and all together: a broker may be given any of them.
  for (const paths of [...files.map((file) => [file]), [STARTERS], [MASKING]]) {
    it(`${paths.join().slice(ROOT.length)} do what their examples say`, () => {
      const main = join(ROOT, 'cli', 'main.ts')
      for (const command of ['check', 'test']) {
        const { status, stdout } = spawnSync(
          process.execPath,
          [main, 'policy', command, ...paths],
          {
            encoding: 'utf8',
          },
        )
        expect(stdout).to.match(
          command === 'check' ? /^OK: \d+ rules/ : /^[1-9]\d* passed, 0 failed\n$/,
        )
        expect(status).to.equal(0)
      }
    })
  }
})

describe('nestgate policy', () => {
  let api: ApiServer
  const folder = mkdtempSync(join(tmpdir(), 'nestgate-cli-policy-'))
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text)
    return join(folder, name)
  }
  before(async () => {
    api = await startApi()
    env = { NESTGATE_BROKER_URL: api.url, NESTGATE_TOKEN: 'token-carol' }
  })
  after(async () => {
    await api.close()
    rmSync(folder, { recursive: true, force: true })
  })

  const RULES = `${HEAD}- {id: look, match: {verbs: [get], resources: [pods], agents: [scanner]}, effect: allow}
- {id: waits, match: {verbs: [delete], resources: [pods]}, effect: hold, approval: {quorums: [{group: sre, count: 2}]}}
`

  it('checks: every problem, and warnings that are none', async () => {
    const bad = file('bad.yaml', RULES.replace('allow', 'permit').replace('[delete]', '[]'))
    const { code, out } = await cli('policy', 'check', bad)
    expect(code).to.equal(1)
    expect(out.split('\n').map((line) => line.slice(folder.length))).to.have.length(3)
    expect(out)
      .to.contain(`${bad}:4: rules.0.effect`)
      .and.to.contain(`${bad}:5: rules.1.match.verbs`)
    const odd = file('odd.yaml', RULES.replace('[get]', '[read]'))
    const warned = await cli('policy', 'check', odd)
    expect([warned.code, warned.out]).to.deep.equal([
      0,
      `warning: ${odd}:4: rule look: no request has the verb read\n${warned.out.split('\n')[1] ?? ''}\n`,
    ])
    const json = JSON.parse((await cli('policy', 'check', bad, '--output', 'json')).out) as object
    expect(json).to.deep.include({ ok: false, warnings: [] })
    expect((await cli('policy', 'check', join(folder, 'none'))).code).to.equal(1)
    expect((await cli('policy', 'check')).code).to.equal(2)
  })

  it('tests: names the example that failed, what came of it and why', async () => {
    const path = file(
      'examples.yaml',
      `${RULES}examples:
  must_allow:
    - {verb: get, resource: pods, namespace: x, agent: scanner}
    - {name: somebody else, verb: get, resource: pods, namespace: x, agent: other}
  must_hold:
    - {verb: delete, resource: pods, namespace: x, rule: look}
    - {verb: fly, resource: pods}
    - {request: GET /api//v1/pods}
`,
    )
    const { code, out } = await cli('policy', 'test', path)
    expect(code).to.equal(1)
    expect(out).to.equal(`${path}:9: somebody else: must be allow, is deny
  no rule allows get pods example in x
${path}:11: delete pods: must be hold by rule look, is hold waits
  rule "waits" holds delete pods example in x
${path}:12: fly pods: must be hold, is no request
  names neither a request line nor a verb of requests and a resource
${path}:13: GET /api//v1/pods: must be hold, is no request
  the request path can be read in more than one way: a segment is empty
1 passed, 4 failed
`)
    const json = JSON.parse((await cli('--output', 'json', 'policy', 'test', path)).out) as {
      ok: boolean
      results: { passed: boolean }[]
    }
    expect([json.ok, json.results.map(({ passed }) => passed)]).to.deep.equal([
      false,
      [true, false, false, false, false],
    ])
  })

  it('tells what is hidden: in examples that failed, and where a request is explained', async () => {
    const path = file(
      'masks.yaml',
      `${RULES}- {id: shop, match: {verbs: [get], resources: [databases], agents: [scanner]}, effect: allow, mask: {profile: db, restore: true}}
- {id: ask, match: {actions: [unmask]}, effect: hold, mask: none}
masks:
  - {name: db, everywhere: true, fields: [{group: '', kind: Database, paths: [spec.token]}]}
examples:
  must_allow:
    - {verb: get, resource: pods, namespace: x, agent: scanner, mask: standard}
    - {verb: get, resource: databases, namespace: x, agent: scanner, mask: db}
    - {name: shown, verb: get, resource: databases, namespace: x, agent: scanner, mask: none}
  must_hold:
    - {request: GET /api/v1/namespaces/x/pods/p?nestgate.dev/unmask=true, rule: ask, mask: none}
`,
    )
    const { code, out } = await cli('policy', 'test', path)
    expect(code).to.equal(1)
    expect(out).to.match(/: shown: must be allow with mask none, is allow shop with mask db\n/)
    expect(out).to.contain('3 passed, 1 failed')
    const explained = async (line: string): Promise<string> => {
      const request = ['--request', line, '--agent', 'scanner']
      return (await cli('policy', 'explain', path, ...request)).out
    }
    const pods = 'GET /api/v1/namespaces/x/pods/p'
    expect(await explained(pods)).to.match(/Mask: +standard\n/)
    expect(await explained(pods.replace('pods', 'databases'))).to.match(
      /Mask: +db; 1 field; detectors everywhere; restored in updates\n/,
    )
    expect(await explained(`${pods}?nestgate.dev/unmask=true`)).to.match(
      /Decision: +hold\n(.*\n)*Mask: +none: values are shown\n/,
    )
    const refused = `${pods}?nestgate.dev/unmask=1`
    expect((await cli('policy', 'explain', path, '--request', refused)).err).to.contain(
      'nestgate.dev/unmask is given once, and is true',
    )
  })

  it('explains a request that is described', async () => {
    const path = file('rules.yaml', RULES)
    const { code, out } = await cli(
      'policy',
      'explain',
      path,
      '--request',
      'GET /api/v1/namespaces/x/pods/p',
      '--agent',
      'ci',
    )
    expect(code).to.equal(0)
    expect(out).to.contain('Decision:  deny\n').and.to.contain('look: agents is ci, not scanner')
    const held = await cli(
      'policy',
      'explain',
      path,
      '--request',
      'DELETE /api/v1/namespaces/x/pods/p',
      '--output',
      'json',
    )
    expect(JSON.parse(held.out)).to.have.nested.property('decision.approval.quorums[0].count', 2)
    for (const args of [
      [],
      ['--request', 'get pods'],
      ['--request', 'GET /api//x'],
      ['--id', 'x', '--request', 'GET /api'],
    ])
      expect((await cli('policy', 'explain', path, ...args)).code, args.join()).to.equal(2)
  })

  it('reads a body from a file', async () => {
    const path = file(
      'when.yaml',
      `${HEAD}- {id: big, match: {verbs: [create], resources: [pods]}, when: object.spec.hostNetwork, effect: deny}\n`,
    )
    const body = file('body.yaml', 'spec: {hostNetwork: true}\n')
    const request = ['--request', 'POST /api/v1/namespaces/x/pods', '--body', body]
    expect((await cli('policy', 'explain', path, ...request)).out).to.contain('rule "big" denies')
  })

  it('explains a request of the ledger, and names what it cannot know', async () => {
    const path = file('rules.yaml', RULES)
    const requestId = newRequestId(Date.now())
    const tag = intent().tag
    await api.store.append([
      intent({ requestId, agent: 'scanner', tag: tag!, request: { bodyBytes: 5 } }),
    ])
    const { code, out, err } = await cli('policy', 'explain', path, '--id', requestId)
    expect([code, err]).to.deep.equal([0, ''])
    expect(out)
      .to.contain('rule "look" allows get pods web-0 in shop')
      .and.to.contain('its body is not in the ledger')
    const none = await cli('policy', 'explain', path, '--id', newRequestId(Date.now()))
    expect(none).to.deep.include({ code: 1, out: '' })
  })

  it('tells what is in force, and fails while the files have problems', async () => {
    const sound = await cli('policy', 'status')
    expect([sound.code, sound.err]).to.deep.equal([0, ''])
    expect(sound.out)
      .to.contain(`Digest:  ${'0'.repeat(64)}\n`)
      .and.to.contain('in force\n')
    const broken = await startApi(undefined, undefined, {
      policy: { rules: 7, problems: ['a.yaml:3: \u001b[2Jodd'], warnings: ['never matches'] },
    })
    const own = env
    env = { ...env, NESTGATE_BROKER_URL: broken.url }
    try {
      const { code, out } = await cli('policy', 'status')
      expect(code).to.equal(1)
      expect(out.split('\n').slice(1)).to.deep.equal([
        'Rules:   7',
        'Since:   1970-01-01T00:00:00.000Z',
        'Files:   have problems; not in force',
        'problem: a.yaml:3: \\x1b[2Jodd',
        'warning: never matches',
        '',
      ])
      const json = await cli('policy', 'status', '--output', 'json')
      expect([json.code, JSON.parse(json.out)]).to.have.nested.property('1.rules', 7)
      expect(json.code).to.equal(1)
    } finally {
      env = own
      await broken.close()
    }
  })

  it('tells who can', async () => {
    const path = file('rules.yaml', RULES)
    const { out } = await cli('policy', 'who-can', 'get', 'pods', path)
    expect(out.replaceAll(/ +/g, ' ')).to.equal(
      'EFFECT WHO ONLY IF RULE\nallow agents: scanner look\n',
    )
    expect((await cli('policy', 'who-can', 'get', 'deployments.apps/scale', path)).out).to.contain(
      'No rule',
    )
    expect((await cli('policy', 'who-can', 'fly', 'pods', path)).code).to.equal(2)
  })

  it('compares by what the ledger has, over pages', async () => {
    const [old, fresh] = [
      file('old.yaml', RULES),
      file('new.yaml', RULES.replace('effect: allow', 'effect: hold')),
    ]
    const ten = Array.from({ length: 1010 }, () => intent({ cluster: 'east', agent: 'scanner' }))
    const attributes = {
      policyVerb: 'delete',
      actions: ['force-delete' as const, 'of-a-newer-broker' as 'scale'],
      equivalents: [],
      parameters: { dryRun: false },
      objectName: 'web-0',
    }
    const direct = {
      ...intent({
        cluster: 'east',
        subject: { type: 'person', name: 'oidc:ci' },
        request: { verb: 'delete', method: 'DELETE' },
      }),
      oidc: { issuer: 'https://ci', sub: 'ci', name: 'oidc:ci', groups: [] },
    }
    await api.store.append([
      ...ten,
      { ...direct, request: { ...direct.request, ...{ attributes } } },
    ])
    const diff = ['policy', 'diff', old, fresh, '--cluster', 'east']
    const { code, out, err } = await cli(...diff)
    expect([code, err]).to.deep.equal([0, ''])
    const lines = out.replaceAll(/ +/g, ' ').split('\n')
    expect(lines[1]).to.match(/^1010 scanner get pods web-0 in shop allow \(look\) hold \(look\)/)
    expect(lines[2]).to.equal('1011 requests replayed, 1010 would be decided otherwise or may be.')
    const same = JSON.parse(
      (await cli('policy', 'diff', old, old, '--cluster', 'east', '--output', 'json')).out,
    ) as object
    expect(same).to.deep.equal({ replayed: 1011, skipped: 0, cut: false, items: [] })
    const unforced = file(
      'no.yaml',
      `${HEAD}- {id: f, match: {actions: [force-delete], subjects: ["oidc:*"]}, effect: breakGlass}\n`,
    )
    const other = await cli('policy', 'diff', old, unforced, '--cluster', 'east')
    expect(other.out).to.match(
      /1 +oidc:ci +delete pods web-0 in shop +hold \(waits\) +breakGlass \(f\)/,
    )
    expect((await cli(...diff, '--since', 'yesterday')).code).to.equal(2)
    const future = new Date(Date.now() + 60_000).toISOString()
    expect((await cli(...diff, '--since', future)).out).to.contain('0 requests replayed')
  })
})
