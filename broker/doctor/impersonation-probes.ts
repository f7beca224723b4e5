/** What is tried in mode `impersonation`: with the broker's own credential, as somebody who has stolen it would. */
import { decodeJwt } from 'jose'
import type { ProbeResult } from '../../shared/wire.ts'
import { bearerToken } from '../../shared/headers.ts'
import type { ClusterSettings } from '../clusters/settings.ts'
import type { AskedConnection } from '../credentials/cluster-json.ts'
import { accepted, probe, refused } from './probe.ts'
import type { Attempt, Judge } from './probe.ts'

const SECRETS_PATH = '/api/v1/namespaces/default/secrets?limit=1'
/** Longest life of the broker's token, in seconds, before it is worth a word. */
const LONG_LIFE_S = 3600

/** Writes that are tried until one shows something: most accounts may write nothing anywhere. */
const MAX_TRIES = 10

/** Whom the broker must never be: names that no grant of ours could mean. */
const OUTSIDE: readonly (readonly [string, Readonly<Record<string, string>>])[] = [
  [
    'the group system:masters',
    { 'impersonate-user': 'nestgate-doctor', 'impersonate-group': 'system:masters' },
  ],
  ['the user system:admin', { 'impersonate-user': 'system:admin' }],
  ['a user that nobody named', { 'impersonate-user': 'nestgate-doctor' }],
  [
    'an account of kube-system',
    { 'impersonate-user': 'system:serviceaccount:kube-system:default' },
  ],
  [
    'a node',
    { 'impersonate-user': 'system:node:nestgate-doctor', 'impersonate-group': 'system:nodes' },
  ],
  [
    'the broker’s own account, as another',
    { 'impersonate-user': 'system:serviceaccount:nestgate-system:nestgate-broker' },
  ],
]

/** Makes all attempts, one after the other. */
export async function impersonationProbes(
  connection: AskedConnection,
  { bound }: Pick<ClusterSettings, 'bound'>,
): Promise<readonly ProbeResult[]> {
  const own = await connection.credential.own()
  const attempts: readonly Attempt[] = [
    { name: 'the broker’s own credential', path: '/version', headers: own, judge: accepted },
    {
      ...{ name: 'a request whose identity was lost', path: SECRETS_PATH },
      ...{ headers: own, judge: refused },
    },
    {
      ...{ name: 'a write whose identity was lost', method: 'POST', judge: refused },
      ...{ path: '/api/v1/namespaces/default/configmaps?dryRun=All', headers: own },
      body: configMap(),
    },
    ...OUTSIDE.map(([name, headers]) => ({
      ...{ name: `to be ${name}`, path: SECRETS_PATH, judge: refused },
      headers: { ...own, ...headers },
    })),
  ]
  const results: ProbeResult[] = [lifeOf(own)]
  for (const attempt of attempts) results.push(await probe(connection, attempt))
  results.push(await bindingProbe(connection, own, bound))
  return results
}

/** How long the broker's own token lives; a certificate has no part in this. */
function lifeOf(own: Awaited<ReturnType<AskedConnection['credential']['own']>>): ProbeResult {
  const name = 'the life of the broker’s own credential'
  const { authorization } = own
  const token = typeof authorization === 'string' ? bearerToken({ authorization }) : undefined
  if (token === undefined)
    return {
      name,
      outcome: 'unclear',
      status: 0,
      said: 'a client certificate, which nothing revokes',
    }
  try {
    const { iat = 0, exp = Infinity } = decodeJwt(token)
    const seconds = exp - iat
    const outcome = seconds <= LONG_LIFE_S + 7 ? 'ok' : 'failed'
    return { name, outcome, status: 0, said: `${seconds} s` }
  } catch {
    return { name, outcome: 'failed', status: 0, said: 'a token without an end' }
  }
}

/** A write that admission must stop; one that a role stops before shows nothing. */
const boundByUs: Judge = ({ status, said }) => {
  if (status >= 200 && status < 300) return 'failed'
  return status === 403 && said.includes('nestgate') ? 'ok' : 'unclear'
}

/** Tries writes as those whom the broker alone may be, until one shows something. */
async function bindingProbe(
  connection: AskedConnection,
  own: Attempt['headers'],
  bound: ClusterSettings['bound'],
): Promise<ProbeResult> {
  const name = 'a write by no request of ours'
  const { namespaces = [], users = [] } = bound ?? {}
  const places = namespaces.length === 0 ? ['default'] : namespaces
  const tries = [
    ...namespaces.map((place) => ({ place, user: accountOf(place) })),
    ...users.flatMap((user) => places.map((place) => ({ place, user }))),
  ]
  const nothing = 'the cluster’s settings have nothing in bound'
  let result: ProbeResult = { name, outcome: 'unclear', status: 0, said: nothing }
  for (const { place, user } of tries.slice(0, MAX_TRIES)) {
    result = await probe(connection, {
      ...{ name, method: 'POST', body: configMap(), judge: boundByUs },
      path: `/api/v1/namespaces/${place}/configmaps?dryRun=All`,
      headers: { ...own, 'impersonate-user': user },
    })
    if (result.outcome !== 'unclear') return result
  }
  return result
}

function accountOf(namespace: string): string {
  return `system:serviceaccount:${namespace}:default`
}

function configMap(): object {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'nestgate-doctor' } }
}
