/** Which OIDC issuers vouch for people and pipelines, as the operator configures them. */
import { z } from 'zod'
import { ROLES } from './roles.ts'

/** Signature algorithms that may be configured: asymmetric ones only, so that no public key can be taken for a secret. */
export const ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
] as const
const DEFAULT_ALGORITHMS = ['RS256', 'PS256', 'ES256', 'EdDSA'] as const
/** Kinds of tokens; ci-claims.ts reads those of the CI systems. */
export const PROFILES = ['generic', 'github', 'gitlab'] as const
const DEFAULT_TOLERANCE_S = 5
const MAX_TOLERANCE_S = 60
/** A day; at most a month. */
const DEFAULT_LIFE_S = 24 * 3600
const MAX_LIFE_S = 31 * 24 * 3600
const MAX_ISSUERS = 20
const CI_CLAIMS = 3

const text = z.string().min(1).max(512)
const words = z.array(text).min(1).max(100)

const issuerSchema = z.strictObject({
  /** Short name; the default prefix of its subjects. */
  name: z.string().regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'expected a DNS label'),
  /** As tokens have it in `iss`; its discovery document is below it. */
  issuer: z.url({ protocol: /^https$/, error: 'expected an https URL' }),
  /** A token must be for one of these. */
  audiences: words,
  /** Certificates that the issuer's own must be signed by, PEM; without it those that Node knows. */
  caFile: text.optional(),
  /** Claim that names the subject. */
  usernameClaim: text.default('sub'),
  /** Put before it; by default the issuer's name and a colon, so that no two issuers can name the same subject. */
  usernamePrefix: z.string().max(100).optional(),
  groupsClaim: text.optional(),
  groupsPrefix: z.string().max(100).default(''),
  /** What kind of tokens these are: those of a CI system say which repository, ref and run they are for. */
  profile: z.enum(PROFILES).default('generic'),
  /** Claims to read these from, as they are, instead of those that the profile knows. */
  claims: z.strictObject({ repository: text, ref: text, run: text }).partial().default({}),
  /** Each claim must have this value, or one of these. */
  requiredClaims: z.record(text, z.union([text, words])).default({}),
  algorithms: z
    .array(z.enum(ALGORITHMS))
    .min(1)
    .default([...DEFAULT_ALGORITHMS]),
  clockToleranceSeconds: z.int().min(0).max(MAX_TOLERANCE_S).default(DEFAULT_TOLERANCE_S),
  /** How long a token may be good for, from `iat` to `exp`. */
  maxTokenLifeSeconds: z.int().min(1).max(MAX_LIFE_S).default(DEFAULT_LIFE_S),
  /** Which groups have which role in the broker's own API. */
  roles: z.partialRecord(z.enum(ROLES), words).default({}),
  /** How people sign in with `nestgate login`. */
  login: z
    .strictObject({
      clientId: text,
      scopes: words.default(['openid', 'profile', 'offline_access']),
      flows: z
        .array(z.enum(['browser', 'device']))
        .min(1)
        .default(['browser', 'device']),
    })
    .optional(),
})

/** One issuer. */
export type IssuerSettings = z.infer<typeof issuerSchema>

/** All of them. */
export const oidcSchema = z
  .array(issuerSchema)
  .max(MAX_ISSUERS)
  .superRefine((issuers, context) => {
    for (const key of ['name', 'issuer'] as const) {
      const seen = new Set<string>()
      for (const [index, issuer] of issuers.entries()) {
        const value = issuer[key]
        if (seen.has(value)) {
          const message = `${value} is there twice`
          context.addIssue({ code: 'custom', path: [index, key], message })
        }
        seen.add(value)
      }
    }
    const prefixes = issuers.map(({ name, usernamePrefix }) => usernamePrefix ?? `${name}:`)
    for (const [index, prefix] of prefixes.entries()) {
      // with `a:` and `a:b:` the one issuer could name what the other does
      const other = prefixes.findIndex((one, at) => at < index && meets(one, prefix))
      if (other === -1) continue
      const message = `issuer ${issuers[other]?.name ?? ''} could name the same subjects: of two prefixes none may begin with the other`
      context.addIssue({ code: 'custom', path: [index, 'usernamePrefix'], message })
    }
    for (const [index, { profile, claims }] of issuers.entries()) {
      const named = Object.keys(claims).length
      if (profile !== 'generic' || named === 0 || named === CI_CLAIMS) continue
      const message = 'without a profile, all of repository, ref and run must be named'
      context.addIssue({ code: 'custom', path: [index, 'claims'], message })
    }
  })

function meets(a: string, b: string): boolean {
  return a.startsWith(b) || b.startsWith(a)
}
