/** One file that `nestgate connect` makes. */
import { stringify } from 'yaml'

/** A file to write. */
export interface ConnectFile {
  readonly name: string
  readonly text: string
  /** Holds a token: for its owner alone. */
  readonly isSecret: boolean
}

/** A file that everybody may read. */
export function plainFile(name: string, text: string): ConnectFile {
  return { name, text, isSecret: false }
}

/** YAML documents under comments. @param comment - lines without `#` */
export function toYaml(comment: readonly string[], ...documents: readonly object[]): string {
  const head = comment.map((line) => `# ${line}\n`).join('')
  return head + documents.map((value) => stringify(value, YAML_OPTIONS)).join('---\n')
}

/** Long expressions stay on one line: a fold would be one more thing to read wrongly. */
const YAML_OPTIONS = { lineWidth: 0, singleQuote: true, aliasDuplicateObjects: false }
