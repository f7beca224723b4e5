/**
 * The files of `nestgate connect`, field by field: what the API server's validation demands of each kind and version, and what the
 * expressions in them say of tokens and requests.
 */
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { parse, parseAllDocuments } from 'yaml'
import { brokerSchema } from '../../../broker/config.ts'
import { writeFiles } from '../../../cli/connect-command.ts'
import { BROKER_RULES, IMPERSONATOR_RULES } from '../../../cli/connect/impersonation.ts'
import type { Rule } from '../../../cli/connect/impersonation.ts'
import { readInputs } from '../../../cli/connect/inputs.ts'
import type { ConnectRequest } from '../../../cli/connect/inputs.ts'
import { newRequestId } from '../../../shared/request-id.ts'
import { filesOfRequest, goldenRequest, GOLDEN_CA } from '../../support/connect-golden.ts'
import { evaluate } from '../../support/kubernetes-cel.ts'

const MANIFESTS = join(import.meta.dirname, '..', '..', '..', 'manifests')

type Json = Readonly<Record<string, unknown>>
interface KubernetesObject {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly labels: object }
  readonly rules?: readonly Rule[]
  readonly roleRef?: object
  readonly subjects?: object
}
interface Expression {
  readonly expression: string
}

function fileOf(request: ConnectRequest, name: string): string {
  const file = filesOfRequest(request).find((candidate) => candidate.name === name)
  if (file === undefined) throw new Error(`there is no ${name}`)
  return file.text
}
function objectsOf(text: string): readonly KubernetesObject[] {
  return parseAllDocuments(text).map((document) => document.toJS() as KubernetesObject)
}
const yamlOf = (request: ConnectRequest, name: string): unknown => parse(fileOf(request, name))

describe('what nestgate connect takes', () => {
  const problemsOf = (
    change: Partial<Record<keyof ConnectRequest, unknown>>,
  ): readonly string[] => {
    const read = readInputs({ ...goldenRequest('impersonation', 30), ...change } as ConnectRequest)
    return 'problems' in read ? read.problems : []
  }
  const key = `-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n`
  const wrong: readonly (readonly [
    string,
    Partial<Record<keyof ConnectRequest, unknown>>,
    RegExp,
  ])[] = [
    ['a version that is too old', { kubernetesVersion: '1.19' }, /^kubernetesVersion: /],
    ['a version that is too new', { kubernetesVersion: '1.41' }, /^kubernetesVersion: /],
    ['a patch version', { kubernetesVersion: '1.30.1' }, /^kubernetesVersion: expected 1\.NN/],
    ['no version', { kubernetesVersion: '2.30' }, /^kubernetesVersion: /],
    ['a cluster that is no label', { cluster: 'Prod/x' }, /^cluster: /],
    ['another mode', { mode: 'token' }, /^mode: /],
    ['a plain broker', { brokerUrl: 'http://broker:8443' }, /^brokerUrl: expected https/],
    ['a broker with a path', { brokerUrl: 'https://broker/x' }, /^brokerUrl: .*nothing else/],
    ['a broker with a password', { brokerUrl: 'https://a:b@broker' }, /^brokerUrl: /],
    ['a plain API server', { server: 'http://10.0.0.5' }, /^server: /],
    ['an authority that is none', { brokerCa: 'hello' }, /^brokerCa: expected PEM/],
    ['a key for an authority', { brokerCa: key }, /^brokerCa: expected PEM/],
    ['a certificate that is none', { ca: GOLDEN_CA.replace('MII', 'AAA') }, /^ca: expected PEM/],
    ['a user of the cluster’s own', { users: ['system:admin'] }, /^users\.0: .*system:/],
    ['a user written otherwise', { users: ['System:admin'] }, /^users\.0: .*system:/],
    ['a user of ours', { users: ['nestgate:broker'] }, /^users\.0: .*nestgate:/],
    ['all users', { users: ['*'] }, /^users\.0: .*pattern/],
    ['a group of the cluster’s own', { groups: ['system:masters'] }, /^groups\.0: /],
    ['an empty group', { groups: [''] }, /^groups\.0: /],
    ['a name with a line break', { users: ['a\nb'] }, /^users\.0: /],
    ['a namespace that is no label', { namespaces: ['a', 'b/c'] }, /^namespaces\.1: /],
    ['nobody', { namespaces: [], users: [] }, /the broker may be nobody else/],
    ['names in mode issuer', { mode: 'issuer' }, /nobody is impersonated/],
  ]
  for (const [what, change, problem] of wrong)
    it(`is not ${what}`, () => {
      expect(problemsOf(change)).to.have.lengthOf(1)
      expect(problemsOf(change)[0]).to.match(problem)
    })

  it('is told all problems at once', () => {
    expect(problemsOf({ kubernetesVersion: '1.1', cluster: '', users: ['*'] })).to.have.lengthOf(3)
  })

  it('keeps nothing of a certificate file but certificates', () => {
    const read = readInputs({
      ...goldenRequest('issuer', 30),
      brokerCa: `subject=x\r\n${GOLDEN_CA.replaceAll('\n', '\r\n')}${key}`,
    })
    expect(read).to.have.property('brokerCa', GOLDEN_CA)
  })
})

describe('AuthenticationConfiguration', () => {
  interface Authentication {
    readonly apiVersion: string
    readonly kind: string
    readonly jwt: readonly {
      readonly issuer: { readonly url: string; readonly certificateAuthority: string } & Json
      readonly claimValidationRules: readonly Expression[]
      readonly claimMappings: {
        readonly username: Expression
        readonly groups: Expression
        readonly uid: Expression
        readonly extra: readonly { readonly key: string; readonly valueExpression: string }[]
      }
      readonly userValidationRules: readonly Expression[]
    }[]
  }
  const configOf = (minor: number): Authentication =>
    yamlOf(goldenRequest('issuer', minor), 'authentication-config.yaml') as Authentication
  const [jwt] = configOf(34).jwt
  if (jwt === undefined) throw new Error('no jwt')
  const claims = {
    ...{ sub: 'serviceaccount:shop:web', jti: newRequestId(0), iat: 100, nbf: 95, exp: 130 },
    groups: ['group:deployers'],
    process: 'scanner',
    approvers: ['alice', 'bob'],
  }
  const rulesSay = (given: object): boolean =>
    jwt.claimValidationRules.every(
      ({ expression }) => evaluate(expression, { claims: given }) === true,
    )

  for (const [minor, version] of [
    [30, 'v1beta1'],
    [33, 'v1beta1'],
    [34, 'v1'],
    [40, 'v1'],
  ] as const)
    it(`is ${version} in 1.${minor}`, () => {
      const { apiVersion, kind } = configOf(minor)
      expect([apiVersion, kind]).to.deep.equal([
        `apiserver.config.k8s.io/${version}`,
        'AuthenticationConfiguration',
      ])
    })

  it('names the issuer, its authority and one audience', () => {
    const { certificateAuthority, ...issuer } = jwt.issuer
    expect(issuer).to.deep.equal({
      url: 'https://broker.example:8443/issuer',
      audiences: ['nestgate/prod'],
      audienceMatchPolicy: 'MatchAny',
    })
    expect(new X509Certificate(certificateAuthority).subject).to.equal('CN=nestgate golden')
  })

  it('takes a token as the broker makes it', () => {
    expect(rulesSay(claims)).to.equal(true)
    expect(rulesSay({ ...claims, sub: 'broker' })).to.equal(true)
    expect(rulesSay({ ...claims, sub: 'subject:ci:repo:shop' })).to.equal(true)
  })

  for (const [what, change] of [
    ['lives too long', { exp: 161 }],
    ['lives too long from the future', { iat: 10_000, exp: 10_030 }],
    ['has no id', { jti: undefined }],
    ['has another id', { jti: 'x' }],
    ['has no beginning', { nbf: undefined }],
    ['has no time', { iat: undefined }],
    ['has no subject', { sub: '' }],
    ['has a subject of the cluster’s', { sub: 'system:admin' }],
    ['has a number as subject', { sub: 7 }],
  ] as const)
    it(`refuses a token that ${what}`, () => {
      const given = Object.fromEntries(
        Object.entries({ ...claims, ...change }).filter(([, value]) => value !== undefined),
      )
      expect(rulesSay(given)).to.equal(false)
    })

  it('maps claims to a name, groups, uid and extras', () => {
    const { username, groups, uid, extra } = jwt.claimMappings
    expect(evaluate(username.expression, { claims })).to.equal('nestgate:serviceaccount:shop:web')
    expect(evaluate(groups.expression, { claims })).to.deep.equal(['nestgate:group:deployers'])
    expect(evaluate(uid.expression, { claims })).to.equal(claims.jti)
    expect(
      extra.map(({ key, valueExpression }) => [key, evaluate(valueExpression, { claims })]),
    ).to.deep.equal([
      ['nestgate.dev/request-id', claims.jti],
      ['nestgate.dev/process', 'scanner'],
      ['nestgate.dev/approver', ['alice', 'bob']],
    ])
  })

  it('maps what is missing to nothing', () => {
    const bare = { claims: { sub: 'broker', jti: claims.jti } }
    expect(evaluate(jwt.claimMappings.groups.expression, bare)).to.deep.equal([])
    expect(
      jwt.claimMappings.extra.map(({ valueExpression }) => evaluate(valueExpression, bare)),
    ).to.deep.equal([claims.jti, '', []])
  })

  it('lets in names and groups of ours, and no others', () => {
    const letsIn = (user: object): boolean =>
      jwt.userValidationRules.every(({ expression }) => evaluate(expression, { user }) === true)
    expect(letsIn({ username: 'nestgate:broker' })).to.equal(true)
    expect(letsIn({ username: 'nestgate:broker', groups: ['nestgate:group:a'] })).to.equal(true)
    expect(letsIn({ username: 'system:admin' })).to.equal(false)
    expect(letsIn({})).to.equal(false)
    for (const group of ['system:masters', 'nestgate:masters', ''])
      expect(letsIn({ username: 'nestgate:broker', groups: ['nestgate:group:a', group] })).to.equal(
        false,
      )
  })
})

describe('AuthorizationConfiguration', () => {
  interface Authorization {
    readonly apiVersion: string
    readonly authorizers: readonly {
      readonly type: string
      readonly name: string
      readonly webhook?: Json
    }[]
  }
  const configOf = (minor: number): Authorization =>
    yamlOf(goldenRequest('issuer', minor), 'authorization-config.yaml') as Authorization

  for (const [minor, version] of [
    [30, 'v1beta1'],
    [31, 'v1beta1'],
    [32, 'v1'],
  ] as const)
    it(`is ${version} in 1.${minor}`, () => {
      expect(configOf(minor).apiVersion).to.equal(`apiserver.config.k8s.io/${version}`)
    })

  it('asks the broker first, about our names only, and denies without an answer', () => {
    const { authorizers } = configOf(32)
    expect(authorizers.map(({ type, name }) => [type, name])).to.deep.equal([
      ['Webhook', 'nestgate'],
      ['Node', 'node'],
      ['RBAC', 'rbac'],
    ])
    // a TTL of 0 would be defaulted to minutes; validation demands more than 0 (ValidateWebhookConfiguration)
    expect(authorizers[0]?.webhook).to.deep.equal({
      timeout: '3s',
      authorizedTTL: '1ns',
      unauthorizedTTL: '1ns',
      subjectAccessReviewVersion: 'v1',
      matchConditionSubjectAccessReviewVersion: 'v1',
      failurePolicy: 'Deny',
      matchConditions: [{ expression: "request.user.startsWith('nestgate:')" }],
      connectionInfo: {
        type: 'KubeConfigFile',
        kubeConfigFile: '/etc/kubernetes/nestgate/authorizer.kubeconfig',
      },
    })
  })

  it('keeps no answer where the API server can do without', () => {
    const noCache = { cacheAuthorizedRequests: false, cacheUnauthorizedRequests: false }
    expect(configOf(34).authorizers[0]?.webhook).to.include(noCache)
    expect(configOf(33).authorizers[0]?.webhook).not.to.have.any.keys(Object.keys(noCache))
  })
})

describe('the authorizer’s kubeconfig', () => {
  for (const minor of [29, 34])
    it(`leads to the broker by TLS, and has the token that it knows by hash (1.${minor})`, () => {
      const request = goldenRequest('issuer', minor)
      const config = yamlOf(request, 'authorizer.kubeconfig')
      expect(config).to.deep.include({
        apiVersion: 'v1',
        kind: 'Config',
        'current-context': 'nestgate',
        contexts: [{ name: 'nestgate', context: { cluster: 'nestgate', user: 'api-server' } }],
        users: [{ name: 'api-server', user: { token: 'nestgate_golden' } }],
        clusters: [
          {
            name: 'nestgate',
            cluster: {
              server: 'https://broker.example:8443/v1/clusters/prod/authorize',
              'certificate-authority-data': Buffer.from(GOLDEN_CA).toString('base64'),
            },
          },
        ],
      })
    })

  it('is the only file with the token, and the only secret', () => {
    for (const minor of [20, 36]) {
      const files = filesOfRequest(goldenRequest('issuer', minor))
      const withToken = files.filter(({ text }) => text.includes('nestgate_golden'))
      expect(withToken.map(({ name }) => name)).to.deep.equal(['authorizer.kubeconfig'])
      expect(files.filter(({ isSecret }) => isSecret)).to.deep.equal(withToken)
      expect(fileOf(goldenRequest('issuer', minor), 'broker-cluster.yaml')).to.contain(
        'ab'.repeat(32),
      )
    }
  })
})

describe('flags of the API server', () => {
  const flagsOf = (minor: number): readonly string[] =>
    fileOf(goldenRequest('issuer', minor), 'kube-apiserver-flags.txt').trim().split('\n')

  it('name the files from 1.30 on', () => {
    expect(flagsOf(30)).to.deep.equal([
      '--authentication-config=/etc/kubernetes/nestgate/authentication-config.yaml',
      '--authorization-config=/etc/kubernetes/nestgate/authorization-config.yaml',
    ])
  })

  it('say it all before, with RBAC asked first', () => {
    for (const minor of [20, 29]) {
      const flags = new Map(flagsOf(minor).map((line) => line.split('=') as [string, string]))
      expect(flags.get('--oidc-client-id')).to.equal('nestgate/prod')
      expect(flags.get('--oidc-username-prefix')).to.equal('nestgate:')
      expect(flags.get('--oidc-groups-claim')).to.equal('marked_groups')
      expect(flags.get('--oidc-groups-prefix')).to.equal('nestgate:')
      expect(flags.get('--oidc-signing-algs')).to.equal('ES256')
      expect(flags.get('--authorization-mode')).to.equal('Node,RBAC,Webhook')
      expect(flags.get('--authorization-webhook-cache-authorized-ttl')).to.equal('0s')
      expect(flags.get('--authorization-webhook-cache-unauthorized-ttl')).to.equal('0s')
      expect(flags.size).to.equal(13)
    }
  })
})

describe('the rights of mode impersonation', () => {
  const rightsOf = (
    minor: number,
    change: Partial<ConnectRequest> = {},
  ): readonly KubernetesObject[] =>
    objectsOf(fileOf(goldenRequest('impersonation', minor, change), 'rbac.yaml'))
  const find = (
    objects: readonly KubernetesObject[],
    kind: string,
    name: string,
  ): KubernetesObject[] =>
    objects.filter((object) => object.kind === kind && object.metadata.name === name)
  const manifests = [
    'base/rbac.yaml',
    'base/namespace.yaml',
    'base/broker/service-account.yaml',
  ].flatMap((file) => objectsOf(readFileSync(join(MANIFESTS, file), 'utf8')))

  it('are those of the manifests, word for word', () => {
    const made = rightsOf(30)
    expect(manifests).to.have.lengthOf(5)
    for (const object of manifests)
      expect(find(made, object.kind, object.metadata.name)).to.deep.equal([object])
    const [binding] = objectsOf(
      readFileSync(join(MANIFESTS, 'namespace/role-binding.yaml'), 'utf8'),
    )
    const [first] = find(made, 'RoleBinding', 'nestgate-impersonator')
    expect({ ...first, metadata: { ...first?.metadata, namespace: 'agents' } }).to.deep.equal(
      binding,
    )
    expect(BROKER_RULES).to.have.lengthOf(3)
    expect(IMPERSONATOR_RULES).to.have.lengthOf(2)
  })

  it('let the broker renew its own token and no other', () => {
    expect(find(rightsOf(24), 'Role', 'nestgate-broker-token')[0]).to.deep.include({
      metadata: {
        name: 'nestgate-broker-token',
        namespace: 'nestgate-system',
        labels: { 'app.kubernetes.io/part-of': 'nestgate' },
      },
      rules: [
        {
          apiGroups: [''],
          resources: ['serviceaccounts/token'],
          resourceNames: ['nestgate-broker'],
          verbs: ['create'],
        },
      ],
    })
  })

  it('bind the impersonator in the named namespaces, never in all', () => {
    const made = rightsOf(30)
    const bindings = find(made, 'RoleBinding', 'nestgate-impersonator')
    expect(bindings.map(({ metadata }) => metadata.namespace)).to.deep.equal(['team-a', 'team-b'])
    expect(find(made, 'ClusterRoleBinding', 'nestgate-impersonator')).to.deep.equal([])
  })

  it('name users and groups one by one, with those that agents need beside a granted one', () => {
    const [subjects] = find(rightsOf(35), 'ClusterRole', 'nestgate-broker-subjects')
    expect(subjects?.rules).to.deep.equal([
      {
        ...{ apiGroups: [''], resources: ['users'], verbs: ['impersonate'] },
        resourceNames: ['ci:repo:shop', 'sso:ann'],
      },
      {
        ...{ apiGroups: [''], resources: ['groups'], verbs: ['impersonate'] },
        resourceNames: [
          'deployers',
          'system:serviceaccounts',
          'system:serviceaccounts:team-a',
          'system:serviceaccounts:team-b',
        ],
      },
    ])
  })

  it('are nothing of users and groups where none is named', () => {
    const made = rightsOf(36, { users: [], groups: [] })
    expect(made.map(({ metadata }) => metadata.name)).not.to.include('nestgate-broker-subjects')
    expect(JSON.stringify(made)).not.to.contain('user-info')
  })

  it('use the constrained verbs for users from 1.36 on', () => {
    const [subjects] = find(rightsOf(36), 'ClusterRole', 'nestgate-broker-subjects')
    const rules = subjects?.rules ?? []
    const legacy = rules.filter(({ verbs }) => verbs?.includes('impersonate'))
    expect(legacy.map(({ resources }) => resources)).to.deep.equal([['groups']])
    const identity = rules.filter(({ verbs }) => verbs?.includes('impersonate:user-info'))
    expect(identity.map(({ apiGroups, resources }) => [apiGroups, resources])).to.deep.equal([
      [['authentication.k8s.io'], ['users']],
      [['authentication.k8s.io'], ['groups']],
      [
        ['authentication.k8s.io'],
        ['request-id', 'process', 'approver', 'bind'].map(
          (key) => `userextras/nestgate.dev/${key}`,
        ),
      ],
    ])
    expect(rules.flatMap(({ verbs = [] }) => verbs)).to.include('impersonate-on:user-info:watch')
    expect(rules.flatMap(({ verbs = [] }) => verbs)).not.to.include('*')
  })

  it('never reach everybody, nor one of the cluster’s own users', () => {
    for (const minor of [20, 30, 36])
      for (const { rules = [] } of rightsOf(minor))
        for (const rule of rules) {
          const isBeing = rule['verbs']?.some((verb) => /^impersonate(:|$)/.test(verb)) === true
          if (!isBeing) continue
          expect(rule['resources']?.join()).not.to.contain('*')
          expect(rule['resourceNames'] ?? []).not.to.include('*')
          if (rule['resources']?.some((resource) => /^(users|groups)$/.test(resource)) === true)
            expect(rule['resourceNames']).to.be.an('array').that.is.not.empty
        }
  })
})

describe('the admission policy', () => {
  interface Policy extends KubernetesObject {
    readonly spec: {
      readonly failurePolicy: string
      readonly matchConstraints: Json
      readonly matchConditions: readonly (Expression & { readonly name: string })[]
      readonly variables: readonly (Expression & { readonly name: string })[]
      readonly validations: readonly (Expression & Json)[]
    }
  }
  const [policy, binding] = objectsOf(
    fileOf(goldenRequest('impersonation', 30), 'admission-policy.yaml'),
  ) as readonly [Policy, KubernetesObject & { readonly spec: Json }]
  const resource = (group: string, name: string): object => ({
    group,
    version: 'v1',
    resource: name,
  })
  const user = (bind?: readonly string[]): object => ({
    username: 'system:serviceaccount:team-a:web',
    ...(bind === undefined ? {} : { extra: { 'nestgate.dev/bind': bind } }),
  })
  const judge = (request: object): { readonly passes: unknown; readonly message: unknown } => {
    const variables: Record<string, unknown> = {}
    for (const { name, expression } of policy.spec.variables)
      variables[name] = evaluate(expression, { request, variables })
    const [validation] = policy.spec.validations
    return {
      passes: evaluate(validation?.expression ?? '', { request, variables }),
      message: evaluate(String(validation?.['messageExpression']), { request, variables }),
    }
  }
  const update = {
    ...{
      operation: 'UPDATE',
      resource: resource('apps', 'deployments'),
      namespace: 'shop',
      name: 'web',
    },
  }

  it('is asked about every write and session, and fails closed', () => {
    expect(policy).to.include({ apiVersion: 'admissionregistration.k8s.io/v1' })
    expect(policy.spec.failurePolicy).to.equal('Fail')
    expect(policy.spec.matchConstraints).to.deep.equal({
      matchPolicy: 'Equivalent',
      resourceRules: [
        {
          apiGroups: ['*'],
          apiVersions: ['*'],
          operations: ['CREATE', 'UPDATE', 'DELETE', 'CONNECT'],
          resources: ['*/*'],
          scope: '*',
        },
      ],
    })
    expect(binding.spec).to.deep.equal({ policyName: 'nestgate-bind', validationActions: ['Deny'] })
  })

  it('is about the named accounts and users alone', () => {
    const [condition] = policy.spec.matchConditions
    const isBound = (username: string): unknown =>
      evaluate(condition?.expression ?? '', { request: { userInfo: { username } } })
    for (const name of [
      'system:serviceaccount:team-a:web',
      'system:serviceaccount:team-b:x',
      'sso:ann',
    ])
      expect(isBound(name), name).to.equal(true)
    for (const name of [
      'system:serviceaccount:team-ab:x',
      'system:serviceaccount:kube-system:x',
      'sso:bob',
      'system:node:a',
    ])
      expect(isBound(name), name).to.equal(false)
  })

  for (const [what, request, bind] of [
    ['an update', update, 'UPDATE apps/deployments/ shop/web'],
    [
      'a session',
      {
        operation: 'CONNECT',
        resource: resource('', 'pods'),
        subResource: 'exec',
        namespace: 'shop',
        name: 'web-1',
      },
      'CONNECT /pods/exec shop/web-1',
    ],
    [
      'a new namespace, for which the API server says that it is in itself',
      {
        operation: 'CREATE',
        resource: resource('', 'namespaces'),
        namespace: 'blue',
        name: 'blue',
      },
      'CREATE /namespaces/ /blue',
    ],
    [
      'an object whose name the API server makes',
      {
        operation: 'CREATE',
        resource: resource('batch', 'jobs'),
        namespace: 'shop',
        name: 'run-x1',
      },
      'CREATE batch/jobs/ shop/*',
    ],
    [
      'a cluster-wide object',
      { operation: 'DELETE', resource: resource('', 'persistentvolumes'), name: 'pv' },
      'DELETE /persistentvolumes/ /pv',
    ],
  ] as const)
    it(`lets ${what} through that is approved, and nothing else`, () => {
      const asked = (values?: readonly string[]): unknown =>
        judge({ ...request, userInfo: user(values) }).passes
      expect(asked(['GET x', bind])).to.equal(true)
      expect(asked([])).to.equal(false)
      expect(asked(undefined)).to.equal(false)
      expect(asked([`${bind}x`, bind.slice(0, -1), bind.toLowerCase()])).to.equal(false)
    })

  it('lets any name through where the broker could not know it, of a creation at that very place', () => {
    const create = { ...update, operation: 'CREATE' }
    const bind = ['CREATE apps/deployments/ shop/*', 'UPDATE apps/deployments/ shop/*']
    const asked = (request: object): unknown => judge({ ...request, userInfo: user(bind) }).passes
    expect(asked({ ...create, name: 'web-x7k2p' })).to.equal(true)
    expect(asked({ ...create, namespace: 'till' })).to.equal(false)
    expect(asked({ ...create, resource: resource('apps', 'replicasets') })).to.equal(false)
    expect(asked({ ...create, subResource: 'scale' })).to.equal(false)
    expect(asked(update)).to.equal(false)
  })

  it('refuses where there are other extras only', () => {
    const userInfo = { username: 'sso:ann', extra: { 'nestgate.dev/request-id': ['x'] } }
    expect(judge({ ...update, userInfo }).passes).to.equal(false)
  })

  it('says what was asked and what was approved', () => {
    expect(
      judge({ ...update, userInfo: user(['CREATE /pods/ a/b', 'DELETE /pods/ a/b']) }).message,
    ).to.equal(
      'nestgate: this is UPDATE apps/deployments/ shop/web, and approved is CREATE /pods/ a/b, DELETE /pods/ a/b',
    )
    expect(judge({ ...update, userInfo: user() }).message).to.equal(
      'nestgate: this is UPDATE apps/deployments/ shop/web, and approved is nothing',
    )
  })

  it('is not there before 1.30, and beside the webhook after', () => {
    const names = (minor: number): readonly string[] =>
      filesOfRequest(goldenRequest('impersonation', minor)).map(({ name }) => name)
    expect(names(29)).to.include('admission-webhook.yaml').and.not.include('admission-policy.yaml')
    expect(names(30)).to.include.members(['admission-policy.yaml', 'admission-webhook.yaml'])
  })
})

describe('the admission webhook', () => {
  interface Webhook extends Json {
    readonly rules: readonly Readonly<Record<string, unknown>>[]
    readonly matchConditions?: readonly (Expression & { readonly name: string })[]
  }
  const webhookOf = (minor: number): Webhook => {
    const { webhooks } = yamlOf(
      goldenRequest('impersonation', minor),
      'admission-webhook.yaml',
    ) as { webhooks: readonly Webhook[] }
    expect(webhooks).to.have.lengthOf(1)
    if (webhooks[0] === undefined) throw new Error('no webhook')
    return webhooks[0]
  }

  it('asks the broker, and fails closed', () => {
    for (const minor of [20, 28])
      expect(webhookOf(minor)).to.deep.include({
        name: 'bind.nestgate.dev',
        admissionReviewVersions: ['v1'],
        clientConfig: {
          url: 'https://broker.example:8443/v1/clusters/prod/admit',
          caBundle: Buffer.from(GOLDEN_CA).toString('base64'),
        },
        failurePolicy: 'Fail',
        matchPolicy: 'Equivalent',
        sideEffects: 'None',
        timeoutSeconds: 5,
      })
  })

  it('asks of labelled namespaces only, where it cannot tell who asks', () => {
    for (const minor of [20, 27]) {
      const { rules, namespaceSelector, matchConditions } = webhookOf(minor)
      expect(namespaceSelector).to.deep.equal({ matchLabels: { 'nestgate.dev/inject': 'enabled' } })
      expect(matchConditions).to.equal(undefined)
      // a selector of namespaces never exempts other cluster-wide objects: nodes would wait for the broker
      expect(rules.map(({ scope }) => scope)).to.deep.equal(['Namespaced', 'Cluster'])
      expect(rules[1]?.['resources']).to.deep.equal(['namespaces', 'namespaces/finalize'])
    }
  })

  it('asks of the bound names everywhere, where it can', () => {
    for (const minor of [28, 29]) {
      const { rules, namespaceSelector, matchConditions } = webhookOf(minor)
      expect(namespaceSelector).to.equal(undefined)
      const [, noReview] = matchConditions ?? []
      expect(matchConditions).to.have.lengthOf(2)
      for (const [group, isAsked] of [
        ['apps', true],
        ['', true],
        ['authorization.k8s.io', false],
        ['authentication.k8s.io', false],
      ] as const)
        expect(evaluate(noReview?.expression ?? '', { request: { resource: { group } } })).to.equal(
          isAsked,
        )
      expect(rules.map(({ scope }) => scope)).to.deep.equal(['*'])
    }
  })

  const resourcesOf = (minor: number): readonly string[] =>
    webhookOf(minor).rules.flatMap((rule) => rule['resources'] as string[])

  it('is about what opens sessions or changes something, and not about everybody’s status, before 1.28', () => {
    const resources = resourcesOf(20)
    expect(resources).to.include.members([
      ...['*', 'pods/exec', 'pods/attach', 'pods/portforward', 'pods/proxy', 'pods/eviction'],
      ...['pods/ephemeralcontainers', 'services/proxy', '*/scale', 'serviceaccounts/token'],
    ])
    expect(resources.filter((name) => name.includes('status') || name === '*/*')).to.deep.equal([])
  })

  it('is about every subresource from 1.28, where it is about bound names alone', () => {
    for (const minor of [28, 30, 36]) expect(resourcesOf(minor)).to.deep.equal(['*/*'])
  })
})

describe('settings for the broker', () => {
  it('tell of the issuer and the authorizer’s hash in mode issuer', () => {
    expect(yamlOf(goldenRequest('issuer', 34), 'broker-cluster.yaml')).to.deep.equal({
      issuer: { url: 'https://broker.example:8443/issuer' },
      clusters: [
        {
          name: 'prod',
          server: 'https://10.0.0.5:6443',
          caFile: '/etc/nestgate/clusters/prod/ca.crt',
          credential: { issuer: { authorizerTokenSha256: 'ab'.repeat(32) } },
          serviceAccountTokens: { verify: 'tokenReview' },
        },
      ],
    })
  })

  it('are accepted by the broker, and know whose writes it is asked about', () => {
    for (const mode of ['issuer', 'impersonation'] as const)
      for (const minor of [20, 29, 30, 36]) {
        const text = fileOf(goldenRequest(mode, minor), 'broker-cluster.yaml')
        const base = { tls: { certFile: 'c', keyFile: 'k' }, dataDir: 'd', policyFile: 'p' }
        const read = brokerSchema.parse({ ...base, ...(parse(text) as object) })
        expect(read.clusters[0]?.bound).to.deep.equal(
          mode === 'impersonation'
            ? { namespaces: ['team-a', 'team-b'], users: ['ci:repo:shop', 'sso:ann'] }
            : undefined,
        )
      }
  })

  it('tell of a token that is renewed in mode impersonation', () => {
    const settings = yamlOf(goldenRequest('impersonation', 34), 'broker-cluster.yaml') as {
      clusters: readonly Json[]
    }
    expect(settings).to.have.all.keys(['clusters'])
    expect(settings.clusters[0]?.['credential']).to.deep.equal({
      tokenFile: '/etc/nestgate/clusters/prod/token',
      refresh: { namespace: 'nestgate-system', serviceAccount: 'nestgate-broker' },
    })
  })
})

describe('what to do next', () => {
  it('names every file that was made', () => {
    for (const mode of ['issuer', 'impersonation'] as const)
      for (const minor of [20, 29, 30, 36]) {
        const files = filesOfRequest(goldenRequest(mode, minor))
        const [next, ...others] = files
        expect(next?.name).to.equal('NEXT-STEPS.md')
        for (const { name } of others) expect(next?.text, `${mode} 1.${minor}`).to.contain(name)
      }
  })
})

describe('writing the files', () => {
  const files = filesOfRequest(goldenRequest('issuer', 34))
  const inFolder = (work: (folder: string) => void): void => {
    const folder = mkdtempSync(join(tmpdir(), 'nestgate-connect-'))
    try {
      work(folder)
    } finally {
      rmSync(folder, { recursive: true })
    }
  }
  const modeOf = (path: string): number => statSync(path).mode & 0o777

  it('keeps secrets and the folder to their owner', () => {
    inFolder((folder) => {
      const out = join(folder, 'prod')
      expect(writeFiles(out, files)).to.have.lengthOf(files.length)
      expect(modeOf(out)).to.equal(0o700)
      expect(modeOf(join(out, 'authorizer.kubeconfig'))).to.equal(0o600)
      expect(readFileSync(join(out, 'NEXT-STEPS.md'), 'utf8')).to.contain('# Connecting prod')
    })
  })

  it('overwrites nothing, and then writes nothing', () => {
    inFolder((folder) => {
      writeFileSync(join(folder, 'authorizer.kubeconfig'), 'mine')
      expect(() => writeFiles(folder, files)).to.throw('nothing is overwritten')
      expect(readdirSync(folder)).to.deep.equal(['authorizer.kubeconfig'])
      expect(readFileSync(join(folder, 'authorizer.kubeconfig'), 'utf8')).to.equal('mine')
    })
  })
})
