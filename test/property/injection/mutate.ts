/** Random changes to JSON, by a seed: what a fuzzer does to a pod or a review, knowing a little of what pods are made of. */

/** Numbers from 0 on, below 1; the same for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** One of a list. */
export function pickOf<T>(random: () => number, list: readonly T[]): T {
  return list[Math.floor(random() * list.length)]!
}

/** Values that mean something, or that decoders disagree about. */
const VALUES: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -1,
  1000,
  64_210,
  8001,
  2 ** 53,
  1e308,
  '',
  'x',
  'nestgate-sidecar',
  'nestgate-token',
  'nestgate-serviceaccount',
  'nestgate-broker',
  'default-token-x8f2k',
  '/var/run/secrets/kubernetes.io/serviceaccount',
  '/run/secrets/kubernetes.io/serviceaccount/',
  '/var/run/nestgate',
  'ALL',
  'cap_sys_admin',
  'Unmasked',
  'Always',
  'windows',
  [],
  {},
  [null],
  [[]],
  ['SYS_PTRACE'],
  { name: 'nestgate-sidecar' },
]

/** Members that change what a pod may do, where they come to stand in the right object. */
const MEMBERS: readonly (readonly [string, unknown])[] = [
  ['hostNetwork', true],
  ['hostPID', true],
  ['hostIPC', true],
  ['shareProcessNamespace', true],
  ['automountServiceAccountToken', true],
  ['privileged', true],
  ['procMount', 'Unmasked'],
  ['runAsUser', 64_210],
  ['runAsGroup', 64_210],
  ['supplementalGroups', [64_210]],
  ['windowsOptions', {}],
  ['os', { name: 'windows' }],
  ['hostPath', { path: '/' }],
  ['csi', { driver: 'd' }],
  ['flexVolume', {}],
  ['secret', { secretName: 'default-token-x8f2k', name: 'default-token-x8f2k' }],
  ['projected', { sources: [{ serviceAccountToken: {} }] }],
  ['serviceAccountToken', { path: 'x' }],
  ['podCertificate', {}],
  ['audience', 'nestgate-broker'],
  ['capabilities', { add: ['SYS_ADMIN'] }],
  ['ports', [{ containerPort: 8443 }]],
  ['env', [{ name: 'KUBECONFIG', value: '/x' }]],
  ['env', [{ name: 'NODE_OPTIONS', value: '--inspect' }]],
  ['envFrom', [{ secretRef: { name: 'default-token-x8f2k' } }]],
  ['args', ['--inspect']],
  ['command', ['sh']],
  ['workingDir', '/tmp'],
  ['image', 'evil.example/x'],
  ['restartPolicy', 'Never'],
  ['resources', { claims: [{ name: 'x' }] }],
  ['resources', { limits: { cpu: '1' } }],
  ['volumeDevices', [{ name: 'nestgate-token', devicePath: '/x' }]],
  ['volumeMounts', [{ name: 'nestgate-token', mountPath: '/x' }]],
  ['subPath', 'token'],
  ['readOnly', false],
  ['mountPath', '/x'],
  ['lifecycle', { postStart: { exec: { command: ['sh'] } } }],
  ['ephemeralContainers', [{ name: 'e' }]],
  ['initContainers', [{ name: 'i' }]],
  ['annotations', { 'kubernetes.io/config.mirror': 'x' }],
  ['__proto__', { hostNetwork: true }],
  ['constructor', { prototype: {} }],
  ['toString', 1],
]

interface Place {
  readonly holder: Record<string, unknown> | unknown[]
  readonly key: string
}

/** Every member and item of a value. */
function placesOf(value: unknown, found: Place[] = []): Place[] {
  if (typeof value !== 'object' || value === null) return found
  for (const [key, inner] of Object.entries(value)) {
    found.push({ holder: value as Record<string, unknown>, key })
    placesOf(inner, found)
  }
  return found
}

function read({ holder, key }: Place): unknown {
  return (holder as Record<string, unknown>)[key]
}

function write({ holder, key }: Place, value: unknown): void {
  Object.defineProperty(holder, key, {
    value,
    enumerable: true,
    writable: true,
    configurable: true,
  })
}

function copyOf(value: unknown): unknown {
  return value === undefined ? null : JSON.parse(JSON.stringify(value))
}

type Change = (place: Place, random: () => number, all: readonly Place[]) => void

const CHANGES: readonly Change[] = [
  ({ holder, key }) => {
    if (Array.isArray(holder)) holder.splice(Number(key), 1)
    else Reflect.deleteProperty(holder, key)
  },
  (place, random) => {
    write(place, copyOf(pickOf(random, VALUES)))
  },
  // What is good in one place may be a way in another.
  (place, random, all) => {
    write(place, copyOf(read(pickOf(random, all))))
  },
  ({ holder, key }, random) => {
    if (Array.isArray(holder))
      holder.splice(Math.floor(random() * (holder.length + 1)), 0, copyOf(holder[Number(key)]))
  },
  ({ holder }, random) => {
    if (Array.isArray(holder)) holder.reverse()
    else write({ holder, key: `x${Math.floor(random() * 9)}/~` }, [2 ** 60])
  },
  (place, random) => {
    const [key, value] = pickOf(random, MEMBERS)
    const inner = read(place)
    const holder =
      typeof inner === 'object' && inner !== null && !Array.isArray(inner)
        ? (inner as Record<string, unknown>)
        : place.holder
    if (!Array.isArray(holder)) write({ holder, key }, copyOf(value))
  },
  (place, random) => {
    const text = read(place)
    if (typeof text !== 'string') return
    const tails = ['/', '//', '/..', '/.', ' ', '\u0000', '\u00e9', 'x', '~1', '']
    write(place, random() < 0.5 ? text + pickOf(random, tails) : text.slice(1))
  },
]

/** A copy of `value` with one to four changes. */
export function mutated(value: unknown, random: () => number): unknown {
  const root = { value: copyOf(value) }
  const count = 1 + Math.floor(random() * 4)
  for (let i = 0; i < count; i += 1) {
    const all = placesOf(root.value)
    if (all.length === 0) break
    // Deep places are many: half of the time one of the first levels.
    const place =
      random() < 0.3 ? all[Math.floor(random() ** 2 * all.length)]! : pickOf(random, all)
    pickOf(random, CHANGES)(place, random, all)
  }
  return root.value
}
