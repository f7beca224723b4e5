/**
 * What the webhook adds to a pod: the sidecar container, its token volume, the loopback kubeconfig. Pure data
 * of the settings. Every field is written that the API server would fill in, so that a pod that was
 * injected, stored and sent again compares equal to a fresh injection (see `reserved.ts`).
 */
import { BROKER_AUDIENCE } from '../shared/agent-tag.ts'
import { SIDECAR_NODE_FLAGS } from '../shared/sidecar-runtime.ts'
import type { JsonObject } from './patch.ts'

/** Name of the injected container. */
export const SIDECAR_NAME = 'nestgate-sidecar'
/** Volume with the broker token; only the sidecar mounts it. */
export const TOKEN_VOLUME = 'nestgate-token'
/** Volume with the loopback kubeconfig; every other container mounts it. */
export const KUBECONFIG_VOLUME = 'nestgate-kubeconfig'
/** Where the kubeconfig volume is mounted. */
export const KUBECONFIG_PATH = '/var/run/nestgate'
/** Where automounted tokens go, and where in-cluster clients look for one. */
export const SERVICE_ACCOUNT_PATH = '/var/run/secrets/kubernetes.io/serviceaccount'
/** Annotation that the kubeconfig volume maps to a file. */
export const KUBECONFIG_ANNOTATION = 'nestgate.dev/kubeconfig'
/** Annotation that says what was injected. Informative only: nothing is decided by it. */
export const STATUS_ANNOTATION = 'nestgate.dev/status'
/** Annotation by which kubectl chooses the container of exec and logs. */
export const DEFAULT_CONTAINER_ANNOTATION = 'kubectl.kubernetes.io/default-container'

/** Version of the injected form, in the status annotation. Raise it when the form changes. */
const FORM_VERSION = 1
const TOKEN_PATH = '/var/run/secrets/nestgate.dev'
/** Address of the sidecar in its pod; fixed by the design, as agents may have it written down. */
const LOOPBACK_SERVER = 'http://localhost:8001'
/** Mode of files in our volumes: 0644, the API server's default. The boundary is the mount: no other container has it. */
const FILE_MODE = 0o644
/** How long one probe may take, in seconds; it starts a Node process, which a busy node delays. */
const PROBE_TIMEOUT_S = 10
/** How often a start is probed, in seconds. */
const PROBE_PERIOD_S = 1
/** How many probes may fail before the kubelet starts the sidecar anew; with the period, two minutes at least. */
const PROBE_FAILURES = 120

/** `native`: an init container that keeps running (1.29 and later). `container`: the first of the ordinary containers. */
export type SidecarMode = 'native' | 'container'

/** As whom the sidecar runs; see design, "Identity profiles". */
export type Profile =
  { readonly kind: 'R'; readonly uid: number; readonly gid: number } | { readonly kind: 'P' }

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
  /** Audiences that the cluster's API server accepts. */
  readonly apiAudiences: readonly string[]
}

/** The sidecar container. */
export function sidecarContainer(settings: InjectionSettings, profile: Profile): JsonObject {
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
    ],
    resources: {
      requests: { ...settings.resources.requests },
      limits: { ...settings.resources.limits },
    },
    volumeMounts: [{ name: TOKEN_VOLUME, mountPath: TOKEN_PATH, readOnly: true }],
    securityContext: securityContext(profile),
    terminationMessagePath: '/dev/termination-log',
    terminationMessagePolicy: 'File',
    ...startGate(settings.mode),
  }
}

/**
 * What keeps the containers behind the sidecar from starting before it answers. A native sidecar has a
 * startup probe; for a plain container the kubelet waits for the post-start hook before it starts the next.
 * Both are exec: the listener is on the loopback, where the kubelet's own probes do not reach.
 */
function startGate(mode: SidecarMode): JsonObject {
  const exec = { command: ['node', '/app/sidecar/wait-ready.js'] }
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

function securityContext(profile: Profile): JsonObject {
  const own = profile.kind === 'R'
  return {
    runAsUser: own ? profile.uid : 0,
    runAsGroup: own ? profile.gid : 0,
    runAsNonRoot: own,
    capabilities: own
      ? { drop: ['ALL'] }
      : { add: ['SYS_PTRACE', 'DAC_READ_SEARCH'], drop: ['ALL'] },
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
export function statusText(mode: SidecarMode, profile: Profile): string {
  return JSON.stringify({ version: FORM_VERSION, mode, profile: profile.kind })
}
