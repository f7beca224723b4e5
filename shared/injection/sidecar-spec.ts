/**
 * What the webhook adds to a pod: the sidecar container, its token volume, the loopback kubeconfig. Pure data
 * of the settings. Every field is written that the API server would fill in, so that a pod that was
 * injected, stored and sent again compares equal to a fresh injection (see `reserved.ts`).
 */
import { BROKER_AUDIENCE } from '../agent-tag.ts'
import { SIDECAR_NODE_FLAGS } from '../sidecar-runtime.ts'
import type { JsonObject } from './patch.ts'

/** Name of the injected container. */
export const SIDECAR_NAME = 'nestgate-sidecar'
/** Volume with the broker token; only the sidecar mounts it. */
export const TOKEN_VOLUME = 'nestgate-token'
/** Volume with the loopback kubeconfig; every other container mounts it. */
export const KUBECONFIG_VOLUME = 'nestgate-kubeconfig'
/** Where the kubeconfig volume is mounted. */
export const KUBECONFIG_PATH = '/var/run/nestgate'
/** Volume with what in-cluster clients read; the sidecar fills it, every other container mounts it read-only. */
export const SERVICE_ACCOUNT_VOLUME = 'nestgate-serviceaccount'
/** Where automounted tokens go, and where in-cluster clients look for one. */
export const SERVICE_ACCOUNT_PATH = '/var/run/secrets/kubernetes.io/serviceaccount'
/** Annotation that the kubeconfig volume maps to a file. */
export const KUBECONFIG_ANNOTATION = 'nestgate.dev/kubeconfig'
/** Annotation that says what was injected. Informative only: nothing is decided by it. */
export const STATUS_ANNOTATION = 'nestgate.dev/status'
/** Annotation by which kubectl chooses the container of exec and logs. */
export const DEFAULT_CONTAINER_ANNOTATION = 'kubectl.kubernetes.io/default-container'

/** Version of the injected form, in the status annotation. Raise it when the form changes. */
const FORM_VERSION = 3
const TOKEN_PATH = '/var/run/secrets/nestgate.dev'
/** Where the sidecar itself has the volume of the in-cluster clients. */
const SERVICE_ACCOUNT_HOME = '/var/run/nestgate-serviceaccount'
/** Room for three small files, twice while they are replaced. */
const SERVICE_ACCOUNT_SIZE = '1Mi'
/** User and group of the sidecar in profile C; nobody else's. */
export const SIDECAR_ID = 64_210
/** Where the sidecar listens for in-cluster clients on the loopback, and for the kubelet and Prometheus on the pod's address. */
export const TLS_PORT = 8443
export const HTTP_PORT = 8001
export const HEALTH_PORT = 8002
/** Address of the sidecar in its pod; fixed by the design, as agents may have it written down. */
const LOOPBACK_SERVER = 'http://localhost:8001'
/** Mode of files in our volumes: 0644, the API server's default. The boundary is the mount: no other container has it. */
const FILE_MODE = 0o644
/** How long one probe may take, in seconds; it starts a Node process, which a busy node delays. */
const PROBE_TIMEOUT_S = 10
/** How often a start is probed, in seconds. */
const PROBE_PERIOD_S = 1
/** How often it is asked whether it is still ready, in seconds. */
const READINESS_PERIOD_S = 10
/** How many probes may fail before the kubelet starts the sidecar anew; with the period, two minutes at least. */
const PROBE_FAILURES = 120

/** `native`: an init container that keeps running (1.29 and later). `container`: the first of the ordinary containers. */
export type SidecarMode = 'native' | 'container'

/** Kinds of {@link Profile}. */
export const PROFILES = ['R', 'P', 'C'] as const
/** See {@link PROFILES}. */
export type ProfileKind = (typeof PROFILES)[number]

/** As whom the sidecar runs; see design, "Identity profiles". */
export type Profile =
  { readonly kind: 'R'; readonly uid: number; readonly gid: number } | { readonly kind: 'P' | 'C' }

/**
 * How far a namespace wants its callers told apart: by process, by container, or by process where the platform team
 * allows it and by container elsewhere.
 */
export type WantedLevel = 'process' | 'container' | 'any'

/** Amounts by resource name. */
export interface Resources {
  readonly requests: Readonly<Record<string, string>>
  readonly limits: Readonly<Record<string, string>>
}

/** What one review needs to know; checked by `config.ts`. */
export interface InjectionSettings {
  readonly mode: SidecarMode
  readonly image: string
  readonly imagePullPolicy: string
  readonly brokerUrl: string
  readonly cluster: string
  /** Certificates only: this goes into every pod. */
  readonly brokerCaPem: string
  readonly resources: Resources
  /** Life of the projected broker token, in seconds. */
  readonly tokenExpirationSeconds: number
  /** Profiles that the platform team allows. */
  readonly allowedProfiles: readonly ProfileKind[]
  /** What the sidecar makes of neighbours that could speak for others: see docs/configuration.md. */
  readonly posture: string
  /** Whether `NET_RAW` is taken from containers that do not ask for it. */
  readonly dropNetRaw: boolean
  /** Audiences that the cluster's API server accepts. */
  readonly apiAudiences: readonly string[]
  /** Other audiences for which pods may project tokens. */
  readonly allowedAudiences: readonly string[]
  /** Signers of `podCertificate` projections that pods may have. */
  readonly allowedSigners: readonly string[]
  /** Drivers of inline CSI volumes that pods may have. */
  readonly allowedCsiDrivers: readonly string[]
  /** Verifier keys of the broker's ledger that sidecars believe; empty: those that they are told first. */
  readonly ledgerKeys: readonly string[]
  /** Name of this installation where several stand side by side, or empty. */
  readonly revision: string
}

/**
 * The sidecar container.
 *
 * @param bounded - whether the pod has resources as a whole: its containers share them then, and what the sidecar asked for
 *   beside could be more than there is (core/v1, PodSpec.resources)
 */
export function sidecarContainer(
  settings: InjectionSettings,
  profile: Profile,
  bounded: boolean,
): JsonObject {
  return {
    name: SIDECAR_NAME,
    image: settings.image,
    imagePullPolicy: settings.imagePullPolicy,
    command: ['node', ...SIDECAR_NODE_FLAGS, '/app/sidecar/main.js'],
    env: [
      { name: 'NESTGATE_BROKER_URL', value: settings.brokerUrl },
      { name: 'NESTGATE_CLUSTER', value: settings.cluster },
      { name: 'NESTGATE_BROKER_CA_PEM', value: settings.brokerCaPem },
      { name: 'NESTGATE_TOKEN_FILE', value: `${TOKEN_PATH}/token` },
      { name: 'NESTGATE_PROFILE', value: profile.kind },
      { name: 'NESTGATE_POSTURE', value: settings.posture },
      { name: 'NESTGATE_SERVICE_ACCOUNT_DIR', value: SERVICE_ACCOUNT_HOME },
      { name: 'NESTGATE_NAMESPACE', valueFrom: fieldOf('metadata.namespace') },
      { name: 'NESTGATE_HEALTH_HOST', valueFrom: fieldOf('status.podIP') },
      { name: 'NESTGATE_HEALTH_PORT', value: String(HEALTH_PORT) },
      ...(settings.ledgerKeys.length === 0
        ? []
        : [{ name: 'NESTGATE_LEDGER_KEYS', value: settings.ledgerKeys.join(' ') }]),
      // Ordinary containers are all told to stop at once.
      ...(settings.mode === 'container'
        ? [{ name: 'NESTGATE_OUTLIVE_NEIGHBOURS', value: 'true' }]
        : []),
    ],
    ports: [{ name: 'nestgate-health', containerPort: HEALTH_PORT, protocol: 'TCP' }],
    resources: bounded
      ? {}
      : { requests: { ...settings.resources.requests }, limits: { ...settings.resources.limits } },
    volumeMounts: [
      { name: TOKEN_VOLUME, mountPath: TOKEN_PATH, readOnly: true },
      { name: SERVICE_ACCOUNT_VOLUME, mountPath: SERVICE_ACCOUNT_HOME },
    ],
    securityContext: securityContext(profile),
    readinessProbe: readinessProbe(),
    terminationMessagePath: '/dev/termination-log',
    terminationMessagePolicy: 'File',
    ...startGate(settings.mode),
  }
}

/**
 * What keeps the containers behind the sidecar from starting before it answers. A native sidecar has a
 * startup probe; for a plain container the kubelet waits for the post-start hook before it starts the next.
 * Both are exec: the listener is on the loopback, where the kubelet's own probes do not reach. They run in the sidecar's
 * container with all its rights, so Node is as closed there as in the sidecar itself.
 */
function startGate(mode: SidecarMode): JsonObject {
  const exec = { command: ['node', ...SIDECAR_NODE_FLAGS, '/app/sidecar/wait-ready.js'] }
  if (mode === 'container') return { lifecycle: { postStart: { exec } } }
  return {
    restartPolicy: 'Always',
    startupProbe: {
      exec,
      timeoutSeconds: PROBE_TIMEOUT_S,
      periodSeconds: PROBE_PERIOD_S,
      successThreshold: 1,
      failureThreshold: PROBE_FAILURES,
    },
  }
}

/** A sidecar that cannot tell callers apart serves nobody, so its pod is not ready either. */
function readinessProbe(): JsonObject {
  return {
    httpGet: { path: '/readyz', port: HEALTH_PORT, scheme: 'HTTP' },
    timeoutSeconds: PROBE_TIMEOUT_S,
    periodSeconds: READINESS_PERIOD_S,
    successThreshold: 1,
    failureThreshold: 3,
  }
}

/** A field of the pod as a variable's value, as the API server stores it. */
function fieldOf(fieldPath: string): JsonObject {
  return { fieldRef: { apiVersion: 'v1', fieldPath } }
}

/** User and group, and the capabilities beyond none. */
function identityOf(profile: Profile): { uid: number; gid: number; add: readonly string[] } {
  switch (profile.kind) {
    case 'R':
      return { uid: profile.uid, gid: profile.gid, add: [] }
    case 'P':
      return { uid: 0, gid: 0, add: ['SYS_PTRACE', 'DAC_READ_SEARCH'] }
    case 'C':
      return { uid: SIDECAR_ID, gid: SIDECAR_ID, add: [] }
  }
}

function securityContext(profile: Profile): JsonObject {
  const { uid, gid, add } = identityOf(profile)
  return {
    runAsUser: uid,
    runAsGroup: gid,
    runAsNonRoot: uid !== 0,
    capabilities: { ...(add.length === 0 ? {} : { add }), drop: ['ALL'] },
    privileged: false,
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    seccompProfile: { type: 'RuntimeDefault' },
  }
}

/** The volume with the token that only the broker accepts. */
export function tokenVolume(settings: InjectionSettings): JsonObject {
  const serviceAccountToken = {
    audience: BROKER_AUDIENCE,
    expirationSeconds: settings.tokenExpirationSeconds,
    path: 'token',
  }
  return {
    name: TOKEN_VOLUME,
    projected: { sources: [{ serviceAccountToken }], defaultMode: FILE_MODE },
  }
}

/** The volume that makes a file of the kubeconfig annotation: no ConfigMap, and there before any process starts. */
export function kubeconfigVolume(): JsonObject {
  const fieldRef = {
    apiVersion: 'v1',
    fieldPath: `metadata.annotations['${KUBECONFIG_ANNOTATION}']`,
  }
  return {
    name: KUBECONFIG_VOLUME,
    projected: {
      sources: [{ downwardAPI: { items: [{ path: 'config', fieldRef }] } }],
      defaultMode: FILE_MODE,
    },
  }
}

/** The volume that the sidecar fills for in-cluster clients; in memory, gone with the pod. */
export function serviceAccountVolume(): JsonObject {
  const emptyDir = { medium: 'Memory', sizeLimit: SERVICE_ACCOUNT_SIZE }
  return { name: SERVICE_ACCOUNT_VOLUME, emptyDir }
}

/** The mount of it in an author's container, where in-cluster clients look. */
export function serviceAccountMount(): JsonObject {
  return { name: SERVICE_ACCOUNT_VOLUME, mountPath: SERVICE_ACCOUNT_PATH, readOnly: true }
}

/** By these, in-cluster clients find the API server; the kubelet's own give way to a container's (core/v1, EnvVar). */
export function inClusterVariables(): readonly JsonObject[] {
  const port = String(TLS_PORT)
  return [
    { name: 'KUBERNETES_SERVICE_HOST', value: '127.0.0.1' },
    { name: 'KUBERNETES_SERVICE_PORT', value: port },
    { name: 'KUBERNETES_SERVICE_PORT_HTTPS', value: port },
  ]
}

/** The mount of the kubeconfig in an author's container. */
export function kubeconfigMount(): JsonObject {
  return { name: KUBECONFIG_VOLUME, mountPath: KUBECONFIG_PATH, readOnly: true }
}

/** The variable that kubectl and the client libraries read. */
export function kubeconfigVariable(): JsonObject {
  return { name: 'KUBECONFIG', value: `${KUBECONFIG_PATH}/config` }
}

/**
 * The kubeconfig that agents get: it names an address and holds no credential. An empty user entry stays,
 * because client libraries differ about a context without one.
 *
 * @param namespace - checked to be a DNS label; quoted, because `123` and `null` are names too
 */
export function kubeconfigText(namespace: string): string {
  return `apiVersion: v1
kind: Config
clusters:
  - name: nestgate
    cluster:
      server: ${LOOPBACK_SERVER}
users:
  - name: agent
    user: {}
contexts:
  - name: nestgate
    context:
      cluster: nestgate
      namespace: "${namespace}"
      user: agent
current-context: nestgate
`
}

/** The status annotation's text. */
export function statusText({ mode, revision }: InjectionSettings, profile: Profile): string {
  const form = { version: FORM_VERSION, mode, profile: profile.kind }
  return JSON.stringify(revision === '' ? form : { ...form, revision })
}
