/** Writes docs/detectors.md from the table of detectors: `node scripts/update-detectors-doc.ts`. A test keeps the two equal. */
import { writeFileSync } from 'node:fs'
import { detectorsPage } from '../broker/masking/detectors/page.ts'

writeFileSync(new URL('../docs/detectors.md', import.meta.url), detectorsPage())
