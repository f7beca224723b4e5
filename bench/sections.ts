/** docs/benchmarks.md in sections: each benchmark replaces its own and leaves the others as they are. */
import { readFileSync, writeFileSync } from 'node:fs'

const begin = (name: string): string => `<!-- begin ${name} -->`
const end = (name: string): string => `<!-- end ${name} -->`

/** Replaces a section of a file, or appends it. */
export function writeSection(file: string, name: string, text: string): void {
  const page = readFileSync(file, 'utf8')
  const section = `${begin(name)}\n\n${text.trim()}\n\n${end(name)}\n`
  const from = page.indexOf(begin(name))
  const to = page.indexOf(end(name))
  const next =
    from === -1 || to === -1
      ? `${page.trimEnd()}\n\n${section}`
      : page.slice(0, from) + section + page.slice(to + end(name).length).replace(/^\n/, '')
  writeFileSync(file, next)
}
