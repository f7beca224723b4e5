/**
 * Workloads as people run them, injected: what keeps running has agents that are named, what is to end ends, its sidecar
 * included, and what is refused is explained where its owner looks.
 */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { minorVersion, tryKubectl } from '../../scripts/cluster.ts'
import { eventually } from '../../scripts/run.ts'
import {
  CONTAINED_NAMESPACE,
  WORKLOADS_NAMESPACE,
  admin,
  agentRuns,
  apply,
  facts,
  intents,
  prepare,
} from './support.ts'

/** From here on batch/v1 has CronJob. */
const CRON_JOB_MINOR = 21
/** The sidecar asks at most 30 s after the last container has ended, and the kubelet reports within seconds. */
const SIDECAR_LAG_S = 45
const SIDECAR = 'nestgate-sidecar'
const LIST = 'kubectl-new get pods -o name'
const USER = { runAsUser: 1000, runAsGroup: 1000, runAsNonRoot: true }
/** The namespace's quota demands these of every container. */
const RESOURCES = {
  requests: { cpu: '10m', memory: '16Mi' },
  limits: { cpu: '500m', memory: '256Mi' },
}

function container(name: string, script: string, more: object = {}): object {
  return {
    name,
    image: facts.agentsImage,
    imagePullPolicy: 'IfNotPresent',
    command: ['sh', '-c', script],
    resources: RESOURCES,
    ...more,
  }
}

/** A pod's template; what is injected is not in it. */
function template(app: string, spec: object): object {
  return {
    metadata: { labels: { app } },
    spec: {
      serviceAccountName: 'agent',
      terminationGracePeriodSeconds: 1,
      securityContext: USER,
      ...spec,
    },
  }
}

function workload(apiVersion: string, kind: string, name: string, spec: object): object {
  return { apiVersion, kind, metadata: { name, namespace: WORKLOADS_NAMESPACE }, spec }
}

function running(kind: string, spec: object = {}): object {
  const name = kind.toLowerCase()
  const labels = { app: name }
  return workload('apps/v1', kind, name, {
    selector: { matchLabels: labels },
    template: template(name, { containers: [container('agent', 'sleep 86400')] }),
    ...spec,
  })
}

/** What a Job's pods do, by its name. */
const JOBS: Readonly<Record<string, { readonly spec: object; readonly job?: object }>> = {
  'once-never': { spec: { restartPolicy: 'Never', containers: [container('agent', LIST)] } },
  'once-parallel': {
    spec: { restartPolicy: 'Never', containers: [container('agent', LIST)] },
    job: { parallelism: 2, completions: 2 },
  },
  'once-on-failure': {
    spec: {
      restartPolicy: 'OnFailure',
      containers: [
        container('agent', `test -e /state/tried || { touch /state/tried; exit 1; }; ${LIST}`, {
          volumeMounts: [{ name: 'state', mountPath: '/state' }],
        }),
        container('other', 'sleep 1'),
      ],
      volumes: [{ name: 'state', emptyDir: {} }],
    },
  },
  'once-with-init': {
    spec: {
      restartPolicy: 'Never',
      initContainers: [container('first', 'echo one'), container('second', 'echo two')],
      containers: [container('agent', LIST)],
    },
  },
  // without a request of its own for longer than the first pauses between the sidecar's questions
  'once-slow': {
    spec: { restartPolicy: 'Never', containers: [container('agent', `sleep 8; ${LIST}`)] },
  },
  'once-as-root': {
    spec: {
      restartPolicy: 'Never',
      securityContext: {},
      containers: [
        container('agent', LIST),
        container('other', 'true', { securityContext: { runAsUser: 1001 } }),
      ],
    },
  },
}

/** In the namespace whose callers are told apart by container, where the sidecar sees no other process. */
const CONTAINED_JOB = 'once-contained'

function job(name: string): object {
  const { spec, job: more = {} } = JOBS[name] ?? { spec: {} }
  return workload('batch/v1', 'Job', name, {
    backoffLimit: 2,
    template: template(name, spec),
    ...more,
  })
}

function containedJob(): object {
  const user = (id: number): object => ({
    securityContext: { runAsUser: id, runAsGroup: id, allowPrivilegeEscalation: false },
  })
  const spec = {
    restartPolicy: 'OnFailure',
    securityContext: {},
    containers: [container('agent', LIST, user(1001)), container('other', 'sleep 1', user(1002))],
  }
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: CONTAINED_JOB, namespace: CONTAINED_NAMESPACE },
    spec: { template: template(CONTAINED_JOB, spec) },
  }
}

interface ContainerStatus {
  readonly name: string
  readonly state: {
    readonly terminated?: { readonly exitCode: number; readonly finishedAt: string }
  }
}

interface PodObject {
  readonly metadata: { readonly name: string; readonly uid: string }
  readonly spec: { readonly containers: readonly { readonly name: string }[] }
  readonly status: {
    readonly phase: string
    readonly containerStatuses: readonly ContainerStatus[]
  }
}

async function podsOf(app: string, namespace = WORKLOADS_NAMESPACE): Promise<readonly PodObject[]> {
  const said = await admin(['-n', namespace, 'get', 'pods', '-l', `app=${app}`, '-o', 'json'])
  return (JSON.parse(said) as { items: PodObject[] }).items
}

/** Waits for a condition of a workload. */
async function until(
  condition: string,
  what: string,
  namespace = WORKLOADS_NAMESPACE,
): Promise<void> {
  await admin(['-n', namespace, 'wait', `--for=condition=${condition}`, what, '--timeout=150s'])
}

/** That every container of a pod ended well, and the sidecar soon after the others. */
function expectEnded({ status }: PodObject): void {
  expect(status.phase).to.equal('Succeeded')
  const ends = status.containerStatuses.map(({ name, state }) => ({ name, ...state.terminated }))
  for (const { name, exitCode } of ends) expect(exitCode, name).to.equal(0)
  const timeOf = (isSidecar: boolean): number =>
    Math.max(
      ...ends
        .filter(({ name }) => (name === SIDECAR) === isSidecar)
        .map(({ finishedAt = '' }) => Date.parse(finishedAt)),
    )
  expect((timeOf(true) - timeOf(false)) / 1000).to.be.within(0, SIDECAR_LAG_S)
}

/** That an agent of the pod listed pods, and the ledger knows that it was this one. */
async function expectListed(uid: string, name = 'agent'): Promise<void> {
  const lists = (await intents(uid)).filter(({ request }) => request.resource === 'pods')
  expect(lists.map(({ decision }) => decision.effect)).to.include('allow')
  const named = lists.flatMap(({ container: found }) => (found === undefined ? [] : [found.name]))
  if (named.length > 0) expect(named).to.include(name)
}

describe('workloads', () => {
  let cronJobs: string

  before(async () => {
    await prepare()
    cronJobs = (await minorVersion(facts)) < CRON_JOB_MINOR ? 'batch/v1beta1' : 'batch/v1'
    await apply(
      running('Deployment', { replicas: 1 }),
      running('StatefulSet', { replicas: 2, serviceName: 'none' }),
      running('DaemonSet'),
      ...Object.keys(JOBS).map(job),
      containedJob(),
      workload('batch/v1', 'Job', 'fails', {
        backoffLimit: 0,
        template: template('fails', {
          restartPolicy: 'Never',
          containers: [container('agent', 'exit 3')],
        }),
      }),
      workload(cronJobs, 'CronJob', 'each-minute', {
        schedule: '* * * * *',
        jobTemplate: {
          spec: {
            template: template('each-minute', {
              restartPolicy: 'OnFailure',
              containers: [container('agent', LIST)],
            }),
          },
        },
      }),
      workload('apps/v1', 'Deployment', 'refused', {
        replicas: 1,
        selector: { matchLabels: { app: 'refused' } },
        template: template('refused', {
          hostPID: true,
          containers: [container('agent', 'sleep 86400')],
        }),
      }),
    )
  })

  after(async () => {
    const quiet = ['--all', '--wait=false']
    const one = ['job', CONTAINED_JOB, '--ignore-not-found', '--wait=false']
    await admin(['-n', CONTAINED_NAMESPACE, 'delete', ...one])
    for (const kind of ['cronjob', 'job', 'deployment', 'statefulset', 'daemonset'])
      await admin(['-n', WORKLOADS_NAMESPACE, 'delete', kind, ...quiet])
  })

  for (const kind of ['Deployment', 'StatefulSet', 'DaemonSet'])
    it(`of kind ${kind} run injected, and their agents are named`, async () => {
      const name = kind.toLowerCase()
      await admin([
        ...['-n', WORKLOADS_NAMESPACE, 'rollout', 'status', `${name}/${name}`],
        '--timeout=150s',
      ])
      const pods = await podsOf(name)
      expect(pods).to.have.lengthOf(kind === 'StatefulSet' ? 2 : 1)
      for (const { metadata } of pods) {
        const task = { command: ['kubectl-new', 'get', 'pods', '-o', 'name'] }
        const said = await agentRuns(metadata.name, 'agent', task, WORKLOADS_NAMESPACE)
        expect(said.code, said.stderr).to.equal(0)
        expect(said.stdout).to.contain(`pod/${metadata.name}`)
        await expectListed(metadata.uid)
      }
    })

  for (const name of Object.keys(JOBS))
    it(`that are Jobs complete, and their sidecars go with them: ${name}`, async () => {
      await until('complete', `job/${name}`)
      const pods = await podsOf(name)
      expect(pods).to.have.lengthOf(name === 'once-parallel' ? 2 : 1)
      for (const pod of pods) {
        expectEnded(pod)
        await expectListed(pod.metadata.uid)
      }
    })

  it('that are Jobs complete where the sidecar sees no other process', async () => {
    await until('complete', `job/${CONTAINED_JOB}`, CONTAINED_NAMESPACE)
    const [pod, ...others] = await podsOf(CONTAINED_JOB, CONTAINED_NAMESPACE)
    expect(others).to.deep.equal([])
    if (pod === undefined) throw new Error('the Job has no pod')
    expectEnded(pod)
    await expectListed(pod.metadata.uid)
  })

  it('that are Jobs fail as they do without a sidecar', async () => {
    await until('failed', 'job/fails')
    const [pod] = await podsOf('fails')
    expect(pod?.status.phase).to.equal('Failed')
    const codes = pod?.status.containerStatuses.map(({ name, state }) => [
      name,
      state.terminated?.exitCode,
    ])
    expect(codes).to.have.deep.members([
      ['agent', 3],
      [SIDECAR, 0],
    ])
  })

  it('that are CronJobs complete when their time comes', async () => {
    const pod = await eventually('a pod of the CronJob that is through', 150_000, async () =>
      (await podsOf('each-minute')).find(({ status }) => status.phase === 'Succeeded'),
    )
    expectEnded(pod)
    await expectListed(pod.metadata.uid)
  })

  it('can be restarted and scaled', async () => {
    const [old] = await podsOf('deployment')
    const place = ['-n', WORKLOADS_NAMESPACE]
    const status = ['rollout', 'status', 'deployment/deployment', '--timeout=120s']
    await admin([...place, 'rollout', 'restart', 'deployment/deployment'])
    await admin([...place, ...status])
    await admin([...place, 'scale', 'deployment/deployment', '--replicas=2'])
    await admin([...place, ...status])
    const fresh = (await podsOf('deployment')).filter(
      ({ metadata }) => metadata.uid !== old?.metadata.uid,
    )
    expect(fresh).to.have.lengthOf(2)
    for (const { spec } of fresh)
      expect(spec.containers.map(({ name }) => name)).to.include(SIDECAR)
  })

  it('tell their owners that they are injected', async () => {
    const owners = await eventually('events of the webhook', 60_000, async () => {
      const args = ['-n', WORKLOADS_NAMESPACE, 'get', 'events', '-o', 'json']
      const said = await admin([...args, '--field-selector', 'reason=NestgateInjected'])
      const { items } = JSON.parse(said) as { items: { involvedObject: { kind: string } }[] }
      const kinds = new Set(items.map(({ involvedObject }) => involvedObject.kind))
      return ['Job', 'ReplicaSet', 'StatefulSet'].every((kind) => kinds.has(kind))
        ? items
        : undefined
    })
    expect(owners[0]).to.have.nested.property('source.component', 'nestgate-webhook')
  })

  it('that are refused tell their owner why, and what to do', async () => {
    const text = await eventually('an event that says so', 60_000, async () => {
      const events = JSON.parse(
        await admin([
          ...['-n', WORKLOADS_NAMESPACE, 'get', 'events', '-o', 'json'],
          ...['--field-selector', 'reason=FailedCreate,involvedObject.kind=ReplicaSet'],
        ]),
      ) as { items: { message: string }[] }
      return events.items.find(({ message }) => message.includes('host_pid'))?.message
    })
    expect(text).to.contain('nestgate').and.to.contain('remove spec.hostPID')
  })

  it('run under a quota that demands limits of every container: the sidecar has its own', async () => {
    const used = JSON.parse(
      await admin(['-n', WORKLOADS_NAMESPACE, 'get', 'resourcequota', 'limits', '-o', 'json']),
    ) as { status: { used: Record<string, string> } }
    expect(Number(used.status.used['pods'])).to.be.greaterThan(3)
    const unlimited = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'unlimited', namespace: WORKLOADS_NAMESPACE },
      spec: { containers: [container('agent', 'true', { resources: {} })] },
    }
    const args = ['create', '--dry-run=server', '-f', '-']
    const { stderr } = await tryKubectl(facts, args, { input: JSON.stringify(unlimited) })
    // the author's container, not ours
    expect(stderr).to.contain('failed quota')
  })

  it('run under a LimitRange: its defaults are the author’s containers’, its bounds are kept', async () => {
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'limited', namespace: CONTAINED_NAMESPACE },
      spec: { containers: [container('agent', 'true', { resources: undefined })] },
    }
    const args = ['create', '--dry-run=server', '-o', 'json', '-f', '-']
    const stored = JSON.parse(await admin(args, JSON.stringify(pod))) as {
      spec: { containers: { name: string; resources: { limits?: Record<string, string> } }[] }
    }
    const limits = stored.spec.containers.map(({ name, resources }) => [
      name,
      resources.limits?.['cpu'],
    ])
    expect(limits).to.deep.equal([
      [SIDECAR, '500m'],
      ['agent', '300m'],
    ])
  })
})
