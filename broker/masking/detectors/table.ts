/** All detectors. docs/detectors.md is made of this table: `node scripts/update-detectors-doc.ts`. */
import type { Detector } from './detector.ts'
import { ASSIGNMENTS } from './assignments.ts'
import { BLOCKS } from './blocks.ts'
import { COMMANDS } from './commands.ts'
import { TOKENS } from './tokens.ts'

/** Where two find the same bytes, the one that comes first names them. */
export const DETECTORS: readonly Detector[] = [...TOKENS, ...BLOCKS, ...ASSIGNMENTS, ...COMMANDS]
