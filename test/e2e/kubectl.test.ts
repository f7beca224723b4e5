/**
 * Plain kubectl in an injected pod, the oldest and the newest there is: everything that agents do with it
 * works, and the audit names the very process that did it.
 */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { sleep } from '../../scripts/run.ts'
import type { Report, Task } from './agents/run.ts'
import {
  admin,
  agentRuns,
  closeBroker,
  configMap,
  configMapExists,
  intents,
  nestgate,
  NAMESPACE,
  podFacts,
  PODS,
  prepare,
  RESTRICTED,
} from './support.ts'
import type { AgentPod, Intent, PodFacts } from './support.ts'

/** A kubectl, and how it is told which protocol to speak. */
interface Client {
  readonly label: string
  readonly program: string
  readonly env: Readonly<Record<string, string>>
}

const CLIENTS: readonly Client[] = [
  { label: 'the oldest kubectl', program: 'kubectl-old', env: {} },
  {
    label: 'the newest kubectl over WebSocket',
    program: 'kubectl-new',
    env: { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: 'true', KUBECTL_PORT_FORWARD_WEBSOCKETS: 'true' },
  },
  {
    label: 'the newest kubectl over SPDY',
    program: 'kubectl-new',
    env: { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: 'false', KUBECTL_PORT_FORWARD_WEBSOCKETS: 'false' },
  },
]

/** What an intent must say about the object, for one that belongs to a scenario. */
type Expected = Partial<Intent['request']>

interface Scenario {
  readonly what: string
  readonly task: (name: string) => Omit<Task, 'command'> & { readonly args: readonly string[] }
  readonly audited: (name: string) => Expected
  readonly check: (report: Report, name: string) => void | Promise<void>
  /** Done beside the command, once it runs. */
  readonly meanwhile?: (name: string) => Promise<void>
}

const manifest = (name: string, value: string): string =>
  JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { key: value } })

const SCENARIOS: readonly Scenario[] = [
  {
    what: 'get pods',
    task: () => ({ args: ['get', 'pods'] }),
    audited: () => ({ verb: 'list', resource: 'pods', namespace: NAMESPACE }),
    check: ({ code, stdout }) => {
      expect(code).to.equal(0)
      expect(stdout).to.match(/^target +1\/1|^target +2\/2/m)
    },
  },
  {
    what: 'apply -f -',
    task: (name) => ({ args: ['apply', '-f', '-'], input: manifest(name, 'first') }),
    audited: () => ({ verb: 'create', resource: 'configmaps' }),
    check: async ({ code, stderr }, name) => {
      expect(code, stderr).to.equal(0)
      expect(await configMapExists(name)).to.equal(true)
    },
  },
  {
    what: 'logs -f',
    task: () => ({
      args: ['logs', '-f', 'target', '-c', 'web', '--tail=1'],
      until: '(tick \\d+\\s+){4}',
    }),
    audited: () => ({ verb: 'get', resource: 'pods', subresource: 'log', name: 'target' }),
    check: ({ timedOut, stdout }) => {
      expect(timedOut, stdout).to.equal(false)
    },
  },
  {
    what: 'get -w',
    task: (name) => ({
      args: ['get', 'configmaps', '-w', '--watch-only', '-o', 'name'],
      until: `configmap/${name}\\b`,
    }),
    meanwhile: async (name) => {
      await sleep(2500)
      await configMap(name)
    },
    audited: () => ({ verb: 'watch', resource: 'configmaps' }),
    check: ({ timedOut, stdout, stderr }) => {
      expect(timedOut, stdout + stderr).to.equal(false)
    },
  },
  {
    what: 'exec with input, output and exit code',
    task: (name) => ({
      args: [
        'exec',
        '-i',
        'target',
        '-c',
        'web',
        '--',
        'sh',
        '-c',
        'read word; echo got $word; exit 7',
      ],
      input: `${name}\n`,
    }),
    audited: () => ({ resource: 'pods', subresource: 'exec', name: 'target' }),
    check: ({ code, stdout, stderr }, name) => {
      expect(stdout, stderr).to.equal(`got ${name}\n`)
      expect(code).to.equal(7)
    },
  },
  {
    what: 'port-forward',
    task: (name) => {
      const port = 20_000 + (Number.parseInt(name.slice(-4), 36) % 20_000)
      return {
        args: ['port-forward', '--address', '127.0.0.1', 'target', `${port}:8080`],
        until: 'Forwarding from',
        fetch: `http://127.0.0.1:${port}/`,
      }
    },
    audited: () => ({ resource: 'pods', subresource: 'portforward', name: 'target' }),
    check: ({ fetched, stderr }) => {
      expect(fetched, stderr).to.equal('hello from the target\n')
    },
  },
]

let counter = 0
function newName(): string {
  counter += 1
  return `e2e-${counter}-${Math.random().toString(36).slice(2, 8).padEnd(6, '0')}`
}

const isOf = (report: Report, intent: Intent): boolean => intent.tag.verified?.pid === report.pid

const matches = (intent: Intent, expected: Expected): boolean =>
  Object.entries(expected).every(([key, value]) => intent.request[key as keyof Expected] === value)

/** Every request of a command is the command's own, by everything that the kernel says of it. */
async function expectAttributed(
  pod: AgentPod,
  facts: PodFacts,
  container: string,
  program: string,
  report: Report,
  expected: Expected,
): Promise<void> {
  const own = (await intents(facts.uid)).filter((intent) => isOf(report, intent))
  const hit = own.find((intent) => matches(intent, expected))
  expect(hit, `a ledger entry of pid ${report.pid} for ${JSON.stringify(expected)}`).to.not.equal(
    undefined,
  )
  for (const { tag, subject, decision } of own) {
    expect(tag.verdict).to.equal('exclusive')
    expect(tag.verified?.exe).to.equal(`/usr/local/bin/${program}`)
    expect(tag.verified?.containerId).to.equal(facts.containerIds[container])
    expect(tag.verified?.uid).to.equal(uidOf(pod, container))
    expect(tag.verified?.ancestors.map(({ pid }) => pid)).to.include(report.agentPid)
    expect(tag.declared?.agentName).to.equal(`${container}-agent`)
    expect(subject.name).to.equal(`system:serviceaccount:${NAMESPACE}:agent`)
    expect(decision.effect).to.equal('allow')
  }
}

function uidOf(pod: AgentPod, container: string): number {
  if (pod.profile === 'R') return 1000
  return container === 'planner' ? 0 : 1001
}

for (const pod of PODS) {
  describe(`kubectl in a pod of profile ${pod.profile}`, () => {
    let known: PodFacts

    before(async () => {
      await prepare()
      known = await podFacts(pod.name)
    })
    after(closeBroker)

    for (const [index, client] of CLIENTS.entries()) {
      const container = pod.containers[index % pod.containers.length] ?? ''
      for (const scenario of SCENARIOS) {
        it(`${scenario.what} works with ${client.label} and is known to be ${container}’s`, async () => {
          const name = newName()
          const { args, ...rest } = scenario.task(name)
          const env = { ...client.env, AGENT_NAME: `${container}-agent` }
          const task = { ...rest, command: [client.program, ...args], env, limitMs: 45_000 }
          const [report] = await Promise.all([
            agentRuns(pod.name, container, task),
            scenario.meanwhile?.(name),
          ])
          await scenario.check(report, name)
          const expected = scenario.audited(name)
          await expectAttributed(pod, known, container, client.program, report, expected)
        })
      }
    }
  })
}

describe('two agents with the same user id and the same program', () => {
  before(prepare)
  after(closeBroker)

  it('are told apart, call by call, while both work at once', async () => {
    const { name: pod } = RESTRICTED
    const known = await podFacts(pod)
    const names = ['planner', 'planner', 'scanner', 'scanner'].map((container) => ({
      container,
      name: newName(),
    }))
    const reports = await Promise.all(
      names.map(async ({ container, name }) => {
        await configMap(name)
        const command = ['kubectl-old', 'get', 'configmap', name, '-o', 'name']
        return agentRuns(pod, container, { command, env: { AGENT_NAME: 'the-same' } })
      }),
    )
    const all = await intents(known.uid)
    for (const [index, { container, name }] of names.entries()) {
      const asked = all.filter(
        ({ request }) => request.resource === 'configmaps' && request.name === name,
      )
      expect(asked.map(({ tag }) => tag.verified?.pid)).to.deep.equal([reports[index]?.pid])
      expect(asked[0]?.tag.verified?.containerId).to.equal(known.containerIds[container])
      expect(asked[0]?.tag.verified?.uid).to.equal(1000)
    }
    expect(new Set(reports.map(({ pid }) => pid)).size).to.equal(names.length)
  })

  it('are shown to an auditor by nestgate audit, with what each did', async () => {
    const name = newName()
    await configMap(name)
    const command = ['kubectl-new', 'get', 'configmap', name, '-o', 'name']
    const report = await agentRuns(RESTRICTED.name, 'scanner', { command })
    const table = await nestgate('auditor', ['audit', '--name', name])
    expect(table.code, table.stderr).to.equal(0)
    expect(table.stdout).to.include(name).and.to.include('kubectl-new')
    const json = await nestgate('auditor', ['--output', 'json', 'audit', '--name', name])
    expect(json.stdout).to.match(new RegExp(`"pid": ?${report.pid}\\b`))
  })
})

describe('what policy denies', () => {
  before(prepare)
  after(closeBroker)

  it('is refused to kubectl with the rule’s name and reason, never reaches the cluster, and is in the ledger', async () => {
    const command = ['kubectl-new', 'get', 'secret', 'password', '-o', 'yaml']
    const report = await agentRuns(RESTRICTED.name, 'planner', { command })
    expect(report.code).to.equal(1)
    expect(report.stdout).to.equal('')
    expect(report.stderr).to.include('no-secrets').and.to.include('agents need no Secrets')
    const { uid } = await podFacts(RESTRICTED.name)
    const own = (await intents(uid)).filter((intent) => isOf(report, intent))
    const denied = own.find(({ request }) => request.resource === 'secrets')
    expect(denied?.decision).to.deep.include({
      effect: 'deny',
      rules: ['no-secrets'],
      reason: 'policy_denied',
    })
    expect(denied?.credential).to.equal(undefined)
  })

  it('does not depend on Kubernetes’ own rights: the service account itself may read that Secret', async () => {
    const account = `--as=system:serviceaccount:${NAMESPACE}:agent`
    const said = await admin(['-n', NAMESPACE, 'auth', 'can-i', 'get', 'secrets', account])
    expect(said.trim()).to.equal('yes')
  })
})
