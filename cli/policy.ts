/** `nestgate policy`: policies are checked, tried out and compared before a broker reads them. All but past requests and the policy in force is offline. */
import type { Command } from 'commander'
import { whoCan } from '../shared/policy/analysis.ts'
import type { WhoCan } from '../shared/policy/analysis.ts'
import { runExamples } from '../shared/policy/examples.ts'
import type { ExampleResult } from '../shared/policy/examples.ts'
import { policyJsonSchema } from '../shared/policy/language.ts'
import { policyWarnings } from '../shared/policy/warnings.ts'
import { plain, toJson, toTable } from './output.ts'
import { addPolicyDiff } from './policy-diff.ts'
import { addPolicyExplain } from './policy-explain.ts'
import { ACCEPT_OPTION, loadPolicy, loadSoundPolicy, readVerdicts } from './policy-input.ts'
import { addPolicyStatus } from './policy-status.ts'
import type { Runner } from './program.ts'
import { UsageError } from './settings.ts'

/** Adds the commands. */
export function addPolicy(program: Command, runner: Runner): void {
  const policy = program
    .command('policy')
    .description('check policy files, test, explain and compare what they decide')
  addCheck(policy, runner)
  addTest(policy, runner)
  addPolicyExplain(policy, runner)
  addWhoCan(policy, runner)
  addPolicyDiff(policy, runner)
  addPolicyStatus(policy, runner)
  policy
    .command('schema')
    .description('print the JSON Schema of policy files, for editors')
    .action(() => {
      runner.print(JSON.stringify(policyJsonSchema(), undefined, 2))
    })
}

function addCheck(policy: Command, runner: Runner): void {
  policy
    .command('check')
    .description('tell every problem of policy files, and what is probably not meant')
    .argument('<file...>', 'policy files or folders')
    .action(async (files: string[]) => {
      const read = await loadPolicy(files)
      const bad = 'problems' in read
      const problems = bad ? read.problems : []
      const warnings = bad ? [] : policyWarnings(read)
      const counts = bad ? {} : { rules: read.rules.length, digest: read.digest }
      if (bad) runner.fail()
      if (runner.format() === 'json') {
        runner.print(toJson({ ok: !bad, problems, warnings, ...counts }))
        return
      }
      const lines = [...problems, ...warnings.map((warning) => `warning: ${warning}`)].map(plain)
      if (!bad) lines.push(`OK: ${read.rules.length} rules, digest ${read.digest}`)
      runner.print(lines.join('\n'))
    })
}

function addTest(policy: Command, runner: Runner): void {
  const command = policy
    .command('test')
    .description(
      'run the examples of policy files: must_allow, must_hold, must_deny, must_breakGlass',
    )
    .argument('<file...>', 'policy files or folders; all their rules decide together')
    .option(...ACCEPT_OPTION)
  command.action(async (files: string[]) => {
    const acceptVerdicts = readVerdicts(command.opts())
    const read = await loadPolicy(files)
    if ('problems' in read) {
      runner.fail()
      const text = read.problems.map(plain).join('\n')
      runner.print(
        runner.format() === 'json' ? toJson({ ok: false, problems: read.problems }) : text,
      )
      return
    }
    const results = runExamples(read, { acceptVerdicts })
    const failed = results.filter(({ passed }) => !passed)
    if (failed.length > 0) runner.fail()
    if (runner.format() === 'json') {
      runner.print(toJson({ ok: failed.length === 0, results: results.map(resultJson) }))
      return
    }
    const lines = failed.flatMap(failureLines).map(plain)
    lines.push(`${results.length - failed.length} passed, ${failed.length} failed`)
    runner.print(lines.join('\n'))
  })
}

function resultJson({ example, ...result }: ExampleResult): object {
  const { passed, effect, rules, masks, explanation } = result
  const { file, line, expected } = example
  const name = example.case.name
  return { file, line, name, expected, effect, passed, rules, masks, explanation }
}

function failureLines({ example, effect, rules, masks, explanation }: ExampleResult): string[] {
  const { name, request, verb, resource, rule, mask } = example.case
  const title = name ?? request ?? `${verb ?? ''} ${resource ?? ''}`
  const byRule = rule === undefined ? '' : ` by rule ${rule}`
  const wanted = `${example.expected}${byRule}${mask === undefined ? '' : ` with mask ${mask}`}`
  const masked = mask === undefined || masks.length === 0 ? '' : ` with mask ${masks.join(', ')}`
  const got = effect === undefined ? 'no request' : [effect, ...rules].join(' ') + masked
  return [
    `${example.file}:${example.line}: ${title}: must be ${wanted}, is ${got}`,
    `  ${explanation}`,
  ]
}

function addWhoCan(policy: Command, runner: Runner): void {
  const command = policy
    .command('who-can')
    .description('tell whom the rules let do something, and whom they keep from it')
    .argument(
      '<verb>',
      'get, list, watch, create, update, patch, delete, deletecollection, connect',
    )
    .argument('<resource>', 'RESOURCE[.GROUP][/SUBRESOURCE], for example deployments.apps/scale')
    .argument('<file...>', 'policy files or folders')
    .option('-n, --namespace <name>', 'only in this namespace')
    .option('--name <name>', 'only for the object of this name')
    .option('--cluster <name>', 'only in this cluster')
  command.action(async (verb: string, wanted: string, files: string[]) => {
    const options = command.opts<{ namespace?: string; name?: string; cluster?: string }>()
    const found = /^([^./]+)(?:\.([^/]+))?(\/[^/]+)?$/.exec(wanted)
    if (found === null) throw new UsageError('expected RESOURCE[.GROUP][/SUBRESOURCE]')
    const [, kind = '', apiGroup = '', sub = ''] = found
    const read = await loadSoundPolicy(files)
    const answers = whoCan(read, {
      ...{ verb, resource: kind + sub, apiGroup },
      ...(options.namespace === undefined ? {} : { namespace: options.namespace }),
      ...(options.name === undefined ? {} : { objectName: options.name }),
      ...(options.cluster === undefined ? {} : { cluster: options.cluster }),
    })
    if ('problem' in answers) throw new UsageError(answers.problem)
    runner.print(
      runner.format() === 'json'
        ? toJson({ items: answers.map(answerJson) })
        : answerTable(answers),
    )
  })
}

function answerJson({ rule, effect, who, only, when }: WhoCan): object {
  return { effect, rule: rule.id, policy: rule.policy, who, only, when }
}

function answerTable(answers: readonly WhoCan[]): string {
  if (answers.length === 0) return 'No rule says anything about it: it is denied to everybody.'
  const words = (match: object, otherwise: string): string =>
    Object.entries(match)
      .map(
        ([key, value]) =>
          `${key}: ${Array.isArray(value) ? value.map((word) => (word === '' ? '""' : String(word))).join(', ') : JSON.stringify(value)}`,
      )
      .join('; ') || otherwise
  return toTable(
    ['EFFECT', 'WHO', 'ONLY', 'IF', 'RULE'],
    answers.map(({ effect, who, only, when = '', rule }) => [
      effect,
      words(who, 'everybody'),
      words(only, ''),
      when,
      rule.id,
    ]),
  )
}
