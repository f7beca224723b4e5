/** What is tried in mode `issuer`: with our own signing key, as somebody who has stolen it would. */
import { generateKeyPairSync, sign } from 'node:crypto'
import { newRequestId } from '../../shared/request-id.ts'
import type { ProbeResult } from '../../shared/wire.ts'
import { tokenSubject } from '../credentials/actor.ts'
import type { Actor } from '../credentials/actor.ts'
import { callOf } from '../credentials/api-call.ts'
import type { AskedConnection } from '../credentials/cluster-json.ts'
import type { CredentialNeed, RequestCredential } from '../credentials/credential.ts'
import type { Issuer } from '../credentials/parts.ts'
import type { SigningKey } from '../credentials/signing-keys.ts'
import { claimsOf, compactToken } from '../credentials/tokens.ts'
import { accepted, notAuthenticated, probe, refused } from './probe.ts'
import type { Attempt, Judge } from './probe.ts'

/** Nobody: no role of any cluster should be bound to it. */
const DOCTOR: Actor = { kind: 'subject', name: 'nestgate-doctor' }
const OWN_PATH = '/api/v1/namespaces/default/configmaps/nestgate-doctor'
const OTHER_PATH = '/api/v1/namespaces/default/secrets?limit=1'
const HOUR_S = 3600
const MINUTES_AGO_S = 600

/** What the API server says when it has asked us, and we have asked it about its roles. */
const NO_ROLE = 'no role of the cluster allows it'

/** What the probes need. */
export interface IssuerProbeDeps {
  readonly issuer: Pick<Issuer, 'url' | 'keys'>
  readonly connection: AskedConnection
  /** Whether the cluster's own rules limit the life of a token; before 1.30 the broker alone does. */
  readonly isStructured: boolean
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** Makes all attempts, one after the other. */
export async function issuerProbes(deps: IssuerProbeDeps): Promise<readonly ProbeResult[]> {
  const { connection } = deps
  const results: ProbeResult[] = []
  const own = { headers: await connection.credential.own(), path: '/version' }
  results.push(await probe(connection, { name: 'the broker’s own token', ...own, judge: accepted }))
  results.push(...(await underWay(deps)))
  for (const attempt of await forged(deps)) results.push(await probe(connection, attempt))
  return results
}

function needOf({ now }: IssuerProbeDeps): CredentialNeed {
  return {
    requestId: newRequestId(now()),
    actor: DOCTOR,
    ...{ grantGroups: [], process: 'nestgate-doctor', approvers: [] },
    call: callOf('GET', OWN_PATH),
  }
}

/** A request that the API server asked about, and that nobody's role allows: just so far must it come. */
const askedAndRefused: Judge = ({ status, said }) => {
  if (status === 0 || status >= 500) return 'unclear'
  if (status === 403) return said.includes(NO_ROLE) ? 'ok' : 'failed'
  return status === 401 ? 'failed' : 'unclear'
}

/** Attempts with the token of a request that is under way. */
async function underWay(deps: IssuerProbeDeps): Promise<readonly ProbeResult[]> {
  const { connection } = deps
  const results: ProbeResult[] = []
  const withToken = async (
    attempts: readonly Omit<Attempt, 'headers'>[],
    more: Readonly<Record<string, string>> = {},
    end?: (made: RequestCredential) => void,
  ): Promise<void> => {
    const made = await connection.credential.make(needOf(deps))
    end?.(made)
    try {
      for (const attempt of attempts)
        results.push(await probe(connection, { ...attempt, headers: { ...made.headers, ...more } }))
    } finally {
      made.over()
    }
  }
  await withToken([
    { name: 'a request by its own token', path: OWN_PATH, judge: askedAndRefused },
    { name: 'the same token again', path: OWN_PATH, judge: refused },
  ])
  await withToken([{ name: 'its token for another resource', path: OTHER_PATH, judge: refused }])
  await withToken([
    {
      name: 'its token for another verb',
      method: 'DELETE',
      path: `${OWN_PATH}?dryRun=All`,
      judge: refused,
    },
  ])
  await withToken([{ name: 'its token to be somebody else', path: OWN_PATH, judge: refused }], {
    'impersonate-user': 'system:admin',
    'impersonate-group': 'system:masters',
  })
  await withToken(
    [{ name: 'its token after the answer', path: OWN_PATH, judge: refused }],
    {},
    (made) => {
      made.over()
    },
  )
  return results
}

/** Attempts with tokens that the broker never makes. */
async function forged(deps: IssuerProbeDeps): Promise<readonly Attempt[]> {
  const { issuer, connection, isStructured, now } = deps
  const key = issuer.keys.current()
  const second = Math.floor(now() / 1000)
  const claims = (change: object = {}): object => {
    const facts = { ...needOf(deps), cluster: connection.name, subject: tokenSubject(DOCTOR) }
    return { ...claimsOf(facts, issuer.url, now()), ...change }
  }
  const attempt = async (
    name: string,
    change: object,
    more: { readonly path?: string; readonly judge?: Judge; readonly key?: SigningKey } = {},
  ): Promise<Attempt> => {
    const { path = OTHER_PATH, judge = refused, key: by = key } = more
    const token = await compactToken(by, claims(change))
    return { name, path, judge, headers: { authorization: `Bearer ${token}` } }
  }
  const masters = ['system:masters']
  const none = Buffer.from(JSON.stringify({ alg: 'none', typ: 'JWT' })).toString('base64url')
  const unsigned = `${none}.${Buffer.from(JSON.stringify(claims())).toString('base64url')}.`
  return [
    await attempt('a token of no request', {}, { path: OWN_PATH }),
    await attempt('the group system:masters', { groups: masters, marked_groups: masters }),
    await attempt('the name system:admin', { sub: 'system:admin' }),
    await attempt('the broker’s own name', { sub: 'broker' }),
    await attempt(
      'a token that lives an hour',
      { exp: second + HOUR_S },
      { path: OWN_PATH, judge: isStructured ? notAuthenticated : refused },
    ),
    await attempt('another cluster’s audience', { aud: 'nestgate/-' }, { judge: notAuthenticated }),
    await attempt(
      'a token that is over',
      { iat: second - HOUR_S, nbf: second - HOUR_S, exp: second - MINUTES_AGO_S },
      { judge: notAuthenticated },
    ),
    await attempt(
      'a signature by another key',
      {},
      { key: strangersKey(key.kid), judge: notAuthenticated },
    ),
    {
      ...{ name: 'no signature', path: OTHER_PATH, judge: notAuthenticated },
      headers: { authorization: `Bearer ${unsigned}` },
    },
  ]
}

function strangersKey(kid: string): SigningKey {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const options = { key: privateKey, dsaEncoding: 'ieee-p1363' } as const
  return { kid, sign: (bytes) => Promise.resolve(sign('sha256', bytes, options)) }
}
