/**
 * Builds the container image: `node scripts/image.ts [--tag NAME:TAG] [--out FILE.tar]`. The context is
 * staged in build/image from a fresh compile and the locked production packages, so what is in the image is
 * what is in the repository. `--out` also writes it as an archive that `ctr images import` reads.
 */
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { onPath, run } from './run.ts'

export const ROOT = join(import.meta.dirname, '..')
const CONTEXT = join(ROOT, 'build', 'image')
/** koffi's binary for this machine: the one optional package that the image needs, and the lockfile has its checksum. */
const NATIVE = join('node_modules', '@koromix')
/** What a package ships for people and compilers, not for Node; licences stay. */
const UNUSED = /(\.d\.[cm]?ts|\.ts|\.map|\.md|\.markdown|\.flow)$/i

/** How containerd names an image that a pod calls `nestgate:TAG`. */
export function fullName(tag: string): string {
  return tag.includes('/') ? tag : `docker.io/library/${tag}`
}

/** Stages the build context anew. */
export async function stageImage(): Promise<string> {
  rmSync(CONTEXT, { recursive: true, force: true })
  // Straight into the context: `dist` may be another build's at this moment.
  await run('npm', ['run', 'build', '--', '--outDir', CONTEXT], { cwd: ROOT })
  for (const file of ['package.json', 'package-lock.json', '.npmrc']) {
    cpSync(join(ROOT, file), join(CONTEXT, file))
  }
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund']
  await run('npm', ['ci', '--omit=dev', '--omit=optional', ...quiet], { cwd: CONTEXT })
  cpSync(join(ROOT, NATIVE), join(CONTEXT, NATIVE), { recursive: true })
  prune(join(CONTEXT, 'node_modules'))
  const { name, version } = projectPackage()
  const manifest = { name, version, private: true, type: 'module' }
  writeFileSync(join(CONTEXT, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`)
  for (const file of ['package-lock.json', '.npmrc']) rmSync(join(CONTEXT, file))
  return CONTEXT
}

/**
 * Builds a Dockerfile with buildah, or with docker where there is no buildah.
 *
 * @param archive - file for an image archive, replaced when it exists
 */
export async function buildImage(
  tag: string,
  dockerfile: string,
  context: string,
  archive?: string,
): Promise<void> {
  const name = fullName(tag)
  if (archive !== undefined) rmSync(archive, { force: true })
  if (await onPath('buildah')) {
    await run('buildah', ['bud', '--isolation', 'chroot', '-f', dockerfile, '-t', name, context])
    if (archive !== undefined)
      await run('buildah', ['push', '-q', name, `docker-archive:${archive}:${name}`])
    return
  }
  await run('docker', ['build', '-f', dockerfile, '-t', name, context])
  if (archive !== undefined) await run('docker', ['save', '-o', archive, name])
}

function projectPackage(): { name: string; version: string } {
  return JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    name: string
    version: string
  }
}

function prune(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) prune(path)
    else if (UNUSED.test(entry.name) && !/licen[cs]e|notice/i.test(entry.name)) rmSync(path)
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { tag: { type: 'string', default: 'nestgate:dev' }, out: { type: 'string' } },
  })
  const context = await stageImage()
  await buildImage(values.tag, join(ROOT, 'Dockerfile'), context, values.out)
  console.log(
    `built ${fullName(values.tag)}${values.out === undefined ? '' : ` into ${values.out}`}`,
  )
}

if (import.meta.main) await main()
