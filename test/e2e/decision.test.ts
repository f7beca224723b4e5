/**
 * The decision on a real cluster: two groups approve one exact request, clients of several versions wait or come back,
 * what was approved is what runs, and a pipeline without a sidecar gets the same guardrails.
 */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { approvalListSchema, approvalSchema } from '../../shared/wire.ts'
import type { Approval } from '../../shared/wire.ts'
import { eventually, sleep } from '../../scripts/run.ts'
import type { Ran } from '../../scripts/run.ts'
import type { Report, Task } from './agents/run.ts'
import {
  admin,
  agentRuns,
  apply,
  asPipeline,
  audit,
  closeBroker,
  facts,
  nestgate,
  prepare,
  RESTRICTED,
  WORK_NAMESPACE,
} from './support.ts'
import type { Person } from './support.ts'

const AGENT = RESTRICTED.name
let counter = 0

function unique(prefix: string): string {
  counter += 1
  return `${prefix}-${process.pid}-${counter}`
}

async function workMap(name: string, data: Record<string, string> = {}): Promise<void> {
  const metadata = { name, namespace: WORK_NAMESPACE }
  const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata, data }
  // not by apply: kubectl would take its fields over in a second patch of its own
  await admin(['replace', '--force', '-f', '-'], JSON.stringify(object))
}

async function exists(kind: string, name: string): Promise<boolean> {
  const args = ['-n', WORK_NAMESPACE, 'get', kind, name, '-o', 'name', '--ignore-not-found']
  return (await admin(args)).trim() !== ''
}

async function ticketsIn(state: string): Promise<readonly Approval[]> {
  const ran = await nestgate('reviewer', [
    '--output',
    'json',
    'approvals',
    'list',
    '--state',
    state,
  ])
  if (ran.code !== 0) throw new Error(ran.stderr)
  const listed: unknown = JSON.parse(ran.stdout)
  return approvalListSchema.parse(Array.isArray(listed) ? { items: listed } : listed).items
}

function pending(match: (approval: Approval) => boolean): Promise<Approval> {
  return eventually('a held request', 40_000, async () => (await ticketsIn('PENDING')).find(match))
}

async function show(id: string): Promise<Approval> {
  const ran = await nestgate('reviewer', ['--output', 'json', 'approvals', 'show', id])
  if (ran.code !== 0) throw new Error(ran.stderr)
  return approvalSchema.parse(JSON.parse(ran.stdout))
}

function decide(person: Person, verb: string, id: string, reason = 'ticket 7'): Promise<Ran> {
  return nestgate(person, ['approvals', verb, id, '--reason', reason])
}

async function approve(id: string): Promise<void> {
  for (const person of ['sre', 'security'] as const) {
    const ran = await decide(person, 'approve', id)
    expect(ran.code, ran.stderr).to.equal(0)
  }
}

interface Running {
  readonly report: Promise<Report>
  readonly ended: () => boolean
}

function start(command: readonly string[], more: Partial<Task> = {}): Running {
  let over = false
  const task = { command: [...command], limitMs: 150_000, ...more }
  const report = agentRuns(AGENT, 'planner', task).finally(() => (over = true))
  report.catch(() => undefined)
  return { report, ended: () => over }
}

const inWork = ['-n', WORK_NAMESPACE] as const

/** Creates an object from a manifest; kubectl's own `create KIND` sends protobuf, which has no name for policy. */
function create(kind: string, name: string, more: object): Running {
  const [apiVersion = '', kindName] = kind.split('#')
  const object = { apiVersion, kind: kindName, metadata: { name }, ...more }
  return start(['kubectl-new', ...inWork, 'create', '-f', '-'], { input: JSON.stringify(object) })
}

describe('the decision', () => {
  before(prepare)
  after(closeBroker)

  for (const program of ['kubectl-old', 'kubectl-new'] as const) {
    describe(`with ${program}`, () => {
      it('lets a delete through once people of both groups have approved, and no sooner', async () => {
        const name = unique('two-groups')
        await workMap(name)
        const { report, ended } = start([
          program,
          ...inWork,
          'delete',
          'configmap',
          name,
          '--wait=false',
        ])
        const { id } = await pending((item) => item.name === name)
        expect((await decide('sre', 'approve', id)).code).to.equal(0)
        expect((await show(id)).missing).to.deep.equal([{ group: 'security', count: 1 }])
        const again = await decide('sre', 'approve', id)
        expect(again.code).to.equal(1)
        const outside = await decide('reviewer', 'approve', id)
        expect(outside.stderr).to.include('security')
        await sleep(1000)
        expect(ended()).to.equal(false)
        expect(await exists('configmap', name)).to.equal(true)
        expect((await decide('security', 'approve', id)).code).to.equal(0)
        const { code, stderr } = await report
        expect(code, stderr).to.equal(0)
        expect(stderr).to.include('approved by')
        expect(await exists('configmap', name)).to.equal(false)
        const steps = await audit({ requestId: id, kind: 'approval' })
        expect(steps.map(({ entry }) => entry['to']).toReversed()).to.deep.equal([
          'PENDING',
          'PENDING',
          'APPROVED',
          'EXECUTING',
          'SUCCEEDED',
        ])
      })

      it('holds scale, and shows what it would change', async () => {
        const { report } = start([program, ...inWork, 'scale', 'deployment/web', '--replicas=0'])
        const { id } = await pending(
          (item) =>
            item.resource === 'deployments.apps/scale' ||
            item.resource === 'deployments/scale.apps',
        )
        const shown = await show(id)
        expect(shown.preview?.text).to.match(/-.*replicas: 1[\s\S]*\+.*replicas: 0/)
        expect((await decide('sre', 'deny', id, 'traffic is high')).code).to.equal(0)
        const { code, stderr } = await report
        expect(code).to.equal(1)
        expect(stderr).to.include('traffic is high')
        const replicas = await admin([
          ...inWork,
          'get',
          'deployment',
          'web',
          '-o',
          'jsonpath={.spec.replicas}',
        ])
        expect(replicas).to.equal('1')
      })

      it('holds a server-side apply of what exists, and applies exactly that', async () => {
        const name = unique('applied')
        await workMap(name, { colour: 'old' })
        const input = JSON.stringify({
          apiVersion: 'v1',
          kind: 'ConfigMap',
          metadata: { name, namespace: WORK_NAMESPACE },
          data: { colour: 'new' },
        })
        const command = [
          program,
          ...inWork,
          'apply',
          '--server-side',
          '--force-conflicts',
          '-f',
          '-',
        ]
        const { report } = start(command, { input })
        const { id } = await pending((item) => item.name === name)
        expect((await show(id)).preview?.text).to.match(/-.*colour: old[\s\S]*\+.*colour: new/)
        await approve(id)
        const { code, stderr } = await report
        expect(code, stderr).to.equal(0)
        const value = await admin([
          ...inWork,
          'get',
          'configmap',
          name,
          '-o',
          'jsonpath={.data.colour}',
        ])
        expect(value).to.equal('new')
      })

      it('refuses what changed between approval and release', async () => {
        const name = unique('changed')
        await workMap(name, { key: 'old' })
        const { report } = start([program, ...inWork, 'delete', 'configmap', name, '--wait=false'])
        const { id } = await pending((item) => item.name === name)
        await workMap(name, { key: 'somebody else was here' })
        await approve(id)
        const { code, stderr } = await report
        expect(code).to.equal(1)
        expect(stderr).to.include('not any more what was approved')
        expect(await exists('configmap', name)).to.equal(true)
      })

      it('takes the eviction of a drain for a deletion', async () => {
        const node = (await admin(['get', 'nodes', '-o', 'name'])).trim().replace('node/', '')
        const label = unique('drained')
        await apply({
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name: label, namespace: WORK_NAMESPACE, labels: { drained: label } },
          spec: {
            terminationGracePeriodSeconds: 1,
            nodeName: node,
            containers: [
              {
                name: 'web',
                image: facts.agentsImage,
                imagePullPolicy: 'IfNotPresent',
                command: ['sleep', '3600'],
              },
            ],
          },
        })
        try {
          const command = [
            program,
            'drain',
            node,
            `--pod-selector=drained=${label}`,
            '--force',
            '--timeout=120s',
          ]
          const { report } = start(command)
          const { id, rules, verb } = await pending((item) => item.name === label)
          expect(verb).to.equal('create')
          expect(rules).to.deep.equal(['work-deletes'])
          await approve(id)
          const { code, stderr } = await report
          expect(code, stderr).to.equal(0)
          expect(await exists('pod', label)).to.equal(false)
        } finally {
          await admin(['uncordon', node])
        }
      })

      it('holds an exec once, however often kubectl asks, and cuts it when the approval is revoked', async () => {
        const command = [
          program,
          ...inWork,
          'exec',
          'deploy/web',
          '--',
          'sh',
          '-c',
          'echo started; sleep 300',
        ]
        const { report, ended } = start(command)
        const { id } = await pending((item) => item.resource === 'pods/exec')
        expect((await show(id)).preview?.text).to.include('echo started')
        await approve(id)
        // where the API server does not know kubectl's newest protocol, its second try runs on the approval of the first
        const running = await eventually('the running session', 20_000, async () =>
          (await ticketsIn('EXECUTING')).find((item) => item.id === id || item.reusedFrom === id),
        )
        await sleep(1000)
        expect(ended()).to.equal(false)
        expect(
          (await ticketsIn('PENDING')).filter(({ query }) => query === running.query),
        ).to.deep.equal([])
        expect((await decide('security', 'revoke', id, 'enough')).code).to.equal(0)
        const { stdout } = await report
        expect(stdout).to.include('started')
        expect((await show(running.id)).state).to.equal('REVOKED')
        const [outcome] = await audit({ requestId: running.id, kind: 'outcome' })
        expect(outcome?.entry['reason']).to.equal('revoked')
      })

      it('asks nobody twice when a denied exec is tried again over SPDY', async () => {
        const marker = unique('denied')
        const command = [program, ...inWork, 'exec', 'deploy/web', '--', 'echo', marker]
        const { report } = start(command)
        const { id } = await pending((item) => item.query.includes(marker))
        expect((await decide('sre', 'deny', id, 'not today')).code).to.equal(0)
        const { code, stderr } = await report
        expect(code).to.equal(1)
        expect(stderr).to.include('not today')
        const asked = (await audit({ kind: 'approval' })).filter(
          ({ entry }) => entry['to'] === 'PENDING',
        )
        const same = await Promise.all(
          [...new Set(asked.map(({ requestId = '' }) => requestId))].slice(0, 5).map(show),
        )
        expect(same.filter(({ query }) => query.includes(marker))).to.have.length(1)
      })
    })
  }

  it('expires what nobody decides on', async () => {
    const name = unique('expires')
    const { report } = create('v1#ServiceAccount', name, {})
    const { id } = await pending((item) => item.name === name)
    const { code, stderr } = await report
    expect(code).to.equal(1)
    expect(stderr).to.include('nobody decided')
    expect((await show(id)).state).to.equal('EXPIRED')
    expect(await exists('serviceaccount', name)).to.equal(false)
  })

  it('sends a client away in return mode, and lets the very same request pass once', async () => {
    const name = unique('returned')
    const request = (pods = '7'): Promise<Report> =>
      create('v1#ResourceQuota', name, { spec: { hard: { pods } } }).report
    const first = await request()
    expect(first.code).to.equal(1)
    expect(first.stderr).to.include('waits for approval')
    const { id } = await pending((item) => item.name === name)
    expect((await request()).stderr).to.include(id)
    await approve(id)
    const other = await request('8')
    expect(other.code).to.equal(1)
    expect(other.stderr).not.to.include(id)
    const second = await request()
    expect(second.code, second.stderr).to.equal(0)
    expect(await exists('resourcequota', name)).to.equal(true)
    expect((await show(id)).state).to.equal('SUCCEEDED')
    const third = await request()
    expect(third.stderr).to.include('waits for approval').and.not.to.include(id)
  })

  it('holds an unchanged Python client', async () => {
    const name = unique('python')
    await workMap(name)
    const url = `http://localhost:8001/api/v1/namespaces/${WORK_NAMESPACE}/configmaps/${name}`
    const code = `import urllib.request as u; print(u.urlopen(u.Request('${url}', method='DELETE')).status)`
    const { report } = start(['python3', '-c', code])
    const { id, agent } = await pending((item) => item.name === name)
    expect(agent).to.match(/python3/)
    await approve(id)
    const { code: exit, stdout, stderr } = await report
    expect(exit, stderr).to.equal(0)
    expect(stdout.trim()).to.equal('200')
  })

  it('breaks the glass at once, and leaves a review that another person closes', async () => {
    const name = unique('glass')
    const { code, stderr } = await create('scheduling.k8s.io/v1#PriorityClass', name, {
      value: 5,
    }).report
    expect(code, stderr).to.equal(0)
    expect(stderr).to.include('break-glass')
    const open = await nestgate('reviewer', [
      '--output',
      'json',
      'approvals',
      'list',
      '--review',
      'open',
    ])
    const listed: unknown = JSON.parse(open.stdout)
    const { items } = approvalListSchema.parse(Array.isArray(listed) ? { items: listed } : listed)
    const item = items.find((one) => one.name === name)
    expect(item?.breakGlass).to.equal(true)
    const close = [
      'approvals',
      'review',
      item?.id ?? '',
      '--reason',
      'looked at it',
      '--verdict',
      'justified',
    ]
    expect((await nestgate('sre', close)).code).to.equal(0)
    expect((await show(item?.id ?? '')).review).to.equal('closed')
    await admin(['delete', 'priorityclass', name])
  })

  describe('a pipeline without a sidecar', () => {
    const ci = (args: readonly string[], sub = 'repo:shop'): Promise<Ran> =>
      asPipeline(args, { sub, cluster: 'local', namespace: WORK_NAMESPACE })

    it('reads as its subject, with the groups of the rule', async () => {
      const { code, stdout, stderr } = await ci(['get', 'configmaps', '-o', 'name'])
      expect(code, stderr).to.equal(0)
      expect(stdout).to.include('configmap/')
      const [intent] = await audit({ kind: 'intent', subject: 'ci:repo:shop' })
      expect(intent?.entry['credential']).to.deep.include({
        user: 'ci:repo:shop',
        groups: ['deployers'],
      })
    })

    it('waits for approval like any other', async () => {
      const name = unique('ci')
      await workMap(name)
      const running = ci(['delete', 'configmap', name, '--wait=false'])
      const { id, subject } = await pending((item) => item.name === name)
      expect(subject).to.equal('ci:repo:shop')
      await approve(id)
      const { code, stderr } = await running
      expect(code, stderr).to.equal(0)
      expect(await exists('configmap', name)).to.equal(false)
    })

    it('is denied what no rule gives its subject, and anything under another token', async () => {
      const stranger = await ci(['get', 'configmaps'], 'repo:other')
      expect(stranger.code).to.equal(1)
      expect(stranger.stderr).to.include('no rule allows')
    })
  })
})
