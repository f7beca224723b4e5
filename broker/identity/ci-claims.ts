/**
 * Tokens of CI systems: which repository, ref and run they are for. The names of the claims are GitHub's and GitLab's
 * (docs.github.com, "OpenID Connect reference"; docs.gitlab.com, "ID token authentication"), or the operator's.
 */
import type { JWTPayload } from 'jose'
import type { CiFacts } from '../../shared/policy/facts.ts'
import type { IssuerSettings } from './oidc-config.ts'

/** What policy's words are held against, and people and ledgers see: visible ASCII, no longer than a word may be. */
const VALUE = /^[\x21-\x7e]{1,512}$/

/** GitLab's `ref` is short: a branch and a tag may have the same. */
const GITLAB_REFS: Readonly<Record<string, string>> = { branch: 'refs/heads/', tag: 'refs/tags/' }

type Read = (claims: JWTPayload) => string | undefined

const PROFILES: Readonly<Record<IssuerSettings['profile'], Readonly<Record<keyof CiFacts, Read>>>> =
  {
    generic: { repository: () => undefined, ref: () => undefined, run: () => undefined },
    github: {
      repository: (claims) => textOf(claims, 'repository'),
      ref: (claims) => textOf(claims, 'ref'),
      // a run that is started again keeps its id
      run: (claims) => joined(textOf(claims, 'run_id'), textOf(claims, 'run_attempt') ?? '1'),
    },
    gitlab: {
      repository: (claims) => textOf(claims, 'project_path'),
      ref: gitlabRef,
      run: (claims) => joined(textOf(claims, 'pipeline_id'), textOf(claims, 'job_id')),
    },
  }

/** Where a verified token's run comes from; undefined where its issuer is no CI system, `invalid` where it does not say so as it must. */
export function ciOf(
  { profile, claims }: Pick<IssuerSettings, 'profile' | 'claims'>,
  payload: JWTPayload,
): CiFacts | 'invalid' | undefined {
  if (profile === 'generic' && Object.keys(claims).length === 0) return undefined
  const read = (key: keyof CiFacts): string => {
    const claim = claims[key]
    const value = claim === undefined ? PROFILES[profile][key](payload) : textOf(payload, claim)
    return value !== undefined && VALUE.test(value) ? value : ''
  }
  const found = { repository: read('repository'), ref: read('ref'), run: read('run') }
  return Object.values(found).includes('') ? 'invalid' : found
}

function textOf(claims: JWTPayload, name: string): string | undefined {
  const value = Object.hasOwn(claims, name) ? claims[name] : undefined
  return typeof value === 'string' && value !== '' ? value : undefined
}

function joined(first: string | undefined, second: string | undefined): string | undefined {
  return first === undefined || second === undefined ? undefined : `${first}/${second}`
}

function gitlabRef(claims: JWTPayload): string | undefined {
  const [ref, type = ''] = [textOf(claims, 'ref'), textOf(claims, 'ref_type')]
  const prefix = Object.hasOwn(GITLAB_REFS, type) ? GITLAB_REFS[type] : undefined
  return ref === undefined || prefix === undefined ? undefined : prefix + ref
}
