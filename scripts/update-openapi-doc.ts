/** Writes docs/openapi.json: `node scripts/update-openapi-doc.ts`. A test keeps it equal to what the broker serves. */
import { writeFileSync } from 'node:fs'
import { openApiDocument } from '../broker/api/openapi/document.ts'

const text = `${JSON.stringify(openApiDocument(), undefined, 2)}\n`
writeFileSync(new URL('../docs/openapi.json', import.meta.url), text)
