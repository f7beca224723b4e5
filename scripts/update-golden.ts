/** Rewrites the expected side of every golden case of the webhook from what the code gives now. Read the diff before you commit it. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { format } from 'prettier'
import { GOLDEN_FOLDER, filesOf, goldenCases, runGolden } from '../test/support/webhook-golden.ts'

for (const name of goldenCases()) {
  const { file, content } = runGolden(name)
  const folder = join(GOLDEN_FOLDER, name)
  for (const stale of ['expected.json', 'denied.json']) {
    if (stale !== file && filesOf(name).includes(stale)) rmSync(join(folder, stale))
  }
  const text = await format(JSON.stringify(content, null, 2), { parser: 'json', printWidth: 100 })
  writeFileSync(join(folder, file), text)
  process.stdout.write(`${name}/${file}\n`)
}
