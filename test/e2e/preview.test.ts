/** What a reviewer sees of a held request, and that it is released only while that is still true. */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { approvalListSchema } from '../../shared/wire.ts'
import type { Approval } from '../../shared/wire.ts'
import { eventually } from '../../scripts/run.ts'
import type { Report } from './agents/run.ts'
import {
  admin,
  agentRuns,
  apply,
  closeBroker,
  configMap,
  configMapExists,
  NAMESPACE,
  nestgate,
  prepare,
  RESTRICTED,
} from './support.ts'

interface Asked {
  readonly shown: Approval
  readonly report: Promise<Report>
}

/** An agent asks for something that is held; what a reviewer is shown of it. */
async function ask(name: string, args: readonly string[]): Promise<Asked> {
  const command = ['kubectl-new', ...args]
  const report = agentRuns(RESTRICTED.name, 'planner', { command, limitMs: 150_000 })
  report.catch(() => undefined)
  const { id } = await eventually('the held request', 40_000, async () => {
    const list = await nestgate('reviewer', ['--output', 'json', 'approvals', 'list'])
    const listed: unknown = JSON.parse(list.stdout)
    const { items } = approvalListSchema.parse(Array.isArray(listed) ? { items: listed } : listed)
    return items.find((item) => item.name === name && item.state === 'PENDING')
  })
  const { stdout } = await nestgate('reviewer', ['--output', 'json', 'approvals', 'show', id])
  return { shown: JSON.parse(stdout) as Approval, report }
}

const approve = async ({ shown }: Asked): Promise<void> => {
  const args = ['approvals', 'approve', shown.id, '--reason', 'as it was shown']
  const { code, stderr } = await nestgate('reviewer', args)
  expect(code, stderr).to.equal(0)
}

describe('the effect of a held request', () => {
  before(prepare)
  after(closeBroker)

  it('is the object that a deletion takes', async () => {
    const name = `shown-${process.pid}`
    await configMap(name, { colour: 'green' })
    const asked = await ask(name, ['delete', 'configmap', name, '--wait=false'])
    expect(asked.shown.preview?.kind).to.equal('object')
    expect(asked.shown.preview?.text).to.include('colour: green')
    await approve(asked)
    expect((await asked.report).code).to.equal(0)
    expect(await configMapExists(name)).to.equal(false)
  })

  it('is the difference that a change would make, by the API server’s own dry run', async () => {
    const name = `patched-${process.pid}`
    const spec = { ports: [{ port: 80 }], selector: { app: 'one' } }
    await apply({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace: NAMESPACE },
      spec,
    })
    const patch = '{"spec":{"selector":{"app":"two"}}}'
    const asked = await ask(name, ['patch', 'service', name, '-p', patch])
    expect(asked.shown.preview?.kind).to.equal('diff')
    expect(asked.shown.preview?.text)
      .to.match(/^- +app: one$/m)
      .and.match(/^\+ +app: two$/m)
    const selector = (): Promise<string> =>
      admin(['-n', NAMESPACE, 'get', 'service', name, '-o', 'jsonpath={.spec.selector.app}'])
    expect(await selector()).to.equal('one')
    await approve(asked)
    expect((await asked.report).code).to.equal(0)
    expect(await selector()).to.equal('two')
    await admin(['-n', NAMESPACE, 'delete', 'service', name])
  })

  it('is not released when the object has changed since', async () => {
    const name = `changed-${process.pid}`
    await configMap(name, { colour: 'green' })
    const asked = await ask(name, ['delete', 'configmap', name, '--wait=false'])
    await configMap(name, { colour: 'red' })
    await approve(asked)
    const { code, stderr } = await asked.report
    expect(code).to.equal(1)
    expect(stderr)
      .to.match(/not any more what was approved/)
      .and.match(/resourceVersion \d+ → \d+/)
    expect(await configMapExists(name)).to.equal(true)
  })

  it('is not released when another object has taken the name', async () => {
    const name = `another-${process.pid}`
    await configMap(name, { colour: 'green' })
    const asked = await ask(name, ['delete', 'configmap', name, '--wait=false'])
    await admin(['-n', NAMESPACE, 'delete', 'configmap', name])
    await configMap(name, { colour: 'green' })
    await approve(asked)
    const { code, stderr } = await asked.report
    expect(code).to.equal(1)
    expect(stderr).to.match(/another object of the same name/)
    expect(await configMapExists(name)).to.equal(true)
  })
})
