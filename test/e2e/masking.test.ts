/**
 * Secrets do not travel: what each kubectl prints of objects in which secrets were planted has them in no spelling, and neither has
 * anything that Nestgate keeps or says. What policy shows is there.
 */
import { expect } from 'chai'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { after, before, describe, it } from 'mocha'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { eventually } from '../../scripts/run.ts'
import type { Came, Command } from './agents/commands.ts'
import {
  APPLIED,
  base64,
  BEGAN,
  direct,
  fromPod,
  kept,
  kubectlPrograms,
  MASKED,
  needles,
  PLANTED,
  prepareMasking,
  secretObject,
  SHOWABLE,
  SHOWN,
  stored,
  straight,
} from './masking-support.ts'
import type { Kept, Looker } from './masking-support.ts'
import { sessions } from './sessions-support.ts'
import {
  admin,
  agentRuns,
  closeBroker,
  fromBroker,
  inPod,
  nestgate,
  RESTRICTED,
  SYSTEM_NAMESPACE,
} from './support.ts'

const inNamespace = ['-n', MASKED] as const
const KINDS = 'secrets,configmaps,deployments,pods'
const DATA = '{{range $key, $value := .data}}{{$key}}={{$value | base64decode}}{{"\\n"}}{{end}}'
const api = `/api/v1/namespaces/${MASKED}`

/** Commands that only look, by what they would print. */
const LOOKS: Readonly<Record<string, readonly string[]>> = {
  yaml: ['get', KINDS, '-o', 'yaml'],
  json: ['get', KINDS, '-o', 'json'],
  'yaml of one': ['get', 'secret', 'planted', '-o', 'yaml'],
  jsonpath: ['get', 'secrets', '-o', 'jsonpath={.items[*].data}'],
  'go-template': ['get', 'secret', 'planted', '-o', `go-template=${DATA}`],
  columns: ['get', 'secrets', '-o', 'custom-columns=NAME:.metadata.name,DATA:.data'],
  describe: ['describe', 'secrets,configmaps,deployments,pods'],
  logs: ['logs', 'shop'],
}
/** … by path, of which kubectl leaves out what comes before it in the server's address. */
const rawLooks = (prefix: string): Readonly<Record<string, readonly string[]>> => ({
  raw: ['get', '--raw', `${prefix}${api}/secrets`],
  'raw watch': ['get', '--raw', `${prefix}${api}/secrets?watch=true&timeoutSeconds=2`],
})
/** … and what would print nothing secret anyway, but must work. */
const TABLES: Readonly<Record<string, readonly string[]>> = {
  wide: ['get', KINDS, '-o', 'wide'],
  name: ['get', KINDS, '-o', 'name'],
  table: ['get', 'secret', 'planted'],
}

function named(looks: Readonly<Record<string, readonly string[]>>): readonly Command[] {
  return Object.entries(looks).map(([name, args]) => ({
    name,
    command: ['kubectl', ...inNamespace, ...args],
  }))
}

const watching: Command = {
  name: 'get -w',
  command: ['kubectl', ...inNamespace, 'get', 'secrets', '-w', '-o', 'yaml'],
  until: 'name: planted',
}

function found({ stdout, stderr }: Came): readonly string[] {
  return needles.in(Buffer.from(stdout + stderr))
}

function expectNone(results: Readonly<Record<string, Came>>): void {
  for (const [name, came] of Object.entries(results))
    expect(found(came), `${name}: ${came.stdout.slice(0, 2000)}`).to.deep.equal([])
}

function expectGood(results: Readonly<Record<string, Came>>): void {
  for (const [name, { code, stderr }] of Object.entries(results))
    if (name !== watching.name) expect(code, `${name}: ${stderr}`).to.equal(0)
}

/** Dry runs, and changes of what is not hidden. */
function changes(marker: string): { files: Record<string, string>; commands: readonly Command[] } {
  const json = (value: object): string => JSON.stringify(value)
  const labels = { labels: { marker } }
  const created = secretObject(`new-${marker}`, MASKED, { key: base64(PLANTED.plain) })
  const files = {
    'created.json': json(created),
    'applied.json': json({ ...APPLIED, metadata: { ...APPLIED.metadata, ...labels } }),
    'patch.json': json({ metadata: labels }),
    'pointers.json': json([{ op: 'add', path: '/metadata/labels', value: labels.labels }]),
    'whole.json': json({
      ...secretObject('replaced', MASKED, { key: base64(PLANTED.plain) }),
      metadata: { name: 'replaced', namespace: MASKED, ...labels },
    }),
  }
  const patch = (type: string, file: string): readonly string[] => {
    const text = files[file as keyof typeof files]
    return ['patch', 'secret', 'planted', '--type', type, '-p', text, '-o', 'yaml']
  }
  const steps: Readonly<Record<string, readonly string[]>> = {
    'create --dry-run': ['create', '--dry-run=server', '-o', 'yaml', '-f', 'created.json'],
    create: ['create', '-o', 'yaml', '-f', 'created.json'],
    apply: ['apply', '-o', 'yaml', '-f', 'applied.json'],
    'apply --server-side': [
      ...['apply', '--server-side', '--force-conflicts', '-o', 'yaml', '-f', 'applied.json'],
    ],
    'replace --force': ['replace', '--force', '-o', 'yaml', '-f', 'whole.json'],
    replace: ['replace', '-o', 'yaml', '-f', 'whole.json'],
    'patch json': patch('json', 'pointers.json'),
    'patch merge': patch('merge', 'patch.json'),
    'patch strategic': patch('strategic', 'patch.json'),
    label: ['label', '--overwrite', 'secret', 'planted', `by=${marker}`, '-o', 'yaml'],
    delete: ['delete', 'secret', `new-${marker}`],
  }
  return { files, commands: named(steps) }
}

const lookers: readonly Looker[] = [
  ...kubectlPrograms().map(({ program }) => fromPod(program)),
  ...kubectlPrograms()
    .filter((_, at, all) => at === 0 || at === all.length - 1)
    .map(({ file }) => direct(file)),
]

/** Captured bodies that are read. */
const MAX_CAPTURED = 20

let counter = 0
function newMarker(): string {
  counter += 1
  return `m${process.pid}x${counter}`
}

describe('what kubectl prints straight from the API server', () => {
  before(prepareMasking)

  it('has the planted secrets, so that the search finds what is there', async () => {
    const results = await straight({
      commands: [...named({ ...LOOKS, ...rawLooks('') }), watching],
    })
    for (const [name, came] of Object.entries(results))
      expect(found(came), name).not.to.deep.equal([])
    const shown = Object.values(results).flatMap(found)
    // that is in a session, and that in another namespace
    const elsewhere = ['execArgument', 'restored']
    for (const name of Object.keys(PLANTED).filter((one) => !elsewhere.includes(one)))
      expect(
        shown.some((one) => one.startsWith(`${name} (`)),
        name,
      ).to.equal(true)
  })
})

for (const looker of lookers)
  describe(`what kubectl prints: ${looker.label}`, () => {
    before(prepareMasking)
    after(closeBroker)

    it('of objects in every form has no planted secret, and is whole otherwise', async () => {
      const results = await looker.run({
        commands: [...named({ ...LOOKS, ...TABLES, ...rawLooks(looker.prefix) }), watching],
      })
      expectGood(results)
      expectNone(results)
      for (const name of ['yaml', 'json'])
        expect(results[name]?.stdout, name).to.match(/colour"?: "?green/)
      expect(results['go-template']?.stdout).to.match(/^plain=nestgate-masked-1-[0-9a-f]{18}$/m)
      expect(results['wide']?.stdout).to.include('secret/planted')
      expect(results['yaml']?.stderr).to.match(/Warning: .*masked \d+ fields/)
    })

    it('of dry runs and changes has none either', async () => {
      const results = await looker.run({ ...changes(newMarker()), inOrder: true })
      expectGood(results)
      expectNone(results)
    })
  })

describe('what kubectl compares and edits', () => {
  before(prepareMasking)
  after(closeBroker)

  for (const looker of [fromPod('kubectl-old'), fromPod('kubectl-new')])
    it(`has no planted secret: ${looker.label}`, async () => {
      const changed = async (name: string): Promise<string> => {
        const map = await admin([...inNamespace, 'get', 'configmap', name, '-o', 'json'])
        const { data, ...rest } = JSON.parse(map) as { data: Record<string, string> }
        return JSON.stringify({ ...rest, data: { ...data, colour: 'blue' } })
      }
      const diff = (name: string): Command => ({
        name: `diff ${name}`,
        command: ['kubectl', ...inNamespace, 'diff', '-f', `${name}.json`],
      })
      const results = await looker.run({
        files: { 'shop.json': await changed('shop'), 'colours.json': await changed('colours') },
        commands: [
          {
            name: 'edit',
            command: ['kubectl', ...inNamespace, 'edit', 'secret', 'kept'],
            env: { KUBE_EDITOR: 'sh /agents/editor.sh' },
          },
          diff('colours'),
          diff('shop'),
        ],
      })
      expectNone(results)
      expect(results['edit']?.code, results['edit']?.stderr).to.equal(0)
      expect((await stored('kept', MASKED)).data).to.deep.equal({
        password: base64(PLANTED.kept),
        colour: Buffer.from('red').toString('base64'),
      })
      const { 'diff colours': shown, 'diff shop': refused } = results
      expect(shown?.code, shown?.stderr).to.equal(1)
      expect(shown?.stdout)
        .to.match(/^- +colour: green$/m)
        .and.match(/^\+ +colour: blue$/m)
      // a dry run that has a value for a hidden field would tell whether it is the true one
      expect(refused?.code, refused?.stdout).to.be.greaterThan(1)
      expect(refused?.stderr).to.include('hidden from the caller')
    })
})

describe('what is shown', () => {
  before(async () => {
    await prepareMasking()
    const secret = secretObject('unmasked', MASKED, {
      password: Buffer.from(SHOWABLE).toString('base64'),
    })
    await admin(['replace', '--force', '-f', '-'], JSON.stringify(secret))
  })
  after(closeBroker)
  const shown = Buffer.from(SHOWABLE).toString('base64')
  const looker = fromPod('kubectl-new')
  const unmask = (name: string): Command => ({
    name,
    command: ['kubectl', 'get', '--raw', `${api}/secrets/${name}?nestgate.dev/unmask=true`],
  })

  it('is all that is there, where a rule says mask: none', async () => {
    const get = ['kubectl', '-n', SHOWN, 'get', 'secret', 'shown', '-o', 'yaml']
    const { yaml } = await looker.run({ commands: [{ name: 'yaml', command: get }] })
    expect(yaml?.stdout, yaml?.stderr).to.include(shown)
    expect(yaml?.stderr).not.to.include('masked')
  })

  it('is one object, once, where a rule lets people show it', async () => {
    const report = looker.run({ commands: [unmask('unmasked')] })
    const id: string = await eventually('the held request', 40_000, async () => {
      const { stdout } = await nestgate('reviewer', ['--output', 'json', 'approvals', 'list'])
      const { items } = JSON.parse(stdout) as { items: { id: string; name: string }[] }
      return items.find(({ name }) => name === 'unmasked')?.id
    })
    const details = await nestgate('reviewer', ['approvals', 'show', id])
    expect(details.stdout).to.match(/unmask/)
    expect(details.stdout, 'not to the reviewer').not.to.include(shown)
    const said = await nestgate('reviewer', ['approvals', 'approve', id, '--reason', 'ticket 9'])
    expect(said.code, said.stderr).to.equal(0)
    const { unmasked } = await report
    expect(unmasked?.stdout, unmasked?.stderr).to.include(shown)
    const get = ['kubectl', ...inNamespace, 'get', 'secret', 'unmasked', '-o', 'yaml']
    const again = await looker.run({ commands: [{ name: 'again', command: get }] })
    expect(again['again']?.stdout).to.include('bmVzdGdhdGUtbWFza2Vk').and.not.include(shown)
  })

  it('is nothing where no rule does', async () => {
    const { planted } = await looker.run({ commands: [unmask('planted')] })
    expect(planted?.code).to.equal(1)
    expect(planted?.stderr).to.include('no rule shows hidden values')
  })
})

describe('what is left of planted secrets', () => {
  before(async () => {
    await prepareMasking()
    const words = ['sh', '-c', 'sleep 1; echo done', 'sh', PLANTED.execArgument.value.toString()]
    const exec = ['kubectl', ...inNamespace, 'exec', 'shop', '--', ...words]
    for (const looker of [...lookers.slice(0, 2), ...lookers.slice(-1)]) {
      const ran = await looker.run({ commands: [{ name: 'exec', command: exec }] })
      expect(ran['exec']?.stdout, ran['exec']?.stderr).to.equal('done\n')
    }
    // what a session shows is its user's own: of it the recording is masked, so what the client saw is not kept
    const command = ['kubectl-new', ...inNamespace, 'exec', 'shop', '--', 'printenv', 'GREETING']
    const report = await agentRuns(RESTRICTED.name, 'planner', { command })
    expect(report.stdout, report.stderr).to.include('connecting with')
  })
  after(closeBroker)

  const expectClean = (where: readonly Kept[]): void => {
    expect(where.length).to.be.greaterThan(0)
    for (const one of where) {
      expect(one.bytes.length, one.where).to.be.greaterThan(0)
      expect(needles.in(one.bytes), one.where).to.deep.equal([])
    }
  }

  it('is nothing in what clients saw', () => {
    const seen = kept().filter(({ bytes }) => bytes.length > 0)
    expect(seen.length).to.be.greaterThan(20)
    expectClean(seen)
  })

  it('is nothing in the files of the broker', async () => {
    const path = [
      'get',
      'persistentvolume',
      'nestgate-e2e-data',
      '-o',
      'jsonpath={.spec.hostPath.path}',
    ]
    const folder = await admin(path)
    if (!existsSync(folder)) throw new Error('the broker’s volume is no folder of this machine')
    const files = readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((file) => file.isFile())
      .map((file) => join(file.parentPath, file.name))
    expect(files.some((file) => file.endsWith('nestgate.db'))).to.equal(true)
    const all = files.map((file) => ({ where: file, bytes: readFileSync(file) }))
    expectClean(all.filter(({ bytes }) => bytes.length > 0))
  })

  it('is nothing in the ledger, read as an auditor does', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'nestgate-e2e-masking-'))
    try {
      const file = join(dir, 'all.jsonl')
      const ran = await nestgate('auditor', ['export', '--format', 'jsonl', '--file', file])
      expect(ran.code, ran.stderr).to.equal(0)
      const lines = readFileSync(file, 'utf8').split('\n')
      const leaves = lines.flatMap((line) => /"leaf":"([^"]+)"/.exec(line)?.[1] ?? [])
      expect(leaves.length).to.be.greaterThan(100)
      const entries = leaves.map((leaf) => Buffer.from(leaf, 'base64'))
      const whole = Buffer.concat(entries)
      expect(whole.toString()).to.include('"masked":{').and.include('Secret data.plain')
      expectClean([{ where: 'the export', bytes: whole }])
      const listed = await nestgate('auditor', ['--output', 'json', 'audit', '--namespace', MASKED])
      expectClean([{ where: 'nestgate audit', bytes: Buffer.from(listed.stdout) }])
    } finally {
      rmSync(dir, { recursive: true })
    }
  })

  it('is nothing in captured bodies and approvals', async () => {
    const page = `/v1/audit/events?namespace=${MASKED}&kind=intent&limit=1000`
    const { items } = JSON.parse((await fromBroker('auditor', page)).toString()) as {
      items: { entry: { payload?: { sha256: string } } }[]
    }
    const log: Kept[] = []
    const captured = items.flatMap(({ entry }) => entry.payload?.sha256 ?? [])
    expect(captured.length).to.be.greaterThan(3)
    for (const sha256 of [...new Set(captured)].slice(0, MAX_CAPTURED)) {
      const shown = await nestgate('auditor', ['payload', sha256])
      expect(shown.code, shown.stderr).to.equal(0)
      log.push({ where: `payload ${sha256}`, bytes: Buffer.from(shown.stdout) })
    }
    const args = ['--output', 'json', 'approvals', 'list', '--state', '']
    const { stdout } = await nestgate('reviewer', args)
    log.push({ where: 'approvals', bytes: Buffer.from(stdout) })
    expectClean(log)
  })

  it('is nothing in recordings', async () => {
    const found = await sessions({ namespace: MASKED, since: BEGAN })
    expect(found.length).to.be.greaterThan(2)
    const all: Kept[] = []
    for (const { id, recording } of found) {
      if (recording === undefined) continue
      const events = await fromBroker('auditor', `/v1/sessions/${id}/events`)
      all.push({ where: `recording ${id}`, bytes: events })
      const shown = await nestgate('auditor', ['sessions', 'show', id])
      all.push({ where: `session ${id}`, bytes: Buffer.from(shown.stdout) })
      const cast = await nestgate('auditor', ['sessions', 'export', id, '--format', 'stdout'])
      if (cast.stdout !== '') all.push({ where: `export ${id}`, bytes: Buffer.from(cast.stdout) })
    }
    expectClean(all)
  })

  it('is nothing in what broker, webhook and sidecar log and count', async () => {
    const logs = async (namespace: string, ...args: readonly string[]): Promise<Kept> => ({
      where: args.join(' '),
      bytes: Buffer.from(await admin(['-n', namespace, 'logs', ...args])),
    })
    const port = 'curl -s "http://$(hostname -i | cut -d" " -f1):8002/metrics"'
    const metrics = await inPod(RESTRICTED.name, 'planner', ['sh', '-c', port])
    expectClean([
      await logs(SYSTEM_NAMESPACE, 'statefulset/nestgate-broker'),
      await logs(SYSTEM_NAMESPACE, 'deployment/nestgate-webhook'),
      await logs('e2e-agents', RESTRICTED.name, '-c', 'nestgate-sidecar'),
      { where: 'metrics of the sidecar', bytes: Buffer.from(metrics.stdout) },
    ])
  })
})
