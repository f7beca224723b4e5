/** SelfSubjectAccessReview: may the caller do this one thing? */
import { z } from 'zod'
import { cellsOf, isWild } from './expand.ts'
import type { Cell } from './expand.ts'
import { createJudge } from './judge.ts'
import type { Judge, Judged, ReviewPolicy } from './judge.ts'
import type { PathQuestion, ResourceQuestion } from './self-review.ts'

/** What comes first decides where one question asks for many things. */
const ORDER = ['deny', 'hold', 'breakGlass', 'allow'] as const

const answerSchema = z.looseObject({
  kind: z.literal('SelfSubjectAccessReview'),
  status: z.looseObject({ allowed: z.boolean().default(false) }),
})

/** What policy says of a question: the strongest of its answers, and whether it is the answer to all of it. */
interface Judgement extends Judged {
  readonly whole: boolean
}

/** A review with its answer, and what its asker should be told beside it: kubectl prints reasons only with a no. */
export interface Joined {
  readonly answer: object
  readonly warning?: string
}

/** Joins the API server's answer with policy's; undefined where it is none. */
export function answerAccess(
  {
    resource,
    path,
  }: { readonly resource: ResourceQuestion | undefined; readonly path: PathQuestion | undefined },
  upstream: unknown,
  policy: ReviewPolicy,
): Joined | undefined {
  const read = answerSchema.safeParse(upstream)
  if (!read.success) return undefined
  const judge = createJudge(policy)
  const judgement = resource === undefined ? judgePath(judge, path) : judgeResource(judge, resource)
  const { status } = read.data
  const changed = verdict(status.allowed, judgement)
  const answer = { ...read.data, status: { ...status, ...changed } }
  const { allowed = status.allowed, reason } = changed
  return allowed && reason !== undefined ? { answer, warning: reason } : { answer }
}

interface Verdict {
  readonly allowed?: boolean
  readonly denied?: boolean
  readonly reason?: string
}

/** The fields of the status that policy sets. */
function verdict(allowed: boolean, judgement: Judgement | undefined): Verdict {
  if (judgement === undefined) {
    const reason = 'nestgate: too much is asked at once; ask for each verb and resource'
    return { allowed: false, denied: true, reason }
  }
  const text = sentence(judgement)
  if (judgement.effect === 'deny') {
    return { allowed: false, denied: true, reason: `nestgate: ${text}` }
  }
  if (!allowed) return {}
  switch (judgement.effect) {
    case 'hold':
      return { reason: `nestgate: needs approval: ${text}` }
    case 'breakGlass':
      return { reason: `nestgate: goes ahead and is reviewed afterwards: ${text}` }
    case 'allow':
      return judgement.dependsOn.length > 0 ? { reason: `nestgate: ${text}` } : {}
  }
}

function sentence({ rules, explanation, dependsOn, whole }: Judgement): string {
  const named = rules.length === 0 ? explanation : `${ruleNames(rules)}: ${explanation}`
  const part = whole ? '' : ' (for a part of what is asked)'
  const depends =
    dependsOn.length === 0
      ? ''
      : ` (depends on the content of the request, by ${ruleNames(dependsOn)})`
  return `${named}${part}${depends}`
}

/** Rules by their ids. */
export function ruleNames(rules: readonly string[]): string {
  return `${rules.length === 1 ? 'rule' : 'rules'} ${rules.join(', ')}`
}

function judgePath(judge: Judge, question: PathQuestion | undefined): Judgement | undefined {
  if (question === undefined) return undefined
  const answer = judge.ofPath(question.path, question.verb)
  return answer === undefined ? undefined : { ...answer, whole: true }
}

function judgeResource(judge: Judge, question: ResourceQuestion): Judgement | undefined {
  const { verb, group, version, namespace, name } = question
  const resource =
    question.subresource === '' ? question.resource : `${question.resource}/${question.subresource}`
  const literal: Cell = { verb, apiGroup: group, resource }
  const reach = { verbs: [verb], apiGroups: [group], resources: [resource] }
  const cells = isWild(reach) ? [literal, ...cellsOf(reach, judge.served)] : [literal]
  const answers: Judged[] = []
  for (const cell of cells) {
    const answer = judge.ofResource({ ...cell, apiVersion: version, namespace, name })
    if (answer === undefined) return undefined
    answers.push(answer)
  }
  return strongest(answers)
}

function strongest(answers: readonly Judged[]): Judgement | undefined {
  for (const effect of ORDER) {
    const found = answers.find((answer) => answer.effect === effect)
    if (found !== undefined) {
      const dependsOn = [...new Set(answers.flatMap((answer) => answer.dependsOn))]
      return { ...found, dependsOn, whole: answers.every((answer) => answer.effect === effect) }
    }
  }
  return undefined
}
