/**
 * Fuzzes the masker of answers against its oracle: `npm run fuzz:masking -- [--minutes 10] [--seed N] [--out FOLDER] [--keep]`.
 * Minutes are of CPU time. What failed is written to the folder (build/fuzz-masking), one file for each input and one that says what;
 * `--keep` adds what was new to the corpus (test/support/corpus/masking-fuzz), small inputs only. Exits 1 where something failed.
 */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { fuzz } from '../test/support/masking-fuzz.ts'

import { KEPT_CORPUS, nameOf, readCorpus } from '../test/support/masking-corpus.ts'

const MICROSECONDS_PER_MINUTE = 60e6
/** Largest input that is kept, and most of them: the corpus is to stay below 200 KiB. */
const MAX_KEPT_BYTES = 600
const MAX_KEPT = 120

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    seed: { type: 'string', default: String(Date.now() % 1e9) },
    out: { type: 'string', default: 'build/fuzz-masking' },
    keep: { type: 'boolean', default: false },
  },
})
const limit = Number(values.minutes) * MICROSECONDS_PER_MINUTE
const seed = Number(values.seed)
const spent = (): number => {
  const { user, system } = process.cpuUsage()
  return user + system
}

const started = spent()
const report = fuzz(readCorpus(), seed, () => spent() - started < limit)
const minutes = (spent() - started) / MICROSECONDS_PER_MINUTE

for (const { input, strict, cuts, what } of report.findings) {
  mkdirSync(values.out, { recursive: true })
  writeFileSync(join(values.out, nameOf(input)), input.bytes)
  const how = { shape: input.shape, write: input.write, strict, cuts, seed, what }
  writeFileSync(join(values.out, `${nameOf(input)}.txt`), JSON.stringify(how, undefined, 2))
}
if (values.keep) {
  mkdirSync(KEPT_CORPUS, { recursive: true })
  const room = Math.max(0, MAX_KEPT - readdirSync(KEPT_CORPUS).length)
  const small = report.interesting.filter(({ bytes }) => bytes.length <= MAX_KEPT_BYTES)
  for (const input of small.slice(0, room))
    writeFileSync(new URL(nameOf(input), KEPT_CORPUS), input.bytes)
}
console.log(
  `seed ${seed}: ${report.executions} executions in ${minutes.toFixed(1)} CPU minutes, ` +
    `${report.interesting.length} of a new kind, ${report.findings.length} failed`,
)
for (const { input, what } of report.findings)
  console.log(`${nameOf(input)}: ${what.slice(0, 300)}`)
if (report.findings.length > 0) process.exitCode = 1
