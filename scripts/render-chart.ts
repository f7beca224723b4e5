/**
 * What is made from manifests/chart: the kustomize base, its components, the one file for `kubectl apply -f`, and the expected
 * results of test/golden/chart. `node scripts/render-chart.ts RENDERER [--check]`, as scripts/render-chart.sh calls it.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { isDeepStrictEqual } from 'node:util'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { parse } from 'yaml'
import { z } from 'zod'
import { onPath } from './run.ts'

const ROOT = join(import.meta.dirname, '..')
const CHART = join(ROOT, 'manifests', 'chart')
const GOLDEN = join(ROOT, 'test', 'golden', 'chart')
const NAMESPACE = 'nestgate-system'
/** The newest version without admission policies: what is rendered for it works on newer ones as well, and on older ones. */
const WITHOUT_POLICIES = '1.29.0'
/** A version that has them. */
const WITH_POLICIES = '1.34.0'
const HEADER = '# Made from manifests/chart by scripts/render-chart.sh. Change it there.\n'
const LABELS = `app.kubernetes.io/part-of: nestgate
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted`
const NAMESPACE_YAML = `apiVersion: v1
kind: Namespace
metadata:
  name: ${NAMESPACE}
  labels:
    ${LABELS}
`
/** A digest of the configuration in a pod's template; kustomize has it in the name of the ConfigMap. */
const DIGEST = /^ +annotations:\n +nestgate\.dev\/config-sha256: \w+\n/m
/** How a golden case wants to be rendered: `# render: FLAG VALUE …` in its values. */
const FLAGS = /^# render: (.+)$/m

/** One object as it was rendered. */
interface Rendered {
  /** Path of its template below `templates/`. */
  readonly template: string
  readonly text: string
}

type Files = ReadonlyMap<string, string>

const configMapSchema = z.looseObject({
  metadata: z.looseObject({ name: z.string() }),
  data: z.record(z.string(), z.string()),
})

function render(renderer: string, flags: readonly string[]): string {
  return execFileSync(renderer, ['-chart', CHART, ...flags], { encoding: 'utf8' })
}

function objectsOf(text: string): readonly Rendered[] {
  return text
    .split(/^---\n# Source: [^/]+\/templates\//m)
    .slice(1)
    .map((part) => {
      const end = part.indexOf('\n')
      return { template: part.slice(0, end), text: part.slice(end + 1) }
    })
}

/** The kustomize base: one file for each template, ConfigMaps as files of a generator. */
function baseFiles(objects: readonly Rendered[]): Files {
  const files = new Map<string, string>([['namespace.yaml', HEADER + NAMESPACE_YAML]])
  const generators: string[] = []
  for (const { template, text } of objects) {
    if (template.endsWith('/config-map.yaml')) {
      const { metadata, data } = configMapSchema.parse(parse(text))
      const sources = Object.entries(data).map(([name, content]) => {
        files.set(`config/${name}`, HEADER + content)
        return `      - ${name}=config/${name}`
      })
      generators.push(
        `  - name: ${metadata.name}\n    namespace: ${NAMESPACE}\n    files:\n${sources.join('\n')}\n`,
      )
      continue
    }
    const before = files.get(template)
    files.set(
      template,
      (before === undefined ? HEADER : `${before}---\n`) + text.replace(DIGEST, ''),
    )
  }
  const resources = [...files.keys()].filter((name) => !name.startsWith('config/')).sort()
  return files.set(
    'kustomization.yaml',
    `${HEADER}# Everything that Nestgate installs on a cluster, without certificates: manifests/install adds them.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
${resources.map((name) => `  - ${name}\n`).join('')}configMapGenerator:
${generators.join('')}`,
  )
}

/** A kustomize component of some templates. */
function componentFiles(objects: readonly Rendered[], about: string, more = ''): Files {
  const files = new Map<string, string>()
  for (const { template, text } of objects) {
    const name = template.slice(template.lastIndexOf('/') + 1)
    const before = files.get(name)
    files.set(name, (before === undefined ? HEADER : `${before}---\n`) + text)
  }
  const resources = [...files.keys()].sort().map((name) => `  - ${name}\n`)
  return files.set(
    'kustomization.yaml',
    `${HEADER}# ${about}
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
${resources.length === 0 ? 'resources: []\n' : `resources:\n${resources.join('')}`}${more}`,
  )
}

const POLICIES_INSTEAD = `patches:
  # The policies check what this webhook checks on older clusters.
  - patch: |
      apiVersion: admissionregistration.k8s.io/v1
      kind: ValidatingWebhookConfiguration
      metadata:
        name: nestgate-webhook
      $patch: delete
`

/** Everything under manifests, by folder (all of it is made) or single file. */
function manifests(renderer: string): ReadonlyMap<string, Files | string> {
  const values = (name: string): string => join(CHART, 'rendered', name)
  const old = ['-kube-version', WITHOUT_POLICIES]
  const base = objectsOf(render(renderer, [...old, '-values', values('base.yaml')]))
  const isBudget = ({ template }: Rendered): boolean =>
    template === 'webhook/pod-disruption-budget.yaml'
  const modern = objectsOf(
    render(renderer, ['-kube-version', WITH_POLICIES, '-values', values('base.yaml')]),
  )
  const isPolicy = ({ template }: Rendered): boolean => template.startsWith('admission-policies/')
  const plain = render(renderer, [...old, '-values', values('plain.yaml')])
  const budget =
    'Keeps one webhook while nodes are drained. policy/v1 is there from Kubernetes 1.21 on.'
  const policies =
    'The final state checked in the API server itself: ValidatingAdmissionPolicies, from Kubernetes 1.30 on.'
  return new Map<string, Files | string>([
    ['manifests/base', baseFiles(base.filter((object) => !isBudget(object)))],
    ['manifests/components/disruption-budget', componentFiles(base.filter(isBudget), budget)],
    [
      'manifests/components/admission-policies',
      componentFiles(modern.filter(isPolicy), policies, POLICIES_INSTEAD),
    ],
    [
      'manifests/nestgate.yaml',
      `${HEADER}# Kubernetes 1.21 and later: kubectl apply -f nestgate.yaml\n---\n${NAMESPACE_YAML}${plain}`,
    ],
  ])
}

/** The golden cases: what values give, or why they are refused. */
function goldenCases(renderer: string): ReadonlyMap<string, string | undefined> {
  const files = new Map<string, string | undefined>()
  for (const name of readdirSync(GOLDEN)) {
    const { status, stdout, stderr } = spawnSync(
      renderer,
      ['-chart', CHART, ...goldenFlags(name)],
      { encoding: 'utf8' },
    )
    const folder = `test/golden/chart/${name}`
    files.set(`${folder}/expected.yaml`, status === 0 ? stdout : undefined)
    // Of a template's own refusal only what it says: where it is said changes with every line.
    files.set(
      `${folder}/refused.txt`,
      status === 0 ? undefined : stderr.replace(/^render: template: .*error calling fail: /, ''),
    )
  }
  return files
}

function goldenFlags(name: string): readonly string[] {
  const values = join(GOLDEN, name, 'values.yaml')
  const given = FLAGS.exec(readFileSync(values, 'utf8'))?.[1]?.split(' ') ?? []
  return ['-fixed', '-values', values, ...given]
}

/** Where Helm is installed, it must give the same objects. Certificates that it makes are others each time. */
function helmProblems(expected: ReadonlyMap<string, string | undefined>): readonly string[] {
  const problems: string[] = []
  for (const [path, text] of expected) {
    if (text === undefined || !path.endsWith('.yaml')) continue
    const name = path.split('/').at(-2) ?? ''
    const flags = goldenFlags(name).slice(1)
    if (
      text.includes('authority nestgate') ||
      text.includes(btoa('authority nestgate').slice(0, 20))
    )
      continue
    const options = flags.map((flag) => flag.replace(/^-(?=[a-z])/, '--'))
    const args = ['template', 'nestgate', CHART, '--skip-tests', '--namespace', NAMESPACE]
    const said = execFileSync('helm', [...args, '--kube-version', WITH_POLICIES, ...options], {
      encoding: 'utf8',
    })
    const sorted = (all: string): readonly unknown[] =>
      objectsOf(all)
        .map((object) => JSON.stringify(parse(object.text)))
        .sort()
    if (!isDeepStrictEqual(sorted(said), sorted(text))) problems.push(`helm differs: ${path}`)
  }
  return problems
}

/** Flattens folders; `undefined` is a file that is not to be there. */
function wanted(
  made: ReadonlyMap<string, Files | string | undefined>,
): ReadonlyMap<string, string | undefined> {
  const all = new Map<string, string | undefined>()
  for (const [path, content] of made) {
    if (content === undefined || typeof content === 'string') {
      all.set(path, content)
      continue
    }
    for (const name of filesBelow(join(ROOT, path))) all.set(`${path}/${name}`, undefined)
    for (const [name, text] of content) all.set(`${path}/${name}`, text)
  }
  return all
}

function filesBelow(folder: string): readonly string[] {
  mkdirSync(folder, { recursive: true })
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

async function main(): Promise<number> {
  const [renderer, option] = process.argv.slice(2)
  if (renderer === undefined || (option !== undefined && option !== '--check')) {
    console.error('usage: render-chart.ts RENDERER [--check]')
    return 2
  }
  const golden = goldenCases(renderer)
  const problems = (await onPath('helm')) ? [...helmProblems(golden)] : []
  for (const [path, text] of wanted(new Map([...manifests(renderer), ...golden]))) {
    const file = join(ROOT, path)
    if (textOf(file) === text) continue
    if (option === '--check') problems.push(`not what the chart gives: ${path}`)
    else if (text === undefined) rmSync(file)
    else {
      mkdirSync(dirname(file), { recursive: true })
      writeFileSync(file, text)
      console.log(path)
    }
  }
  for (const problem of problems) console.error(`render-chart: ${problem}`)
  if (option === '--check' && problems.length === 0)
    console.log(`render-chart: all as the chart gives it, ${String(golden.size / 2)} cases`)
  return problems.length === 0 ? 0 : 1
}

process.exitCode = await main()
