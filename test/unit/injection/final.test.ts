/** What `validate` makes of reviews that no API server sends, of levels, and of who is exempt; the cases are in test/component/final-state.test.ts. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { validate } from '../../../shared/injection/final/validate.ts'
import type { Exempt } from '../../../shared/injection/final/validate.ts'
import { isRefusal } from '../../../shared/reasons.ts'
import { FINAL_SETTINGS, NAMESPACE, injected } from '../../support/final-cases.ts'
import type { Json } from '../../support/pod-admission.ts'
import { reviewOf } from '../../support/reviews.ts'

const NOBODY: Exempt = { users: [], groups: [] }
const MASTERS: Exempt = { users: [], groups: ['system:masters'] }
const PORT_FORWARD = {
  resource: { group: '', version: 'v1', resource: 'pods' },
  ...{ subResource: 'portforward', operation: 'CONNECT', name: 'web', namespace: NAMESPACE },
}

/** The code of a refusal or denial, `invalid: DETAIL` where there was no answer, or `allowed`. */
function outcomeOf(request: Json, exempt = NOBODY, pod: unknown = {}): string {
  const body = Buffer.from(JSON.stringify(reviewOf(pod, request)))
  const result = validate(body, FINAL_SETTINGS, exempt)
  if (isRefusal(result)) return `invalid: ${result.refused} ${result.detail ?? ''}`
  const { response } = JSON.parse(result.body) as { response: Json }
  expect(response['uid']).to.equal('c0ffee00-0000-4000-8000-000000000001')
  expect(response['allowed']).to.equal(result.reason === undefined)
  return result.reason ?? 'allowed'
}

describe('a review of the final state', () => {
  for (const [what, request] of Object.entries<Json>({
    'of a resource that is not judged': {
      resource: { group: '', version: 'v1', resource: 'nodes' },
    },
    'of another group': { resource: { group: 'apps', version: 'v1', resource: 'pods' } },
    'of another version': { resource: { group: '', version: 'v2', resource: 'pods' } },
    'of a member of every object': {
      resource: { group: '', version: 'v1', resource: '__proto__' },
    },
    'of a deletion': { operation: 'DELETE' },
    'of a status': { operation: 'UPDATE', subResource: 'status' },
    'without an old object': { operation: 'UPDATE', object: injected() },
    'of an ephemeral container without an old object': {
      ...{ operation: 'UPDATE', subResource: 'ephemeralcontainers', object: injected() },
    },
    'of a pod without a specification': { object: { metadata: {} } },
    'of a container with a number for a name': {
      ...{ operation: 'CONNECT', subResource: 'exec', object: { container: 7 } },
    },
    'of somebody with numbers for groups': { ...PORT_FORWARD, userInfo: { groups: [7] } },
    'with a name that is too long': { ...PORT_FORWARD, name: 'a'.repeat(300) },
  }))
    it(`is none: ${what}`, () => {
      expect(outcomeOf(request, MASTERS)).to.match(/^invalid: review_invalid \S/)
    })

  it('is none where it is no JSON, has a key twice, or is nested deeply', () => {
    const deep = `${'['.repeat(200)}${']'.repeat(200)}`
    for (const text of ['', '{', '{"a":1,"a":2}', `{"a":${deep}}`, '[]', 'null', '"a"'])
      expect(validate(Buffer.from(text), FINAL_SETTINGS, NOBODY)).to.have.property(
        'refused',
        'review_invalid',
      )
    expect(validate(Buffer.from([0xff, 0x7b, 0x7d]), FINAL_SETTINGS, NOBODY)).to.have.property(
      'refused',
      'review_invalid',
    )
  })

  it('never repeats a value of what it refuses', () => {
    const long = { ...PORT_FORWARD, userInfo: { extra: { ['key'.repeat(500)]: 'value-of-it' } } }
    const outcome = outcomeOf(long)
    expect(outcome)
      .to.match(/^invalid/)
      .and.not.contain('value-of-it')
    expect(outcome.length).to.be.below(300)
  })

  it('knows the exempt by group, and the broker by its extra or, up to 1.29, by its prefix', () => {
    const by = (userInfo: Json, exempt = MASTERS): string =>
      outcomeOf({ ...PORT_FORWARD, userInfo }, exempt)
    expect(by({ username: 'a', groups: ['system:masters'] })).to.equal('allowed')
    expect(by({ username: 'a', groups: ['system:masters'] }, NOBODY)).to.equal('port_forward')
    expect(by({ username: 'system:masters' })).to.equal('port_forward')
    expect(by({ username: 'nestgate:serviceaccount:a:b' })).to.equal('allowed')
    expect(by({ username: 'a', extra: { 'nestgate.dev/request-id': ['1'] } })).to.equal('allowed')
    expect(by({ username: 'a', extra: { 'nestgate.dev/request-id': [] } })).to.equal('port_forward')
    expect(by({ username: 'a', extra: { 'nestgate.dev/process': ['1'] } })).to.equal('port_forward')
    expect(outcomeOf({ ...PORT_FORWARD, userInfo: null })).to.equal('port_forward')
  })

  it('exempts nobody from what a pod is', () => {
    const userInfo = { username: 'a', groups: ['system:masters'] }
    const pod = injected()
    const spec = { ...(pod['spec'] as Json), hostNetwork: true }
    expect(outcomeOf({ userInfo }, MASTERS, { ...pod, spec })).to.equal('host_network')
  })

  it('is of a pod that is right for the level of the path, or for one where the path says none', () => {
    const judge = (profile: 'P' | 'C', level?: 'any' | 'process' | 'container'): string => {
      const body = Buffer.from(
        JSON.stringify(reviewOf(injected(profile), { namespace: NAMESPACE })),
      )
      const result = validate(body, FINAL_SETTINGS, NOBODY, level)
      return isRefusal(result) ? result.refused : (result.reason ?? result.outcome)
    }
    expect(judge('C')).to.equal('unchanged')
    expect(judge('C', 'container')).to.equal('unchanged')
    expect(judge('C', 'any')).to.equal('final_state')
    expect(judge('C', 'process')).to.equal('final_state')
    expect(judge('P')).to.equal('unchanged')
    expect(judge('P', 'process')).to.equal('unchanged')
    expect(judge('P', 'container')).to.equal('final_state')
  })

  it('names a few fields of a pod that was never injected', () => {
    const pod = { metadata: { name: 'web' }, spec: { containers: [{ name: 'web', image: 'web' }] } }
    const result = validate(Buffer.from(JSON.stringify(reviewOf(pod))), FINAL_SETTINGS, NOBODY)
    if (isRefusal(result)) throw new Error(result.refused)
    const { response } = JSON.parse(result.body) as { response: { status: { message: string } } }
    expect(response.status.message).to.match(
      /: spec\.automountServiceAccountToken, spec\.shareProcessNamespace, \S+, \S+ and \d+ more; nestgate check/,
    )
  })
})
