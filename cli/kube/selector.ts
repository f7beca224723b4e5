/** Label selectors (apimachinery, labels.Selector and metav1.LabelSelector), for what the API server will not tell: whom others select. */
import { z } from 'zod'

/** A metav1.LabelSelector; an empty one selects everything. */
export const selectorSchema = z
  .object({
    matchLabels: z.record(z.string(), z.string()).nullish(),
    matchExpressions: z
      .array(
        z.object({
          key: z.string(),
          operator: z.string(),
          values: z.array(z.string()).nullish(),
        }),
      )
      .nullish(),
  })
  .nullish()

/** See {@link selectorSchema}. */
export type Selector = z.infer<typeof selectorSchema>

/** Labels by name. */
export type Labels = Readonly<Record<string, string>>

/** Whether a selector takes what has these labels. An operator that is not known takes nothing. */
export function selects(selector: Selector, labels: Labels): boolean {
  const wanted = Object.entries(selector?.matchLabels ?? {})
  const expressions = selector?.matchExpressions ?? []
  return (
    wanted.every(([name, value]) => labels[name] === value) &&
    expressions.every(({ key, operator, values }) => matches(labels[key], operator, values ?? []))
  )
}

/** Whether a selector takes everything. */
export function selectsAll(selector: Selector): boolean {
  return (
    Object.keys(selector?.matchLabels ?? {}).length === 0 &&
    (selector?.matchExpressions ?? []).length === 0
  )
}

function matches(value: string | undefined, operator: string, values: readonly string[]): boolean {
  switch (operator) {
    case 'In':
      return value !== undefined && values.includes(value)
    case 'NotIn':
      return value === undefined || !values.includes(value)
    case 'Exists':
      return value !== undefined
    case 'DoesNotExist':
      return value === undefined
    default:
      return false
  }
}
