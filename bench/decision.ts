/**
 * The decision alone: `npm run bench -- decision`. Policies of 10, 200 and 2,000 rules as people write them (a few for
 * everybody, the rest for one team, agent and namespace each), and requests of which each meets a handful of rules.
 */
import { cpus } from 'node:os'
import { createDecider } from '../shared/policy/decide.ts'
import { readCase } from '../shared/policy/case.ts'
import type { Facts } from '../shared/policy/facts.ts'
import type { Case } from '../shared/policy/language.ts'
import { readPolicySet } from '../shared/policy/policy-set.ts'
import type { PolicySet } from '../shared/policy/policy-set.ts'
import { createRuleIndex } from '../shared/policy/rule-index.ts'
import { compileRule } from '../shared/policy/matching.ts'

const SIZES = [10, 200, 2000] as const
/** Decisions that are timed together: the clock is too coarse for one. */
const BATCH = 16
const BATCHES = 1500
const WARMUP_BATCHES = 800

const CONDITION =
  "object.spec.template.spec.containers.all(c, c.image.startsWith('registry.example/')) && request.parameters.replicas < 10"

/** @param conditions - whether rules that allow changes ask a condition in CEL */
function policyOf(rules: number, conditions: boolean): PolicySet {
  const when = conditions ? `, when: "${CONDITION}"` : ''
  const common = `
  - {id: look, match: {verbs: [get, list, watch], resources: [pods, pods/log, services, configmaps]}, effect: allow}
  - {id: no-secrets, match: {verbs: ['*'], resources: [secrets]}, effect: deny}
  - {id: no-escalation, match: {actions: [escalate, mint-credential, extend-cluster, node-exec]}, effect: deny}
  - {id: shells-wait, match: {actions: [exec, attach, debug]}, effect: hold}
  - {id: mass-deletions-wait, match: {actions: [delete-many]}, effect: hold}`
  const own = Array.from({ length: rules - 5 }, (_, index) => {
    const team = `team-${Math.floor(index / 5)}`
    const subject = [
      `verbs: [get, list, watch], apiGroups: [apps], resources: [deployments, statefulsets], agents: [${team}-reader]`,
      `verbs: [create, update, patch], apiGroups: [apps], resources: [deployments], ancestors: [${team}-deployer]`,
      `verbs: [delete], apiGroups: ['', apps], resources: [pods, deployments], agents: ['${team}-*']`,
      `verbs: ['*'], apiGroups: [batch], resources: ['*'], serviceAccounts: ['${team}/runner']`,
      `verbs: [patch], apiGroups: [apps], resources: [deployments/scale], groups: ['oidc:${team}']`,
    ][index % 5]
    const effect = index % 5 === 2 ? 'hold' : 'allow'
    return `
  - {id: rule-${index}, match: {${subject}, namespaces: [${team}]}${index % 5 === 1 ? when : ''}, effect: ${effect}}`
  })
  const text = `apiVersion: nestgate.dev/v1alpha1\nkind: Policy\nrules:${common}${own.join('')}\n`
  const policy = readPolicySet([{ file: 'bench.yaml', text }])
  if ('problems' in policy) throw new Error(policy.problems.join('\n'))
  return policy
}

const DEPLOYMENT = {
  metadata: { name: 'web', labels: { app: 'web' } },
  spec: {
    replicas: 3,
    template: {
      spec: { containers: [{ image: 'registry.example/a' }, { image: 'registry.example/b' }] },
    },
  },
}
const EVERYBODYS: readonly Case[] = [
  { verb: 'list', resource: 'pods', namespace: 'team-0' },
  { verb: 'get', resource: 'secrets', namespace: 'team-0' },
  { verb: 'connect', resource: 'pods/exec', namespace: 'team-0', command: ['sh'] },
  { request: 'GET /apis/apps/v1' },
  {
    verb: 'get',
    apiGroup: 'apps',
    resource: 'deployments',
    namespace: 'team-0',
    agent: 'team-0-reader',
  },
  {
    verb: 'delete',
    apiGroup: 'apps',
    resource: 'deployments',
    namespace: 'team-0',
    agent: 'team-0-x',
  },
  {
    verb: 'deletecollection',
    apiGroup: 'batch',
    resource: 'jobs',
    namespace: 'team-0',
    serviceAccount: 'team-0/runner',
  },
]
const CHANGES: readonly Case[] = [
  {
    verb: 'create',
    apiGroup: 'apps',
    resource: 'deployments',
    namespace: 'team-0',
    ancestors: ['unregistered/x/sh', 'team-0-deployer'],
    body: DEPLOYMENT,
  },
]

function factsOf(cases: readonly Case[]): readonly Facts[] {
  return cases.map((one) => {
    const facts = readCase(one)
    if ('problem' in facts) throw new Error(facts.problem)
    return facts
  })
}

interface Figures {
  readonly p50: number
  readonly p99: number
}

function measure(work: (facts: Facts) => unknown, cases: readonly Case[]): Figures {
  const times: number[] = []
  let next = 0
  for (let batch = 0; batch < WARMUP_BATCHES + BATCHES; batch += 1) {
    // New ones each time: values of a body that was looked into once are remembered with it.
    const requests = factsOf(Array.from({ length: BATCH }, () => cases[next++ % cases.length]!))
    const from = process.hrtime.bigint()
    for (const request of requests) work(request)
    if (batch >= WARMUP_BATCHES) times.push(Number(process.hrtime.bigint() - from) / 1000 / BATCH)
  }
  times.sort((a, b) => a - b)
  const at = (share: number): number => times[Math.floor(times.length * share)] ?? Number.NaN
  return { p50: at(0.5), p99: at(0.99) }
}

/** Measures and describes. @param rounds - in turn over all sizes */
export function decisionSection(rounds: number): string {
  const rows: string[] = []
  const kinds = [
    { name: 'no conditions', conditions: false, requests: [...EVERYBODYS, ...CHANGES] },
    { name: 'one CEL condition', conditions: true, requests: CHANGES },
  ] as const
  const subjects = kinds.flatMap((kind) =>
    SIZES.map((size) => {
      const policy = policyOf(size, kind.conditions)
      const decider = createDecider(policy, { acceptVerdicts: ['exclusive'] })
      return {
        ...kind,
        size,
        policy,
        decide: (facts: Facts) => decider.decide(facts),
        figures: [] as Figures[],
      }
    }),
  )
  for (let round = 0; round < rounds; round += 1)
    for (const { decide, requests, figures } of subjects) figures.push(measure(decide, requests))
  for (const { name, size, policy, figures } of subjects) {
    rows.push(
      `| ${name} | ${size} | ${spread(figures.map(({ p50 }) => p50))} | ${spread(figures.map(({ p99 }) => p99))} | ${buildTime(policy)} |`,
    )
  }
  return `## The decision alone

\`npm run bench -- decision\`: attributes of a request in, decision with its sentence out; ${rounds} rounds of ${BATCHES} batches of ${BATCH} decisions, median (lowest–highest) of the rounds,
on ${cpus().length} cores (${cpus()[0]?.model.trim() ?? 'unknown'}), Node ${process.versions.node}. *p99* is that of batches, so it has the machine's noise in it. Policies: five rules for everybody, the rest for one team, agent or
namespace each; each request meets a handful. *one CEL condition*: only the creation of a Deployment, whose rule asks \`${CONDITION}\`.
*index* is how long it takes to build one, at start and at each reload.

| policy | rules | p50 µs | p99 µs | index ms |
|---|---|---|---|---|
${rows.join('\n')}
`
}

function spread(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
  return `${middle.toFixed(1)} (${(sorted[0] ?? Number.NaN).toFixed(1)}–${(sorted.at(-1) ?? Number.NaN).toFixed(1)})`
}

function buildTime({ rules }: PolicySet): string {
  const from = performance.now()
  createRuleIndex(rules.map(compileRule))
  return (performance.now() - from).toFixed(1)
}
