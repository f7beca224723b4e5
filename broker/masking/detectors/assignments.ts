/** Secrets that show by the name that they are given: in environments, YAML, JSON, headers, options. */
import { BASE64, BLANK, CONTROL, DIGIT, bytesOf, noneOf, type ByteClass } from './classes.ts'
import { assigned, assignedNoWord, mixed, type Check } from './checks.ts'
import type { Detector } from './detector.ts'
import type { Form, Part } from './matcher.ts'

/** Shortest value that counts: shorter ones are mostly none. */
const MIN_VALUE_BYTES = 6
/** Longest value; what is behind stays, so that no name hides the rest of a stream. */
const MAX_VALUE_BYTES = 4096
/** Longest key of a kubeconfig, in base64. */
const MAX_KEY_BYTES = 64 * 1024
/** Most blanks between a name and its value: columns are aligned. */
const MAX_BLANKS = 32

const COLOURS: Part = { colours: true }
const BLANKS: Part = { run: BLANK, min: 0, max: MAX_BLANKS }
/** Quotes behind a quoted name, escaped where JSON stands in JSON, and the bracket of `env['NAME']`. */
const NAME_END: Part = { run: bytesOf(`"'\\]`), min: 0, max: 3 }

/** A value without quotes ends at a blank, at a quote, and at the `&` of a query. */
const BARE = noneOf(BLANK, CONTROL, bytesOf(`"'<>&\\`), bytesOf('`'))
const IN_DOUBLE = noneOf(CONTROL, bytesOf('"'))
const IN_SINGLE = noneOf(CONTROL, bytesOf(`'`))
const IN_ESCAPED = noneOf(CONTROL, bytesOf(`"\\`))
const HEADER_VALUE = bytesOf('A-Za-z0-9._~+/=-')

/** What may stand between a name and the separator. */
const NAME_ENDS: readonly Part[] = [COLOURS, NAME_END, COLOURS, BLANKS, COLOURS]

/** The separator, and what may stand between it and the value. */
function separator(texts: readonly string[]): readonly Part[] {
  return [{ oneOf: texts }, { not: bytesOf('=~') }, COLOURS, BLANKS, COLOURS]
}

/** The value in each way of quoting. */
function valueForms(lead: readonly Part[], check: Check, min = MIN_VALUE_BYTES): readonly Form[] {
  const form = (quote: string, of: ByteClass, escapes?: true): Form => ({
    parts: quote === '' ? lead : [...lead, { literal: quote }, COLOURS],
    secret: { of, min, max: MAX_VALUE_BYTES, check, ...(escapes && { escapes }) },
  })
  return [form('"', IN_DOUBLE, true), form('\\"', IN_ESCAPED), form("'", IN_SINGLE), form('', BARE)]
}

const EQUALS = [':=', '=>', '=']
const EITHER = [...EQUALS, ':']
/** After a password anything is one. */
const PASSWORD_FORMS = valueForms([], assigned)
/** Behind a colon that ends a word of prose, a word is none. */
const KEY_FORMS = [
  ...valueForms(separator(EQUALS), assigned),
  ...valueForms(separator([':']), assignedNoWord),
]
/** What may stand between the words of a name. */
const JOINT: Part = { optional: [{ oneOf: ['_', '-', '.', ' '] }] }
const ACCESS_SUFFIX: Part = { optional: [JOINT, { literal: 'access', fold: true }] }
const KEY_SUFFIX: Part = { optional: [JOINT, { literal: 'key', fold: true }] }
const BASE_SUFFIX: Part = { optional: [{ literal: '_base', fold: true }] }

export const ASSIGNMENTS: readonly Detector[] = [
  {
    id: 'authorization',
    finds: '`Authorization: Bearer …`, `Basic …` and other schemes, and `Proxy-Authorization`',
    keywords: ['authorization'],
    fold: true,
    lead: [...NAME_ENDS, ...separator(EITHER), { run: bytesOf(`"'\\[`), min: 0, max: 4 }],
    forms: [
      {
        parts: [
          { oneOf: ['bearer', 'basic', 'token', 'negotiate', 'apikey', 'digest'], fold: true },
          { run: BLANK, min: 1, max: MAX_BLANKS },
          COLOURS,
        ],
        secret: { of: HEADER_VALUE, min: 6, max: MAX_VALUE_BYTES },
      },
      { secret: { of: HEADER_VALUE, min: 16, max: MAX_VALUE_BYTES, check: mixed } },
    ],
  },
  {
    id: 'bearer',
    finds: '`Bearer …` with letters and digits behind it',
    keywords: ['bearer '],
    fold: true,
    forms: [{ secret: { of: HEADER_VALUE, min: 16, max: MAX_VALUE_BYTES, check: mixed } }],
  },
  {
    id: 'cookie',
    finds: '`Cookie:` and `Set-Cookie:`, the whole line',
    keywords: ['cookie: '],
    fold: true,
    forms: [{ secret: { of: noneOf(CONTROL, bytesOf(`"'`)), min: 8, max: MAX_VALUE_BYTES } }],
  },
  {
    id: 'client-key-data',
    finds: '`client-key-data` of a kubeconfig',
    keywords: ['client-key-data'],
    lead: [...NAME_ENDS, ...separator([':', '=']), { run: bytesOf(`"'`), min: 0, max: 1 }],
    forms: [{ secret: { of: BASE64, min: 8, max: MAX_KEY_BYTES } }],
  },
  {
    id: 'password',
    finds:
      '`password`, `passwd`, `passphrase`, `pwd` at the end of a name, and the value that follows `=` or `:`',
    keywords: ['password', 'passwd', 'passphrase', 'pwd', '_pass', 'rediscli_auth'],
    fold: true,
    lead: [{ run: DIGIT, min: 0, max: 2 }, ...NAME_ENDS, ...separator(EITHER)],
    forms: PASSWORD_FORMS,
  },
  {
    id: 'secret',
    finds:
      '`secret`, `secret_key`, `secret_access_key`, … at the end of a name, and the value that follows',
    keywords: ['secret'],
    fold: true,
    lead: [ACCESS_SUFFIX, KEY_SUFFIX, BASE_SUFFIX, ...NAME_ENDS],
    forms: KEY_FORMS,
  },
  {
    id: 'token',
    finds: '`token` at the end of a name, and the value that follows',
    keywords: ['token'],
    fold: true,
    lead: NAME_ENDS,
    forms: KEY_FORMS,
  },
  {
    id: 'key',
    finds:
      '`api_key`, `access_key`, `private_key`, `account_key`, `encryption_key`, `signing_key`, `auth_key`, `master_key` in any spelling, and the value that follows',
    keywords: ['api', 'access', 'private', 'account', 'encryption', 'signing', 'auth', 'master'],
    fold: true,
    lead: [JOINT, { literal: 'key', fold: true }, ...NAME_ENDS],
    forms: KEY_FORMS,
  },
  {
    id: 'environment-url',
    finds: 'values of `DSN` and `CONNECTION_STRING`',
    keywords: ['connection_string', 'connectionstring', '_dsn'],
    fold: true,
    lead: [...NAME_ENDS, ...separator(EITHER)],
    forms: valueForms([], assigned, 16),
  },
]
