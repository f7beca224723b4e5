/** Moved to shared/policy/globs.ts; goes with decide.ts, the last that asks for it here. */
export { namePattern, pathPattern } from '../../shared/policy/globs.ts'
