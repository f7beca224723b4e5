/**
 * The oracle of the injector: what a finished pod must not have, whoever wrote it. Written from the research (final-state
 * invariants I1 to I11, rows A1 to A21) as an attacker reads a pod, on raw JSON, over all three container lists. It shares nothing with
 * shared/injection: not the schemas, not the path rules, not one constant. So a mistake has to be made twice to pass.
 */
import type { Json } from './pod-admission.ts'

/** What of the operator's settings decides whether a way is open. */
export interface OracleFacts {
  readonly mode: 'native' | 'container'
  readonly image: string
  readonly brokerUrl: string
  readonly cluster: string
  readonly brokerCaPem: string
  readonly posture: string
  readonly dropNetRaw: boolean
  readonly apiAudiences: readonly string[]
  readonly allowedAudiences?: readonly string[]
  readonly allowedSigners?: readonly string[]
  readonly allowedCsiDrivers?: readonly string[]
}

/** A way that is open in a pod. */
export interface OpenWay {
  /** Row of the research, such as `A9`. */
  readonly row: string
  /** Invariant of the research, such as `I5`. */
  readonly invariant: string
  readonly path: string
}

const SIDECAR = 'nestgate-sidecar'
const BROKER = 'nestgate-broker'
const TOKEN = 'nestgate-token'
const CONFIG = 'nestgate-kubeconfig'
const ACCOUNT = 'nestgate-serviceaccount'
const ACCOUNT_PATH = ['var', 'run', 'secrets', 'kubernetes.io', 'serviceaccount']
const CONFIG_PATH = ['var', 'run', 'nestgate']
const LISTS = ['initContainers', 'containers', 'ephemeralContainers']
const SIDECAR_USER = 64_210
const OS_LABELS = ['kubernetes.io/os', 'beta.kubernetes.io/os']

/** What is said of a pod while it is read. */
interface Notes {
  readonly facts: OracleFacts
  readonly open: OpenWay[]
  /** Profile by the sidecar's own variable; undefined where there is no sidecar. */
  readonly profile: string | undefined
}

interface Place {
  readonly path: string
  readonly list: string
  readonly index: number
  readonly it: Json
  /** Whether it is the sidecar: the first of this name in the list where it belongs. */
  readonly ours: boolean
}

/** Every way that is open in a pod; none in one that was injected. */
export function openWays(pod: unknown, facts: OracleFacts): readonly OpenWay[] {
  const spec = record(record(pod)['spec'])
  const places = placesOf(spec, facts)
  const sidecar = places.find((place) => place.ours)
  const profile = sidecar === undefined ? undefined : variableOf(sidecar.it, 'NESTGATE_PROFILE')
  const notes: Notes = { facts, open: [], profile }
  checkPodLevel(notes, spec, record(record(pod)['metadata']))
  for (const [index, volume] of items(spec['volumes']).entries())
    checkVolume(notes, volume, `spec.volumes[${index}]`)
  checkOwnVolumes(notes, spec)
  checkSidecars(notes, places)
  for (const place of places) if (!place.ours) checkContainer(notes, place)
  return notes.open
}

function note({ open }: Notes, when: boolean, row: string, invariant: string, path: string): void {
  if (when) open.push({ row, invariant, path })
}

/** A text, and an empty one for anything else. */
function text(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

function record(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {}
}

function items(value: unknown): readonly Json[] {
  return Array.isArray(value) ? value.map(record) : []
}

/** Anything but absent; an empty object is a volume of its kind too. */
function has(value: Json, key: string): boolean {
  return value[key] !== undefined && value[key] !== null
}

function placesOf(spec: Json, { mode }: OracleFacts): readonly Place[] {
  const home = mode === 'native' ? 'initContainers' : 'containers'
  let found = false
  return LISTS.flatMap((list) =>
    items(spec[list]).map((it, index) => {
      const ours = !found && list === home && it['name'] === SIDECAR
      found ||= ours
      return { path: `spec.${list}[${index}]`, list, index, it, ours }
    }),
  )
}

/** The last value of a variable, which is the one that counts. */
function variableOf(container: Json, name: string): string | undefined {
  const value = items(container['env']).findLast((entry) => entry['name'] === name)?.['value']
  return typeof value === 'string' ? value : undefined
}

/** Where a path leads, by name: empty and dot segments count for nothing, and images link /var/run to /run. */
function segments(path: unknown): readonly string[] {
  const found: string[] = []
  for (const part of text(path).split('/')) {
    if (part === '..') found.pop()
    else if (part !== '' && part !== '.') found.push(part)
  }
  return found[0] === 'run' ? ['var', ...found] : found
}

function leadsInto(path: unknown, folder: readonly string[]): boolean {
  const parts = segments(path)
  return folder.every((part, index) => parts[index] === part)
}

function checkPodLevel(notes: Notes, spec: Json, metadata: Json): void {
  note(
    notes,
    spec['automountServiceAccountToken'] !== false,
    'A1',
    'I1',
    'spec.automountServiceAccountToken',
  )
  note(
    notes,
    has(spec, 'hostNetwork') && spec['hostNetwork'] !== false,
    'A15',
    'I6',
    'spec.hostNetwork',
  )
  for (const key of ['hostPID', 'hostIPC'])
    note(notes, has(spec, key) && spec[key] !== false, 'A16', 'I6', `spec.${key}`)
  // Ours to set: R and P need to see the neighbours, and in C nobody may see the sidecar.
  const shared = spec['shareProcessNamespace'] === true
  note(
    notes,
    shared !== (notes.profile === 'R' || notes.profile === 'P'),
    'A17',
    'I6',
    'spec.shareProcessNamespace',
  )
  note(notes, record(spec['os'])['name'] === 'windows', 'A19', 'I10', 'spec.os')
  for (const label of OS_LABELS)
    note(
      notes,
      record(spec['nodeSelector'])[label] === 'windows',
      'A19',
      'I10',
      'spec.nodeSelector',
    )
  const required = 'requiredDuringSchedulingIgnoredDuringExecution'
  const terms = record(record(record(spec['affinity'])['nodeAffinity'])[required])
  const wanted = items(terms['nodeSelectorTerms'])
    .flatMap((term) => items(term['matchExpressions']))
    .filter(({ key, operator }) => OS_LABELS.includes(text(key)) && operator === 'In')
  const byAffinity = wanted.some(({ values }) => [values].flat().includes('windows'))
  note(notes, byAffinity, 'A19', 'I10', 'spec.affinity')
  const annotations = record(metadata['annotations'])
  for (const key of Object.keys(annotations))
    note(notes, key.endsWith(`/${SIDECAR}`), 'A12', 'I4', `metadata.annotations[${key}]`)
  note(notes, has(annotations, 'kubernetes.io/config.mirror'), 'A21', 'I10', 'metadata.annotations')
  checkUsers(notes, record(spec['securityContext']), 'spec.securityContext')
}

function checkUsers(notes: Notes, context: Json, path: string): void {
  note(notes, has(context, 'windowsOptions'), 'A19', 'I10', `${path}.windowsOptions`)
  if (notes.profile !== 'C') return
  for (const key of ['runAsUser', 'runAsGroup', 'fsGroup', 'supplementalGroups'])
    note(notes, [context[key]].flat().includes(SIDECAR_USER), 'A18', 'I7', `${path}.${key}`)
}

function checkVolume(notes: Notes, volume: Json, path: string): void {
  const { allowedCsiDrivers = [] } = notes.facts
  note(notes, has(volume, 'hostPath'), 'A9', 'I5', `${path}.hostPath`)
  // The kubelet runs git on the node (CVE-2024-10220).
  note(notes, has(volume, 'gitRepo'), 'A9', 'I5', `${path}.gitRepo`)
  note(notes, has(volume, 'flexVolume'), 'A8', 'I5', `${path}.flexVolume`)
  const driver = record(volume['csi'])['driver']
  note(
    notes,
    has(volume, 'csi') && !allowedCsiDrivers.includes(String(driver)),
    'A8',
    'I5',
    `${path}.csi`,
  )
  const secret = record(volume['secret'])['secretName']
  note(notes, isTokenSecret(secret), 'A5', 'I2', `${path}.secret`)
  for (const [index, source] of items(record(volume['projected'])['sources']).entries())
    checkSource(notes, volume, source, `${path}.projected.sources[${index}]`)
}

function checkSource(notes: Notes, volume: Json, source: Json, path: string): void {
  const { facts } = notes
  note(notes, isTokenSecret(record(source['secret'])['name']), 'A5', 'I2', `${path}.secret`)
  if (has(source, 'podCertificate')) {
    const signer = String(record(source['podCertificate'])['signerName'])
    const allowed = facts.allowedSigners?.includes(signer) === true
    note(
      notes,
      !allowed || signer.startsWith('kubernetes.io/'),
      'A7',
      'I5',
      `${path}.podCertificate`,
    )
  }
  if (!has(source, 'serviceAccountToken')) return
  const audience = text(record(source['serviceAccountToken'])['audience'])
  const where = `${path}.serviceAccountToken`
  if (audience === '' || facts.apiAudiences.includes(audience)) note(notes, true, 'A2', 'I2', where)
  else if (audience === BROKER) note(notes, volume['name'] !== TOKEN, 'A3', 'I2', where)
  else note(notes, facts.allowedAudiences?.includes(audience) !== true, 'A4', 'I2', where)
}

/** By the name that the token controller gives: five letters of an alphabet without vowels, y, 0, 1 and 3. */
function isTokenSecret(name: unknown): boolean {
  const [, tail] = /-token-([a-z0-9]{5})$/.exec(text(name)) ?? []
  return tail !== undefined && !/[aeiouy013]/.test(tail)
}

/** Each of our volumes is there once, holds what it should, and nothing else. */
function checkOwnVolumes(notes: Notes, spec: Json): void {
  for (const name of [TOKEN, CONFIG, ACCOUNT]) {
    const found = items(spec['volumes']).filter((volume) => volume['name'] === name)
    note(notes, found.length !== 1, 'A10', 'I11', `volume ${name} is there ${found.length} times`)
    const [volume = {}] = found
    const kinds = Object.keys(volume).filter((key) => key !== 'name' && has(volume, key))
    note(
      notes,
      kinds.join() !== (name === ACCOUNT ? 'emptyDir' : 'projected'),
      'A10',
      'I11',
      `volume ${name}: ${kinds.join()}`,
    )
    const sources = items(record(volume['projected'])['sources'])
    const [source = {}] = sources
    if (name === TOKEN) {
      const token = record(source['serviceAccountToken'])
      note(
        notes,
        sources.length !== 1 || token['audience'] !== BROKER || token['path'] !== 'token',
        'A3',
        'I2',
        name,
      )
    } else if (name === CONFIG) {
      const [item = {}, ...more] = items(record(source['downwardAPI'])['items'])
      const from = record(item['fieldRef'])['fieldPath']
      const good = from === "metadata.annotations['nestgate.dev/kubeconfig']"
      note(notes, sources.length !== 1 || more.length > 0 || !good, 'A13', 'I8', name)
    } else note(notes, record(volume['emptyDir'])['medium'] !== 'Memory', 'A10', 'I11', name)
  }
}

function checkSidecars(notes: Notes, places: readonly Place[]): void {
  const named = places.filter(({ it }) => it['name'] === SIDECAR)
  note(notes, named.length !== 1, 'A10', 'I4', `${named.length} containers are named ${SIDECAR}`)
  const sidecar = places.find((place) => place.ours)
  if (sidecar === undefined) note(notes, true, 'A12', 'I4', 'no sidecar')
  else checkSidecar(notes, sidecar)
}

const SIDECAR_FIELDS = [
  'name',
  'image',
  'imagePullPolicy',
  'command',
  'env',
  'ports',
  'resources',
  'resizePolicy',
  'volumeMounts',
  'securityContext',
  'readinessProbe',
  'startupProbe',
  'lifecycle',
  'restartPolicy',
  'terminationMessagePath',
  'terminationMessagePolicy',
]

function checkSidecar(notes: Notes, { path, index, it }: Place): void {
  const { facts } = notes
  const wrong = (when: boolean, what: string): void => {
    note(notes, when, 'A12', 'I4', `${path}.${what}`)
  }
  wrong(index !== 0, 'position')
  for (const key of Object.keys(it)) wrong(has(it, key) && !SIDECAR_FIELDS.includes(key), key)
  wrong(it['image'] !== facts.image, 'image')
  const command = Array.isArray(it['command']) ? (it['command'] as unknown[]) : []
  const [program, ...words] = command
  wrong(program !== 'node' || words.at(-1) !== '/app/sidecar/main.js', 'command')
  wrong(
    words
      .slice(0, -1)
      .some((word) => !/^--(disable-sigusr1|max-|optimize-for-size|no-opt)/.test(String(word))),
    'command',
  )
  wrong(!words.includes('--disable-sigusr1'), 'command')
  if (facts.mode === 'native')
    wrong(it['restartPolicy'] !== 'Always' || has(it, 'lifecycle'), 'restartPolicy')
  else wrong(has(it, 'restartPolicy') || has(it, 'startupProbe'), 'restartPolicy')
  for (const probe of [it['startupProbe'], record(it['lifecycle'])['postStart']]) {
    const words = record(record(probe)['exec'])['command']
    wrong(
      probe !== undefined &&
        (words as unknown[] | undefined)?.at(-1) !== '/app/sidecar/wait-ready.js',
      'probe',
    )
  }
  // A claim lets a driver put devices, mounts and variables into the container.
  const resources = Object.keys(record(it['resources']))
  wrong(
    resources.join() !== '' && !/^(limits|requests)(,(limits|requests))?$/.test(resources.join()),
    'resources',
  )
  checkSidecarVariables(notes, it, path)
  checkSidecarRights(notes, it, path)
  const mounts = items(it['volumeMounts'])
  wrong(
    mounts
      .map((mount) => mount['name'])
      .sort()
      .join() !== `${ACCOUNT},${TOKEN}`,
    'volumeMounts',
  )
  const token = mounts.find((mount) => mount['name'] === TOKEN) ?? {}
  wrong(
    token['readOnly'] !== true || has(token, 'subPath') || has(token, 'subPathExpr'),
    'volumeMounts',
  )
  wrong(token['mountPath'] !== '/var/run/secrets/nestgate.dev', 'volumeMounts')
}

function checkSidecarVariables({ facts, open }: Notes, it: Json, path: string): void {
  const names = items(it['env']).map((entry) => String(entry['name']))
  const fixed: readonly (readonly [string, string])[] = [
    ['NESTGATE_BROKER_URL', facts.brokerUrl],
    ['NESTGATE_CLUSTER', facts.cluster],
    ['NESTGATE_BROKER_CA_PEM', facts.brokerCaPem],
    ['NESTGATE_TOKEN_FILE', '/var/run/secrets/nestgate.dev/token'],
    ['NESTGATE_POSTURE', facts.posture],
  ]
  const bad =
    names.some((name) => !name.startsWith('NESTGATE_')) ||
    new Set(names).size !== names.length ||
    fixed.some(([name, value]) => variableOf(it, name) !== value) ||
    !['R', 'P', 'C'].includes(variableOf(it, 'NESTGATE_PROFILE') ?? '')
  if (bad) open.push({ row: 'A12', invariant: 'I4', path: `${path}.env` })
}

function checkSidecarRights(notes: Notes, it: Json, path: string): void {
  const context = record(it['securityContext'])
  const added = names(record(context['capabilities'])['add'])
  const allowed = notes.profile === 'P' ? ['SYS_PTRACE', 'DAC_READ_SEARCH'] : []
  const bad =
    context['privileged'] === true ||
    context['allowPrivilegeEscalation'] !== false ||
    context['readOnlyRootFilesystem'] !== true ||
    (context['procMount'] ?? 'Default') !== 'Default' ||
    (notes.profile !== 'P' && (context['runAsNonRoot'] !== true || context['runAsUser'] === 0)) ||
    (notes.profile === 'C' && context['runAsUser'] !== SIDECAR_USER) ||
    added.some((name) => !allowed.includes(name)) ||
    !names(record(context['capabilities'])['drop']).includes('ALL')
  note(notes, bad, 'A12', 'I4', `${path}.securityContext`)
}

/** Capabilities as runtimes read them: in either case, with and without `CAP_`. */
function names(list: unknown): readonly string[] {
  return (Array.isArray(list) ? list : []).map((name) =>
    String(name).toUpperCase().replace('CAP_', ''),
  )
}

const NODE_RIGHTS = new Set(
  'SYS_ADMIN SYS_PTRACE SYS_MODULE SYS_RAWIO DAC_READ_SEARCH BPF PERFMON CHECKPOINT_RESTORE ALL'.split(
    ' ',
  ),
)

function checkContainer(notes: Notes, { it, path }: Place): void {
  const context = record(it['securityContext'])
  checkUsers(notes, context, `${path}.securityContext`)
  note(
    notes,
    has(context, 'privileged') && context['privileged'] !== false,
    'A18',
    'I7',
    `${path}.securityContext.privileged`,
  )
  note(notes, context['procMount'] === 'Unmasked', 'A18', 'I7', `${path}.securityContext.procMount`)
  checkCapabilities(notes, record(context['capabilities']), `${path}.securityContext.capabilities`)
  for (const [index, port] of items(it['ports']).entries())
    note(
      notes,
      (port['protocol'] ?? 'TCP') === 'TCP' &&
        [8001, 8002, 8443].includes(Number(port['containerPort'])),
      'A20',
      'I11',
      `${path}.ports[${index}]`,
    )
  checkMounts(notes, it, path)
  checkVariables(notes, it, path)
}

function checkCapabilities(notes: Notes, capabilities: Json, path: string): void {
  const { posture, dropNetRaw } = notes.facts
  const added = names(capabilities['add'])
  const dropped = names(capabilities['drop'])
  note(
    notes,
    added.some((name) => NODE_RIGHTS.has(name)),
    'A18',
    'I7',
    path,
  )
  const kept = !dropped.includes('NET_RAW') && !dropped.includes('ALL')
  const speaks = added.includes('NET_RAW') || added.includes('NET_ADMIN')
  note(notes, dropNetRaw && kept && !added.includes('NET_RAW'), 'A18', 'I7', path)
  // Told apart by process it may not be able to speak for others; by container, it may.
  note(
    notes,
    posture !== 'report' && notes.profile !== 'C' && (speaks || (kept && !dropNetRaw)),
    'A18',
    'I7',
    path,
  )
}

function checkMounts(notes: Notes, it: Json, path: string): void {
  const seen = { [CONFIG]: 0, [ACCOUNT]: 0 }
  for (const [index, mount] of items(it['volumeMounts']).entries()) {
    const where = `${path}.volumeMounts[${index}]`
    const name = String(mount['name'])
    note(notes, name === TOKEN, 'A11', 'I3', where)
    const plain = mount['readOnly'] === true && !has(mount, 'subPath') && !has(mount, 'subPathExpr')
    const isOurs = (volume: string, at: string): boolean =>
      name === volume && mount['mountPath'] === at && plain
    const account = isOurs(ACCOUNT, `/${ACCOUNT_PATH.join('/')}`)
    const config = isOurs(CONFIG, `/${CONFIG_PATH.join('/')}`)
    note(notes, leadsInto(mount['mountPath'], ACCOUNT_PATH) && !account, 'A1', 'I9', where)
    note(notes, leadsInto(mount['mountPath'], CONFIG_PATH) && !config, 'A11', 'I11', where)
    note(notes, (name === ACCOUNT && !account) || (name === CONFIG && !config), 'A11', 'I11', where)
    if (account) seen[ACCOUNT] += 1
    if (config) seen[CONFIG] += 1
  }
  note(notes, seen[ACCOUNT] === 0, 'A1', 'I9', `${path} has no mount of ${ACCOUNT}`)
  note(notes, seen[CONFIG] === 0, 'A13', 'I8', `${path} has no mount of ${CONFIG}`)
}

const ROUTE: readonly (readonly [string, string])[] = [
  ['KUBECONFIG', '/var/run/nestgate/config'],
  ['KUBERNETES_SERVICE_HOST', '127.0.0.1'],
  ['KUBERNETES_SERVICE_PORT', '8443'],
  ['KUBERNETES_SERVICE_PORT_HTTPS', '8443'],
]

function checkVariables(notes: Notes, it: Json, path: string): void {
  for (const [name, value] of ROUTE) {
    const last = items(it['env']).findLast((entry) => entry['name'] === name) ?? {}
    note(
      notes,
      last['value'] !== value || has(last, 'valueFrom'),
      'A13',
      'I8',
      `${path}.env ${name}`,
    )
  }
  for (const [index, entry] of items(it['env']).entries()) {
    const secret = record(record(entry['valueFrom'])['secretKeyRef'])['name']
    note(notes, isTokenSecret(secret), 'A5', 'I2', `${path}.env[${index}]`)
    // The kubelet reads the file, whatever the container mounts (EnvFiles).
    const file = record(record(entry['valueFrom'])['fileKeyRef'])['volumeName']
    note(notes, file === TOKEN, 'A11', 'I3', `${path}.env[${index}]`)
  }
  for (const [index, entry] of items(it['envFrom']).entries())
    note(
      notes,
      isTokenSecret(record(entry['secretRef'])['name']),
      'A5',
      'I2',
      `${path}.envFrom[${index}]`,
    )
}
