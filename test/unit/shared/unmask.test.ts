import { expect } from 'chai'
import { describe, it } from 'mocha'
import { readSentRequest } from '../../../shared/policy/case.ts'
import { parseTarget } from '../../../shared/kubernetes/path.ts'
import { upstreamQuery } from '../../../shared/kubernetes/unmask.ts'
import { isRefusal } from '../../../shared/reasons.ts'

const ONE = '/api/v1/namespaces/shop/secrets/db'

function actionsOf(method: string, target: string): unknown {
  const read = readSentRequest({ method, target, contentType: '', body: Buffer.alloc(0) })
  return 'problem' in read ? read.problem : read.actions
}

describe('the parameter nestgate.dev/unmask', () => {
  for (const [url, actions] of [
    [`${ONE}?nestgate.dev/unmask=true`, ['read-secrets', 'unmask']],
    [`${ONE}?a=b&nestgate.dev%2Funmask=%74rue`, ['read-secrets', 'unmask']],
    ['/apis/db.example/v1/databases/d?nestgate.dev/unmask=true', ['unmask']],
    ['/api/v1/namespaces/shop?nestgate.dev/unmask=true', ['unmask']],
    [ONE, ['read-secrets']],
    [`${ONE}?unmask=true`, ['read-secrets']],
  ] as const)
    it(`makes of ${url} the actions ${actions.join(', ')}`, () => {
      expect(actionsOf('GET', url)).to.deep.equal(actions)
    })

  for (const value of [
    ...['nestgate.dev/unmask', 'nestgate.dev/unmask=', 'nestgate.dev/unmask=false'],
    ...['nestgate.dev/unmask=1', 'nestgate.dev/unmask=True', 'nestgate.dev/unmask=true+'],
    'nestgate.dev/unmask=true&nestgate.dev/unmask=true',
    'nestgate.dev/unmask=true&nestgate.dev/unmask=false',
  ])
    it(`has one value, once: ${value}`, () => {
      expect(actionsOf('GET', `${ONE}?${value}`)).to.include('is given once, and is true')
    })

  for (const [method, path] of [
    ['GET', '/api/v1/namespaces/shop/secrets'],
    ['GET', '/api/v1/namespaces/shop/secrets?fieldSelector=metadata.name%3Ddb'],
    ['GET', '/api/v1/namespaces/shop/secrets?watch=1'],
    ['GET', '/api/v1/watch/namespaces/shop/secrets/db'],
    ['GET', '/api/v1/namespaces/shop/pods/p/log'],
    ['GET', '/api/v1/namespaces/shop/pods/p/status'],
    ['GET', '/api/v1/namespaces/shop/pods/p/proxy/x'],
    ['GET', '/api/v1/proxy/namespaces/shop/pods/p'],
    ['GET', '/api/v1/namespaces/shop/pods/p/exec'],
    ['PUT', ONE],
    ['PATCH', ONE],
    ['DELETE', ONE],
    ['POST', '/api/v1/namespaces/shop/secrets'],
    ['GET', '/version'],
    ['GET', '/api'],
    ['GET', '/apis/apps/v1'],
  ] as const)
    it(`belongs to a get of one object, and not to ${method} ${path}`, () => {
      const asked = `${path}${path.includes('?') ? '&' : '?'}nestgate.dev/unmask=true`
      expect(actionsOf(method, asked)).to.include('belongs to a get of one object')
      expect(actionsOf(method, path)).to.be.an('array')
    })

  for (const [query, upstream] of [
    ['nestgate.dev/unmask=true', ''],
    ['a=1&nestgate.dev/unmask=true&b=%2F+x&c', 'a=1&b=%2F+x&c'],
    ['&&a=1&&nestgate.dev%2Funmask=true&', 'a=1'],
    ['nestgate.dev/unmask=true&nestgate%2edev/unmask=true&=&x', '=&x'],
    ['a=nestgate.dev/unmask&&b=', 'a=nestgate.dev/unmask&&b='],
    ['', ''],
  ] as const)
    it(`is taken off ${JSON.stringify(query)}`, () => {
      const target = parseTarget(`/x?${query}`)
      if (isRefusal(target)) throw new Error('refused')
      expect(upstreamQuery(target)).to.equal(upstream)
    })
})
