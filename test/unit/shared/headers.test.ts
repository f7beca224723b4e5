import { expect } from 'chai'
import { describe, it } from 'mocha'
import {
  bearerToken,
  countHeader,
  forwardableHeaders,
  isIdentityHeader,
} from '../../../shared/headers.ts'

describe('forwardableHeaders', () => {
  const FORGED = [
    'impersonate-user',
    'impersonate-group',
    'impersonate-uid',
    'impersonate-extra-scopes',
    'impersonate_user',
    'x-remote-user',
    'x_remote_group',
    'x-forwarded-for',
    'forwarded',
    'nestgate-agent',
    'nestgate_agent',
    'nestgate-anything',
    'authorization',
    'proxy-authorization',
    'audit-id',
    'cookie',
    'x-real-ip',
  ]
  for (const name of FORGED) {
    it(`drops ${name}`, () => {
      expect(isIdentityHeader(name)).to.equal(true)
      expect(forwardableHeaders({ [name]: 'x', accept: '*/*' })).to.deep.equal({ accept: '*/*' })
    })
  }

  it('drops what Connection names, so that no later hop can be made to drop ours', () => {
    const headers = {
      connection: 'keep-alive, X-Trace , Impersonate-User',
      'x-trace': '1',
      accept: 'a',
    }
    expect(forwardableHeaders(headers)).to.deep.equal({ accept: 'a' })
  })

  it('drops hop-by-hop headers, Host and Expect', () => {
    const headers = {
      host: 'h',
      te: 'trailers',
      'transfer-encoding': 'chunked',
      upgrade: 'x',
      'keep-alive': 'y',
      expect: '100-continue',
    }
    expect(forwardableHeaders(headers)).to.deep.equal({})
  })

  it('takes a bearer token out of the WebSocket subprotocols and leaves the rest', () => {
    const value = 'base64url.bearer.authorization.k8s.io.c2VjcmV0, v5.channel.k8s.io'
    expect(forwardableHeaders({ 'sec-websocket-protocol': value })).to.deep.equal({
      'sec-websocket-protocol': 'v5.channel.k8s.io',
    })
    const alone = 'BASE64URL.bearer.authorization.k8s.io.c2VjcmV0'
    expect(forwardableHeaders({ 'sec-websocket-protocol': alone })).to.deep.equal({})
  })
})

describe('bearerToken', () => {
  const rows: readonly (readonly [string | undefined, string | undefined])[] = [
    ['Bearer abc.def-_~+/==', 'abc.def-_~+/=='],
    ['bearer abc', 'abc'],
    ['Basic abc', undefined],
    ['Bearer ', undefined],
    ['Bearer a b', undefined],
    ['Bearer a, Bearer b', undefined],
    [undefined, undefined],
  ]
  for (const [value, token] of rows) {
    it(`reads ${String(value)} as ${String(token)}`, () => {
      expect(bearerToken(value === undefined ? {} : { authorization: value })).to.equal(token)
    })
  }
})

describe('countHeader', () => {
  it('counts lines whatever their case', () => {
    expect(
      countHeader(
        ['Authorization', 'a', 'AUTHORIZATION', 'b', 'x', 'authorization'],
        'authorization',
      ),
    ).to.equal(2)
  })
})
