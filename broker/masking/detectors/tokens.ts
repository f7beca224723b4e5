/** Secrets that show by their own form, wherever they stand. Forms are those that the issuers document, or that their tokens have. */
import {
  ALNUM,
  DIGIT,
  HEX,
  URL64,
  WORD,
  anyOf,
  bytesOf,
  noneOf,
  type ByteClass,
} from './classes.ts'
import { mixed } from './checks.ts'
import type { Detector } from './detector.ts'
import type { Form, Part, Secret } from './matcher.ts'

/** Longest of a token without a length of its own. */
const MAX_TOKEN_BYTES = 1024
/** Longest header of a JSON Web Token, in base64url. */
const MAX_JWT_HEADER_BYTES = 2048
/** Longest rest of a JSON Web Token. */
const MAX_JWT_BYTES = 16 * 1024

/** Before a token stands no letter, digit or underscore. */
const EDGE = noneOf(WORD)
/** Nor a dash, where a token is hard to tell from a part of a longer name. */
const WIDE_EDGE = noneOf(URL64)
const LOWER_ALNUM = bytesOf('a-z0-9')
const UPPER_ALNUM = bytesOf('A-Z0-9')
const DOTTED = anyOf(URL64, bytesOf('.'))
/** What may stand between the word token and one. */
const BEHIND_WORD: readonly Part[] = [{ run: bytesOf(` \t:="'`), min: 1, max: 32 }]
const PERCENT64 = bytesOf('A-Za-z0-9+/=%')

/** Of at least `min` bytes. */
function rest(of: ByteClass, min: number, max = MAX_TOKEN_BYTES): Form {
  return { secret: { of, min, max } }
}

/** Of exactly so many bytes, and no more of the kind behind them. */
function exactly(of: ByteClass, length: number, ends: ByteClass = of): Form {
  return { secret: { of, min: length, max: length }, then: [{ not: ends }] }
}

function behind(parts: readonly Part[], secret: Secret): Form {
  return { parts, secret }
}

/** A row whose keywords are the prefixes of the tokens. */
function prefixed(
  id: string,
  finds: string,
  keywords: readonly string[],
  ...forms: readonly Form[]
): Detector {
  return { id, finds, keywords, before: EDGE, forms }
}

/** Two letters and each hexadecimal digit, where a prefix alone is shorter than a keyword may be. */
function withHexDigit(prefix: string): readonly string[] {
  return Array.from('0123456789abcdef', (digit) => prefix + digit)
}

export const TOKENS: readonly Detector[] = [
  prefixed(
    'aws-access-key-id',
    'AWS access key ids (`AKIA…`, `ASIA…`, …)',
    ['AKIA', 'ASIA', 'ABIA', 'ACCA'],
    exactly(bytesOf('A-Z2-7'), 16, WORD),
  ),
  prefixed('google-api-key', 'Google API keys (`AIza…`)', ['AIza'], exactly(URL64, 35)),
  prefixed(
    'google-oauth',
    'Google OAuth access tokens and client secrets (`ya29.…`, `GOCSPX-…`)',
    ['ya29.', 'GOCSPX-'],
    rest(URL64, 20),
  ),
  prefixed(
    'github',
    'GitHub tokens (`ghp_…`, `gho_…`, `ghu_…`, `ghs_…`, `ghr_…`, `github_pat_…`)',
    ['ghp_', 'gho_', 'ghu_', 'ghs_', 'ghr_', 'github_pat_'],
    rest(WORD, 30),
  ),
  prefixed(
    'gitlab',
    'GitLab tokens (`glpat-…`, `gldt-…`, `glrt-…`, `glcbt-…`, `glptt-…`, `glft-…`, `glimt-…`, `glagent-…`, `gloas-…`, `glsoat-…`)',
    [
      'glpat-',
      'gldt-',
      'glrt-',
      'glcbt-',
      'glptt-',
      'glft-',
      'glimt-',
      'glagent-',
      'gloas-',
      'glsoat-',
    ],
    rest(DOTTED, 18),
  ),
  prefixed(
    'slack',
    'Slack tokens (`xoxb-…`, `xoxp-…`, `xoxa-…`, `xoxr-…`, `xoxs-…`, `xoxe-…`, `xoxc-…`, `xoxd-…`, `xapp-…`)',
    ['xoxb-', 'xoxp-', 'xoxa-', 'xoxr-', 'xoxs-', 'xoxe-', 'xoxe.', 'xoxc-', 'xoxd-', 'xapp-'],
    rest(anyOf(DOTTED, bytesOf('%')), 10),
  ),
  {
    id: 'webhook-url',
    finds: 'addresses of Slack, Discord and Teams webhooks, which are credentials',
    keywords: [
      'hooks.slack.com/services/',
      'hooks.slack.com/workflows/',
      'hooks.slack.com/triggers/',
      'discord.com/api/webhooks/',
      'discordapp.com/api/webhooks/',
      'webhook.office.com/webhookb2/',
    ],
    forms: [rest(anyOf(DOTTED, bytesOf('/@')), 20)],
  },
  prefixed(
    'stripe',
    'Stripe keys (`sk_live_…`, `rk_live_…`, the `_test_` ones, `whsec_…`)',
    ['sk_live_', 'rk_live_', 'sk_test_', 'rk_test_', 'whsec_'],
    rest(bytesOf('A-Za-z0-9+/='), 16),
  ),
  prefixed('npm', 'npm tokens (`npm_…`)', ['npm_'], exactly(ALNUM, 36)),
  prefixed('pypi', 'PyPI tokens (`pypi-AgEI…`)', ['pypi-AgEI', 'pypi-AgEN'], rest(URL64, 30)),
  prefixed('rubygems', 'RubyGems keys (`rubygems_…`)', ['rubygems_'], exactly(HEX, 48)),
  prefixed(
    'docker-hub',
    'Docker Hub tokens (`dckr_pat_…`, `dckr_oat_…`)',
    ['dckr_pat_', 'dckr_oat_'],
    rest(URL64, 20),
  ),
  prefixed(
    'vault',
    'HashiCorp Vault and OpenBao tokens (`hvs.…`, `hvb.…`, `hvr.…`)',
    ['hvs.', 'hvb.', 'hvr.'],
    rest(URL64, 20),
  ),
  {
    id: 'vault-legacy',
    finds: 'older Vault tokens (`s.…`, `b.…`) behind the word token',
    keywords: ['token'],
    fold: true,
    lead: BEHIND_WORD,
    forms: ['s.', 'b.'].map((prefix) => ({
      parts: [{ literal: prefix }],
      ...exactly(ALNUM, 24, URL64),
    })),
  },
  {
    id: 'bootstrap-token',
    finds: 'Kubernetes bootstrap tokens (`abcdef.0123456789abcdef`) behind the word token',
    keywords: ['token'],
    fold: true,
    lead: BEHIND_WORD,
    forms: [
      {
        parts: [{ run: LOWER_ALNUM, min: 6, max: 6 }, { literal: '.' }],
        ...exactly(LOWER_ALNUM, 16, DOTTED),
      },
    ],
  },
  {
    id: 'jwt',
    finds:
      'signed tokens in JOSE form (`eyJ….eyJ….…`), such as those of service accounts: all but the header',
    keywords: ['eyJ'],
    before: WIDE_EDGE,
    forms: [
      behind([{ run: URL64, min: 8, max: MAX_JWT_HEADER_BYTES }, { literal: '.eyJ' }], {
        of: DOTTED,
        min: 10,
        max: MAX_JWT_BYTES,
      }),
    ],
  },
  {
    id: 'jwt-base64',
    finds: 'tokens in JOSE form that are base64 once more, as in a Secret',
    keywords: ['ZXlKaGJHY2lPaUp', 'ZXlKMGVYQWlPaUp', 'ZXlKcmFXUWlPaUp'],
    before: noneOf(bytesOf('A-Za-z0-9+/')),
    forms: [rest(bytesOf('A-Za-z0-9+/='), 20, MAX_JWT_BYTES)],
  },
  {
    id: 'anthropic',
    finds: 'Anthropic keys (`sk-ant-…`)',
    keywords: ['sk-ant-'],
    before: WIDE_EDGE,
    forms: [rest(URL64, 20)],
  },
  {
    id: 'openai',
    finds: 'OpenAI keys, and those of services like it (`sk-…`, `sk-proj-…`, `sk-svcacct-…`)',
    keywords: ['sk-'],
    before: WIDE_EDGE,
    forms: [
      behind([{ oneOf: ['proj-', 'svcacct-', 'admin-', 'or-v1-'] }], {
        of: URL64,
        min: 20,
        max: MAX_TOKEN_BYTES,
        check: mixed,
      }),
      { secret: { of: ALNUM, min: 32, max: 128, check: mixed } },
    ],
  },
  prefixed(
    'hugging-face',
    'Hugging Face tokens (`hf_…`)',
    ['hf_'],
    exactly(bytesOf('A-Za-z'), 34, WORD),
  ),
  prefixed('sendgrid', 'SendGrid keys (`SG.….…`)', ['SG.'], {
    parts: [{ run: URL64, min: 22, max: 22 }, { literal: '.' }],
    ...exactly(URL64, 43),
  }),
  prefixed(
    'twilio',
    'Twilio API keys (`SK…`, 32 hexadecimal digits)',
    withHexDigit('SK'),
    exactly(HEX, 31, WORD),
  ),
  {
    id: 'telegram',
    finds: 'Telegram bot tokens (`123456789:AA…`)',
    keywords: [':AA'],
    before: DIGIT,
    forms: [exactly(URL64, 33)],
  },
  prefixed(
    'digitalocean',
    'DigitalOcean tokens (`dop_v1_…`, `doo_v1_…`, `dor_v1_…`)',
    ['dop_v1_', 'doo_v1_', 'dor_v1_'],
    exactly(HEX, 64),
  ),
  prefixed('cloudflare', 'Cloudflare origin CA keys (`v1.0-…`)', ['v1.0-'], {
    parts: [{ run: HEX, min: 24, max: 24 }, { literal: '-' }],
    ...exactly(HEX, 146),
  }),
  prefixed('databricks', 'Databricks tokens (`dapi…`)', ['dapi'], exactly(HEX, 32, WORD)),
  prefixed(
    'shopify',
    'Shopify tokens (`shpat_…`, `shpca_…`, `shppa_…`, `shpss_…`)',
    ['shpat_', 'shpca_', 'shppa_', 'shpss_'],
    exactly(HEX, 32, WORD),
  ),
  prefixed(
    'atlassian',
    'Atlassian tokens (`ATATT3…`, `ATCTT3…`, `ATBB…`)',
    ['ATATT3', 'ATCTT3', 'ATBB'],
    { secret: { of: bytesOf('A-Za-z0-9_=-'), min: 28, max: MAX_TOKEN_BYTES, check: mixed } },
  ),
  prefixed(
    'grafana',
    'Grafana tokens (`glsa_…`, `glc_…`)',
    ['glsa_', 'glc_'],
    rest(bytesOf('A-Za-z0-9_+/='), 30),
  ),
  prefixed('new-relic', 'New Relic keys (`NRAK-…`)', ['NRAK-'], exactly(UPPER_ALNUM, 27)),
  prefixed(
    'sentry',
    'Sentry tokens (`sntrys_…`, `sntryu_…`)',
    ['sntrys_', 'sntryu_'],
    rest(bytesOf('A-Za-z0-9_+/='), 30),
  ),
  prefixed('linear', 'Linear keys (`lin_api_…`)', ['lin_api_'], rest(ALNUM, 32)),
  prefixed('postman', 'Postman keys (`PMAK-…`)', ['PMAK-'], rest(bytesOf('a-f0-9-'), 50)),
  prefixed('tailscale', 'Tailscale keys (`tskey-…`)', ['tskey-'], rest(URL64, 16)),
  prefixed(
    'doppler',
    'Doppler tokens (`dp.pt.…`, `dp.st.…`)',
    ['dp.pt.', 'dp.st.'],
    rest(DOTTED, 40),
  ),
  prefixed(
    'planetscale',
    'PlanetScale passwords and tokens (`pscale_pw_…`, `pscale_tkn_…`)',
    ['pscale_pw_', 'pscale_tkn_'],
    rest(DOTTED, 30),
  ),
  prefixed('jfrog', 'JFrog keys (`AKCp…`)', ['AKCp'], rest(ALNUM, 60)),
  prefixed(
    'age',
    'age secret keys (`AGE-SECRET-KEY-1…`)',
    ['AGE-SECRET-KEY-1'],
    rest(UPPER_ALNUM, 50),
  ),
  {
    id: 'azure-storage-key',
    finds: 'keys in Azure connection strings (`AccountKey=…`, `SharedAccessKey=…`)',
    keywords: ['AccountKey=', 'SharedAccessKey='],
    forms: [rest(bytesOf('A-Za-z0-9+/='), 40, 128)],
  },
  {
    id: 'azure-sas',
    finds: 'signatures of addresses (`sig=…` of Azure, `X-Amz-Signature=…`, `X-Goog-Signature=…`)',
    keywords: ['?sig=', '&sig=', 'X-Amz-Signature=', 'X-Goog-Signature=', 'Amz-Security-Token='],
    forms: [rest(PERCENT64, 30, 2048)],
  },
]
