/**
 * Golden cases of the webhook: a folder each, found by listing. `pod.json` is what an author sends,
 * `options.json` (optional) what is special about cluster and settings, `expected.json` the patch and the
 * injected pod, `denied.json` the denial instead. Both sides, the test and the script that rewrites, come here.
 */
import { readFileSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { join } from 'node:path'
import type {
  InjectionSettings,
  SidecarMode,
  WantedLevel,
} from '../../shared/injection/sidecar-spec.ts'
import { admit } from './pod-admission.ts'
import type { Era, Json } from './pod-admission.ts'
import { SETTINGS, inject } from './reviews.ts'
import type { Outcome } from './reviews.ts'

/** Folder of the cases. */
export const GOLDEN_FOLDER = fileURLToPath(new URL('../golden/webhook', import.meta.url))

interface Options {
  readonly era?: Era
  readonly mode?: SidecarMode
  readonly namespace?: string
  readonly level?: WantedLevel
  readonly settings?: Partial<InjectionSettings>
  /** Members of the review's request, such as `userInfo`. */
  readonly request?: Json
}

/** What a case gives now. */
export interface GoldenResult {
  readonly file: 'expected.json' | 'denied.json'
  readonly content: Json
  /** Outcome of injecting the result again, after the API server's plugins had it; undefined for a denial. */
  readonly again: string | undefined
}

/** Names of all cases. */
export function goldenCases(): readonly string[] {
  return readdirSync(GOLDEN_FOLDER, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .sort()
}

/** Files of a case, sorted. */
export function filesOf(name: string): readonly string[] {
  return readdirSync(join(GOLDEN_FOLDER, name)).sort()
}

/** A JSON file of a case, or undefined where the case has none of this name. */
export function readGolden(name: string, file: string): Json | undefined {
  if (!filesOf(name).includes(file)) return undefined
  return JSON.parse(readFileSync(join(GOLDEN_FOLDER, name, file), 'utf8')) as Json
}

interface GoldenRun {
  readonly settings: InjectionSettings
  readonly first: Outcome
  /** Outcome of injecting the result again, after the API server's plugins had it; undefined for a denial. */
  readonly again: string | undefined
}

/** Injects the pod of a case, twice; in another mode than its own where one is given. */
export function injectGolden(name: string, otherMode?: SidecarMode): GoldenRun {
  const options = (readGolden(name, 'options.json') ?? {}) as Options
  const { era = '1.33', mode = 'native', namespace = 'team-a', level, request = {} } = options
  const settings = { ...SETTINGS, ...options.settings, mode: otherMode ?? mode }
  // A native sidecar exists on new servers only.
  const server = otherMode === 'native' ? '1.33' : era
  const review = (pod: Json): Outcome =>
    inject(admit(pod, server), settings, { ...request, namespace }, level)
  const first = review(readGolden(name, 'pod.json') ?? {})
  const again = first.pod === undefined ? undefined : review(first.pod).reviewed.outcome
  return { settings, first, again }
}

/** Runs a case. */
export function runGolden(name: string): GoldenResult {
  const { first, again } = injectGolden(name)
  const { status, warnings } = first.response
  if (first.pod === undefined) return { file: 'denied.json', content: { status }, again }
  const content = {
    patch: first.patch,
    ...(warnings === undefined ? {} : { warnings }),
    pod: first.pod,
  }
  return { file: 'expected.json', content, again }
}
