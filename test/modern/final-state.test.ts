/**
 * The final state as the admission policies check it: every case of test/support/final-cases.ts on Kubernetes' own newest code, with
 * the policies that the chart gives for the settings of the table; and what each of their rules is there for, by leaving it out.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { parseAllDocuments } from 'yaml'
import { attempt } from '../../scripts/run.ts'
import { REASONS } from '../../shared/reasons.ts'
import { FINAL_CASES, NAMESPACE, USERS, injected } from '../support/final-cases.ts'
import type { FinalCase, Who } from '../support/final-cases.ts'
import type { Json } from '../support/pod-admission.ts'
import { ADMIN, modernBinary, startApiServer } from './api-server.ts'
import type { Answer, ApiServer } from './api-server.ts'

const RENDERED = join(import.meta.dirname, '../golden/chart/final-state/expected.yaml')
const ADMISSION = '/apis/admissionregistration.k8s.io/v1'
const RBAC = 'rbac.authorization.k8s.io'
/** How long policies may take until they are in force, in milliseconds. */
const FORCE_LIMIT_MS = 30_000
const POLL_MS = 50
const MUTATION = 'mutation'

interface Policy {
  readonly metadata: { readonly name: string }
  readonly spec: {
    readonly matchConstraints: {
      readonly resourceRules: readonly {
        readonly operations: string[]
        readonly resources: string[]
      }[]
    }
    readonly matchConditions?: readonly Json[]
    readonly validations: readonly Json[]
  }
}

async function rendered(kind: string): Promise<readonly Json[]> {
  const documents = parseAllDocuments(await readFile(RENDERED, 'utf8'))
  return documents
    .map((document) => document.toJS() as Json | null)
    .filter((object): object is Json => object?.['kind'] === kind)
}

const policies = (await rendered('ValidatingAdmissionPolicy')) as unknown as readonly Policy[]
const bypass = await rendered('ClusterRole')

/** Whether a policy is asked about a case. */
function concerns({ spec }: Policy, { operation, resource }: FinalCase): boolean {
  return spec.matchConstraints.resourceRules.some(
    ({ operations, resources }) => operations.includes(operation) && resources.includes(resource),
  )
}

const NAMESPACES = { any: NAMESPACE, process: 'team-process', container: 'team-container' } as const

/** A case with names of its own, in a namespace. */
interface Placed {
  readonly one: FinalCase
  readonly namespace: string
  readonly object: Json
  readonly oldObject: Json | undefined
}

function place(one: FinalCase, index: number, namespace: string): Placed {
  const name = `case-${String(index)}`
  // `NAMESPACE` is in the kubeconfig of each pod; a namespace's name is the case's
  const isNamespace = one.resource.startsWith('namespaces')
  const named = (object: Json | undefined): Json | undefined => {
    if (object === undefined) return undefined
    const copy = JSON.parse(JSON.stringify(object).replaceAll(NAMESPACE, namespace)) as Json
    copy['metadata'] = {
      ...(copy['metadata'] as Json),
      name: isNamespace ? `${namespace}-${name}` : name,
    }
    return copy
  }
  const old = one.operation === 'CONNECT' ? named({ ...injected(), kind: 'Pod' }) : one.oldObject
  return {
    one,
    namespace,
    object: one.operation === 'CONNECT' ? one.object : (named(one.object) ?? {}),
    oldObject: named(old),
  }
}

function nameOf(object: Json): string {
  return String((object['metadata'] as Json)['name'])
}

describe('the final state, by admission policies', function () {
  this.timeout(60_000)
  let api: ApiServer

  before(async function () {
    this.timeout(1_200_000)
    const tokens = Object.fromEntries(
      Object.values(USERS)
        .filter((who: Who) => who.extra === undefined)
        .map(({ username, groups }) => [
          username,
          [
            `token-${username}`,
            ...groups.filter((group) => group !== 'system:authenticated'),
          ] as const,
        ]),
    )
    api = await startApiServer(await modernBinary(), { tokens })
    await bind('author', { apiGroups: [''], resources: ['*'], verbs: ['*'] })
    for (const [index, role] of bypass.entries()) {
      if (!nameOf(role).includes('bypass')) continue
      await api.admin('POST', `/apis/${RBAC}/v1/clusterroles`, role)
      await give(`bypass-${String(index)}`, nameOf(role), ['ops'])
    }
    for (const [level, name] of Object.entries(NAMESPACES))
      await makeNamespace(name, {
        'nestgate.dev/inject': 'enabled',
        ...(level === 'any' ? {} : { 'nestgate.dev/identity': level }),
      })
  })
  after(() => api.close())

  const bind = async (name: string, rule: Json): Promise<void> => {
    await api.admin('POST', `/apis/${RBAC}/v1/clusterroles`, { metadata: { name }, rules: [rule] })
    await give(
      name,
      name,
      Object.values(USERS).map(({ username }) => username),
    )
  }
  const give = async (name: string, role: string, users: readonly string[]): Promise<void> => {
    await api.admin('POST', `/apis/${RBAC}/v1/clusterrolebindings`, {
      metadata: { name },
      roleRef: { apiGroup: RBAC, kind: 'ClusterRole', name: role },
      subjects: users.map((user) => ({ kind: 'User', apiGroup: RBAC, name: user })),
    })
  }
  const makeNamespace = (name: string, labels: Json): Promise<void> =>
    api.admin('POST', '/api/v1/namespaces', { metadata: { name, labels } })

  /** Makes what is there before: no policy is yet. */
  const prepare = async ({ one, namespace, oldObject }: Placed): Promise<void> => {
    if (oldObject === undefined) return
    const [resource = ''] = one.resource.split('/')
    await api.admin('POST', pathOf(resource, namespace), oldObject)
  }

  const send = ({ one, namespace, object, oldObject }: Placed): Promise<Answer> => {
    const headers = headersOf(USERS[one.user ?? 'author'])
    const [resource = '', subresource] = one.resource.split('/')
    const root = pathOf(resource, namespace)
    if (one.operation === 'CREATE') {
      const made = subresource === undefined ? root : `${root}/${nameOf(object)}/${subresource}`
      return api.send('POST', `${made}?dryRun=All&fieldValidation=Strict`, {
        headers,
        body: object,
      })
    }
    const path = `${root}/${nameOf(oldObject ?? object)}${subresource === undefined ? '' : `/${subresource}`}`
    if (one.operation === 'UPDATE')
      return api.send('PUT', `${path}?dryRun=All&fieldValidation=Strict`, { headers, body: object })
    const { container, command } = object as { container?: string; command?: string[] }
    const query = new URLSearchParams()
    if (container !== undefined) query.set('container', container)
    for (const word of command ?? []) query.append('command', word)
    return api.send('POST', `${path}?${query.toString()}`, { headers })
  }

  const apply = async (list: readonly Policy[]): Promise<void> => {
    for (const policy of list) {
      const { name } = policy.metadata
      await api.admin(
        'POST',
        `${ADMISSION}/validatingadmissionpolicies?fieldValidation=Strict`,
        policy,
      )
      await api.admin('POST', `${ADMISSION}/validatingadmissionpolicybindings`, {
        metadata: { name },
        spec: { policyName: name, validationActions: ['Deny'] },
      })
    }
  }

  /** Policies are known by informers, a moment after they were made. Each refuses one of its cases then. */
  const inForce = async (all: readonly (readonly Placed[])[]): Promise<void> => {
    const end = Date.now() + FORCE_LIMIT_MS
    for (const cases of all)
      while (!(await isOneRefused(cases))) {
        if (Date.now() > end) throw new Error(`not in force: ${cases[0]?.namespace ?? ''}`)
        await new Promise((resolve) => setTimeout(resolve, POLL_MS))
      }
  }
  const isOneRefused = async (cases: readonly Placed[]): Promise<boolean> => {
    for (const one of cases) if ((await send(one)).status === 403) return true
    return false
  }

  it('is well typed, also for a release that lacks young fields', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nestgate-policies-'))
    const file = join(folder, 'policies.json')
    await writeFile(file, JSON.stringify(policies))
    const said = await attempt(await modernBinary(), ['--check-types', file])
    await rm(folder, { recursive: true })
    expect(said).to.deep.equal({ code: 0, stdout: '', stderr: '' })
  })

  describe('as the chart has them', () => {
    const cases = FINAL_CASES.map((one, index) => place(one, index, NAMESPACES[one.level ?? 'any']))
    before(async () => {
      for (const one of cases) await prepare(one)
      await apply(policies)
      const refused = cases.filter(({ one }) => one.code !== undefined)
      await inForce(policies.map((policy) => refused.filter(({ one }) => concerns(policy, one))))
    })
    after(async () => {
      for (const { metadata } of policies)
        for (const kind of ['bindings', 'ies'])
          await api.admin(
            'DELETE',
            `${ADMISSION}/validatingadmissionpolic${kind === 'ies' ? kind : `y${kind}`}/${metadata.name}`,
          )
    })

    for (const placed of cases) {
      const { one } = placed
      const code = one.policyCode ?? one.code
      it(`${code === undefined ? 'lets through' : `refuses (${code})`}: ${one.name}`, async () => {
        const { status, text } = await send(placed)
        expect(status, text).to.be.oneOf(code === undefined ? [200, 201] : [403])
        if (code === undefined) return
        expect(/nestgate: (\w+): /.exec(text)?.[1], text).to.equal(code)
        expect(text).to.contain(REASONS[code].sentence).and.to.contain(REASONS[code].remedy)
      })
    }

    it('lets through a pod of 40 containers and 60 volumes', async () => {
      const big = injected('P', undefined, bigPod(40, 60))
      const one: FinalCase = { name: 'big', operation: 'CREATE', resource: 'pods', object: big }
      const { status, text } = await send(place(one, 999, NAMESPACE))
      expect(status, text).to.equal(201)
    })
  })

  describe('with one rule left out', () => {
    const wholes = policies.map((policy) => mutationOf(policy, -1))
    /** Every rule of every policy, each in a namespace of its own where it is missing. */
    const mutations = policies.flatMap((policy) =>
      policy.spec.validations.map((_rule, index) => mutationOf(policy, index)),
    )
    const told = new Map<string, Map<string, string>>()
    before(async function () {
      this.timeout(300_000)
      for (const { namespace, cases } of [...mutations, ...wholes]) {
        for (const level of LEVELS)
          await makeNamespace(levelled(namespace, level), {
            ...{ [MUTATION]: namespace, ...(level && { 'nestgate.dev/identity': level }) },
          })
        for (const one of cases) await prepare(one)
      }
      await apply([...mutations, ...wholes].map(({ policy }) => policy))
      await inForce([...mutations, ...wholes].map(({ cases }) => cases))
      // what one rule refuses is told in its words, so that only such cases can change without it
      for (const { namespace, whole, says, cases } of [...wholes, ...mutations]) {
        const answers = new Map<string, string>()
        told.set(namespace, answers)
        for (const one of cases)
          if (says === undefined || told.get(whole)?.get(one.one.name)?.includes(says) === true)
            answers.set(one.one.name, (await send(one)).text.replaceAll(namespace, ''))
      }
    })

    const differs = ({ namespace, whole }: Mutation, name: string): boolean => {
      const without = told.get(namespace)?.get(name)
      return without !== undefined && without !== told.get(whole)?.get(name)
    }

    for (const mutation of mutations)
      it(`${mutation.namespace} is there for a case`, () => {
        expect(mutation.cases.filter(({ one }) => differs(mutation, one.name))).not.to.be.empty
      })
    for (const one of FINAL_CASES.filter(({ code }) => code !== undefined))
      it(`there is a rule for: ${one.name}`, () => {
        const rules = mutations.filter(
          (mutation) =>
            mutation.cases.some((placed) => placed.one === one) && differs(mutation, one.name),
        )
        expect(rules).not.to.be.empty
      })
  })
})

const LEVELS = [undefined, 'process', 'container'] as const

function levelled(namespace: string, level: FinalCase['level']): string {
  return level === undefined || level === 'any' ? namespace : `${namespace}-${level}`
}

interface Mutation {
  readonly policy: Policy
  /** Where it is in force, and where the whole policy is. */
  readonly namespace: string
  readonly whole: string
  readonly cases: readonly Placed[]
  /** What the rule says that is left out. */
  readonly says: string | undefined
}

/** A policy without one rule (with all: -1), for a namespace of its own. */
function mutationOf(policy: Policy, without: number): Mutation {
  const { name } = policy.metadata
  const namespaceOf = (index: number): string =>
    `${name.replace('nestgate-', 'm-')}-${index === -1 ? 'whole' : String(index)}`
  const namespace = namespaceOf(without)
  const cases = FINAL_CASES.flatMap((one, index) =>
    one.code !== undefined && concerns(policy, one)
      ? [place(one, index, levelled(namespace, one.level))]
      : [],
  )
  const isNamespaces = name === 'nestgate-namespaces'
  const matchConditions = [
    ...(policy.spec.matchConditions ?? []),
    ...(isNamespaces
      ? [{ name: 'mine', expression: `request.name.startsWith('${namespace}-')` }]
      : []),
  ]
  const selector = isNamespaces
    ? {}
    : { namespaceSelector: { matchLabels: { [MUTATION]: namespace } } }
  const says = policy.spec.validations[without]?.['message'] as string | undefined
  return {
    ...{ namespace, whole: namespaceOf(-1), cases, says },
    policy: {
      ...policy,
      metadata: { name: namespace },
      spec: {
        ...policy.spec,
        matchConstraints: { ...policy.spec.matchConstraints, ...selector },
        matchConditions,
        validations: policy.spec.validations.filter((_rule, index) => index !== without),
      },
    },
  }
}

function pathOf(resource: string, namespace: string): string {
  return resource === 'namespaces'
    ? '/api/v1/namespaces'
    : `/api/v1/namespaces/${namespace}/${resource}`
}

/** The broker is whom it speaks for, and tells the request. */
function headersOf(who: Who): Readonly<Record<string, string>> {
  if (who.extra === undefined) return { authorization: `Bearer token-${who.username}` }
  const extra = Object.entries(who.extra).map(([key, [value = '']]) => [
    `impersonate-extra-${encodeURIComponent(key)}`,
    value,
  ])
  const headers = { authorization: `Bearer ${ADMIN}`, 'impersonate-user': who.username }
  return { ...headers, ...(Object.fromEntries(extra) as Record<string, string>) }
}

/** As large as pods of one node become, with variables, mounts and a token that is allowed. */
function bigPod(containers: number, volumes: number): Json {
  const names = Array.from({ length: volumes }, (_none, index) => `volume-${String(index)}`)
  return {
    metadata: { name: 'big' },
    spec: {
      containers: Array.from({ length: containers }, (_none, index) => ({
        name: `container-${String(index)}`,
        image: 'web',
        env: Array.from({ length: 20 }, (_one, place) => ({
          name: `VARIABLE_${String(place)}`,
          value: 'value',
        })),
        ports: [{ containerPort: 10_000 + index, protocol: 'TCP' }],
        volumeMounts: names
          .slice(0, 20)
          .map((name) => ({ name, mountPath: `/mounted/at/${name}` })),
        securityContext: { capabilities: { add: ['CHOWN', 'KILL'], drop: ['NET_RAW'] } },
      })),
      volumes: names.map((name, index) =>
        index % 2 === 0
          ? { name, secret: { secretName: `secret-of-some-length-${name}`, defaultMode: 420 } }
          : {
              name,
              projected: {
                sources: [
                  {
                    serviceAccountToken: {
                      audience: 'vault',
                      expirationSeconds: 3600,
                      path: 'token',
                    },
                  },
                  { secret: { name: 'other' } },
                ],
                defaultMode: 420,
              },
            },
      ),
    },
  }
}
