/** Where the final state is asked for, beside `POST /mutate` of server.ts. */
import type { WantedLevel } from '../shared/injection/sidecar-spec.ts'

export { validate } from '../shared/injection/final/validate.ts'
export type { Exempt } from '../shared/injection/final/validate.ts'

/**
 * What the namespace wants, by path. `/validate` does not say, and is for everything but the creation of pods where configurations can
 * tell the namespaces apart.
 */
export const VALIDATE_PATHS: ReadonlyMap<string, WantedLevel | undefined> = new Map([
  ['/validate', undefined],
  ['/validate/any', 'any'],
  ['/validate/process', 'process'],
  ['/validate/container', 'container'],
])
