/** `nestgate policy explain`: why a request is decided as it is; one that is described, or one of the ledger. */
import type { Command } from 'commander'
import { readFile } from 'node:fs/promises'
import { parse } from 'yaml'
import { messageOf } from '../shared/errors.ts'
import { explainDecision } from '../shared/policy/analysis.ts'
import type { RuleExplanation } from '../shared/policy/analysis.ts'
import { readCase } from '../shared/policy/case.ts'
import type { Decision } from '../shared/policy/decision.ts'
import type { Facts } from '../shared/policy/facts.ts'
import { caseSchema } from '../shared/policy/language.ts'
import { showsAll } from '../shared/policy/mask-profiles.ts'
import { NO_PROFILE } from '../shared/policy/masking.ts'
import type { Masking } from '../shared/policy/masking.ts'
import type { PolicySet } from '../shared/policy/policy-set.ts'
import { auditPageSchema } from '../shared/wire.ts'
import { CallError } from './client.ts'
import { plain, toDetails, toJson } from './output.ts'
import { ACCEPT_OPTION, loadSoundPolicy, readVerdicts } from './policy-input.ts'
import { readPastRequest } from './policy-replay.ts'
import type { Runner } from './program.ts'
import { UsageError } from './settings.ts'

/** Option, the key of an example it becomes, what it says. */
const TEXTS: readonly (readonly [option: string, key: string, text: string])[] = [
  ['request', 'request', 'request line: "DELETE /apis/apps/v1/namespaces/shop/deployments/web"'],
  ['cluster', 'cluster', 'name of the cluster'],
  ['agent', 'agent', 'name of the process'],
  ['service-account', 'serviceAccount', 'NAMESPACE/NAME of its pod'],
  ['executable', 'executable', 'path of its executable'],
  ['sha256', 'sha256', 'SHA-256 of the executable, hex'],
  ['container', 'container', 'name of its container'],
  ['image', 'image', 'image of its container'],
  ['verdict', 'verdict', 'verdict of its identification (exclusive)'],
  ['subject', 'subject', 'name that an OIDC issuer vouches for'],
  ['repository', 'repository', 'repository of a pipeline'],
  ['ref', 'ref', 'full ref that a pipeline runs for'],
  ['run', 'run', 'id of a pipeline’s run'],
  ['content-type', 'contentType', 'content type of the body'],
]
const LISTS = [
  ['ancestor', 'ancestors', 'names of processes above it, the parent first'],
  ['group', 'groups', 'groups that an OIDC issuer vouches for'],
] as const
/** Rules that came near and are shown. */
const MAX_SHOWN = 20

/** Adds the command. */
export function addPolicyExplain(policy: Command, runner: Runner): void {
  const command = policy
    .command('explain')
    .description('tell why a request is decided as it is')
    .argument('<file...>', 'policy files or folders')
    .option('--id <request>', 'a request of the ledger, instead of one that is described')
    .option('--uid <number>', 'user id of the process')
    .option('--body <file>', 'file with the body, JSON or YAML')
    .option('--all', 'show also the rules that are about something else')
    .option(...ACCEPT_OPTION)
  for (const [option, , text] of TEXTS) command.option(`--${option} <value>`, text)
  for (const [option, , text] of LISTS) command.option(`--${option} <name...>`, text)
  command.action(async (files: string[]) => {
    const options: Readonly<Record<string, unknown>> = command.opts()
    const acceptVerdicts = readVerdicts(options)
    const show = (read: PolicySet, facts: Facts, note: string): string => {
      const explained = explainDecision(read, facts, { acceptVerdicts })
      return runner.format() === 'json'
        ? toJson(explanationJson(explained, note))
        : explanationText(explained, note, options['all'] === true)
    }
    const id = options['id']
    if (typeof id !== 'string') {
      const facts = await describedFacts(options)
      runner.print(show(await loadSoundPolicy(files), facts, ''))
      return
    }
    if (options['request'] !== undefined) throw new UsageError('give either --id or --request')
    const read = await loadSoundPolicy(files)
    await runner.call(async (client) => {
      const query = new URLSearchParams({ kind: 'intent', requestId: id, limit: '1' })
      const { items } = await client.get(auditPageSchema, 'v1/audit/events', query)
      const past = items[0] === undefined ? undefined : readPastRequest(items[0])
      if (past === undefined) throw new CallError('the ledger has no intent of this request')
      const note = past.hadBody
        ? 'its body is not in the ledger; what follows is as if there were none'
        : ''
      return show(read, past.facts, note)
    })
  })
}

async function describedFacts(options: Readonly<Record<string, unknown>>): Promise<Facts> {
  if (options['request'] === undefined) throw new UsageError('give --request or --id')
  const given: Record<string, unknown> = {}
  for (const [option, key] of [...TEXTS, ...LISTS]) {
    const value = options[option.replace(/-(.)/, (_, letter: string) => letter.toUpperCase())]
    if (value !== undefined) given[key] = value
  }
  if (options['uid'] !== undefined) given['uid'] = Number(options['uid'])
  if (typeof options['body'] === 'string') given['body'] = await readBody(options['body'])
  const parsed = caseSchema.safeParse(given)
  if (!parsed.success) {
    const issues = parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`)
    throw new UsageError(issues.join('; '))
  }
  const facts = readCase(parsed.data)
  if ('problem' in facts) throw new UsageError(facts.problem)
  return facts
}

async function readBody(file: string): Promise<unknown> {
  try {
    const body: unknown = parse(await readFile(file, 'utf8'))
    return body
  } catch (error) {
    throw new UsageError(`cannot read the body: ${messageOf(error)}`)
  }
}

interface Explained {
  readonly decision: Decision
  readonly rules: readonly RuleExplanation[]
}

function explanationJson({ decision, rules }: Explained, note: string): object {
  return {
    ...(note === '' ? {} : { note }),
    decision,
    rules: rules.map(({ rule, ...rest }) => ({
      id: rule.id,
      policy: rule.policy,
      effect: rule.effect,
      ...rest,
    })),
  }
}

function explanationText({ decision, rules }: Explained, note: string, all: boolean): string {
  const { effect, reason, explanation, approval, obligations } = decision
  const quorums = approval?.quorums.map(({ group, count }) => `${count} of ${group}`).join(' and ')
  const head = toDetails([
    ['Decision', effect],
    ['Because', explanation],
    ['Reason', reason],
    ['Approval', approval && (quorums === '' ? 'one reviewer' : quorums)],
    ['Mask', obligations.mask && maskText(obligations.mask)],
    ['Record', obligations.record?.mode],
    ['Capture', obligations.capture && `at most ${obligations.capture.maxBytes} bytes`],
    ['Groups', obligations.grantGroups.join(', ')],
    ['Note', note],
  ])
  const shown = rules.filter(
    ({ matched, near, error }) => all || matched || near || error !== undefined,
  )
  const lines = shown.slice(0, all ? shown.length : MAX_SHOWN).map(ruleLine)
  const left = rules.length - lines.length
  const rest = left === 0 ? [] : [`${left} other rules are about something else (--all shows them)`]
  return [head, '', ...lines, ...rest].join('\n')
}

/** `database, standard; 3 fields; restored in updates` */
function maskText(mask: Masking): string {
  if (showsAll(mask)) return `${NO_PROFILE}: values are shown`
  const fields = mask.fields.length
  return [
    mask.profiles.join(', '),
    ...(fields === 0 ? [] : [fields === 1 ? '1 field' : `${fields} fields`]),
    ...(mask.everywhere ? ['detectors everywhere'] : []),
    ...(mask.restore ? ['restored in updates'] : []),
  ].join('; ')
}

function ruleLine({ rule, matched, equivalent, failed, error }: RuleExplanation): string {
  const name = `${matched ? 'matches' : '-'.padEnd(7)}  ${rule.effect.padEnd(10)}  ${rule.id}`
  const list = (words: readonly string[]): string =>
    words.length === 0
      ? 'nothing known'
      : words.map((word) => (word === '' ? '""' : word)).join(', ')
  if (error !== undefined) return plain(`${name}: cannot be evaluated: ${error}`)
  if (failed?.condition === 'when')
    return plain(`${name}: when is not true: ${list(failed.wanted)}`)
  if (failed !== undefined)
    return plain(
      `${name}: ${failed.condition} is ${list(failed.found)}, not ${list(failed.wanted)}`,
    )
  return plain(equivalent ? `${name}: by what the request amounts to` : name)
}
