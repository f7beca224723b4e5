/**
 * SelfSubjectRulesReview, behind `kubectl auth can-i --list`: the cluster's list without what policy denies.
 * What needs approval stays in it, for it can be had; the list's `evaluationError` says so.
 */
import { z } from 'zod'
import { ruleNames } from './access-review.ts'
import type { Joined } from './access-review.ts'
import { cellsOf, isWild } from './expand.ts'
import type { Cell, Reach } from './expand.ts'
import { createJudge } from './judge.ts'
import type { Judge, Judged, ReviewPolicy } from './judge.ts'

const strings = z.array(z.string()).default([])
const resourceRuleSchema = z.looseObject({
  verbs: strings,
  apiGroups: strings,
  resources: strings,
  resourceNames: z.array(z.string()).nullish(),
})
const pathRuleSchema = z.looseObject({ verbs: strings, nonResourceURLs: strings })
const answerSchema = z.looseObject({
  kind: z.literal('SelfSubjectRulesReview'),
  status: z.looseObject({
    resourceRules: z.array(resourceRuleSchema).nullish(),
    nonResourceRules: z.array(pathRuleSchema).nullish(),
    incomplete: z.boolean().default(false),
    evaluationError: z.string().optional(),
  }),
})

type ResourceRule = Readonly<z.infer<typeof resourceRuleSchema>>
type PathRule = Readonly<z.infer<typeof pathRuleSchema>>

/** Things that are named in one remark, and the length of all remarks, in UTF-16 code units. */
const MAX_NAMED = 12
const MAX_REMARKS = 2_000

/** Joins the API server's list with policy; undefined where it is none. */
export function answerRules(
  namespace: string,
  upstream: unknown,
  policy: ReviewPolicy,
): Joined | undefined {
  const read = answerSchema.safeParse(upstream)
  if (!read.success) return undefined
  const { status } = read.data
  const judge = createJudge(policy)
  const remarks = new Remarks()
  const resourceRules = (status.resourceRules ?? []).flatMap((rule) =>
    keptResources(judge, namespace, rule, remarks),
  )
  const nonResourceRules = (status.nonResourceRules ?? []).flatMap((rule) =>
    keptPaths(judge, rule, remarks),
  )
  const text = remarks.text()
  const said = [status.evaluationError ?? '', text].filter((part) => part !== '').join('; ')
  const joined = {
    ...status,
    resourceRules,
    nonResourceRules,
    incomplete: status.incomplete || text !== '',
    ...(said === '' ? {} : { evaluationError: said }),
  }
  return { answer: { ...read.data, status: joined } }
}

function keptResources(
  judge: Judge,
  namespace: string,
  rule: ResourceRule,
  remarks: Remarks,
): readonly object[] {
  const names = rule.resourceNames ?? []
  const cells = cellsOf(rule, judge.served)
  const wild = isWild(rule)
  const judged = (names.length === 0 ? [''] : names).map((name) => ({
    name,
    cells: cells.map((cell) => ({ cell, answer: judgeCell(judge, namespace, name, cell) })),
  }))
  const flat = judged.flatMap((each) => each.cells)
  const plain = ({ answer }: (typeof flat)[number]): boolean =>
    answer?.effect === 'allow' && answer.dependsOn.length === 0
  if (flat.every(plain) && (!wild || literalAllowed(judge, namespace, rule))) return [rule]
  if (wild && !judge.discovered) remarks.limited()
  return judged.flatMap(({ name, cells: each }) => {
    const kept = each.filter(({ cell, answer }) => remarks.keep(answer, nameOf(cell, name)))
    return grouped(
      kept.map(({ cell }) => cell),
      name,
    )
  })
}

/** Whether a wildcard itself is allowed: rules for whatever is served later. */
function literalAllowed(judge: Judge, namespace: string, reach: Reach): boolean {
  return reach.verbs.every((verb) =>
    reach.apiGroups.every((apiGroup) =>
      reach.resources.every((resource) => {
        const answer = judgeCell(judge, namespace, '', { verb, apiGroup, resource })
        return answer?.effect === 'allow' && answer.dependsOn.length === 0
      }),
    ),
  )
}

function judgeCell(judge: Judge, namespace: string, name: string, cell: Cell): Judged | undefined {
  return judge.ofResource({ ...cell, apiVersion: '', namespace, name })
}

function nameOf({ verb, apiGroup, resource }: Cell, name: string): string {
  const [plain = '', ...rest] = resource.split('/')
  const group = apiGroup === '' ? '' : `.${apiGroup}`
  const sub = rest.length === 0 ? '' : `/${rest.join('/')}`
  return `${verb} ${plain}${group}${sub}${name === '' ? '' : ` ${name}`}`
}

/** As few rules as say the same: resources of one group with the same verbs stand together. */
function grouped(cells: readonly Cell[], name: string): readonly object[] {
  const verbs = new Map<string, { apiGroup: string; resource: string; verbs: string[] }>()
  for (const { apiGroup, resource, verb } of cells) {
    const key = JSON.stringify([apiGroup, resource])
    const row = verbs.get(key) ?? { apiGroup, resource, verbs: [] }
    row.verbs.push(verb)
    verbs.set(key, row)
  }
  const rules = new Map<string, { apiGroup: string; verbs: string[]; resources: string[] }>()
  for (const row of verbs.values()) {
    const key = JSON.stringify([row.apiGroup, row.verbs])
    const rule = rules.get(key) ?? { apiGroup: row.apiGroup, verbs: row.verbs, resources: [] }
    rule.resources.push(row.resource)
    rules.set(key, rule)
  }
  return [...rules.values()].map(({ apiGroup, verbs: kept, resources }) => ({
    verbs: kept,
    apiGroups: [apiGroup],
    resources,
    ...(name === '' ? {} : { resourceNames: [name] }),
  }))
}

/** Methods by which paths outside the resource API are asked for. */
const PATH_VERBS = ['get', 'head', 'post', 'put', 'patch', 'delete']

function keptPaths(judge: Judge, rule: PathRule, remarks: Remarks): readonly object[] {
  return rule.nonResourceURLs.flatMap((path) => {
    const asked = rule.verbs.includes('*') ? PATH_VERBS : rule.verbs
    const verbs = asked.filter((verb) => remarks.keep(judge.ofPath(path, verb), `${verb} ${path}`))
    const all = verbs.length === asked.length ? rule.verbs : verbs
    return verbs.length === 0 ? [] : [{ verbs: all, nonResourceURLs: [path] }]
  })
}

/** What a reader must know about the list, collected while it is made. */
class Remarks {
  readonly #held = new Map<string, Set<string>>()
  readonly #reviewed = new Map<string, Set<string>>()
  readonly #conditional = new Map<string, Set<string>>()
  #unasked = false
  #limited = false

  /** The list holds only what Kubernetes itself has. */
  limited(): void {
    this.#limited = true
  }

  /** Whether something stays in the list; what must be said of it is noted. */
  keep(answer: Judged | undefined, what: string): boolean {
    if (answer === undefined) {
      this.#unasked = true
      return false
    }
    const { effect, rules, dependsOn } = answer
    if (dependsOn.length > 0) note(this.#conditional, dependsOn, what)
    if (effect === 'hold') note(this.#held, rules, what)
    if (effect === 'breakGlass') note(this.#reviewed, rules, what)
    return effect !== 'deny'
  }

  /** All of it in one line; empty where nothing is to be said. */
  text(): string {
    const parts = [
      ...remarksOf('needs approval', this.#held),
      ...remarksOf('is reviewed afterwards', this.#reviewed),
      ...remarksOf('depends on the content of the request', this.#conditional),
      ...(this.#limited ? ['wildcards are spread over the resources of Kubernetes itself'] : []),
      ...(this.#unasked ? ['there is more than is looked at for one list'] : []),
    ]
    if (parts.length === 0) return ''
    const line = `nestgate: ${parts.join('; ')}`
    return line.length <= MAX_REMARKS ? line : `${line.slice(0, MAX_REMARKS)}…`
  }
}

function note(into: Map<string, Set<string>>, rules: readonly string[], what: string): void {
  const key = ruleNames(rules)
  const things = into.get(key) ?? new Set()
  things.add(what)
  into.set(key, things)
}

function remarksOf(sentence: string, things: ReadonlyMap<string, ReadonlySet<string>>): string[] {
  return [...things].map(([rules, all]) => {
    const named = [...all].slice(0, MAX_NAMED)
    const more = all.size - named.length
    return `${sentence} (${rules}): ${named.join(', ')}${more === 0 ? '' : ` and ${more} more`}`
  })
}
