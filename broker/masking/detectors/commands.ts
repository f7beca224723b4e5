/** Secrets in the words of commands, where they stand in a text: behind options that take one. */
import { BLANK, CONTROL, WORD, anyOf, bytesOf, noneOf } from './classes.ts'
import { assignedNoWord } from './checks.ts'
import type { Detector } from './detector.ts'
import type { Form, Part } from './matcher.ts'

const MAX_ARGUMENT_BYTES = 1024
/** How far behind the name of a program its option is looked for. */
const MAX_BETWEEN_BYTES = 120

const ARGUMENT = noneOf(BLANK, CONTROL, bytesOf(`"'`), bytesOf('`'))
/** Between a program and its option: one command, on one line, that assigns nothing. */
const BETWEEN = noneOf(CONTROL, bytesOf('|;&='))
const QUOTE: Part = { run: bytesOf(`"'`), min: 0, max: 1 }
const NO_NAME = noneOf(anyOf(WORD, bytesOf('.-')))

/** The word behind an option of a program. */
function option(flag: string, min = 1): Form {
  return {
    parts: [{ seek: flag, within: BETWEEN, max: MAX_BETWEEN_BYTES }, QUOTE],
    secret: { of: ARGUMENT, min, max: MAX_ARGUMENT_BYTES, check: notReference },
  }
}

function notReference(bytes: Buffer, from: number): boolean {
  return bytes[from] !== 0x24
}

export const COMMANDS: readonly Detector[] = [
  {
    id: 'option',
    finds: 'the word behind `--password`, `--token`, `--secret`, `--api-key` and the like',
    keywords: [
      '--password',
      '--passwd',
      '--passphrase',
      '--token',
      '--secret',
      '--client-secret',
      '--api-key',
      '--access-key',
      '--secret-key',
    ],
    forms: [
      {
        parts: [{ run: BLANK, min: 1, max: 8 }, QUOTE, { not: bytesOf('-') }],
        secret: { of: ARGUMENT, min: 4, max: MAX_ARGUMENT_BYTES, check: assignedNoWord },
      },
    ],
  },
  {
    id: 'mysql-password',
    finds: '`-p…` of mysql, mysqldump, mysqladmin, mariadb',
    keywords: ['mysql', 'mariadb'],
    before: NO_NAME,
    forms: [option(' -p', 4)],
  },
  {
    id: 'curl-user',
    finds: '`-u user:…` of curl',
    keywords: ['curl '],
    before: NO_NAME,
    forms: [
      {
        parts: [
          { seek: '-u', within: BETWEEN, max: MAX_BETWEEN_BYTES },
          { optional: [{ literal: 'ser' }] },
          { run: bytesOf(` ='"`), min: 0, max: 3 },
          { run: noneOf(BLANK, CONTROL, bytesOf(`:/"'`)), min: 1, max: 64 },
          { literal: ':' },
        ],
        secret: { of: ARGUMENT, min: 3, max: MAX_ARGUMENT_BYTES, check: notReference },
      },
    ],
  },
  {
    id: 'sshpass',
    finds: '`sshpass -p …`',
    keywords: ['sshpass -p'],
    forms: [
      {
        parts: [{ run: BLANK, min: 0, max: 8 }, QUOTE],
        secret: { of: ARGUMENT, min: 3, max: MAX_ARGUMENT_BYTES, check: notReference },
      },
    ],
  },
  {
    id: 'redis-password',
    finds: '`-a …` of redis-cli',
    keywords: ['redis-cli'],
    forms: [option(' -a ', 3)],
  },
]
