/** Of a request's query and parameters, what is written down. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { sessionText } from '../../../broker/approvals/preview-text.ts'
import {
  shownLabels,
  shownParameters,
  shownPath,
  shownQuery,
  shownTarget,
} from '../../../broker/gateway/shown-request.ts'
import { parseTarget } from '../../../shared/kubernetes/path.ts'
import { readSentRequest } from '../../../shared/policy/case.ts'

const SECRET = 'hunter2-planted'
const STARS = '*'.repeat(SECRET.length)
const EXEC = '/api/v1/namespaces/shop/pods/p/exec'

function attributesOf(
  target: string,
): Exclude<ReturnType<typeof readSentRequest>, { problem: string }> {
  const attributes = readSentRequest({
    method: 'POST',
    target,
    contentType: '',
    body: Buffer.alloc(0),
  })
  if ('problem' in attributes) throw new Error(attributes.problem)
  return attributes
}

describe('a query that is written down', () => {
  it('has the words of a command masked, and every other byte as it was', () => {
    const words = ['mysql', '--password', SECRET, '-e', 'select+1', `PGPASSWORD=${SECRET}`]
    const encoded = words.map((word) => `command=${encodeURIComponent(word)}`)
    const query = `stdout=true&${encoded.join('&')}&&container=a%2Db&x=1+2&tty`
    expect(shownQuery(query)).to.equal(
      `stdout=true&command=mysql&command=--password&command=${STARS}&command=-e&command=select%2B1&` +
        `command=PGPASSWORD%3D${STARS}&&container=a%2Db&x=1+2&tty`,
    )
  })

  it('reads names and values in whatever spelling', () => {
    const spelled = [...Buffer.from(SECRET)].map((byte) => `%${byte.toString(16)}`).join('')
    expect(shownQuery(`comm%61nd=--token&%63ommand=${spelled}`)).to.equal(
      `comm%61nd=--token&%63ommand=${STARS}`,
    )
    expect(shownQuery('command=echo+a&command=b%20c')).to.equal('command=echo+a&command=b%20c')
  })

  it('has no secret of what stands behind a proxy, nor in a URL', () => {
    expect(shownQuery(`api_key=${SECRET}&page=2`)).to.equal('api_key=***&page=2')
    const url = encodeURIComponent(`https://user:${SECRET}@host/`)
    expect(shownQuery(`next=${url}`)).to.equal(`next=https%3A%2F%2Fuser%3A${STARS}%40host%2F`)
  })

  it('keeps selectors and what Kubernetes has itself', () => {
    for (const query of [
      '',
      '&',
      'labelSelector=app%3Dweb%2Ctier+in+(a,b)&limit=500&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NX0',
      'fieldSelector=type%3Dkubernetes.io/service-account-token&resourceVersion=0',
      'pretty=true&dryRun=All&fieldManager=kubectl-client-side-apply&fieldValidation=Strict',
    ])
      expect(shownQuery(query)).to.equal(query)
  })

  it('can be read again wherever the true one can', () => {
    const target = parseTarget(`${EXEC}?command=--password&command=${SECRET}%26%3d&tty=true`)
    if ('refused' in target) throw new Error(target.refused)
    const again = parseTarget(`${EXEC}?${shownQuery(target.query)}`)
    expect(again).to.have.property('parameters').with.length(3)
  })
})

describe('what else is written down of a request', () => {
  it('is a command without its secrets, for the ledger and for reviewers', () => {
    const attributes = attributesOf(
      `${EXEC}?command=redis-cli&command=-a&command=${SECRET}&command=keys`,
    )
    expect(attributes.parameters.command).to.include(SECRET)
    expect(shownParameters(attributes.parameters)).to.deep.equal({
      ...attributes.parameters,
      command: ['redis-cli', '-a', STARS, 'keys'],
    })
    expect(sessionText(attributes, undefined))
      .to.contain(`argv:\n  "redis-cli"\n  "-a"\n  "${STARS}"\n  "keys"\n`)
      .and.not.to.contain(SECRET)
  })

  it('is a path behind a proxy without what detectors find, and any other as it is', () => {
    const token = 'ghp_0123456789abcdefghijABCDEFGHIJ456789'
    const proxied = attributesOf(`/api/v1/namespaces/shop/services/web/proxy/login/${token}`)
    expect(shownPath(proxied)).to.match(
      /^\/api\/v1\/namespaces\/shop\/services\/web\/proxy\/login\/ghp_\*+$/,
    )
    expect(shownParameters(proxied.parameters).proxyPath).to.match(/^\/login\/ghp_\*+$/)
    expect(sessionText(proxied, undefined)).not.to.contain(token)
    const plain = attributesOf('/api/v1/namespaces/shop/pods/p/exec?command=ls')
    expect(shownPath(plain)).to.equal(plain.path)
    expect(shownTarget(`${EXEC}?command=--token&command=${SECRET}`)).to.equal(
      `${EXEC}?command=--token&command=${STARS}`,
    )
    expect(shownTarget(EXEC)).to.equal(EXEC)
  })

  it('is labels without what detectors find', () => {
    const token = 'ghp_0123456789abcdefghijABCDEFGHIJ456789'
    expect(shownLabels({ app: 'web', t: token })).to.deep.equal({
      app: 'web',
      t: `ghp_${'*'.repeat(36)}`,
    })
  })
})
