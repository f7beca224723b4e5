/** A held delete: it waits, and what a person decides is what happens. */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { approvalListSchema } from '../../shared/wire.ts'
import type { Approval } from '../../shared/wire.ts'
import { eventually, sleep } from '../../scripts/run.ts'
import type { Report } from './agents/run.ts'
import {
  admin,
  agentRuns,
  audit,
  closeBroker,
  configMap,
  configMapExists,
  intents,
  nestgate,
  podFacts,
  prepare,
  PRIVILEGED,
  RESTRICTED,
  SYSTEM_NAMESPACE,
} from './support.ts'
import type { Intent } from './support.ts'

/** An agent that has asked to delete something, and still waits. */
interface Asked {
  readonly name: string
  readonly approval: Approval
  readonly report: Promise<Report>
  /** Whether kubectl has come back. */
  readonly ended: () => boolean
}

let counter = 0

async function pending(name: string): Promise<Approval | undefined> {
  const { code, stdout, stderr } = await nestgate('reviewer', [
    '--output',
    'json',
    'approvals',
    'list',
  ])
  if (code !== 0) throw new Error(stderr)
  const listed: unknown = JSON.parse(stdout)
  const { items } = approvalListSchema.parse(Array.isArray(listed) ? { items: listed } : listed)
  return items.find((item) => item.name === name && item.state === 'PENDING')
}

async function askToDelete(pod: string, program: string): Promise<Asked> {
  counter += 1
  const name = `held-${process.pid}-${counter}`
  await configMap(name, { key: 'value' })
  let over = false
  const command = [program, 'delete', 'configmap', name, '--wait=false']
  const report = agentRuns(pod, 'planner', { command, limitMs: 150_000 }).finally(
    () => (over = true),
  )
  report.catch(() => undefined)
  const approval = await eventually('the held request', 40_000, () => pending(name))
  return { name, approval, report, ended: () => over }
}

const deleteOf = (all: readonly Intent[], name: string): readonly Intent[] =>
  all.filter(({ request }) => request.verb === 'delete' && request.name === name)

describe('a held delete', () => {
  before(prepare)
  after(closeBroker)

  for (const [pod, program] of [
    [RESTRICTED.name, 'kubectl-old'],
    [PRIVILEGED.name, 'kubectl-new'],
  ] as const) {
    it(`waits, and goes through once approved (${program} in ${pod})`, async () => {
      const { name, approval, report, ended } = await askToDelete(pod, program)
      await sleep(2000)
      expect(ended()).to.equal(false)
      expect(await configMapExists(name)).to.equal(true)

      const shown = await nestgate('reviewer', ['approvals', 'show', approval.id])
      expect(shown.stdout).to.include(name).and.to.include(program)
      const approve = ['approvals', 'approve', approval.id, '--reason', 'asked for in ticket 7']
      expect((await nestgate('reviewer', approve)).code).to.equal(0)

      const { code, stdout, stderr, pid } = await report
      expect(code, stderr).to.equal(0)
      expect(stdout).to.match(new RegExp(`configmap "${name}" deleted`))
      expect(await configMapExists(name)).to.equal(false)
      const { uid } = await podFacts(pod)
      const performed = deleteOf(await intents(uid), name).find(
        (intent) => intent.approval !== undefined,
      )
      expect(performed?.approval).to.deep.include({
        reviewer: 'rita',
        reason: 'asked for in ticket 7',
      })
      expect(performed?.requestId).to.equal(approval.id)
      expect(performed?.tag.verified?.pid).to.equal(pid)
    })
  }

  it('is refused after a denial, with the reviewer’s reason, and nothing happens', async () => {
    const { name, approval, report } = await askToDelete(RESTRICTED.name, 'kubectl-new')
    const deny = ['approvals', 'deny', approval.id, '--reason', 'not on a Friday']
    expect((await nestgate('reviewer', deny)).code).to.equal(0)
    const { code, stderr } = await report
    expect(code).to.equal(1)
    expect(stderr).to.include('not on a Friday')
    expect(await configMapExists(name)).to.equal(true)
    const steps = await audit({ requestId: approval.id, kind: 'approval' })
    expect(steps.map(({ entry }) => entry['to'])).to.include('DENIED')
  })

  it('cannot be decided by an auditor, who is no reviewer', async () => {
    const { approval, report } = await askToDelete(RESTRICTED.name, 'kubectl-new')
    const { code, stderr } = await nestgate('auditor', [
      'approvals',
      'approve',
      approval.id,
      '--reason',
      'please',
    ])
    expect(code).to.equal(1)
    expect(stderr).to.match(/role/)
    await nestgate('reviewer', ['approvals', 'deny', approval.id, '--reason', 'end of the test'])
    expect((await report).code).to.equal(1)
  })

  it('is withdrawn when the agent gives up', async () => {
    const name = `given-up-${process.pid}`
    await configMap(name)
    const command = ['kubectl-new', 'delete', 'configmap', name, '--wait=false']
    const given = agentRuns(RESTRICTED.name, 'planner', { command, limitMs: 8000 })
    const approval = await eventually('the held request', 40_000, () => pending(name))
    expect((await given).timedOut).to.equal(true)
    await eventually('the withdrawal', 15_000, async () => {
      const { stdout } = await nestgate('reviewer', ['approvals', 'show', approval.id])
      return stdout.includes('CANCELLED') ? true : undefined
    })
    expect(await configMapExists(name)).to.equal(true)
  })

  it('outlives a restart of the broker', async () => {
    const { name, approval, report, ended } = await askToDelete(RESTRICTED.name, 'kubectl-old')
    await admin(['-n', SYSTEM_NAMESPACE, 'delete', 'pod', 'nestgate-broker-0'])
    const rollout = ['rollout', 'status', 'statefulset/nestgate-broker', '--timeout=90s']
    await admin(['-n', SYSTEM_NAMESPACE, ...rollout])
    expect(ended()).to.equal(false)
    const approve = ['approvals', 'approve', approval.id, '--reason', 'still wanted']
    const decided = await nestgate('reviewer', approve)
    expect(decided.code, decided.stderr).to.equal(0)
    const { code, stderr } = await report
    expect(code, stderr).to.equal(0)
    expect(await configMapExists(name)).to.equal(false)
  })
})
