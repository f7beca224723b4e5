/**
 * The in-cluster clients of the end-to-end suite's agents, staged without a network in the image's build: Debian's
 * python3-kubernetes, downloaded with apt, and the JavaScript client out of this project's own packages.
 */
import { cpSync, mkdirSync, readFileSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { onPath, run } from './run.ts'

/** The Python client, and what it needs of Python beyond the image's minimal one; Debian's names. */
const PYTHON_PACKAGES = [
  'python3.11-minimal',
  'libpython3.11-minimal',
  'libpython3.11-stdlib',
  'libffi8',
  'libssl3',
  'python3-kubernetes',
  'python3-cachetools',
  'python3-certifi',
  'python3-chardet',
  'python3-charset-normalizer',
  'python3-dateutil',
  'python3-google-auth',
  'python3-idna',
  'python3-oauthlib',
  'python3-pkg-resources',
  'python3-pyasn1',
  'python3-pyasn1-modules',
  'python3-requests',
  'python3-requests-oauthlib',
  'python3-rsa',
  'python3-six',
  'python3-urllib3',
  'python3-websocket',
  'python3-yaml',
]
const JAVASCRIPT_PACKAGE = '@kubernetes/client-node'

/** Puts both into `context`: `python` is to be copied to `/`, `node_modules` to where the scripts are. */
export async function stageClients(context: string, projectRoot: string): Promise<void> {
  await stagePython(context)
  stageJavaScript(context, projectRoot)
}

async function stagePython(context: string): Promise<void> {
  if (!(await onPath('apt-get')))
    throw new Error('the Python client comes from Debian: this machine has no apt-get')
  const packages = join(context, 'debs')
  const root = join(context, 'python')
  mkdirSync(packages, { recursive: true })
  mkdirSync(root, { recursive: true })
  const have = new Set(readdirSync(packages).map((file) => file.split('_')[0]))
  const missing = PYTHON_PACKAGES.filter((name) => !have.has(name))
  if (missing.length > 0) {
    await run('apt-get', ['-qq', 'update'])
    // Root's downloads would be handed to another user, who may not write here.
    await run('apt-get', ['-qq', '-o', 'APT::Sandbox::User=root', 'download', ...missing], {
      cwd: packages,
    })
  }
  for (const file of readdirSync(packages))
    await run('dpkg-deb', ['-x', join(packages, file), root])
}

/** Copies the package with all that it needs, each at its place below node_modules. */
function stageJavaScript(context: string, projectRoot: string): void {
  const folders = new Set<string>()
  const visit = (name: string, from: string): void => {
    const folder = folderOf(name, from)
    if (folder === undefined || folders.has(folder)) return
    folders.add(folder)
    const { dependencies = {} } = JSON.parse(
      readFileSync(join(folder, 'package.json'), 'utf8'),
    ) as { dependencies?: Record<string, string> }
    for (const dependency of Object.keys(dependencies)) visit(dependency, folder)
  }
  visit(JAVASCRIPT_PACKAGE, projectRoot)
  for (const folder of folders)
    cpSync(folder, join(context, relative(projectRoot, folder)), {
      recursive: true,
      filter: (source) => source === folder || !source.startsWith(join(folder, 'node_modules')),
    })
}

/** Where Node would find a package, seen from a folder; undefined where it is not installed. */
function folderOf(name: string, from: string): string | undefined {
  const paths = createRequire(join(from, 'package.json')).resolve.paths(name) ?? []
  return paths
    .map((path) => join(path, name))
    .find((folder) => readdirOf(dirname(folder)).includes(name.split('/').at(-1) ?? name))
}

function readdirOf(folder: string): readonly string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
