/** Policy files on disk: each path is a file, or a folder of which every `*.yaml` counts, in the order of their names. */
import { readdir, readFile, realpath, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf } from '../errors.ts'
import { MAX_POLICY_BYTES } from './policy-set.ts'
import type { PolicySource } from './policy-set.ts'

/** Most files of one folder. */
const MAX_FILES = 1_000
/** Where kubelet keeps the files of a ConfigMap: a link that it swaps, so that all of them change at once. */
const CONFIG_MAP_LINK = '..data'

interface FoundFile {
  /** As it is shown. */
  readonly file: string
  /** As it is read. */
  readonly path: string
}

/** Reads policy files. Rejects where one cannot be read, or a folder has none. */
export async function readPolicyFiles(paths: readonly string[]): Promise<readonly PolicySource[]> {
  const sources: PolicySource[] = []
  for (const { file, path } of await findAll(paths)) {
    const { size } = await stat(path)
    if (size > MAX_POLICY_BYTES) throw new Error(`${file}: larger than ${MAX_POLICY_BYTES} bytes`)
    sources.push({ file, text: await readFile(path, 'utf8') })
  }
  return sources
}

/** What tells one state of the files from another, without reading them. Rejects as {@link readPolicyFiles} does. */
export async function policyFilesState(paths: readonly string[]): Promise<string> {
  const states: string[] = []
  for (const { file, path } of await findAll(paths)) {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true })
    states.push([file, dev, ino, size, mtimeNs, ctimeNs].join(':'))
  }
  return states.join('\n')
}

async function findAll(paths: readonly string[]): Promise<readonly FoundFile[]> {
  const found: FoundFile[] = []
  for (const path of paths) found.push(...(await find(path)))
  return found
}

async function find(path: string): Promise<readonly FoundFile[]> {
  if (!(await stat(path)).isDirectory()) return [{ file: path, path }]
  const folder = await realpath(join(path, CONFIG_MAP_LINK)).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return path
    throw error
  })
  const names = (await readdir(folder)).filter((name) => /^[^.].*\.ya?ml$/.test(name)).sort()
  if (names.length === 0) throw new Error(`${path}: has no *.yaml file`)
  if (names.length > MAX_FILES) throw new Error(`${path}: has more than ${MAX_FILES} files`)
  return names.map((name) => ({ file: join(path, name), path: join(folder, name) }))
}
