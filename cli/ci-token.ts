/**
 * The token that a CI system gives to a job: asked of GitHub's runner, or read from the variable that GitLab's `id_tokens` fills. It
 * says which repository, ref and run the job is of; the broker checks it. Nothing here is kept, and no message has it in it.
 */
import { Agent, request } from 'undici'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { codeOf, messageOf } from '../shared/errors.ts'
import { CallError } from './client.ts'
import { claimsOf } from './login-issuer.ts'
import { readText, UsageError } from './settings.ts'
import type { Environment } from './settings.ts'

/** CI systems that are known. */
export const CI_SYSTEMS = ['github', 'gitlab'] as const
/** One of them. */
export type CiSystem = (typeof CI_SYSTEMS)[number]

/** What a token is for, where nothing else is said; `oidc[].audiences` of the broker must have it. */
export const DEFAULT_AUDIENCE = 'nestgate'
/** Variable that GitLab is told to fill, where nothing else is said. */
export const DEFAULT_VARIABLE = 'NESTGATE_ID_TOKEN'

/** Longest wait for the runner's answer, in milliseconds, and longest answer, in bytes. */
const ANSWER_MS = 15_000
const MAX_ANSWER_BYTES = 64 * 1024
/** How often it is asked, where it is out of order, and the pause before each further time, in milliseconds. */
const TRIES = 3
const PAUSE_MS = 1000
/** Longest token that is taken; the broker's headers end at 64 KiB. */
const MAX_TOKEN_LENGTH = 32_768
/** Compact form of a JWS (RFC 7515, section 7.1). */
const JWT = /^[\w-]+\.[\w-]+\.[\w-]+$/
const HEADER_SAFE = /^[\x21-\x7e]+$/
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/

/** A token, and when it ends, in seconds since the epoch. */
export interface CiToken {
  readonly token: string
  readonly expiresAt: number
}

/** What it takes. */
export interface CiDeps {
  readonly env: Environment
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** What may be said about it. */
export interface CiOptions {
  readonly audience?: string
  readonly variable?: string
}

/**
 * The job's token.
 *
 * @throws UsageError where the pipeline's file must say more, CallError where the CI system gave none that is good
 */
export async function ciToken(
  from: CiSystem,
  { audience, variable = DEFAULT_VARIABLE }: CiOptions,
  deps: CiDeps,
): Promise<CiToken> {
  if (from === 'gitlab') return gitlabToken(variable, audience, deps)
  return githubToken(audience ?? DEFAULT_AUDIENCE, deps)
}

function gitlabToken(variable: string, audience: string | undefined, deps: CiDeps): CiToken {
  if (!VARIABLE.test(variable)) throw new UsageError('--variable is not the name of a variable')
  const token = deps.env[variable]?.trim()
  if (token === undefined || token === '') {
    const aud = audience ?? DEFAULT_AUDIENCE
    throw new UsageError(
      `${variable} is not set: give the job id_tokens: { ${variable}: { aud: ${aud} } } in .gitlab-ci.yml`,
    )
  }
  return checked(token, audience, deps.now, `${variable} is no token: id_tokens must fill it`)
}

const answerSchema = z.object({ value: z.string() })
const NO_PERMISSION =
  'this job may not ask for a token: give it permissions: { id-token: write } in the workflow’s file'

/** Where the runner is asked, and with what. */
function runnerOf(env: Environment): { readonly url: URL; readonly bearer: string } {
  const {
    ACTIONS_ID_TOKEN_REQUEST_URL: address = '',
    ACTIONS_ID_TOKEN_REQUEST_TOKEN: bearer = '',
  } = env
  if (address === '' || bearer === '') throw new UsageError(NO_PERMISSION)
  // what cannot be sent would stand in the library's message
  if (!HEADER_SAFE.test(bearer)) throw new UsageError('ACTIONS_ID_TOKEN_REQUEST_TOKEN is malformed')
  const url = URL.parse(address)
  if (url?.protocol !== 'https:')
    throw new UsageError('ACTIONS_ID_TOKEN_REQUEST_URL is not an https URL')
  return { url, bearer }
}

async function githubToken(audience: string, deps: CiDeps): Promise<CiToken> {
  const { url, bearer } = runnerOf(deps.env)
  url.searchParams.set('audience', audience)
  const { NESTGATE_ISSUER_CA_FILE: caFile } = deps.env
  const ca = caFile === undefined ? {} : { ca: readText(caFile) }
  const dispatcher = new Agent({
    // Said in so many words: NODE_TLS_REJECT_UNAUTHORIZED must not be able to switch it off.
    connect: { timeout: ANSWER_MS, rejectUnauthorized: true, ...ca },
    maxResponseSize: MAX_ANSWER_BYTES,
  })
  try {
    const { status, text } = await askRunner(url, bearer, dispatcher)
    if (status === 401 || status === 403) throw new UsageError(NO_PERMISSION)
    if (status !== 200) throw new CallError(`GitHub gave no token: status ${status}`)
    const answer = answerSchema.safeParse(parseJson(text))
    const wrong = 'GitHub’s answer is not what was expected'
    if (!answer.success) throw new CallError(wrong)
    return checked(answer.data.value, audience, deps.now, wrong)
  } finally {
    await dispatcher.destroy()
  }
}

/** Redirects are not followed: the runner's own token would go along. */
async function askRunner(
  url: URL,
  bearer: string,
  dispatcher: Agent,
): Promise<{ readonly status: number; readonly text: string }> {
  const headers = { authorization: `Bearer ${bearer}`, accept: 'application/json' }
  for (let left = TRIES - 1; ; left -= 1) {
    try {
      const signal = AbortSignal.timeout(ANSWER_MS)
      const { statusCode, body } = await request(url, { dispatcher, headers, signal })
      const text = await body.text()
      if (statusCode < 500 || left === 0) return { status: statusCode, text }
    } catch (error) {
      if (left === 0)
        throw new CallError(`cannot reach GitHub: ${codeOf(error) ?? messageOf(error)}`)
    }
    await sleep(PAUSE_MS)
  }
}

/** The broker checks all of it; what is wrong already is said here, where the reason is known. */
function checked(
  token: string,
  audience: string | undefined,
  now: () => number,
  wrong: string,
): CiToken {
  const claims = JWT.test(token) && token.length <= MAX_TOKEN_LENGTH ? claimsOf(token) : undefined
  const { exp, aud } = claims ?? {}
  if (typeof exp !== 'number' || !Number.isFinite(exp)) throw new CallError(wrong)
  if (exp * 1000 <= now())
    throw new CallError(
      'the job’s token has ended: it lives for minutes, or as long as the job may',
    )
  if (audience !== undefined && ![aud].flat().includes(audience))
    throw new CallError(`the job’s token is not for the audience ${audience}`)
  return { token, expiresAt: exp }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
