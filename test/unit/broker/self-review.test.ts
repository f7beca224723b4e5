import { expect } from 'chai'
import { describe, it } from 'mocha'
import type { PolicyAnswer, ReviewPolicy, ServedResource } from '../../../broker/reviews/judge.ts'
import { MAX_QUESTIONS } from '../../../broker/reviews/judge.ts'
import {
  answerSelfReview,
  readSelfReview,
  selfReviewKind,
} from '../../../broker/reviews/self-review.ts'
import type { SelfReview } from '../../../broker/reviews/self-review.ts'
import type { RequestAttributes } from '../../../shared/kubernetes/attributes.ts'
import { isRefusal } from '../../../shared/reasons.ts'
import { attributesOf } from '../../support/caller-requests.ts'

const allow: PolicyAnswer = { effect: 'allow', rules: ['all'], explanation: 'allowed' }
const deny: PolicyAnswer = {
  effect: 'deny',
  rules: ['no-secrets'],
  explanation: 'agents need no Secrets',
}
const hold: PolicyAnswer = { effect: 'hold', rules: ['deletes-wait'], explanation: 'two look' }

const say = (decide: (attributes: RequestAttributes) => PolicyAnswer): ReviewPolicy => ({
  decide,
  effectsOf: () => ({ actions: [], equivalents: [] }),
})
/** Secrets are denied, deletions held, the rest is allowed. */
const usual = say(({ info }) => {
  if (info.resource === 'secrets') return deny
  return info.verb === 'delete' ? hold : allow
})

const access = (attributes: Record<string, string>): SelfReview => {
  const spec = 'path' in attributes ? 'nonResourceAttributes' : 'resourceAttributes'
  const body = Buffer.from(JSON.stringify({ spec: { [spec]: attributes } }))
  const review = readSelfReview('access', 'application/json', body)
  if (isRefusal(review)) throw new Error(review.refused)
  return review
}

interface Status {
  allowed: boolean
  denied?: boolean
  reason?: string
  evaluationError?: string
  incomplete?: boolean
  resourceRules: {
    verbs: string[]
    apiGroups: string[]
    resources: string[]
    resourceNames?: string[]
  }[]
  nonResourceRules: { verbs: string[]; nonResourceURLs: string[] }[]
}

function ask(
  review: SelfReview,
  status: object,
  policy: ReviewPolicy,
): { status: Status; warning: string | undefined } {
  const kind = review.kind === 'access' ? 'SelfSubjectAccessReview' : 'SelfSubjectRulesReview'
  const body = Buffer.from(JSON.stringify({ kind, apiVersion: 'authorization.k8s.io/v1', status }))
  const answer = answerSelfReview(
    review,
    { status: 201, contentType: 'application/json', body },
    policy,
  )
  if (isRefusal(answer)) throw new Error(answer.refused)
  expect(answer.status).to.equal(201)
  const read = JSON.parse(answer.body.toString()) as { status: Status }
  return { status: read.status, warning: answer.warning }
}

const list = (status: object, policy: ReviewPolicy): Status =>
  ask({ kind: 'rules', namespace: 'agents' }, status, policy).status

describe('which requests are self-reviews', () => {
  const kindOf = (method: string, url: string): string | undefined =>
    selfReviewKind(attributesOf({ method, url }).info)

  it('are the two that ask of the caller itself, in any version', () => {
    const base = '/apis/authorization.k8s.io'
    expect(kindOf('POST', `${base}/v1/selfsubjectaccessreviews`)).to.equal('access')
    expect(kindOf('POST', `${base}/v1beta1/selfsubjectaccessreviews`)).to.equal('access')
    expect(kindOf('POST', `${base}/v1/selfsubjectrulesreviews`)).to.equal('rules')
    expect(kindOf('POST', `${base}/v1/subjectaccessreviews`)).to.equal(undefined)
    expect(kindOf('GET', `${base}/v1/selfsubjectaccessreviews`)).to.equal(undefined)
    expect(kindOf('POST', '/apis/example.com/v1/selfsubjectaccessreviews')).to.equal(undefined)
  })
})

describe('the body of a self-review', () => {
  it('is read as JSON and as YAML', () => {
    const yaml = 'spec:\n  resourceAttributes: {verb: get, resource: pods, namespace: agents}\n'
    const read = readSelfReview('access', 'application/yaml', Buffer.from(yaml))
    expect(read).to.deep.equal(access({ verb: 'get', resource: 'pods', namespace: 'agents' }))
  })

  it('is read as protobuf, as kubectl 1.33 sends it', () => {
    const field = (number: number, content: Buffer): Buffer =>
      Buffer.concat([Buffer.from([(number << 3) | 2, content.length]), content])
    const text = (number: number, value: string): Buffer => field(number, Buffer.from(value))
    const attributes = Buffer.concat([
      text(1, 'pv'),
      text(2, 'patch'),
      text(3, 'apps'),
      text(5, 'deployments'),
      text(6, 'scale'),
    ])
    const review = Buffer.concat([field(1, Buffer.alloc(0)), field(2, field(1, attributes))])
    const meta = Buffer.concat([text(1, 'authorization.k8s.io/v1'), text(2, 'X')])
    const body = Buffer.concat([Buffer.from('k8s\0'), field(1, meta), field(2, review)])
    const type = 'application/vnd.kubernetes.protobuf'
    const expected = access({
      namespace: 'pv',
      verb: 'patch',
      group: 'apps',
      resource: 'deployments',
      subresource: 'scale',
    })
    expect(readSelfReview('access', type, body)).to.deep.equal(expected)
    for (let length = 0; length < body.length; length += 1) {
      // cut anywhere it is refused or says less; it never throws
      readSelfReview('access', type, body.subarray(0, length))
    }
  })

  it('is refused where it cannot be read', () => {
    const refused = (type: string, body: string): unknown =>
      readSelfReview('access', type, Buffer.from(body))
    expect(refused('application/cbor', '')).to.deep.include({ refused: 'body_opaque' })
    expect(refused('application/json', '{')).to.deep.include({ refused: 'body_invalid' })
    expect(refused('application/json', '[]')).to.deep.include({ refused: 'body_invalid' })
    expect(refused('application/json', '{"spec":{"resourceAttributes":3}}')).to.deep.include({
      refused: 'body_invalid',
    })
    expect(refused('application/vnd.kubernetes.protobuf', 'nothing')).to.deep.include({
      refused: 'body_invalid',
    })
    expect(refused('application/json', ' '.repeat(70_000))).to.deep.include({
      refused: 'body_invalid',
    })
    expect(
      refused('application/yaml', 'a: &x [1]\nspec: {resourceAttributes: *x}'),
    ).to.deep.include({ refused: 'body_invalid' })
  })
})

describe('SelfSubjectAccessReview', () => {
  const rbac = { allowed: true, reason: 'RBAC: allowed' }

  it('is a no with the rule where policy denies', () => {
    const { status } = ask(access({ verb: 'get', resource: 'secrets' }), rbac, usual)
    expect(status).to.deep.equal({
      allowed: false,
      denied: true,
      reason: 'nestgate: rule no-secrets: agents need no Secrets',
    })
  })

  it('is a yes that names the approval where policy holds, also as a warning', () => {
    const { status, warning } = ask(access({ verb: 'delete', resource: 'pods' }), rbac, usual)
    expect(status).to.deep.equal({
      allowed: true,
      reason: 'nestgate: needs approval: rule deletes-wait: two look',
    })
    expect(warning).to.equal(status.reason)
  })

  it('is what the cluster says where policy allows', () => {
    const { status, warning } = ask(access({ verb: 'get', resource: 'pods' }), rbac, usual)
    expect(status).to.deep.equal(rbac)
    expect(warning).to.equal(undefined)
  })

  it('stays a no where the cluster says no, whatever policy says', () => {
    for (const effect of ['allow', 'hold', 'breakGlass'] as const) {
      const policy = say(() => ({ ...allow, effect }))
      const { status, warning } = ask(
        access({ verb: 'get', resource: 'pods' }),
        { allowed: false },
        policy,
      )
      expect(status).to.deep.equal({ allowed: false })
      expect(warning).to.equal(undefined)
    }
  })

  it('says that break glass is reviewed, and that a condition is open', () => {
    const question = access({ verb: 'get', resource: 'pods' })
    const glass = say(() => ({ effect: 'breakGlass', rules: ['g'], explanation: 'night' }))
    expect(ask(question, rbac, glass).status).to.deep.include({
      allowed: true,
      reason: 'nestgate: goes ahead and is reviewed afterwards: rule g: night',
    })
    const blind = say(() => ({ ...deny, reason: 'policy_error' }))
    expect(ask(question, rbac, blind).status.reason).to.match(/depends on the content/)
  })

  it('decides with what is known, and names the rules that would look into the body', () => {
    const policy = say(({ body }) =>
      body.state === 'opaque'
        ? { ...deny, rules: ['small-only'], reason: 'body_opaque' }
        : { ...allow, rules: ['writes'] },
    )
    const { status, warning } = ask(access({ verb: 'patch', resource: 'pods' }), rbac, policy)
    expect(status).to.deep.equal({
      allowed: true,
      reason:
        'nestgate: rule writes: allowed (depends on the content of the request, by rule small-only)',
    })
    expect(warning).to.equal(status.reason)
    expect(ask(access({ verb: 'get', resource: 'pods' }), rbac, policy).status).to.deep.equal(rbac)
    const rule = { verbs: ['get', 'patch'], apiGroups: [''], resources: ['pods'] }
    const listed = list({ resourceRules: [rule] }, policy)
    expect(listed.resourceRules).to.deep.equal([rule])
    expect(listed.evaluationError).to.equal(
      'nestgate: depends on the content of the request (rule small-only): patch pods',
    )
  })

  it('asks policy as the real request would be read', () => {
    const seen: RequestAttributes[] = []
    const policy = say((attributes) => {
      seen.push(attributes)
      return allow
    })
    const one = (attributes: Record<string, string>): RequestAttributes => {
      ask(access(attributes), rbac, policy)
      return seen.at(-1)!
    }
    const exec = { resource: 'pods', subresource: 'exec', namespace: 'agents', name: 'p' }
    expect(one({ ...exec, verb: 'get' }).policyVerb).to.equal('connect')
    expect(one({ ...exec, verb: 'create' }).policyVerb).to.equal('connect')
    expect(one({ ...exec, verb: 'create' }).path).to.equal('/api/v1/namespaces/agents/pods/p/exec')
    // kubectl names its own namespace beside what has none
    const node = one({ verb: 'get', resource: 'nodes', namespace: 'agents', name: 'n' })
    expect(node.info).to.deep.include({ namespace: '', name: 'n' })
    const space = one({ verb: 'get', resource: 'namespaces', namespace: 'agents', name: 'x' })
    expect(space.info).to.deep.include({ namespace: 'x', name: 'x' })
    const path = one({ verb: 'get', path: '/version/' })
    expect(path.info).to.deep.include({ isResourceRequest: false, verb: 'get' })
    expect(path.path).to.equal('/version')
  })

  it('allows a wildcard only if everything in it is allowed', () => {
    const all = { verb: '*', resource: '*' }
    expect(
      ask(
        access(all),
        rbac,
        say(() => allow),
      ).status,
    ).to.deep.equal(rbac)
    expect(ask(access(all), rbac, usual).status).to.deep.include({
      allowed: false,
      reason: 'nestgate: rule no-secrets: agents need no Secrets (for a part of what is asked)',
    })
    const configMaps = ask(access({ verb: '*', resource: 'configmaps' }), rbac, usual).status
    expect(configMaps.allowed).to.equal(true)
    expect(configMaps.reason).to.match(/needs approval.*for a part/)
    const literal = say(({ info }) => (info.verb === '*' ? deny : allow))
    expect(ask(access({ verb: '*', resource: 'pods' }), rbac, literal).status.allowed).to.equal(
      false,
    )
  })

  it('is a no where more is asked than is looked at', () => {
    const served: ServedResource[] = Array.from({ length: MAX_QUESTIONS + 1 }, (_, index) => ({
      apiGroup: '',
      resource: `r${index}`,
      namespaced: true,
      verbs: ['get'],
    }))
    let asked = 0
    const policy = {
      ...say(() => {
        asked += 1
        return allow
      }),
      served,
    }
    const { status } = ask(access({ verb: 'get', resource: '*' }), rbac, policy)
    expect(status.allowed).to.equal(false)
    expect(asked).to.equal(MAX_QUESTIONS)
  })

  it('passes on errors as they are, and refuses what is no review', () => {
    const review = access({ verb: 'get', resource: 'pods' })
    const error = { status: 400, contentType: 'application/json', body: Buffer.from('{"a":1}') }
    expect(answerSelfReview(review, error, usual)).to.equal(error)
    for (const body of ['', '[]', '{"kind":"Status","status":"Failure"}', 'k8s\0']) {
      const odd = { status: 201, contentType: 'application/json', body: Buffer.from(body) }
      expect(answerSelfReview(review, odd, usual)).to.deep.include({ refused: 'upstream_invalid' })
    }
  })
})

describe('SelfSubjectRulesReview', () => {
  it('leaves out what is denied, and splits rules for it', () => {
    const rule = { verbs: ['get', 'list'], apiGroups: [''], resources: ['pods', 'secrets'] }
    const status = list({ resourceRules: [rule], nonResourceRules: [], incomplete: false }, usual)
    expect(status.resourceRules).to.deep.equal([
      { verbs: ['get', 'list'], apiGroups: [''], resources: ['pods'] },
    ])
    expect(status.incomplete).to.equal(false)
    expect(status.evaluationError).to.equal(undefined)
  })

  it('keeps what is held, and says so', () => {
    const rule = { verbs: ['get', 'delete'], apiGroups: ['apps'], resources: ['deployments'] }
    const status = list(
      { resourceRules: [rule], incomplete: true, evaluationError: 'of the cluster' },
      usual,
    )
    expect(status.resourceRules).to.deep.equal([rule])
    expect(status.incomplete).to.equal(true)
    expect(status.evaluationError).to.equal(
      'of the cluster; nestgate: needs approval (rule deletes-wait): delete deployments.apps',
    )
  })

  it('asks for each name where a rule has names', () => {
    const policy = say(({ info }) => (info.name === 'mine' ? allow : deny))
    const rule = {
      verbs: ['get'],
      apiGroups: [''],
      resources: ['configmaps'],
      resourceNames: ['mine', 'theirs'],
    }
    expect(list({ resourceRules: [rule] }, policy).resourceRules).to.deep.equal([
      { ...rule, resourceNames: ['mine'] },
    ])
  })

  it('spreads wildcards over what is served, and nothing else', () => {
    const served: ServedResource[] = [
      { apiGroup: '', resource: 'pods', namespaced: true, verbs: ['get', 'delete'] },
      { apiGroup: '', resource: 'secrets', namespaced: true, verbs: ['get'] },
      { apiGroup: 'apps', resource: 'deployments/scale', namespaced: true, verbs: ['patch'] },
    ]
    const rule = { verbs: ['*'], apiGroups: ['*'], resources: ['*'] }
    const status = list({ resourceRules: [rule] }, { ...usual, served })
    expect(status.resourceRules).to.deep.equal([
      { verbs: ['get', 'delete'], apiGroups: [''], resources: ['pods'] },
      { verbs: ['patch'], apiGroups: ['apps'], resources: ['deployments/scale'] },
    ])
    const scale = { verbs: ['*'], apiGroups: ['*'], resources: ['*/scale'] }
    const some = say(({ info }) => (info.verb === '*' ? deny : allow))
    expect(list({ resourceRules: [scale] }, { ...some, served }).resourceRules).to.deep.equal([
      { verbs: ['patch'], apiGroups: ['apps'], resources: ['deployments/scale'] },
    ])
  })

  it('keeps a wildcard where policy allows it as such, and says where it was spread by guess', () => {
    const rule = { verbs: ['*'], apiGroups: ['*'], resources: ['*'] }
    const status = list(
      { resourceRules: [rule] },
      say(() => allow),
    )
    expect(status.resourceRules).to.deep.equal([rule])
    expect(status.incomplete).to.equal(false)
    const guessed = list({ resourceRules: [rule] }, usual)
    expect(guessed.resourceRules.flatMap(({ resources }) => resources)).not.to.include('secrets')
    expect(guessed.resourceRules.flatMap(({ resources }) => resources)).to.include('pods/exec')
    expect(guessed.evaluationError).to.match(/resources of Kubernetes itself/)
  })

  it('keeps of paths what policy lets through', () => {
    const policy = say(({ path, info }) =>
      path.startsWith('/api') && info.verb === 'get' ? allow : deny,
    )
    const status = list(
      {
        nonResourceRules: [
          { verbs: ['*'], nonResourceURLs: ['/api', '/logs'] },
          { verbs: ['get'], nonResourceURLs: ['/api/*'] },
        ],
      },
      policy,
    )
    expect(status.nonResourceRules).to.deep.equal([
      { verbs: ['get'], nonResourceURLs: ['/api'] },
      { verbs: ['get'], nonResourceURLs: ['/api/*'] },
    ])
  })

  it('stays short, however much is held', () => {
    const resources = Array.from({ length: 200 }, (_, index) => `r${index}${'x'.repeat(60)}`)
    const policy = say(({ info }) => ({ ...hold, rules: [`rule-${info.resource}`] }))
    const rule = { verbs: ['get', 'list'], apiGroups: [''], resources }
    const { evaluationError } = list({ resourceRules: [rule] }, policy)
    expect(evaluationError?.length).to.be.lessThan(2_100)
  })
})
