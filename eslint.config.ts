/**
 * Typed lint at its strictest, and the layers of docs/architecture.md held as import rules: a folder is a
 * process, `shared` imports none of them, none imports another, and the packages that belong to one room
 * are importable in that room only.
 */
import js from '@eslint/js'
import comments from '@eslint-community/eslint-plugin-eslint-comments/configs'
import tsdoc from 'eslint-plugin-tsdoc'
import { defineConfig } from 'eslint/config'
import tseslint from 'typescript-eslint'

const processes = ['webhook', 'sidecar', 'broker', 'cli'] as const

/** Packages with one home: everywhere else their import is an error. */
const homes = {
  // first: the rooms within this one repeat it
  kysely: ['broker/store/**/*.ts', 'broker/store/postgres/**/*.ts', 'broker/store/sqlite/**/*.ts'],
  express: ['webhook/server.ts', 'broker/api/**/*.ts', 'broker/pages/**/*.ts'],
  'http-proxy-middleware': ['sidecar/forward.ts'],
  'fast-json-patch': ['shared/injection/patch.ts'],
  'node-forge': ['scripts/**/*.ts', 'cli/certificates.ts'],
  'node:sqlite': ['broker/store/sqlite/**/*.ts', 'cli/login-store.ts', 'bench/ledger.ts'],
  pg: ['broker/store/postgres/**/*.ts', 'bench/ledger.ts'],
  commander: ['cli/**/*.ts'],
  diff: ['broker/approvals/preview-text.ts'],
  '@bufbuild/cel': ['shared/policy/condition*.ts'],
} as const

function layer(folder: string, forbidden: readonly string[]): object {
  return {
    group: forbidden.map((name) => `**/${name}/**`),
    message: `${folder} must not import ${forbidden.join(', ')}: processes speak HTTP, shared stands alone`,
  }
}

function packagesBannedIn(file: (homePatterns: readonly string[]) => boolean): object[] {
  return Object.entries(homes)
    .filter(([, patterns]) => !file(patterns))
    .map(([name, patterns]) => ({ name, message: `${name} belongs to ${patterns.join(', ')}` }))
}

/** One block per home, because a later block replaces the whole rule: each repeats its folder's layer ban. */
function importRules(): object[] {
  const blocks: object[] = []
  const folders = [...processes, 'shared', 'bench', 'scripts'] as const
  for (const folder of folders) {
    const others = processes.filter((name) => name !== folder)
    const patterns = folder !== 'bench' && folder !== 'scripts' ? [layer(folder, others)] : []
    const rule = (home?: string): object => ({
      'no-restricted-imports': [
        'error',
        { patterns, paths: packagesBannedIn((list) => home !== undefined && list.includes(home)) },
      ],
    })
    blocks.push({ files: [`${folder}/**/*.ts`], rules: rule() })
    const own = new Set(
      Object.values(homes)
        .flat()
        .filter((pattern) => pattern.startsWith(`${folder}/`)),
    )
    // A single file's block comes after those of patterns that cover it, or they would take its exception back.
    const patternsFirst = [...own].sort((a, b) => Number(b.includes('*')) - Number(a.includes('*')))
    for (const home of patternsFirst) blocks.push({ files: [home], rules: rule(home) })
  }
  return blocks
}

export default defineConfig(
  { ignores: ['dist/', 'build/', 'node_modules/', 'coverage/', '**/*.d.ts'] },
  js.configs.recommended,
  tseslint.configs.strictTypeChecked,
  tseslint.configs.stylisticTypeChecked,
  comments.recommended,
  {
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    plugins: { tsdoc },
    rules: {
      eqeqeq: 'error',
      complexity: ['error', 12],
      'max-lines': ['error', { max: 400, skipBlankLines: true, skipComments: true }],
      'max-lines-per-function': ['error', { max: 60, skipBlankLines: true, skipComments: true }],
      'tsdoc/syntax': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/consistent-type-assertions': ['error', { assertionStyle: 'never' }],
      '@typescript-eslint/consistent-type-definitions': ['error', 'interface'],
      '@eslint-community/eslint-comments/require-description': 'error',
      'no-restricted-properties': [
        'error',
        { object: 'process', property: 'env', message: 'read configuration in config.ts' },
      ],
    },
  },
  {
    // the auditor's script: plain JavaScript, no types to check
    files: ['scripts/*.mjs'],
    extends: [tseslint.configs.disableTypeChecked],
    languageOptions: {
      parserOptions: { projectService: false },
      globals: { Buffer: 'readonly', console: 'readonly', process: 'readonly' },
    },
    rules: { complexity: 'off', 'max-lines': 'off', 'max-lines-per-function': 'off' },
  },
  {
    // scripts of pages: plain JavaScript, whose types `tsc -p broker/pages/browser` checks
    files: ['broker/pages/browser/*.js'],
    extends: [tseslint.configs.disableTypeChecked],
    languageOptions: {
      parserOptions: { projectService: false },
      globals: Object.fromEntries(
        ['document', 'fetch', 'history', 'HTMLElement', 'HTMLSelectElement', 'location', 'Node']
          .concat(['performance', 'TextDecoderStream', 'URLSearchParams', 'window'])
          .map((name) => [name, 'readonly']),
      ),
    },
    // JSDoc: the types stand in the comments
    rules: { 'tsdoc/syntax': 'off' },
  },
  ...importRules(),
  {
    files: ['*/config.ts', 'shared/config.ts', 'cli/main.ts', 'scripts/**', 'bench/**', 'test/**'],
    rules: { 'no-restricted-properties': 'off' },
  },
  {
    files: ['test/**/*.ts', 'bench/**/*.ts', 'scripts/**/*.ts'],
    rules: {
      complexity: 'off',
      'max-lines': 'off',
      'max-lines-per-function': 'off',
      '@typescript-eslint/consistent-type-assertions': 'off',
      '@typescript-eslint/no-unused-expressions': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
    },
  },
)
