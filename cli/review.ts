/** `nestgate review`: who could do what, what was done, and campaigns in which people decide on it. */
import { writeFile } from 'node:fs/promises'
import { Option } from 'commander'
import type { Command } from 'commander'
import { z } from 'zod'
import { reportSchema } from '../shared/access-review-wire.ts'
import type { AccessReport } from '../shared/access-review-wire.ts'
import { messageOf } from '../shared/errors.ts'
import { CallError } from './client.ts'
import { plain, toDetails, toJson, toTable } from './output.ts'
import type { Runner } from './program.ts'
import { addCampaigns } from './review-campaign.ts'
import { reportCsv } from './review-csv.ts'
import { reportHtml } from './review-html.ts'
import { isUnused, tallyText, whoText } from './review-texts.ts'
import { UsageError } from './settings.ts'

/** Forms of a report. */
export const REPORT_FORMATS = ['text', 'html', 'csv', 'json'] as const
/** See {@link REPORT_FORMATS}. */
export type ReportFormat = (typeof REPORT_FORMATS)[number]
/** A report names people: only its owner may read the file. */
const FILE_MODE = 0o600
/** Conditions of a scope, and what they say. */
const SCOPE = [
  ['cluster', 'only requests to this cluster'],
  ['namespace', 'only objects of this namespace'],
  ['agent', 'only the process of this name'],
  ['subject', 'only this service account, person or pipeline'],
] as const

/** Adds the commands. */
export function addReview(program: Command, runner: Runner): void {
  const review = program
    .command('review')
    .description('who has access, what became of it, and what people decide on it')
  const report = addFormat(
    addPeriod(review.command('report')).description(
      'tell for a period who could do what, what was done, held and denied, and what was never used',
    ),
  )
  report.action(() =>
    runner.call(async (client, format) => {
      const options: Readonly<Record<string, unknown>> = report.opts()
      const query = new URLSearchParams(Object.entries(periodOf(options, runner.now())))
      for (const [key, value] of Object.entries(scopeOf(options))) query.set(key, value)
      const made = await client.get(slow(reportSchema), 'v1/access-review', query)
      return deliver(options, format, {
        text: () => reportText(whole(made)),
        html: () => reportHtml(whole(made)),
        csv: () => reportCsv(whole(made)),
        json: () => toJson(whole(made)),
      })
    }),
  )
  addCampaigns(review, runner)
}

/** Adds the options of a period and a scope. */
export function addPeriod(command: Command): Command {
  command
    .requiredOption('--since <time>', 'beginning of the period: a day (UTC), or RFC 3339')
    .option('--until <time>', 'its end, which is not included (now)')
  for (const [key, text] of SCOPE) command.option(`--${key} <name>`, text)
  return command
}

/** Adds the options of what comes out. */
export function addFormat(command: Command): Command {
  return command
    .addOption(new Option('--format <form>', 'form of the report').choices(REPORT_FORMATS))
    .option('--file <path>', 'write it to this file, which only you can read')
}

/** The period that the options say, RFC 3339. @throws UsageError */
export function periodOf(
  options: Readonly<Record<string, unknown>>,
  nowMs: number,
): { since: string; until: string } {
  const { since, until = new Date(nowMs).toISOString() } = options
  return { since: timeOf('--since', since), until: timeOf('--until', until) }
}

/** A time of an option, RFC 3339. @throws UsageError */
export function timeOf(option: string, value: unknown): string {
  const text = typeof value === 'string' ? value : ''
  const form = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2}))?$/
  const ms = form.test(text) ? Date.parse(text) : Number.NaN
  if (Number.isNaN(ms)) throw new UsageError(`${option} must be a day or a time in RFC 3339`)
  return new Date(ms).toISOString()
}

/** The scope that the options say. */
export function scopeOf(options: Readonly<Record<string, unknown>>): Record<string, string> {
  const scope: Record<string, string> = {}
  for (const [key] of SCOPE) {
    const value = options[key]
    if (typeof value === 'string') scope[key] = value
  }
  return scope
}

/** A refusal under status 200: its answer had begun when it came. */
const lateProblemSchema = z.object({
  title: z.string(),
  code: z.string(),
  status: z.number(),
  detail: z.string().optional(),
})
type LateProblem = z.infer<typeof lateProblemSchema>

/** What a call answers that may take long. */
export function slow<T>(schema: z.ZodType<T>): z.ZodType<T | LateProblem> {
  return z.union([schema, lateProblemSchema])
}

/** The answer of such a call. @throws CallError where it is a refusal */
export function whole<T extends object>(answer: T | LateProblem): T {
  if (!isLateProblem(answer)) return answer
  const { title, code, detail } = answer
  throw new CallError(`${title}${detail === undefined ? '' : `: ${detail}`} (${code})`, code)
}

function isLateProblem(answer: object): answer is LateProblem {
  return 'code' in answer && 'status' in answer && 'title' in answer
}

/** What is printed: the report in the form that was asked for, or where it was written. */
export async function deliver(
  { format, file }: Readonly<Record<string, unknown>>,
  output: 'table' | 'json',
  forms: Readonly<Record<ReportFormat, () => string>>,
): Promise<string> {
  const asked = REPORT_FORMATS.find((one) => one === format)
  const text = forms[asked ?? (output === 'json' ? 'json' : 'text')]()
  if (typeof file !== 'string') return text
  try {
    await writeFile(file, `${text}\n`, { mode: FILE_MODE })
  } catch (error) {
    throw new CallError(`cannot write the report: ${messageOf(error)}`)
  }
  return plain(`written to ${file}`)
}

function reportText(report: AccessReport): string {
  const { summary, population, policy, principals, unusedRules, notes } = report
  const head = toDetails([
    ['Period', `${report.since} to ${report.until}`],
    ['Checkpoint', `${population.origin} ${population.size} ${population.root}`],
    ['Entries', `${population.read} read, from ${population.from}; ${population.matched} in scope`],
    ['Policy', `${policy.digest} (${policy.rules} rules)`],
    ['Principals', `${summary.principals}, ${summary.silent} without a request`],
    ['Requests', tallyText(summary.requests)],
    ['Access', `${summary.access} pairs of principal and rule, ${summary.unusedAccess} not used`],
    ['Rules that nobody used', unusedRules.map(({ rule }) => rule).join(', ')],
    ['Break-glass to review', String(summary.openReviews)],
  ])
  const rows = principals.map((one) => [
    whoText(one),
    tallyText(one.requests),
    one.requests.last ?? 'never seen',
    String(one.access.length),
    one.access
      .filter(isUnused)
      .map(({ rule }) => rule)
      .join(', '),
  ])
  const table = toTable(['PRINCIPAL', 'REQUESTS', 'LAST', 'RULES', 'NEVER USED'], rows)
  return [head, '', ...(rows.length === 0 ? [] : [table, '']), ...notes.map(plain)].join('\n')
}
