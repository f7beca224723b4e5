/**
 * Request lines of every form that kube-apiserver reads in its own way, made from a seed. All are harmless: names that do
 * not exist, `dryRun=All` on whatever could change something, one second for watches.
 */

import {
  BROKEN_LABEL_SELECTORS,
  BROKEN_NUMBERS,
  FIELD_SELECTORS as FIELD_CASES,
  LABEL_SELECTORS as LABEL_CASES,
  NUMBERS as NUMBER_CASES,
} from '../support/selector-cases.ts'

/** A request as it is put on the wire. */
export interface GeneratedRequest {
  readonly method: string
  /** Path and query. */
  readonly target: string
  readonly contentType: string
  readonly body: string
}

/** Draws from a seed. */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** mulberry32: a number from 0 up to 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.next() * from.length)]!
  }

  whole(below: number): number {
    return Math.floor(this.next() * below)
  }
}

const METHODS = ['GET', 'GET', 'GET', 'GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']
const ADDRESSES = [
  'api/v1',
  'api/v1',
  'api/v1',
  'apis/apps/v1',
  'apis/batch/v1',
  'apis/rbac.authorization.k8s.io/v1',
  'apis/certificates.k8s.io/v1',
  'apis/policy/v1beta1',
  'apis/example.com/v1alpha1',
  'api/v2',
  'apis/apps',
  'api',
]
const RESOURCES = [
  'pods',
  'pods',
  'secrets',
  'configmaps',
  'services',
  'nodes',
  'serviceaccounts',
  'deployments',
  'statefulsets',
  'jobs',
  'roles',
  'clusterroles',
  'certificatesigningrequests',
  'persistentvolumes',
  'events',
  'widgets',
  'namespaces',
  'proxy',
  'watch',
  'status',
  'Pods',
  'constructor',
]
const SUBRESOURCES = [
  'status',
  'scale',
  'exec',
  'attach',
  'log',
  'proxy',
  'portforward',
  'eviction',
  'finalize',
  'token',
  'ephemeralcontainers',
  'approval',
  'binding',
  'rollback',
  'constructor',
  '__proto__',
]
/** None of them is there. */
const NAMES = [
  'gone',
  'gone-1',
  'gone.example.com',
  'gone:10250',
  'https:gone:8443',
  'system:gone',
  'GONE',
  'gone@x',
  'go~ne!',
  'gone(1)',
  "go'ne",
  'gone,more',
  'gone=1',
  'gone+plus',
  'status',
  'finalize',
  'exec',
  'namespaces',
  'gön',
  'gone%20space',
  'gone%3Aport',
]
const NAMESPACES = ['default', 'gone-ns', 'kube-system', 'status', 'finalize', 'GONE', 'namespaces']
const NON_RESOURCE = [
  '',
  'healthz',
  'healthz/ping',
  'livez',
  'readyz/etcd',
  'version',
  'version/',
  'api',
  'apis',
  'api/v1',
  'apis/apps',
  'apis/apps/v1',
  'apis/gone.example.com/v1',
  'gone',
  'gone/a/b/c',
  'API/v1/pods',
  'Apis/apps/v1/deployments',
  '.well-known/openid-configuration',
  'openid/v1/jwks',
]
const WATCHES = [
  'watch',
  'watch=',
  'watch=0',
  'watch=1',
  'watch=true',
  'watch=True',
  'watch=false',
  'watch=FALSE',
  'watch=False',
  'watch=no',
  'watch=%30',
  'w%61tch=1',
  'watch=00',
  'watch=+0',
  'watch=0&watch=1',
  'watch=1&watch=0',
  'Watch=1',
  'watch=fal%C5%BFe',
  'watch=%46alse',
]
const FIELD_SELECTORS = [
  'metadata.name=gone',
  'metadata.name%3Dgone',
  'metadata.name==gone',
  'metadata.name%3D%3Dgone',
  'metadata.name!=gone',
  'metadata.name===gone',
  'metadata.name=gone=1',
  'metadata.name=',
  'metadata.name',
  '=gone',
  'metadata.name=a,metadata.name=b',
  'metadata.name=b,metadata.name=a',
  'metadata.name==z,metadata.name=a',
  'metadata.name=%EF%BF%BD,metadata.name=%F0%9F%98%80',
  'a=b,=,metadata.name=gone',
  'metadata.namespace=default,metadata.name=gone',
  'metadata.name=gone,metadata.namespace!=default',
  'metadata.name!=a,metadata.name=b',
  'metadata.name=gone,',
  ',,metadata.name=gone',
  'metadata.name=gone,garbage',
  'metadata.name=go%5C,ne',
  'metadata.name=go%5C%3Dne',
  'metadata.name=go%5C%5Cne',
  'metadata.name=go%5C%5C,a=b',
  'metadata.name=go%5Cne',
  'metadata.name=gone%5C',
  'metadata.name=gone%5C,',
  'metadata.name=go!ne',
  'metadata.name=go!',
  'metadata!name=gone',
  'a!b=c,metadata.name=gone',
  '!metadata.name=gone',
  'metadata.name%20=gone',
  'metadata.name=%20gone',
  'metadata.name=+gone+',
  'metadata.name=go/ne',
  'metadata.name=go%25ne',
  'metadata.name=.',
  'metadata.name=..',
  'metadata.name=...',
  'metadata.name=go%0Ane',
  'metadata.name=g%C3%B6n',
  'metadata.name=GONE',
  'Metadata.name=gone',
  'status.phase=Running',
  'status.phase=Running,metadata.name=gone',
  'metadata%5C.name=gone',
  'metadata.name=gone&fieldSelector=metadata.name=other',
  'a=b&fieldSelector=metadata.name=other',
  '',
]
const LABEL_SELECTORS = [
  'a=b',
  'a%3Db',
  'a==b',
  'a!=b',
  'a',
  '!a',
  '!+a',
  'a,b',
  'a=b,c!=d',
  'a+in+(b,c)',
  'a+notin+(b)',
  'a+in+(b,,c)',
  'a+in+()',
  'a+in+(,)',
  'a%20in%20(b)',
  'a+in(b)',
  'a+in+b',
  'in+in+(in)',
  'notin',
  'in=notin',
  'a=in',
  'a+IN+(b)',
  'a>1',
  'a<1',
  'a+%3E+1',
  'a>x',
  'a%3E=1',
  'a>1.5',
  'a>-1',
  'a=',
  'a=,b=c',
  'a==',
  'a!=',
  'a===b',
  '=b',
  ',',
  'a,',
  ',a',
  'a,,b',
  'example.com/a=b',
  'EXAMPLE.com/a=b',
  'a/b/c=d',
  '/a=b',
  'example.com/=b',
  'a=b/c',
  'a=-b',
  'a=b-',
  '-a=b',
  'a.b_c-d=e.f_g-h',
  'a=b+c',
  '+a+=+b+',
  'a%09=b',
  'a%0A=b',
  'a=b%00',
  'a=(b)',
  'a)',
  '(a)',
  'a+b',
  'a!b',
  '!a=b',
  '!',
  '!!a',
  '!a,b',
  'a=!b',
  'a+in+(b',
  'a+in+(b))',
  'a+in+(b)c',
  'a+in+(b),c',
  'a+in+(in,notin)',
  'a+in+(b+c)',
  'a+in+(b=c)',
  'a+notin+(b,)',
  'a+in+(,,)',
  'a+in+(,,,)',
  'a+in+(b,,)',
  'a+in+(,b)',
  'a=b%00',
  'a%00=b%00',
  'a=b%00%00)',
  'a%00%00=b',
  'a=%00b',
  'a%0Din%0D(b)',
  'a%0B=b',
  'a%C2%A0=b',
  `${'a'.repeat(63)}=b`,
  `${'a'.repeat(64)}=b`,
  `a=${'b'.repeat(63)}`,
  `a=${'b'.repeat(64)}`,
  `a>${'9'.repeat(19)}`,
  'a>9223372036854775807',
  '%C3%B6=b',
  'a=b;c',
  '',
]
const NUMBERS = ['1', '0', '-1', '', 'x', '1.5', '1e3', '%2B5', '+5', '0x10', '1_0', '%201', '007']
const LARGE = [
  '9223372036854775807',
  '9223372036854775808',
  '-9223372036854775808',
  '99999999999999999999',
]
const ODD_PIECES = [
  '',
  'pretty',
  'pretty=true',
  'resourceVersion=0',
  'resourceVersion=x',
  'resourceVersionMatch=NotOlderThan',
  'resourceVersionMatch=x',
  'continue=x',
  'allowWatchBookmarks=x',
  'a=b=c',
  'a%3D=b',
  '=',
  '=b',
  'a=%C3%B6',
  'a=b?c',
  'a=b/c',
  'a=[b]',
  'a=%00',
  'command=ls&command=-l&container=main',
  'tailLines=1',
]
/** Some parsers drop these, others keep them. */
const AMBIGUOUS_PIECES = ['a;b', 'watch=1;x=2', 'a=%zz', 'a=%', 'a=%ff', 'a=b#c', 'a=\\b']

/** One request. */
export function generateRequest(dice: Dice): GeneratedRequest {
  if (dice.chance(0.08)) return creation(dice)
  const method = dice.pick(METHODS)
  const path = mutatePath(dice, pathOf(dice))
  const query = queryOf(dice, method)
  return { method, target: `/${path}${query}`, ...bodyOf(dice, method) }
}

function pathOf(dice: Dice): string {
  const kind = dice.next()
  if (kind < 0.08) return dice.pick(NON_RESOURCE)
  const address = dice.pick(ADDRESSES)
  if (kind < 0.2) return `${address}/${namespacePath(dice)}`
  const verb = kind < 0.3 ? `${dice.pick(['watch', 'watch', 'proxy'])}/` : ''
  if (verb !== '' && dice.chance(0.1)) return `${address}/${verb.slice(0, -1)}`
  const place = dice.chance(0.5) ? `namespaces/${dice.pick(NAMESPACES)}/` : ''
  return `${address}/${verb}${place}${objectPath(dice)}`
}

function namespacePath(dice: Dice): string {
  const name = dice.pick([
    'gone-ns',
    'gone-2',
    'status',
    'finalize',
    'namespaces',
    'proxy',
    'watch',
  ])
  return dice.pick([
    'namespaces',
    `namespaces/${name}`,
    `namespaces/${name}`,
    `namespaces/${name}/status`,
    `namespaces/${name}/finalize`,
    `namespaces/${name}/status/more`,
    `namespaces/${name}/finalize/more/still`,
    `namespaces/${name}/namespaces`,
    `namespaces/${name}/namespaces/other`,
    `namespaces/${name}/Status`,
  ])
}

function objectPath(dice: Dice): string {
  const resource = dice.pick(RESOURCES)
  if (dice.chance(0.4)) return resource
  const named = `${resource}/${dice.pick(NAMES)}`
  if (dice.chance(0.4)) return named
  const sub = `${named}/${dice.pick(SUBRESOURCES)}`
  return dice.chance(0.75) ? sub : `${sub}/${dice.pick(['a', 'exec/b', 'x/y/z', 'metrics'])}`
}

/** Other ways to write a path, some of which mean the same. */
function mutatePath(dice: Dice, path: string): string {
  let text = path
  if (dice.chance(0.15)) text = encodeSome(dice, text)
  if (dice.chance(0.12)) text = `${text}/`
  if (dice.chance(0.1)) text = spoil(dice, text)
  return text
}

/** Percent-encodes a letter here and there, in every segment alike. */
function encodeSome(dice: Dice, text: string): string {
  return text.replaceAll(/(?<!%[0-9A-F]?)[A-Za-z.-]/g, (letter) => {
    if (!dice.chance(0.2)) return letter
    const code = letter.charCodeAt(0).toString(16)
    return `%${dice.chance(0.5) ? code : code.toUpperCase()}`
  })
}

function spoil(dice: Dice, text: string): string {
  const at = text.indexOf('/', dice.whole(Math.max(1, text.length)))
  const cut = at === -1 ? text.length : at
  const inserted = dice.pick([
    '/',
    '//',
    '/.',
    '/..',
    '/%2e%2e',
    '%2f',
    '%2F',
    '%5c',
    '\\',
    ';a=b',
    '%3b',
    '%25',
    '%00',
    '%0a',
    '%zz',
    '%',
    '%ff',
    '|',
    '"',
    '<>',
    '^',
    '`',
    '{}',
    '[x]',
    '#frag',
    'ö',
  ])
  return `${text.slice(0, cut)}${inserted}${text.slice(cut)}`
}

function queryOf(dice: Dice, method: string): string {
  const pieces: string[] = []
  const reads = method === 'GET' || method === 'HEAD'
  if (dice.chance(reads ? 0.4 : 0.1)) pieces.push(dice.pick(WATCHES))
  if (dice.chance(reads ? 0.4 : 0.1)) pieces.push(`fieldSelector=${dice.pick(FIELD_SELECTORS)}`)
  if (dice.chance(reads ? 0.3 : 0.1)) pieces.push(`labelSelector=${dice.pick(LABEL_SELECTORS)}`)
  if (dice.chance(0.1)) pieces.push(`limit=${dice.pick([...NUMBERS, ...LARGE])}`)
  if (dice.chance(0.1)) pieces.push(`timeoutSeconds=${dice.pick(NUMBERS)}`)
  if (dice.chance(0.15)) pieces.push(dice.pick(ODD_PIECES))
  if (dice.chance(0.03)) pieces.push(dice.pick(AMBIGUOUS_PIECES))
  pieces.sort(() => dice.next() - 0.5)
  if (reads) {
    // where a garbled one stands first, the server refuses the watch
    if (pieces.length > 0) pieces.push('timeoutSeconds=1')
  } else pieces.push('dryRun=All')
  return pieces.length === 0 ? dice.pick(['', '', '', '?']) : `?${pieces.join('&')}`
}

/** A list for each case of selectors and numbers that the unit tests have. */
export function selectorRequests(): readonly GeneratedRequest[] {
  const named = 'fieldSelector=metadata.name=gone'
  const option = (name: string, value: string): string => `${name}=${encodeURIComponent(value)}`
  const queries = [
    ...FIELD_CASES.map(([selector]) => option('fieldSelector', selector)),
    ...[...LABEL_CASES, ...BROKEN_LABEL_SELECTORS].map(
      (selector) => `${named}&${option('labelSelector', selector)}`,
    ),
    ...[...NUMBER_CASES, ...BROKEN_NUMBERS].map((text) => `${named}&${option('limit', text)}`),
  ]
  return queries.map((query) => ({
    method: 'GET',
    target: `/api/v1/namespaces/default/configmaps?${query}`,
    ...NO_BODY,
  }))
}

type BodyPart = Pick<GeneratedRequest, 'contentType' | 'body'>

const NO_BODY: BodyPart = { contentType: '', body: '' }
const DELETE_OPTIONS = JSON.stringify({ kind: 'DeleteOptions', apiVersion: 'v1', dryRun: ['All'] })

function bodyOf(dice: Dice, method: string): BodyPart {
  const json = 'application/json'
  if (method === 'DELETE' && dice.chance(0.3)) return { contentType: json, body: DELETE_OPTIONS }
  if (method === 'PATCH') {
    return dice.pick([
      { contentType: 'application/merge-patch+json', body: '{"metadata":{"labels":{"a":"b"}}}' },
      { contentType: 'application/strategic-merge-patch+json', body: '{"spec":{"replicas":0}}' },
      {
        contentType: 'application/json-patch+json',
        body: '[{"op":"add","path":"/metadata/labels","value":{}}]',
      },
    ])
  }
  if ((method === 'POST' || method === 'PUT') && dice.chance(0.5))
    return { contentType: json, body: '{"metadata":{}}' }
  return NO_BODY
}

interface Kind {
  readonly address: string
  readonly resource: string
  readonly kind: string
  readonly more?: object
}

const CONTAINERS = { containers: [{ name: 'main', image: 'example.com/none' }] }
const CREATED: readonly Kind[] = [
  { address: 'api/v1', resource: 'configmaps', kind: 'ConfigMap' },
  { address: 'api/v1', resource: 'secrets', kind: 'Secret' },
  { address: 'api/v1', resource: 'serviceaccounts', kind: 'ServiceAccount' },
  { address: 'api/v1', resource: 'pods', kind: 'Pod', more: { spec: CONTAINERS } },
  {
    address: 'apis/apps/v1',
    resource: 'deployments',
    kind: 'Deployment',
    more: {
      spec: {
        selector: { matchLabels: { a: 'b' } },
        template: { metadata: { labels: { a: 'b' } }, spec: CONTAINERS },
      },
    },
  },
  { address: 'apis/rbac.authorization.k8s.io/v1', resource: 'roles', kind: 'Role' },
  { address: 'apis/coordination.k8s.io/v1', resource: 'leases', kind: 'Lease' },
]

/** A creation that the server takes, as a dry run. */
function creation(dice: Dice): GeneratedRequest {
  const { address, resource, kind, more } = dice.pick(CREATED)
  const name = `made-${dice.whole(1000)}`
  const metadata = dice.pick<object>([
    { name },
    { name },
    { generateName: 'made-' },
    { name, generateName: 'other-' },
    { name, namespace: 'default' },
    { name: '', generateName: 'made-' },
    {},
  ])
  const apiVersion = address.replace(/^apis?\//, '')
  return {
    method: 'POST',
    target: `/${address}/namespaces/default/${resource}?dryRun=All`,
    contentType: 'application/json',
    body: JSON.stringify({ apiVersion, kind, metadata, ...more }),
  }
}
