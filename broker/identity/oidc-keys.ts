/**
 * The keys of one issuer: found by its discovery document, kept, asked for again when a token names a key that is not
 * among them. An issuer that cannot be reached, or answers garbage, makes nobody anybody: known keys are good for an hour.
 */
import { readFile } from 'node:fs/promises'
import { createLocalJWKSet } from 'jose'
import type { JSONWebKeySet } from 'jose'
import { Agent, request } from 'undici'
import { z } from 'zod'
import { codeOf, messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import type { IssuerSettings } from './oidc-config.ts'

/** How long keys are used without asking again, in milliseconds. */
export const KEYS_FRESH_MS = 10 * 60_000
/** How long known keys are used while the issuer does not answer, in milliseconds. */
export const KEYS_STALE_MS = 60 * 60_000
/** How soon an issuer is asked again after it was asked, in milliseconds: an unknown key costs a request at most this often. */
export const ASK_AGAIN_MS = 10_000
/** Longest wait for an answer, in milliseconds, and longest answer, in bytes. */
const ANSWER_MS = 5_000
const MAX_ANSWER_BYTES = 256 * 1024

const discoverySchema = z.object({
  issuer: z.string(),
  jwks_uri: z.url({ protocol: /^https$/ }),
})
const jwksSchema = z.object({
  keys: z.array(z.looseObject({ kty: z.string() })).max(100),
})

/** Finds a token's key. */
export type KeySet = ReturnType<typeof createLocalJWKSet>

/** See the head of the file. */
export interface IssuerKeys {
  /** The keys as they are known; undefined where none can be had. */
  current(): Promise<KeySet | undefined>
  /** Asks for the keys again, unless that was done just now. @returns whether there may be new ones */
  refresh(): Promise<boolean>
}

/** @param deps - `now` in milliseconds since the epoch */
export function createIssuerKeys(
  settings: Pick<IssuerSettings, 'name' | 'issuer' | 'caFile'>,
  deps: { readonly log: Logger; readonly now: () => number },
): IssuerKeys {
  const { log, now } = deps
  let known: { keys: KeySet; fetchedMs: number } | undefined
  let askedMs = -Infinity
  let asking: Promise<void> | undefined

  const ask = (): Promise<void> => {
    askedMs = now()
    asking ??= fetchKeys(settings)
      .then(
        (jwks) => {
          known = { keys: createLocalJWKSet(jwks), fetchedMs: now() }
        },
        (error: unknown) => {
          const problem = codeOf(error) ?? messageOf(error)
          log.warn({ issuer: settings.name, problem }, 'the keys of an issuer could not be read')
        },
      )
      .finally(() => {
        asking = undefined
      })
    return asking
  }
  const mayAsk = (): boolean => asking !== undefined || askedMs + ASK_AGAIN_MS <= now()
  const age = (): number => (known === undefined ? Infinity : now() - known.fetchedMs)

  return {
    async current() {
      if (age() >= KEYS_STALE_MS) {
        if (mayAsk()) await (asking ?? ask())
      } else if (age() >= KEYS_FRESH_MS && asking === undefined && mayAsk()) {
        // one waits, or the first token after a pause would be checked with keys of long ago; the others need not
        await ask()
      }
      return age() < KEYS_STALE_MS ? known?.keys : undefined
    },
    async refresh() {
      if (!mayAsk()) return false
      await (asking ?? ask())
      return true
    },
  }
}

async function fetchKeys({
  issuer,
  caFile,
}: Pick<IssuerSettings, 'issuer' | 'caFile'>): Promise<JSONWebKeySet> {
  const ca = caFile === undefined ? {} : { ca: await readFile(caFile, 'utf8') }
  // made anew each time, so that a renewed authority counts; keys are asked for rarely
  const dispatcher = new Agent({
    connect: { timeout: ANSWER_MS, rejectUnauthorized: true, ...ca },
    maxResponseSize: MAX_ANSWER_BYTES,
  })
  try {
    const base = issuer.endsWith('/') ? issuer.slice(0, -1) : issuer
    const found = discoverySchema.parse(
      await getJson(`${base}/.well-known/openid-configuration`, dispatcher),
    )
    if (found.issuer !== issuer) throw new Error('the discovery document is another issuer’s')
    return jwksSchema.parse(await getJson(found.jwks_uri, dispatcher))
  } finally {
    await dispatcher.destroy()
  }
}

/** Redirects are not followed: undici follows none unless told to. */
async function getJson(url: string, dispatcher: Agent): Promise<unknown> {
  const { statusCode, body } = await request(url, {
    dispatcher,
    headers: { accept: 'application/json' },
    // the other limits are for each pause of an answer
    signal: AbortSignal.timeout(ANSWER_MS),
    headersTimeout: ANSWER_MS,
    bodyTimeout: ANSWER_MS,
  })
  if (statusCode !== 200) throw new Error(`status ${statusCode}`)
  return body.json()
}
