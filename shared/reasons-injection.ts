/** Refusals of pods, as they are created and as they end up: a part of REASONS (reasons.ts), which says what the fields are. */

export const INJECTION_REASONS = {
  // a pod as its author wrote it
  host_network: {
    status: 403,
    sentence: 'a pod on the host network shares its loopback with the node',
    remedy: 'remove spec.hostNetwork',
  },
  host_pid: {
    status: 403,
    sentence: 'a pod in the host’s process namespace sees the processes of the node',
    remedy: 'remove spec.hostPID',
  },
  host_ipc: {
    status: 403,
    sentence: 'a pod in the host’s IPC namespace shares memory with the node',
    remedy: 'remove spec.hostIPC',
  },
  host_path: {
    status: 403,
    sentence:
      'a volume of the node’s own files can hold the credentials of the node and of other pods',
    remedy:
      'use another kind of volume, or run this pod in a namespace that Nestgate does not inject',
  },
  windows: {
    status: 403,
    sentence: 'the pod is for Windows, where the sidecar does not run',
    remedy: 'run it in a namespace that Nestgate does not inject',
  },
  mirror_pod: {
    status: 403,
    sentence: 'only a node may say that a pod mirrors one of its own',
    remedy: 'remove the annotation kubernetes.io/config.mirror',
  },
  reserved_name: {
    status: 403,
    sentence: 'the pod uses a name that Nestgate reserves',
    remedy: 'rename or remove what the message names',
  },
  port_reserved: {
    status: 403,
    sentence: 'a container wants a port on which the sidecar listens in this pod',
    remedy: 'let it listen on another port than 8001, 8002 and 8443',
  },
  identity_level: {
    status: 403,
    sentence: 'the namespace does not admit pods whose callers are identified this way',
    remedy:
      'give all containers one user and group that is not root (profile R), let them ask for no capability, or ask the platform team about the namespace’s identity level',
  },
  sidecar_user: {
    status: 403,
    sentence: 'a container would run as the user or group that is the sidecar’s own',
    remedy: 'take another number than 64210',
  },
  container_privileges: {
    status: 403,
    sentence:
      'a container asks for a privilege by which it could take credentials of the node or of the sidecar',
    remedy: 'remove what the message names',
  },
  pod_too_large: {
    status: 403,
    sentence: 'the pod has more parts than any pod needs, and its review would hold up all others',
    remedy: 'make several pods of it',
  },
  token_api_audience: {
    status: 403,
    sentence: 'the pod projects a token for the API server to a place of its own',
    remedy: 'remove the volume and its mounts; API access goes through localhost:8001',
  },
  token_audience: {
    status: 403,
    sentence: 'the pod projects a token for the broker, which only the sidecar may hold',
    remedy: 'remove the projection',
  },
  token_audience_not_allowed: {
    status: 403,
    sentence: 'the pod projects a token for an audience that is not allowed here',
    remedy:
      'remove the projection, or ask the platform team to add the audience to tokens.allowedAudiences',
  },
  token_secret: {
    status: 403,
    sentence: 'the pod refers to a service-account token Secret',
    remedy: 'remove the reference; API access goes through localhost:8001',
  },
  pod_certificate: {
    status: 403,
    sentence: 'the pod projects a certificate of a signer that is not allowed here',
    remedy:
      'remove the projection, or ask the platform team to add the signer to volumes.allowedSigners',
  },
  csi_driver: {
    status: 403,
    sentence: 'a volume is of a driver that is not allowed here, and could bring a token',
    remedy:
      'remove the volume, or ask the platform team to add the CSI driver to volumes.allowedCsiDrivers',
  },

  // a pod as it ends up, and what is done to it later
  final_state: {
    status: 403,
    sentence:
      'the pod is not what Nestgate made of it: something changed it afterwards, or it was never injected',
    remedy:
      'nestgate check lists the other webhooks of the cluster; what the message names must stay as injected',
  },
  sidecar_changed: {
    status: 403,
    sentence: 'what Nestgate put into a running pod does not change',
    remedy: 'create the pod again: it is injected anew',
  },
  sidecar_entered: {
    status: 403,
    sentence: 'nobody enters the sidecar, or is put beside it with its rights',
    remedy: 'use another container of the pod',
  },
  port_forward: {
    status: 403,
    sentence: 'who forwards a port of an injected pod could speak as the pod',
    remedy: 'go through the broker, or ask for the verb bypass on pods/portforward of nestgate.dev',
  },
  token_secret_made: {
    status: 403,
    sentence: 'a Secret with a service account’s token would be a way around Nestgate',
    remedy: 'go through the broker, or ask for the verb bypass on secrets of nestgate.dev',
  },
  token_requested: {
    status: 403,
    sentence: 'a service account’s token that is not a pod’s would be a way around Nestgate',
    remedy:
      'go through the broker, or ask for the verb bypass on serviceaccounts/token of nestgate.dev',
  },
  namespace_unlabelled: {
    status: 403,
    sentence: 'a namespace that Nestgate injects keeps its labels of nestgate.dev',
    remedy: 'ask for the verb bypass on namespaces of nestgate.dev',
  },
} as const
