/** Rewrites the expected side of every golden case from what the code gives now. Read the diff before you commit it. */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { format } from 'prettier'
import { CONNECT_GOLDEN_FOLDER, connectCases } from '../test/support/connect-golden.ts'
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

for (const entry of readdirSync(CONNECT_GOLDEN_FOLDER, { withFileTypes: true }))
  if (entry.isDirectory()) rmSync(join(CONNECT_GOLDEN_FOLDER, entry.name), { recursive: true })
for (const [name, files] of connectCases()) {
  const folder = join(CONNECT_GOLDEN_FOLDER, name)
  mkdirSync(folder)
  for (const file of files) writeFileSync(join(folder, file.name), file.text)
  process.stdout.write(`${name}\n`)
}
