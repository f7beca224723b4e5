/**
 * The table is that of kubernetes/apiserver, pkg/endpoints/request/requestinfo_test.go (Apache License 2.0,
 * Copyright The Kubernetes Authors), followed by cases from research on real routers.
 */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { parseTarget } from '../../../shared/kubernetes/path.ts'
import {
  isConnect,
  isLongRunning,
  isRead,
  readRequestInfo,
} from '../../../shared/kubernetes/request-info.ts'
import type { RequestInfo } from '../../../shared/kubernetes/request-info.ts'
import { isRefusal } from '../../../shared/reasons.ts'

function read(method: string, url: string): RequestInfo {
  const target = parseTarget(url)
  if (isRefusal(target)) throw new Error(`${url}: ${target.refused}`)
  const info = readRequestInfo(method, target)
  if (isRefusal(info)) throw new Error(`${url}: ${info.refused}`)
  return info
}

/** method, url, verb, group, version, namespace, resource, subresource, name */
type Row = readonly [string, string, string, string, string, string, string, string, string]

const KUBERNETES: readonly Row[] = [
  ['GET', '/api/v1/namespaces', 'list', '', 'v1', '', 'namespaces', '', ''],
  ['GET', '/api/v1/namespaces/other', 'get', '', 'v1', 'other', 'namespaces', '', 'other'],
  ['GET', '/api/v1/namespaces/other/pods', 'list', '', 'v1', 'other', 'pods', '', ''],
  ['GET', '/api/v1/namespaces/other/pods/foo', 'get', '', 'v1', 'other', 'pods', '', 'foo'],
  ['HEAD', '/api/v1/namespaces/other/pods/foo', 'get', '', 'v1', 'other', 'pods', '', 'foo'],
  ['GET', '/api/v1/pods', 'list', '', 'v1', '', 'pods', '', ''],
  ['HEAD', '/api/v1/pods', 'list', '', 'v1', '', 'pods', '', ''],
  ['GET', '/api/v1/proxy/namespaces/other/pods/foo', 'proxy', '', 'v1', 'other', 'pods', '', 'foo'],
  [
    'GET',
    '/api/v1/proxy/namespaces/other/pods/foo/subpath/not/a/subresource',
    'proxy',
    '',
    'v1',
    'other',
    'pods',
    '',
    'foo',
  ],
  ['GET', '/api/v1/watch/pods', 'watch', '', 'v1', '', 'pods', '', ''],
  ['GET', '/api/v1/pods?watch=true', 'watch', '', 'v1', '', 'pods', '', ''],
  ['GET', '/api/v1/pods?watch=false', 'list', '', 'v1', '', 'pods', '', ''],
  ['GET', '/api/v1/watch/namespaces/other/pods', 'watch', '', 'v1', 'other', 'pods', '', ''],
  ['GET', '/api/v1/namespaces/other/pods?watch=1', 'watch', '', 'v1', 'other', 'pods', '', ''],
  ['GET', '/api/v1/namespaces/other/pods?watch=0', 'list', '', 'v1', 'other', 'pods', '', ''],
  [
    'GET',
    '/api/v1/namespaces/other/pods/foo/status',
    'get',
    '',
    'v1',
    'other',
    'pods',
    'status',
    'foo',
  ],
  [
    'GET',
    '/api/v1/namespaces/other/pods/foo/proxy/subpath',
    'get',
    '',
    'v1',
    'other',
    'pods',
    'proxy',
    'foo',
  ],
  [
    'PUT',
    '/api/v1/namespaces/other/finalize',
    'update',
    '',
    'v1',
    'other',
    'namespaces',
    'finalize',
    'other',
  ],
  [
    'PUT',
    '/api/v1/namespaces/other/status',
    'update',
    '',
    'v1',
    'other',
    'namespaces',
    'status',
    'other',
  ],
  ['PATCH', '/api/v1/namespaces/other/pods/foo', 'patch', '', 'v1', 'other', 'pods', '', 'foo'],
  ['DELETE', '/api/v1/namespaces/other/pods/foo', 'delete', '', 'v1', 'other', 'pods', '', 'foo'],
  ['POST', '/api/v1/namespaces/other/pods', 'create', '', 'v1', 'other', 'pods', '', ''],
  ['DELETE', '/api/v1/nodes', 'deletecollection', '', 'v1', '', 'nodes', '', ''],
  ['DELETE', '/api/v1/namespaces', 'deletecollection', '', 'v1', '', 'namespaces', '', ''],
  [
    'DELETE',
    '/api/v1/namespaces/other/pods',
    'deletecollection',
    '',
    'v1',
    'other',
    'pods',
    '',
    '',
  ],
  [
    'DELETE',
    '/apis/extensions/v1/namespaces/other/pods',
    'deletecollection',
    'extensions',
    'v1',
    'other',
    'pods',
    '',
    '',
  ],
  [
    'POST',
    '/apis/extensions/v1/namespaces/other/pods',
    'create',
    'extensions',
    'v1',
    'other',
    'pods',
    '',
    '',
  ],
  [
    'POST',
    '/apis/extensions/v1beta3/namespaces/other/pods',
    'create',
    'extensions',
    'v1beta3',
    'other',
    'pods',
    '',
    '',
  ],
  [
    'GET',
    '/apis/group/version/resource?fieldSelector=metadata.name=name1',
    'list',
    'group',
    'version',
    '',
    'resource',
    '',
    'name1',
  ],
  [
    'GET',
    '/apis/group/version/resource?watch=true&fieldSelector=metadata.name=name1',
    'watch',
    'group',
    'version',
    '',
    'resource',
    '',
    'name1',
  ],
  [
    'GET',
    '/apis/group/version/resource?fieldSelector=foo=bar',
    'list',
    'group',
    'version',
    '',
    'resource',
    '',
    '',
  ],
  [
    'GET',
    '/apis/group/version/resource?fieldSelector=metadata.name=name1,foo',
    'list',
    'group',
    'version',
    '',
    'resource',
    '',
    '',
  ],
  [
    'GET',
    '/apis/group/version/resource?fieldSelector=metadata.name=name1,foo&watch=true',
    'watch',
    'group',
    'version',
    '',
    'resource',
    '',
    '',
  ],
  [
    'GET',
    '/apis/group/version/resource?fieldSelector=metadata.name=name1,foo&watch=false',
    'list',
    'group',
    'version',
    '',
    'resource',
    '',
    '',
  ],
]

const BEYOND: readonly Row[] = [
  ['GET', '/api/v1/pods?watch', 'watch', '', 'v1', '', 'pods', '', ''],
  ['GET', '/api/v1/pods?watch=no', 'watch', '', 'v1', '', 'pods', '', ''],
  ['GET', '/api/v1/pods?watch=FALSE', 'list', '', 'v1', '', 'pods', '', ''],
  ['GET', '/api/v1/pods?watch=0&watch=1', 'list', '', 'v1', '', 'pods', '', ''],
  ['GET', '/api/v1/namespaces/n/pods/p?watch=1', 'get', '', 'v1', 'n', 'pods', '', 'p'],
  [
    'DELETE',
    '/api/v1/namespaces/n/pods?fieldSelector=metadata.name%3Dp',
    'deletecollection',
    '',
    'v1',
    'n',
    'pods',
    '',
    '',
  ],
  ['GET', '/api/v1/namespaces/n/pods/p/exec/', 'get', '', 'v1', 'n', 'pods', 'exec', 'p'],
  ['GET', '/api/v1/namespaces/n/pods/p/%65xec', 'get', '', 'v1', 'n', 'pods', 'exec', 'p'],
  [
    'GET',
    '/api/v1/namespaces/n/pods?fieldSelector=metadata.name%21%3Dp',
    'list',
    '',
    'v1',
    'n',
    'pods',
    '',
    '',
  ],
  [
    'GET',
    '/api/v1/namespaces/n/pods?fieldSelector=metadata.name%3Dp&limit=x',
    'list',
    '',
    'v1',
    'n',
    'pods',
    '',
    '',
  ],
  [
    'GET',
    '/api/v1/namespaces/n/pods?fieldSelector=metadata.name%3D..',
    'list',
    '',
    'v1',
    'n',
    'pods',
    '',
    '',
  ],
]

describe('readRequestInfo', () => {
  for (const [method, url, verb, apiGroup, apiVersion, namespace, resource, subresource, name] of [
    ...KUBERNETES,
    ...BEYOND,
  ]) {
    it(`reads ${method} ${url} as ${verb} ${resource}`, () => {
      expect(read(method, url)).to.deep.equal({
        isResourceRequest: true,
        verb,
        apiGroup,
        apiVersion,
        namespace,
        resource,
        subresource,
        name,
      })
    })
  }

  for (const url of [
    '/',
    '/api',
    '/api/version/',
    '/apis/group/version/',
    '/badprefix/version/resource',
    '/apis/version/resource',
    '/version',
    '/openapi/v2',
  ]) {
    it(`reads ${url} as a non-resource request`, () => {
      expect(read('GET', url)).to.include({ isResourceRequest: false, verb: 'get', resource: '' })
    })
  }

  it('refuses what kube-apiserver has no verb for', () => {
    for (const method of ['OPTIONS', 'TRACE', 'get', 'LOCK']) {
      const target = parseTarget('/api/v1/pods')
      expect(isRefusal(target)).to.equal(false)
      if (!isRefusal(target))
        expect(readRequestInfo(method, target)).to.deep.equal({ refused: 'method_unsupported' })
    }
  })

  it('takes a name from list options only where kube-apiserver can parse them all', () => {
    const name = (query: string): string =>
      read('GET', `/api/v1/pods?fieldSelector=metadata.name=a&${query}`).name
    for (const query of ['labelSelector=a+in+(b)', 'limit=%2B5', 'timeoutSeconds=1', 'x=('])
      expect(name(query), query).to.equal('a')
    for (const query of ['labelSelector=a+in+b', 'limit=', 'timeoutSeconds=1.5', 'limit=1e30'])
      expect(name(query), query).to.equal('')
  })

  it('knows the long s of Unicode from the end of "false" as kube-apiserver does', () => {
    const verb = (query: string): string => read('GET', `/api/v1/pods?${query}`).verb
    expect(verb('watch=fal%C5%BFe')).to.equal('list')
    // where the options cannot be parsed, it looks at the text again, and otherwise
    expect(verb('watch=fal%C5%BFe&limit=x')).to.equal('watch')
    expect(verb('watch=FALSE&limit=x')).to.equal('list')
  })

  it('refuses a path that ends at its verb', () => {
    const target = parseTarget('/api/v1/watch')
    if (!isRefusal(target))
      expect(readRequestInfo('GET', target)).to.include({ refused: 'path_ambiguous' })
  })

  it('takes every way into a workload for a session, never for a read', () => {
    const sessions = [
      'pods/p/exec',
      'pods/p/attach',
      'pods/p/portforward',
      'pods/p/proxy/metrics',
      'services/s/proxy',
    ]
    for (const method of ['GET', 'POST']) {
      for (const rest of sessions) {
        const info = read(method, `/api/v1/namespaces/n/${rest}`)
        expect([isConnect(info), isRead(info)], `${method} ${rest}`).to.deep.equal([true, false])
      }
    }
    const node = read('GET', '/api/v1/nodes/n/proxy/exec')
    expect([isConnect(node), isRead(node)]).to.deep.equal([true, false])
  })

  it('knows which requests have no deadline', () => {
    expect(isLongRunning(read('GET', '/api/v1/pods?watch=1'))).to.equal(true)
    expect(isLongRunning(read('GET', '/api/v1/namespaces/n/pods/p/log'))).to.equal(true)
    expect(isLongRunning(read('GET', '/api/v1/pods'))).to.equal(false)
  })
})
