/** Keys and credentials that are longer than a word. */
import { ALNUM, BASE64, BLANK, DIGIT, SPACE, anyOf, bytesOf, noneOf } from './classes.ts'
import type { Detector } from './detector.ts'
import type { Form, Part } from './matcher.ts'

/** Longest key between its two lines: RSA with 16,384 bits has some 13,000 bytes, a PGP key with signatures more. */
const MAX_PEM_BYTES = 32 * 1024
/** Longest base64 of a key, or of a release of Helm: that of the largest Secret. */
const MAX_BASE64_BYTES = 2 * 1024 * 1024
const MAX_HASH_BYTES = 512

/** What a key in PEM form, its headers, indentation, or its form as a JSON string consists of. */
const PEM = anyOf(bytesOf(`A-Za-z0-9+/=\\,:."'()|> -`), SPACE)
const DOLLAR = 0x24
const LABEL = bytesOf('A-Z0-9 ')
const CRYPT = bytesOf('./A-Za-z0-9')
const NO_BASE64 = noneOf(bytesOf('A-Za-z0-9+/'))
const PRINTED = noneOf(SPACE, bytesOf('\u0000-\u001f'))

/** `$ID$salt$hash`, with at most so many fields in between. */
function crypt(fields: number, min: number): Form {
  const field: Part = {
    optional: [{ run: bytesOf('./A-Za-z0-9=,'), min: 1, max: 64 }, { literal: '$' }],
  }
  return {
    parts: new Array<Part>(fields).fill(field),
    secret: { of: CRYPT, min, max: MAX_HASH_BYTES },
  }
}

export const BLOCKS: readonly Detector[] = [
  {
    id: 'private-key',
    finds: 'private keys in PEM form, PGP ones too: all between the BEGIN and the END line',
    keywords: ['BEGIN '],
    before: bytesOf('-'),
    forms: [
      {
        parts: [
          { seek: 'PRIVATE KEY', within: LABEL, max: 32 },
          { optional: [{ literal: ' BLOCK' }] },
          { literal: '-----' },
        ],
        secret: { of: PEM, min: 8, max: MAX_PEM_BYTES, untilDashes: true },
      },
    ],
  },
  {
    id: 'private-key-base64',
    finds: 'private keys in PEM form that are base64 once more, as in a Secret or a kubeconfig',
    keywords: ['LS0tLS1CRUdJTi'],
    before: NO_BASE64,
    forms: [
      {
        parts: [
          {
            // PRIVATE KEY, RSA, EC, DSA, OPENSSH, ENCRYPTED, PGP PRIVATE
            oneOf: [
              'BQUklWQVRF',
              'BSU0EgUFJJVk',
              'BFQyBQUklW',
              'BEU0EgUFJJVk',
              'BPUEVOU1NI',
              'BFTkNSWVBURUQ',
              'BQR1AgUFJJVk',
            ],
          },
        ],
        secret: { of: BASE64, min: 8, max: MAX_BASE64_BYTES },
      },
    ],
  },
  {
    id: 'docker-config',
    finds: 'logins of container registries as in a Secret (`.dockerconfigjson`)',
    keywords: ['eyJhdXRocyI6', 'ewoJImF1dGhzIj', 'ewogICJhdXRocyI6', 'ewogICAgImF1dGhzIj'],
    before: NO_BASE64,
    forms: [{ secret: { of: BASE64, min: 8, max: MAX_BASE64_BYTES } }],
  },
  {
    id: 'docker-auth',
    finds: '`"auth": "…"` of a Docker configuration',
    keywords: ['"auth"'],
    forms: [
      {
        parts: [
          { run: BLANK, min: 0, max: 8 },
          { literal: ':' },
          { run: BLANK, min: 0, max: 8 },
          { literal: '"' },
        ],
        secret: { of: BASE64, min: 8, max: 8 * 1024 },
      },
    ],
  },
  {
    id: 'helm-release',
    finds: 'releases of Helm, which hold all values (`SDRzSUFBQUFBQUF…`)',
    keywords: ['SDRzSUFBQUFBQUF'],
    before: NO_BASE64,
    forms: [{ secret: { of: BASE64, min: 8, max: MAX_BASE64_BYTES } }],
  },
  {
    id: 'password-hash',
    finds:
      'hashes of passwords as in `/etc/shadow` and `.htpasswd` (`$6$…`, `$5$…`, `$1$…`, `$y$…`, `$2b$…`, `$apr1$…`, `$argon2id$…`)',
    keywords: [
      '$6$',
      '$5$',
      '$1$',
      '$y$',
      '$gy$',
      '$7$',
      '$2a$',
      '$2b$',
      '$2y$',
      '$apr1$',
      '$argon2id$',
      '$argon2i$',
      '$argon2d$',
    ],
    before: noneOf(anyOf(ALNUM, bytesOf('_'))),
    forms: [crypt(3, 22)],
  },
  {
    id: 'netrc',
    finds: 'passwords of `.netrc` (`login … password …`)',
    keywords: ['login'],
    before: SPACE,
    forms: [
      {
        parts: [
          { run: SPACE, min: 1, max: 64 },
          { run: PRINTED, min: 1, max: 128 },
          { run: SPACE, min: 1, max: 64 },
          { literal: 'password' },
          { run: SPACE, min: 1, max: 64 },
        ],
        secret: { of: PRINTED, min: 4, max: 1024 },
      },
    ],
  },
  {
    id: 'url-password',
    finds: 'passwords in addresses (`scheme://user:password@host`)',
    keywords: ['://'],
    before: anyOf(ALNUM, bytesOf('+.-')),
    forms: [
      {
        parts: [
          { run: noneOf(SPACE, bytesOf(`/:@"'<>?#[`), bytesOf('`')), min: 0, max: 128 },
          { literal: ':' },
        ],
        secret: {
          of: noneOf(SPACE, bytesOf(`/@"'<>`), bytesOf('\u0000-\u001f')),
          min: 1,
          max: 256,
          check: (bytes, from) => bytes[from] !== DOLLAR,
        },
        then: [{ literal: '@' }],
        // behind a host stands a number
        guess: (bytes, from, to) => bytes.subarray(from, to).some((byte) => DIGIT[byte] === 0),
      },
    ],
  },
]
