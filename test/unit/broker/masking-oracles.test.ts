/** Requests that would tell a hidden value: each way to do so is refused, and what ordinary clients do is not. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { secretName } from '../../../broker/masking/objects/names.ts'
import { findOracle } from '../../../broker/masking/writes/oracles.ts'
import { parseTarget } from '../../../shared/kubernetes/path.ts'
import { readAttributes } from '../../../shared/kubernetes/request-attributes.ts'
import { readRequestInfo } from '../../../shared/kubernetes/request-info.ts'
import { STANDARD_MASKING } from '../../../shared/policy/masking.ts'
import type { FieldMask, Masking } from '../../../shared/policy/masking.ts'
import { isRefusal } from '../../../shared/reasons.ts'

const N = '/api/v1/namespaces/agents'
const APPS = '/apis/apps/v1/namespaces/agents'
const CUSTOM = '/apis/example.com/v1/namespaces/agents'
const JSON_PATCH = 'application/json-patch+json'
const MERGE = 'application/merge-patch+json'
const STRATEGIC = 'application/strategic-merge-patch+json'
const APPLY = 'application/apply-patch+yaml'
const GUESS = 'aHVudGVyMg=='

const field = (kind: string, ...path: readonly string[]): FieldMask => ({
  group: 'example.com',
  kind,
  path: path.map((step) => (step === '*' ? 'any' : { name: step })),
})
const OPERATOR: Masking = {
  ...STANDARD_MASKING,
  profiles: ['ours', 'standard'],
  fields: [
    field('Db', 'spec', 'auth', '*', 'token'),
    field('Db', 'spec', 'color'),
    field('User', 'metadata', 'labels', 'tier'),
  ],
}
const STRICT: Masking = { ...STANDARD_MASKING, profiles: ['strict'], everywhere: true }
const NOTHING: Masking = { ...STANDARD_MASKING, profiles: [] }

/** As the masker does it, as far as these requests need it. */
function hiddenIn(object: unknown, path = '', kind = ''): readonly string[] {
  if (Array.isArray(object)) return object.flatMap((item) => hiddenIn(item, `${path}[]`, kind))
  if (typeof object !== 'object' || object === null) return []
  const own = 'kind' in object && typeof object.kind === 'string' ? object.kind : kind
  if ('name' in object && 'value' in object && secretName(String(object.name)))
    return [`${own} ${path}.value`]
  return Object.entries(object).flatMap(([key, value]) => {
    const at = path === '' ? key : `${path}.${key}`
    if (own === 'ConfigMap' && String(value).includes('password=')) return [`ConfigMap ${at}`]
    return hiddenIn(value, at, own)
  })
}

interface Sent {
  readonly method?: string
  readonly type?: string
  readonly body?: unknown
  readonly masking?: Masking
}

function told(
  url: string,
  { method, type = JSON_PATCH, body, masking }: Sent = {},
): string | undefined {
  const target = parseTarget(url)
  if (isRefusal(target)) throw new Error(target.refused)
  const verb = method ?? (body === undefined ? 'GET' : 'PATCH')
  const info = readRequestInfo(verb, target)
  if (isRefusal(info)) throw new Error(info.refused)
  const bytes =
    body === undefined
      ? Buffer.alloc(0)
      : Buffer.isBuffer(body)
        ? body
        : Buffer.from(JSON.stringify(body))
  const attributes = readAttributes({ method: verb, target, info, contentType: type, body: bytes })
  if (isRefusal(attributes)) throw new Error(attributes.refused)
  const refusal = findOracle(attributes, masking ?? STANDARD_MASKING, hiddenIn)
  if (refusal !== undefined) expect(refusal.refused).to.equal('mask_oracle')
  return refusal?.detail
}

const test = (path: string, value: unknown = GUESS): object => ({ op: 'test', path, value })
const operation = (op: string, path: string, value?: unknown): object => ({ op, path, value })
const copy = (from: string, path = '/metadata/labels/x', op = 'copy'): object => ({
  op,
  from,
  path,
})

const SECRET = `${N}/secrets/s`
const MAP = `${N}/configmaps/m`
const DEPLOYMENT = `${APPS}/deployments/d`
const CRON = '/apis/batch/v1/namespaces/agents/cronjobs/c'
const POD_SPEC = '/spec/template/spec'
const CONTAINER = `${POD_SPEC}/containers/0`
const LAST_APPLIED = '/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration'

describe('JSON patches that compare with what is hidden', () => {
  const refused: readonly (readonly [string, string])[] = [
    [SECRET, '/data/password'],
    [SECRET, '/data'],
    [SECRET, '/stringData/password'],
    [SECRET, ''],
    [SECRET, '/data/'],
    [SECRET, '/data/tls.key'],
    [SECRET, '/data/a~1b'],
    [SECRET, '/data/a~0b'],
    // what stands before the first slash is passed over
    [SECRET, 'x/data/password'],
    [SECRET, 'data'],
    [SECRET, LAST_APPLIED],
    [SECRET, '/metadata/annotations'],
    [SECRET, '/metadata'],
    [`${SECRET}/status`, '/data/password'],
    [MAP, '/data/app.conf'],
    [MAP, '/binaryData/app.bin'],
    [MAP, '/binaryData'],
    [`${N}/services/s`, LAST_APPLIED],
    [`${N}/services/s`, '/metadata/annotations/any'],
    [`${N}/events/e`, '/message'],
    ...['0', '-1', '+0', '00', '-'].flatMap((index): [string, string][] => [
      [DEPLOYMENT, `${POD_SPEC}/containers/${index}/env/${index}/value`],
      [DEPLOYMENT, `${POD_SPEC}/initContainers/${index}`],
      [`${N}/pods/p`, `/spec/containers/${index}/args/${index}`],
      [`${CUSTOM}/jobs/j`, `/spec/steps/${index}/env/${index}`],
    ]),
    [DEPLOYMENT, '/spec'],
    [DEPLOYMENT, '/spec/template'],
    [DEPLOYMENT, POD_SPEC],
    [DEPLOYMENT, `${POD_SPEC}/containers`],
    [DEPLOYMENT, `${CONTAINER}/env`],
    [DEPLOYMENT, `${CONTAINER}/command`],
    [DEPLOYMENT, `${CONTAINER}/livenessProbe`],
    [DEPLOYMENT, `${CONTAINER}/livenessProbe/httpGet/httpHeaders/0/value`],
    [DEPLOYMENT, `${CONTAINER}/lifecycle/preStop/exec`],
    [DEPLOYMENT, `${POD_SPEC.replace('/spec', 'x/spec')}/containers`],
    [`${APPS}/controllerrevisions/r`, '/data'],
    [`${N}/podtemplates/t`, '/template/spec'],
    [CRON, '/spec/jobTemplate'],
    [CRON, '/spec/jobTemplate/spec/template/spec/containers/0'],
    // an object of a kind that is not known may hold a Secret
    [`${CUSTOM}/objects/o`, '/spec/manifest/data/password'],
    [`${CUSTOM}/objects/o`, '/spec/manifest/metadata/annotations/a'],
  ]
  for (const [url, path] of refused) {
    it(`are refused: ${url.split('/').at(-2) ?? ''} "${path}"`, () => {
      expect(told(url, { body: [test(path)] })).to.equal(`test ${path}`)
      expect(
        told(url, { body: [operation('add', '/metadata/labels/a', 'b'), test(path, null)] }),
      ).to.equal(`test ${path}`)
      expect(told(url, { body: [test(path)], masking: NOTHING })).to.equal(undefined)
    })
  }

  it('are refused where an object is compared that may have hidden members', () => {
    const value = { steps: [{ env: [{ name: 'DB_PASSWORD', value: 'hunter2' }] }] }
    for (const path of ['/spec', '/spec/flow/0', '/status'])
      expect(told(`${CUSTOM}/flows/f`, { body: [test(path, value)] })).to.equal(`test ${path}`)
    expect(told(`${CUSTOM}/flows/f`, { body: [test('/spec', { replicas: 2 })] })).to.equal(
      undefined,
    )
  })

  it('pass where nothing is hidden', () => {
    const passing: readonly (readonly [string, string, unknown])[] = [
      [SECRET, '/metadata/resourceVersion', '12'],
      [SECRET, '/metadata/uid', 'u'],
      [SECRET, '/metadata/labels', {}],
      [SECRET, '/metadata/labels/data', 'x'],
      [SECRET, '/metadata/labels/env', 'prod'],
      [SECRET, '/metadata/labels/a~1env', 'prod'],
      [SECRET, '/metadata/finalizers', []],
      [SECRET, '/metadata/finalizers/0', 'x'],
      [SECRET, '/type', 'Opaque'],
      [SECRET, '/immutable', true],
      [DEPLOYMENT, '/spec/replicas', 2],
      [DEPLOYMENT, '/spec/selector/matchLabels', { app: 'web' }],
      [DEPLOYMENT, `${CONTAINER}/image`, 'web:1'],
      [DEPLOYMENT, `${CONTAINER}/name`, 'web'],
      [DEPLOYMENT, `${POD_SPEC}/metadata/labels/env`, 'prod'],
      [`${CUSTOM}/dbs/d`, '/spec/size', 3],
      [`${N}/services/s`, '/spec/ports/0/port', 80],
      // names are told apart by case
      [SECRET, '/Data/x', 'x'],
    ]
    for (const [url, path, value] of passing)
      for (const masking of [STANDARD_MASKING, STRICT])
        expect(told(url, { body: [test(path, value)], masking }), path).to.equal(undefined)
  })

  it('are refused by the fields of an operator, of any kind of the group', () => {
    for (const path of [
      '/spec/auth/0/token',
      '/spec/auth/-1/token/x',
      '/spec/auth/a',
      '/spec/auth',
      '/spec',
      '/spec/color',
    ])
      expect(
        told(`${CUSTOM}/users/u`, { body: [test(path, 'x')], masking: OPERATOR }),
        path,
      ).to.equal(`test ${path}`)
    expect(
      told(`${CUSTOM}/users/u`, { body: [test('/spec/auth/0/name', 'x')], masking: OPERATOR }),
    ).to.equal(undefined)
    const other = '/apis/other.com/v1/namespaces/agents/dbs/d'
    expect(told(other, { body: [test('/spec/color', 'red')], masking: OPERATOR })).to.equal(
      undefined,
    )
  })

  it('are refused by the strict profile where the value is, or promises, a secret', () => {
    const url = `${CUSTOM}/dbs/d`
    const token = `ghp_${'a1B2c3D4e5F6'.repeat(3)}`
    for (const [path, value] of [
      ['/spec/password', 'hunter2'],
      ['/spec/note', `see ${token}`],
      ['/spec', { apiToken: token }],
    ] as const)
      expect(told(url, { body: [test(path, value)], masking: STRICT }), path).to.equal(
        `test ${path}`,
      )
  })
})

describe('JSON patches that take what is hidden to another place', () => {
  for (const op of ['copy', 'move']) {
    for (const [url, from] of [
      [SECRET, '/data/password'],
      [SECRET, 'x/data/password'],
      [SECRET, '/data'],
      [SECRET, ''],
      [SECRET, '/metadata/annotations/a'],
      [MAP, '/data/app.conf'],
      [DEPLOYMENT, `${CONTAINER}/env/+0/value`],
      [DEPLOYMENT, `${CONTAINER}/env/0`],
      [DEPLOYMENT, `${CONTAINER}/env`],
      [DEPLOYMENT, CONTAINER],
      [DEPLOYMENT, `${CONTAINER}/args/-1`],
      [`${CUSTOM}/objects/o`, '/spec/manifest/data'],
    ] as const) {
      it(`are refused: ${op} from ${url.split('/').at(-2) ?? ''} "${from}"`, () => {
        expect(told(url, { body: [copy(from, '/metadata/labels/x', op)] })).to.equal(
          `${op} from ${from}`,
        )
      })
    }
  }

  it('pass where nothing is hidden', () => {
    for (const op of ['copy', 'move']) {
      expect(
        told(SECRET, { body: [copy('/metadata/labels/a', '/metadata/labels/b', op)] }),
      ).to.equal(undefined)
      expect(
        told(DEPLOYMENT, { body: [copy(`${CONTAINER}/image`, '/metadata/labels/b', op)] }),
      ).to.equal(undefined)
    }
  })
})

describe('patches that take away by what something is known as secret', () => {
  const url = DEPLOYMENT
  it('are refused: the name of a variable, a word of a command, the kind of an object inside', () => {
    for (const op of ['replace', 'add', 'remove']) {
      const path = `${CONTAINER}/env/-1/name`
      expect(told(url, { body: [operation(op, path, 'HARMLESS')] })).to.equal(`${op} ${path}`)
      const kind = '/spec/manifest/kind'
      expect(told(`${CUSTOM}/objects/o`, { body: [operation(op, kind, 'ConfigMap')] })).to.equal(
        `${op} ${kind}`,
      )
      const word = `${CONTAINER}/args/0`
      expect(told(url, { body: [operation(op, word, '--verbose')] })).to.equal(`${op} ${word}`)
    }
    expect(told(url, { body: [copy(`${POD_SPEC}/hostname`, `${CONTAINER}/env/0/name`)] })).to.equal(
      `copy ${CONTAINER}/env/0/name`,
    )
    expect(
      told(`${CUSTOM}/objects/o`, { body: [copy('/spec/manifest/kind', '/spec/x', 'move')] }),
    ).to.equal('move from /spec/manifest/kind')
    for (const type of [MERGE, APPLY]) {
      const body = { spec: { manifest: { kind: null } } }
      expect(told(`${CUSTOM}/objects/o?force=true`, { type, body })).to.equal('spec.manifest.kind')
    }
  })

  it('are refused where a strategic patch picks items of a list by value', () => {
    for (const key of ['$deleteFromPrimitiveList/args', '$setElementOrder/command']) {
      const body = {
        spec: { template: { spec: { containers: [{ name: 'c', [key]: ['--password=x'] }] } } },
      }
      expect(told(url, { type: STRATEGIC, body })).to.contain(key)
    }
  })

  it('pass where they do what ordinary clients do', () => {
    const strategic = {
      spec: {
        template: {
          spec: {
            '$setElementOrder/containers': [{ name: 'c' }],
            containers: [
              {
                name: 'c',
                '$setElementOrder/env': [{ name: 'A' }],
                env: [{ name: 'A', value: 'b' }],
                args: ['-v'],
              },
            ],
          },
        },
      },
    }
    expect(told(url, { type: STRATEGIC, body: strategic })).to.equal(undefined)
    for (const each of [
      operation('add', `${CONTAINER}/args/-`, '--kubelet-insecure-tls'),
      operation('replace', `${CONTAINER}/args`, ['-v']),
      operation('replace', `${CONTAINER}/env/0/value`, 'x'),
      operation('remove', `${CONTAINER}/env/0`),
      operation('replace', '/spec/replicas', 2),
    ])
      expect(told(url, { body: [each] })).to.equal(undefined)
    for (const each of [
      operation('replace', '/data/password', GUESS),
      operation('remove', '/data/password'),
    ])
      expect(told(SECRET, { body: [each] })).to.equal(undefined)
    const scaler = {
      spec: { scaleTargetRef: { kind: 'Deployment' } },
      metadata: { ownerReferences: [{ kind: 'A' }] },
    }
    expect(told(`${CUSTOM}/scalers/s`, { type: MERGE, body: scaler })).to.equal(undefined)
    const map = { kind: 'ConfigMap', apiVersion: 'v1', data: { kind: 'x' } }
    expect(told(MAP, { type: MERGE, body: map })).to.equal(undefined)
  })
})

describe('guesses whose answer would tell whether they are right', () => {
  const withEnv = (name: string): object => ({
    ...{ kind: 'Deployment', apiVersion: 'apps/v1' },
    spec: { template: { spec: { containers: [{ name: 'c', env: [{ name, value: 'x' }] }] } } },
  })
  const secret = { kind: 'Secret', apiVersion: 'v1', data: { password: GUESS } }

  it('are refused in an apply without force', () => {
    expect(told(SECRET, { type: APPLY, body: secret })).to.equal('apply without force of data')
    expect(told(`${SECRET}?force=false`, { type: APPLY, body: { stringData: {} } })).to.equal(
      'apply without force of stringData',
    )
    expect(told(DEPLOYMENT, { type: APPLY, body: withEnv('DB_PASSWORD') })).to.match(
      /^apply without force of Deployment/,
    )
    expect(told(MAP, { type: APPLY, body: { data: { a: 'password=x' } } })).to.equal(
      'apply without force of ConfigMap data.a',
    )
    expect(
      told(SECRET, { type: 'application/apply-patch+cbor', body: Buffer.from('x') }),
    ).to.not.equal(undefined)
    for (const [url, body] of [
      [`${SECRET}?force=true`, secret],
      [SECRET, { metadata: { labels: {} } }],
      [DEPLOYMENT, withEnv('LOG_LEVEL')],
      [`${DEPLOYMENT}?force=true`, withEnv('DB_PASSWORD')],
    ] as const)
      expect(told(url, { type: APPLY, body })).to.equal(undefined)
  })

  it('are refused in a dry run, but of Secrets, whose answer does not tell', () => {
    const dry = `${DEPLOYMENT}?dryRun=All`
    for (const [type, method] of [
      [STRATEGIC, 'PATCH'],
      ['application/json', 'PUT'],
      [APPLY, 'PATCH'],
    ] as const)
      expect(told(`${dry}&force=true`, { type, method, body: withEnv('DB_PASSWORD') })).to.match(
        /^dry run of/,
      )
    const value = `${CONTAINER}/env/0/value`
    expect(told(dry, { body: [operation('replace', value, 'x')] })).to.equal(`dry run of ${value}`)
    expect(
      told(`${MAP}?dryRun=All`, { type: MERGE, body: { data: { a: 'password=x' } } }),
    ).to.equal('dry run of ConfigMap data.a')
    expect(told(dry, { type: STRATEGIC, body: withEnv('LOG_LEVEL') })).to.equal(undefined)
    expect(told(`${SECRET}?dryRun=All`, { type: MERGE, body: secret })).to.equal(undefined)
    expect(
      told(`${APPS}/deployments?dryRun=All`, {
        type: 'application/json',
        method: 'POST',
        body: withEnv('DB_PASSWORD'),
      }),
    ).to.equal(undefined)
  })

  it('are refused where what is written cannot be changed', () => {
    const pod = {
      kind: 'Pod',
      spec: { containers: [{ env: [{ name: 'DB_PASSWORD', value: 'x' }] }] },
    }
    expect(told(`${N}/pods/p`, { type: STRATEGIC, body: pod })).to.match(/^change of/)
    expect(told(`${N}/pods/p`, { type: 'application/json', method: 'PUT', body: pod })).to.match(
      /^change of/,
    )
    expect(
      told(`${N}/pods/p`, { type: STRATEGIC, body: { spec: { activeDeadlineSeconds: 5 } } }),
    ).to.equal(undefined)
    // what is to be restored is no guess
    const kept = JSON.parse(
      JSON.stringify(pod).replace('"x"', '"nestgate-masked-1-000000000000000000"'),
    ) as object
    expect(told(`${N}/pods/p`, { type: 'application/json', method: 'PUT', body: kept })).to.equal(
      undefined,
    )
  })
})

describe('selectors on what is hidden', () => {
  it('are refused: fields of Secrets, fields and labels of an operator', () => {
    for (const verb of ['', '&watch=1'])
      expect(told(`${N}/secrets?fieldSelector=data.password%3Dx${verb}`)).to.equal(
        'field selector on data.password',
      )
    const url = `${CUSTOM}/dbs`
    for (const term of [
      'spec.color=red',
      'spec.color!=red',
      'metadata.name=x,spec.color==red',
      'spec=x',
      'spec.color.x=1',
    ])
      expect(
        told(`${url}?fieldSelector=${encodeURIComponent(term)}`, { masking: OPERATOR }),
        term,
      ).to.match(/^field selector on spec/)
    expect(
      told(`${url}?fieldSelector=spec.color%3Dred`, { method: 'DELETE', masking: OPERATOR }),
    ).to.match(/^field/)
    expect(
      told('/apis/example.com/v1/watch/dbs?fieldSelector=spec.color%3Dred', { masking: OPERATOR }),
    ).to.match(/^field/)
    for (const term of [
      'tier=gold',
      'tier',
      '!tier',
      'a=b,tier in (gold)',
      'tier!=gold',
      'a,tier>1',
    ])
      expect(
        told(`${url}?labelSelector=${encodeURIComponent(term)}`, { masking: OPERATOR }),
        term,
      ).to.equal('label selector on tier')
  })

  it('pass where nothing is hidden', () => {
    for (const query of [
      'fieldSelector=metadata.name%3Dx,type%3DOpaque',
      'labelSelector=app%3Dweb',
      'limit=5',
    ])
      expect(told(`${N}/secrets?${query}`), query).to.equal(undefined)
    expect(told(`${N}/pods?fieldSelector=spec.nodeName%3Dn,status.phase!%3DRunning`)).to.equal(
      undefined,
    )
    expect(
      told(`${CUSTOM}/dbs?fieldSelector=spec.size%3D3&labelSelector=app%3Dweb`, {
        masking: OPERATOR,
      }),
    ).to.equal(undefined)
    expect(told(`${CUSTOM}/dbs?fieldSelector=spec.color%3Dred`)).to.equal(undefined)
  })
})
