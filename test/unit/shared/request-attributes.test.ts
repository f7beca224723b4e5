/** What policy sees of a request: effective actions, what it amounts to, and parameters, from line and body. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import type {
  Action,
  Equivalent,
  RequestAttributes,
} from '../../../shared/kubernetes/attributes.ts'
import { parseTarget } from '../../../shared/kubernetes/path.ts'
import { readAttributes } from '../../../shared/kubernetes/request-attributes.ts'
import { readRequestInfo } from '../../../shared/kubernetes/request-info.ts'
import { isRefusal } from '../../../shared/reasons.ts'
import type { Refusal } from '../../../shared/reasons.ts'

const PROTOBUF = 'application/vnd.kubernetes.protobuf'
const MERGE = 'application/merge-patch+json'
const STRATEGIC = 'application/strategic-merge-patch+json'
const JSON_PATCH = 'application/json-patch+json'
const APPLY = 'application/apply-patch+yaml'

function read(line: string, body?: unknown, contentType = ''): RequestAttributes | Refusal {
  const [method = '', url = ''] = line.split(' ')
  const target = parseTarget(url)
  if (isRefusal(target)) throw new Error('the path is refused')
  const info = readRequestInfo(method, target)
  if (isRefusal(info)) throw new Error('the request is refused')
  const text = typeof body === 'string' ? body : body === undefined ? '' : JSON.stringify(body)
  return readAttributes({ method, target, info, contentType, body: Buffer.from(text) })
}

function attributes(line: string, body?: unknown, contentType?: string): RequestAttributes {
  const found = read(line, body, contentType)
  if (isRefusal(found)) throw new Error(`${found.refused}: ${found.detail ?? ''}`)
  return found
}

const CORE = '/api/v1/namespaces/shop'
const APPS = '/apis/apps/v1/namespaces/shop'
const RBAC = '/apis/rbac.authorization.k8s.io/v1'

describe('effective actions', () => {
  const cases: readonly (readonly [string, unknown, string, readonly Action[]])[] = [
    [`GET ${CORE}/pods/web`, undefined, '', []],
    [`GET ${CORE}/pods`, undefined, '', []],
    [`GET ${CORE}/secrets`, undefined, '', ['read-secrets']],
    [`GET /api/v1/secrets?watch=1`, undefined, '', ['read-secrets']],
    [`GET /api/v1/watch/secrets`, undefined, '', ['read-secrets']],
    [`GET ${CORE}/pods/web/exec?command=ls`, undefined, '', ['exec']],
    [`POST ${CORE}/pods/web/exec?command=ls`, undefined, '', ['exec']],
    [`GET ${CORE}/pods/web/attach`, undefined, '', ['attach']],
    [`POST ${CORE}/pods/web/portforward`, undefined, '', ['port-forward']],
    [`GET ${CORE}/pods/https:web:8443/proxy/x`, undefined, '', ['proxy']],
    [`GET ${CORE}/services/web/proxy`, undefined, '', ['proxy']],
    [`GET /api/v1/nodes/n1/proxy/metrics`, undefined, '', ['proxy']],
    [
      `GET /api/v1/nodes/n1:10250/proxy/exec/shop/web/main?command=id`,
      undefined,
      '',
      ['proxy', 'node-exec'],
    ],
    [`POST /api/v1/nodes/n1/proxy/run/shop/web/main`, undefined, '', ['proxy', 'node-exec']],
    [`GET /api/v1/proxy/nodes/n1/exec/shop/web/main`, undefined, '', ['proxy', 'node-exec']],
    [`POST /api/v1/nodes/n1/proxy/cri/exec/abc`, undefined, '', ['proxy', 'node-exec']],
    [`PATCH ${CORE}/pods/web/ephemeralcontainers`, { spec: {} }, STRATEGIC, ['debug']],
    [`PUT ${CORE}/pods/web/ephemeralcontainers`, { spec: {} }, '', ['debug']],
    [`POST ${CORE}/pods/web/eviction`, { metadata: { name: 'web' } }, '', ['evict']],
    [
      `POST ${CORE}/pods/web/eviction`,
      { deleteOptions: { gracePeriodSeconds: 0, dryRun: ['All'] } },
      '',
      ['evict', 'force-delete', 'dry-run'],
    ],
    [`PUT ${APPS}/deployments/web/scale`, { spec: { replicas: 3 } }, '', ['scale']],
    [
      `PATCH ${APPS}/deployments/web/scale`,
      { spec: { replicas: 0 } },
      MERGE,
      ['scale', 'scale-to-zero'],
    ],
    [`PATCH ${APPS}/deployments/web`, { spec: { replicas: 0 } }, MERGE, ['scale', 'scale-to-zero']],
    [
      `PATCH ${APPS}/deployments/web`,
      [{ op: 'replace', path: '/spec/replicas', value: 0 }],
      JSON_PATCH,
      ['scale', 'scale-to-zero'],
    ],
    [
      `PATCH ${APPS}/deployments/web`,
      [{ op: 'add', path: '/spec', value: { replicas: 2 } }],
      JSON_PATCH,
      ['scale', 'run-code'],
    ],
    [
      `PATCH ${APPS}/deployments/web`,
      [{ op: 'copy', from: '/spec/x', path: '/spec/replicas' }],
      JSON_PATCH,
      ['scale', 'scale-to-zero'],
    ],
    [
      `PATCH ${APPS}/deployments/web`,
      [{ op: 'test', path: '/spec/replicas', value: 0 }],
      JSON_PATCH,
      [],
    ],
    [`PATCH ${APPS}/deployments/web`, { metadata: { labels: { a: 'b' } } }, MERGE, []],
    [
      `PATCH ${APPS}/deployments/web`,
      { spec: null },
      MERGE,
      ['scale', 'scale-to-zero', 'run-code'],
    ],
    [
      `PATCH ${APPS}/deployments/web`,
      {
        spec: {
          template: { metadata: { annotations: { 'kubectl.kubernetes.io/restartedAt': 'now' } } },
        },
      },
      STRATEGIC,
      ['restart', 'run-code'],
    ],
    [
      `PATCH ${APPS}/deployments/web`,
      [
        {
          op: 'add',
          path: '/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt',
          value: 'x',
        },
      ],
      JSON_PATCH,
      ['restart', 'run-code'],
    ],
    // what an apply leaves out, it takes away, if it was its manager's; and managers are a parameter
    [
      `PATCH ${APPS}/deployments/web`,
      'spec:\n  replicas: 0\n',
      APPLY,
      ['scale', 'scale-to-zero', 'remove-finalizers', 'run-code'],
    ],
    [
      `PATCH ${APPS}/deployments/web`,
      { spec: { template: {} } },
      APPLY,
      ['scale', 'remove-finalizers', 'run-code'],
    ],
    [`PATCH ${CORE}/configmaps/a`, {}, APPLY, ['remove-finalizers']],
    // a workload without replicas has one, a Scale without them none
    [
      `PUT ${APPS}/deployments/web`,
      { metadata: { finalizers: ['a/b'] }, spec: { template: {} } },
      '',
      ['scale', 'remove-finalizers', 'run-code'],
    ],
    [`POST ${APPS}/deployments`, { spec: { template: {} } }, '', ['run-code']],
    [`PUT ${APPS}/deployments/web/scale`, { spec: {} }, '', ['scale', 'scale-to-zero']],
    [
      `PATCH ${APPS}/deployments/web/scale`,
      { spec: { replicas: null } },
      MERGE,
      ['scale', 'scale-to-zero'],
    ],
    [
      `PATCH ${APPS}/deployments/web/scale`,
      [{ op: 'remove', path: '/spec/replicas' }],
      JSON_PATCH,
      ['scale', 'scale-to-zero'],
    ],
    [`PATCH ${APPS}/deployments/web`, { spec: { replicas: null } }, MERGE, ['scale']],
    // the server's JSON patch passes over what stands before the first slash
    [
      `PATCH ${APPS}/deployments/web`,
      [{ op: 'move', from: 'x/spec/replicas', path: '/spec/minReadySeconds' }],
      JSON_PATCH,
      ['scale', 'scale-to-zero', 'remove-finalizers', 'run-code'],
    ],
    [
      `PATCH ${APPS}/deployments/web`,
      [{ op: 'replace', path: 'x/spec/replicas', value: 0 }],
      JSON_PATCH,
      ['scale', 'scale-to-zero', 'restart', 'remove-finalizers', 'run-code'],
    ],
    [
      `PATCH ${APPS}/deployments/web`,
      { spec: { $retainKeys: ['template'], template: {} } },
      STRATEGIC,
      ['scale', 'scale-to-zero', 'run-code'],
    ],
    [
      `PATCH ${CORE}/configmaps/a`,
      { metadata: { $retainKeys: ['name'] } },
      STRATEGIC,
      ['remove-finalizers'],
    ],
    [`PATCH ${CORE}/pods/a/status`, { metadata: { finalizers: [] } }, MERGE, ['remove-finalizers']],
    [`PATCH ${CORE}/pods/a/status`, { status: {} }, MERGE, []],
    [`PUT ${CORE}/pods/a/status`, { status: {} }, '', ['remove-finalizers']],
    [`DELETE ${CORE}/pods/web?gracePeriodSeconds=-1`, undefined, '', ['force-delete']],
    [`DELETE ${CORE}/pods/web`, { gracePeriodSeconds: -1 }, '', ['force-delete']],
    // the answers have what was stored
    [`PATCH ${CORE}/secrets/a?dryRun=All`, {}, MERGE, ['read-secrets', 'dry-run']],
    [
      `DELETE ${CORE}/secrets?dryRun=All`,
      undefined,
      '',
      ['delete-many', 'read-secrets', 'dry-run'],
    ],
    [`DELETE ${CORE}/secrets/a`, undefined, '', ['read-secrets']],
    // a dry run mints, too
    [`POST ${CORE}/serviceaccounts/robot/token?dryRun=All`, {}, '', ['mint-credential']],
    [
      `PATCH ${CORE}/secrets/a`,
      { metadata: { annotations: { 'kubernetes.io/service-account.name': 'admin' } } },
      MERGE,
      ['mint-credential', 'read-secrets'],
    ],
    // words that every JavaScript object knows
    [`GET ${CORE}/pods/web/constructor`, undefined, '', []],
    [`PUT ${CORE}/pods/web/__proto__`, {}, '', ['remove-finalizers']],
    [`PATCH ${CORE}/configmaps/a`, '{}', 'constructor', ['remove-finalizers']],
    [`GET /api/v1/nodes/n1/proxy/constructor/a/b`, undefined, '', ['proxy']],
    [`DELETE ${CORE}/pods`, undefined, '', ['delete-many']],
    [`DELETE /api/v1/namespaces/shop`, undefined, '', ['delete-many']],
    [
      `DELETE /apis/apiextensions.k8s.io/v1/customresourcedefinitions/a`,
      undefined,
      '',
      ['delete-many', 'extend-cluster'],
    ],
    [`DELETE ${CORE}/pods?dryRun=All`, undefined, '', ['delete-many', 'dry-run']],
    [`DELETE ${CORE}/pods/web`, { gracePeriodSeconds: 0 }, '', ['force-delete']],
    [`DELETE ${CORE}/pods/web?gracePeriodSeconds=0`, undefined, '', ['force-delete']],
    // a body decides alone: what the query says is not read (delete.go)
    [`DELETE ${CORE}/pods/web?dryRun=All`, { gracePeriodSeconds: 30 }, '', []],
    [
      `DELETE ${APPS}/deployments/web`,
      { propagationPolicy: 'Orphan', dryRun: ['All'] },
      '',
      ['orphan', 'dry-run'],
    ],
    [`DELETE ${APPS}/deployments/web?orphanDependents=true`, undefined, '', ['orphan']],
    [`DELETE ${CORE}/pods/web`, 'opaque', PROTOBUF, ['force-delete', 'orphan']],
    [`PUT /api/v1/namespaces/shop/finalize`, { spec: {} }, '', ['remove-finalizers']],
    [
      `PATCH ${CORE}/configmaps/a`,
      { metadata: { finalizers: null } },
      MERGE,
      ['remove-finalizers'],
    ],
    [
      `PATCH ${CORE}/configmaps/a`,
      { metadata: { '$deleteFromPrimitiveList/finalizers': ['x'] } },
      STRATEGIC,
      ['remove-finalizers'],
    ],
    [
      `PATCH ${CORE}/configmaps/a`,
      [{ op: 'remove', path: '/metadata/finalizers/0' }],
      JSON_PATCH,
      ['remove-finalizers'],
    ],
    [
      `PATCH ${CORE}/configmaps/a`,
      [{ op: 'remove', path: '/metadata' }],
      JSON_PATCH,
      ['remove-finalizers'],
    ],
    [`PUT ${CORE}/configmaps/a`, { metadata: { finalizers: ['x/y'] } }, '', ['remove-finalizers']],
    [`PUT ${CORE}/configmaps/a`, { metadata: {} }, '', ['remove-finalizers']],
    [`POST ${CORE}/serviceaccounts/robot/token`, { spec: {} }, '', ['mint-credential']],
    [`POST ${CORE}/serviceaccounts`, { metadata: { name: 'robot' } }, '', []],
    [`POST ${CORE}/secrets`, { type: 'Opaque' }, '', []],
    [
      `POST ${CORE}/secrets`,
      { type: 'kubernetes.io/service-account-token' },
      '',
      ['mint-credential'],
    ],
    [`POST ${CORE}/secrets`, 'opaque', PROTOBUF, ['mint-credential']],
    [
      `PUT /apis/certificates.k8s.io/v1/certificatesigningrequests/a/approval`,
      {},
      '',
      ['remove-finalizers', 'mint-credential'],
    ],
    [`POST ${RBAC}/clusterrolebindings`, { metadata: { name: 'a' } }, '', ['escalate']],
    [`PATCH ${RBAC}/namespaces/shop/roles/a`, { rules: [] }, MERGE, ['escalate']],
    [`POST ${CORE}/pods`, { metadata: { name: 'web' } }, '', ['run-code']],
    [`POST ${CORE}/pods`, 'opaque', PROTOBUF, ['run-code']],
    [`POST /apis/batch/v1/namespaces/shop/cronjobs`, {}, '', ['run-code']],
    [`POST ${APPS}/controllerrevisions`, { data: {} }, '', ['run-code']],
    [`PATCH /apis/batch/v1/namespaces/shop/cronjobs/a`, { spec: { suspend: true } }, MERGE, []],
    [
      `PATCH ${APPS}/deployments/web`,
      'opaque',
      'application/apply-patch+cbor',
      ['scale', 'scale-to-zero', 'restart', 'remove-finalizers', 'run-code'],
    ],
    [
      `DELETE /apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/a`,
      undefined,
      '',
      ['extend-cluster'],
    ],
    [`POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions`, {}, '', ['extend-cluster']],
    [`POST ${CORE}/configmaps?dryRun=All`, {}, '', ['dry-run']],
    [`POST ${CORE}/configmaps?dryRun=all`, {}, '', []],
    [`GET /metrics`, undefined, '', []],
  ]
  for (const [line, body, type, expected] of cases)
    it(`${line} ${typeof body === 'string' ? body : body === undefined ? '' : JSON.stringify(body)}`, () => {
      expect(attributes(line, body, type).actions).to.have.members(expected)
    })
})

describe('what a request amounts to', () => {
  const of = (line: string, body?: unknown): readonly Equivalent[] =>
    attributes(line, body).equivalents
  const one = (verb: string, resource: string, namespace: string, name: string): Equivalent[] => [
    { verb, apiGroup: '', resource, namespace, name },
  ]

  it('an eviction deletes its pod', () => {
    expect(of(`POST ${CORE}/pods/web/eviction`)).to.deep.equal(one('delete', 'pods', 'shop', 'web'))
  })

  it('an ephemeral container is as good as exec', () => {
    const line = `PATCH ${CORE}/pods/web/ephemeralcontainers`
    expect(of(line)).to.deep.equal(one('connect', 'pods/exec', 'shop', 'web'))
  })

  it('a collection’s deletion deletes each', () => {
    expect(of(`DELETE ${CORE}/pods`)).to.deep.equal(one('delete', 'pods', 'shop', ''))
  })

  it('a command through a node runs in the pod that its path names', () => {
    expect(of(`GET /api/v1/nodes/n1/proxy/exec/shop/web/main`)).to.deep.equal(
      one('connect', 'pods/exec', 'shop', 'web'),
    )
    expect(of(`GET /api/v1/nodes/https:n1:10250/proxy/portForward/shop/web`)).to.deep.equal(
      one('connect', 'pods/portforward', 'shop', 'web'),
    )
    expect(of(`GET /api/v1/proxy/nodes/n1/attach/shop/web/main`)).to.deep.equal(
      one('connect', 'pods/attach', 'shop', 'web'),
    )
  })

  it('what is read through a node is read', () => {
    const logs = `GET /api/v1/nodes/n1/proxy/containerLogs/shop/web/main`
    expect(of(logs)).to.deep.equal(one('get', 'pods/log', 'shop', 'web'))
    expect(of(`GET /api/v1/nodes/n1/proxy/pods`)).to.deep.equal(one('list', 'pods', '', ''))
    expect(of(`GET /api/v1/nodes/n1/proxy/constructor/a/b`)).to.deep.equal([])
  })

  it('a write that creates what is not there is a creation', () => {
    const apply = attributes(`PATCH ${CORE}/pods/web`, {}, APPLY).equivalents
    expect(apply).to.deep.equal(one('create', 'pods', 'shop', 'web'))
    expect(attributes(`PATCH ${CORE}/pods/web`, {}, MERGE).equivalents).to.deep.equal([])
    expect(of(`PUT ${CORE}/services/web`, {})).to.deep.equal(
      one('create', 'services', 'shop', 'web'),
    )
    expect(of(`PUT ${CORE}/pods/web`, {})).to.deep.equal([])
    expect(of(`PUT ${RBAC}/clusterroles/a`, {})).to.have.nested.property('[0].verb', 'create')
  })

  it('an object that two groups serve is reached by the rules of either', () => {
    const at = (verb: string, apiGroup: string, resource: string, name: string): Equivalent => ({
      ...{ verb, apiGroup, resource, namespace: 'shop', name },
    })
    const old = '/apis/extensions/v1beta1/namespaces/shop'
    expect(of(`DELETE ${old}/ingresses`)).to.deep.equal([
      at('delete', 'extensions', 'ingresses', ''),
      at('deletecollection', 'networking.k8s.io', 'ingresses', ''),
      at('delete', 'networking.k8s.io', 'ingresses', ''),
    ])
    expect(of(`GET ${old}/deployments/web/scale`)).to.deep.equal([
      at('get', 'apps', 'deployments/scale', 'web'),
    ])
    expect(of(`GET ${CORE}/events/a`)).to.deep.equal([at('get', 'events.k8s.io', 'events', 'a')])
  })

  it('anything else is itself', () => {
    expect(of(`GET ${CORE}/pods/web`)).to.deep.equal([])
    expect(of(`GET /apis/x.y/v1/namespaces/shop/pods/web/eviction`)).to.deep.equal([])
  })
})

describe('parameters and names', () => {
  it('reads argv in order, container, tty and stdin of an exec', () => {
    const line = `GET ${CORE}/pods/web/exec?command=sh&command=-c&command=echo%20a&container=main&tty=&stdin=false&stdin=true`
    const { parameters, policyVerb, objectName } = attributes(line)
    expect(policyVerb).to.equal('connect')
    expect(objectName).to.equal('web')
    expect(parameters).to.deep.equal({
      dryRun: false,
      command: ['sh', '-c', 'echo a'],
      container: 'main',
      tty: true,
      stdin: false,
    })
  })

  it('reads the ports of a forward, and what is asked through a proxy', () => {
    expect(
      attributes(`GET ${CORE}/pods/web/portforward?ports=80,443&ports=8080`).parameters.ports,
    ).to.deep.equal([80, 443, 8080])
    expect(
      attributes(`GET ${CORE}/services/http:web:80/proxy/a/b%20c`).parameters.proxyPath,
    ).to.equal('/a/b c')
    expect(
      attributes(`GET /apis/metrics.k8s.io/v1/proxy/namespaces/shop/pods/web/a/b`).parameters
        .proxyPath,
    ).to.equal('/a/b')
  })

  it('takes the name of what is created from the body', () => {
    expect(attributes(`POST ${CORE}/pods`, { metadata: { name: 'web' } }).objectName).to.equal(
      'web',
    )
    const generated = attributes(`POST ${CORE}/pods`, { metadata: { generateName: 'web-' } })
    expect(generated.objectName).to.equal('')
    expect(generated.parameters.generateName).to.equal('web-')
  })

  it('reads labels of whole objects only', () => {
    const body = { metadata: { labels: { app: 'web', odd: 7 } } }
    expect(attributes(`POST ${CORE}/pods`, body).labels).to.deep.equal({ app: 'web' })
    expect(attributes(`PATCH ${CORE}/pods/a`, body, APPLY).labels).to.deep.equal({ app: 'web' })
    expect(attributes(`PATCH ${CORE}/pods/a`, body, MERGE).labels).to.equal(undefined)
    expect(attributes(`POST ${CORE}/pods`, 'opaque', PROTOBUF).labels).to.equal(undefined)
  })

  it('reads options of writes', () => {
    const line = `PATCH ${CORE}/pods/a?force=true&fieldManager=me&dryRun=All`
    expect(attributes(line, {}, APPLY).parameters).to.deep.equal({
      dryRun: true,
      force: true,
      fieldManager: 'me',
      patchType: 'apply',
    })
    const deletion = attributes(
      `DELETE ${CORE}/pods?labelSelector=a%3Db&fieldSelector=x%3Dy&propagationPolicy=Foreground`,
    )
    expect(deletion.parameters).to.deep.equal({
      dryRun: false,
      labelSelector: 'a=b',
      fieldSelector: 'x=y',
      propagationPolicy: 'Foreground',
    })
  })

  it('refuses a body that names another object than the path', () => {
    for (const found of [
      read(`POST ${CORE}/pods`, { metadata: { namespace: 'other' } }),
      read(`PUT ${CORE}/pods/web`, { metadata: { name: 'other' } }),
      read(`POST ${CORE}/pods/web/eviction`, { metadata: { name: 'other' } }),
    ])
      expect(found).to.have.property('refused', 'body_ambiguous')
  })

  it('refuses a body that can be read in two ways, but not bytes that are for a program', () => {
    const twice = '{"spec":{"replicas":1},"spec":{"replicas":0}}'
    expect(read(`PUT ${APPS}/deployments/web`, twice)).to.have.property('refused', 'body_ambiguous')
    expect(read(`POST ${CORE}/services/web/proxy/x`, twice)).to.have.nested.property(
      'body.state',
      'opaque',
    )
  })
})
