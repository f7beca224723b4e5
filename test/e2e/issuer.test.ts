/**
 * The credential of one request on a cluster whose pods really run: sessions, logs and writes with the oldest and the newest kubectl,
 * in mode issuer, and in mode impersonation while admission asks the broker about every write. test/modes has what a thief can do.
 */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { connectFiles } from '../../cli/connect/files.ts'
import { readInputs } from '../../cli/connect/inputs.ts'
import { kubectls } from '../../scripts/cluster.ts'
import { eventually } from '../../scripts/run.ts'
import type { Ran } from '../../scripts/run.ts'
import { readFileSync } from 'node:fs'
import {
  admin,
  apply,
  asPipeline,
  audit,
  closeBroker,
  clusterAudit,
  facts,
  inPod,
  NAMESPACE,
  nestgate,
  prepare,
  RESTRICTED,
} from './support.ts'
import type { Intent } from './support.ts'
import { BOUND, BROKER_IP, BROKER_PORT, ISSUED } from './issued.ts'

const SUB = 'repo:issued'
const USER = 'ci:repo:issued'
const PLACE = 'e2e-issued'
const RBAC = 'rbac.authorization.k8s.io'

interface Held {
  readonly id: string
  readonly cluster: string
  readonly name: string
}

const { oldest, newest } = kubectls()
const KUBECTLS = [
  ['oldest', oldest],
  ['newest', newest],
] as const

const pipeline =
  (cluster: string, namespace: string, program?: string) =>
  (args: readonly string[]): Promise<Ran> =>
    asPipeline(args, {
      sub: SUB,
      cluster,
      namespace,
      ...(program === undefined ? {} : { program }),
    })

function editBinding(namespace: string): object {
  return {
    apiVersion: `${RBAC}/v1`,
    kind: 'RoleBinding',
    metadata: { name: 'issued-edits', namespace },
    roleRef: { apiGroup: RBAC, kind: 'ClusterRole', name: 'edit' },
    subjects: [{ kind: 'User', name: USER, apiGroup: RBAC }],
  }
}

async function bringUp(): Promise<void> {
  await prepare()
  const labels = { app: 'web' }
  await apply(
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: PLACE } },
    editBinding(PLACE),
    editBinding(NAMESPACE),
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'web', namespace: PLACE },
      spec: {
        replicas: 1,
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            terminationGracePeriodSeconds: 1,
            containers: [
              {
                ...{ name: 'web', image: facts.agentsImage, imagePullPolicy: 'IfNotPresent' },
                command: ['sh', '-c', 'echo hello; exec sleep 86400'],
              },
            ],
          },
        },
      },
    },
  )
  await admin(['-n', PLACE, 'rollout', 'status', 'deployment/web', '--timeout=120s'])
}

/** The calls of a pipeline that every mode must let through. */
async function works(
  run: (args: readonly string[]) => Promise<Ran>,
  target: string,
): Promise<void> {
  const done = async (args: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await run(args)
    expect(code, `${args.join(' ')}: ${stderr}`).to.equal(0)
    return stdout
  }
  expect(await done(['exec', target, '--', 'echo', 'from inside'])).to.equal('from inside\n')
  await done(['logs', target])
  await done(['create', 'configmap', 'made', '--from-literal=a=1'])
  await done(['annotate', 'configmap', 'made', 'b=2'])
  expect(
    await done(['get', 'configmap', 'made', '-o', 'jsonpath={.metadata.annotations.b}']),
  ).to.equal('2')
  // not held anywhere, unlike its deletion
  await done(['label', 'configmap', 'made', 'c=3'])
}

if (facts.isIssuer)
  describe('on running pods, mode issuer', () => {
    before(async function () {
      this.timeout(240_000)
      await bringUp()
      // an API server looks for its issuer every 10 s until it is there
      await eventually('tokens of the broker', 60_000, async () => {
        const { code } = await pipeline(ISSUED, PLACE)(['get', 'pods'])
        return code === 0 ? true : undefined
      })
    })
    after(closeBroker)

    for (const [age, program] of KUBECTLS) {
      it(`serves sessions, logs and writes of the ${age} kubectl`, async () => {
        await works(pipeline(ISSUED, PLACE, program), 'deployment/web')
        const deleted = await pipeline(ISSUED, PLACE, program)(['delete', 'configmap', 'made'])
        expect(deleted.code, deleted.stderr).to.equal(0)
      })
    }

    it('serves server-side applies, scale and a request that was held', async () => {
      const run = pipeline(ISSUED, PLACE)
      const scaled = await run(['scale', 'deployment/web', '--replicas=2'])
      expect(scaled.code, scaled.stderr).to.equal(0)
      const held = run(['delete', 'deployment', 'web', '--wait=false'])
      const id: string = await eventually('the held request', 30_000, async () => {
        const { stdout } = await nestgate('reviewer', ['--output', 'json', 'approvals', 'list'])
        const { items } = JSON.parse(stdout) as { items: Held[] }
        return items.find(({ cluster, name }) => cluster === ISSUED && name === 'web')?.id
      })
      const approved = await nestgate('reviewer', ['approvals', 'approve', id, '--reason', 'fine'])
      expect(approved.code, approved.stderr).to.equal(0)
      const { code, stderr } = await held
      expect(code, stderr).to.equal(0)
      const [record] = clusterAudit(id)
      expect(record?.user.groups).to.include.members([
        `nestgate:request:${id}`,
        'nestgate:approver:rita',
      ])
    })

    it('is each request of the ledger once in the cluster’s own audit log, and nothing else of ours', async () => {
      const intents = (await audit({ kind: 'intent', cluster: ISSUED }))
        .map(({ entry }) => entry as unknown as Intent)
        .filter(({ credential }) => credential !== undefined)
      expect(intents.length).to.be.greaterThan(10)
      const looked = (await audit({ kind: 'system' }))
        .filter(({ entry }) => entry['event'] === 'approval_preview')
        .map(({ entry }) => (entry['detail'] as { auditId: string }).auditId)
      const records = clusterAudit('"nestgate:subject:').filter(({ user }) =>
        user.username.startsWith('nestgate:subject:ci:'),
      )
      const ids = records.map(({ auditID }) => auditID)
      for (const { requestId, credential } of intents) {
        expect(
          ids.filter((id) => id === requestId),
          requestId,
        ).to.have.lengthOf.at.least(1)
        expect(credential?.user).to.equal(`nestgate:subject:${USER}`)
      }
      const known = new Set([...intents.map(({ requestId }) => requestId), ...looked])
      expect(ids.filter((id) => !known.has(id))).to.deep.equal([])
    })

    it('has every trap closed, as nestgate doctor finds by trying', async () => {
      const { code, stdout, stderr } = await nestgate('admin', ['doctor', ISSUED])
      expect(code, stdout + stderr).to.equal(0)
      expect(stdout).to.match(/ok +its token for another resource +403 +nestgate: /)
      expect(stdout).to.contain(' 0 show nothing')
    })
  })

describe('on running pods, mode impersonation with writes bound', () => {
  before(async function () {
    this.timeout(240_000)
    await bringUp()
    const inputs = readInputs({
      ...{ cluster: 'local', mode: 'impersonation', kubernetesVersion: '1.20', groups: [] },
      ...{
        brokerUrl: `https://${BROKER_IP}:${BROKER_PORT}`,
        brokerCa: readFileSync(facts.caFile, 'utf8'),
      },
      ...BOUND,
    })
    if ('problems' in inputs) throw new Error(inputs.problems.join())
    const files = connectFiles(inputs, { token: '', tokenSha256: '' })
    const webhook = files.find(({ name }) => name === 'admission-webhook.yaml')
    await admin(['apply', '-f', '-'], webhook?.text ?? '')
  })
  after(async () => {
    await admin(['delete', 'validatingwebhookconfiguration', 'nestgate-bind'])
    closeBroker()
  })

  for (const [age, program] of KUBECTLS) {
    it(`serves sessions, logs and writes of the ${age} kubectl`, async () => {
      await works(pipeline('local', NAMESPACE, program), 'pod/target')
      await admin(['-n', NAMESPACE, 'delete', 'configmap', 'made'])
    })
  }

  it('serves agents in their pods', async () => {
    const name = `bound-${Date.now()}`
    const create = ['kubectl-new', 'create', 'configmap', name]
    const ran = await inPod(RESTRICTED.name, 'planner', create)
    expect(ran.code, ran.stderr).to.equal(0)
    await admin(['-n', NAMESPACE, 'delete', 'configmap', name])
  })

  it('refuses the same writes by anybody else in their name', async () => {
    const as = ['-n', NAMESPACE, '--as', `system:serviceaccount:${NAMESPACE}:agent`]
    const tries = [
      [...as, 'create', 'configmap', 'stolen'],
      [...as, 'exec', 'target', '--', 'true'],
    ]
    for (const args of tries) {
      const said = await admin(args).catch((error: unknown) => String(error))
      expect(said).to.contain('this user acts through the broker only')
    }
  })
})
