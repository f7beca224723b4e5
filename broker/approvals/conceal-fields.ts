/** Fields that an operator wants hidden (`masks:` of a policy file), as a walk through an object comes to them. */
import type { FieldMask, FieldStep } from '../../shared/policy/masking.ts'

/** What is left of the paths of hidden fields, from where the walk is; an empty one means: here. */
export type FieldPaths = readonly (readonly FieldStep[])[]

/** The fields of an object. @param kind - empty where it does not say: then all fields of the group count */
export function fieldsOf(
  fields: readonly FieldMask[],
  group: string,
  kind: string,
): readonly (readonly FieldStep[])[] {
  return fields
    .filter((field) => field.group === group && (kind === '' || field.kind === kind))
    .map(({ path }) => path)
}

/** The paths that go on below a member or an item of this name. */
export function below(paths: FieldPaths, name: string): FieldPaths {
  return paths.flatMap(([step, ...rest]) => (step === 'any' || step?.name === name ? [rest] : []))
}

/** Whether the field is here. */
export function isHere(paths: FieldPaths): boolean {
  return paths.some(({ length }) => length === 0)
}

/** The API group that an `apiVersion` is of. */
export function groupOf(apiVersion: string): string {
  const at = apiVersion.indexOf('/')
  return at === -1 ? '' : apiVersion.slice(0, at)
}
