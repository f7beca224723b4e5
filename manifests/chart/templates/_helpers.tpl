{{/* Names end with the revision, so that two installations can stand side by side. */}}
{{- define "nestgate.suffix" -}}
{{- with .Values.revision }}-{{ . }}{{ end }}
{{- end }}
{{- define "nestgate.broker" -}}nestgate-broker{{ include "nestgate.suffix" . }}{{- end }}
{{- define "nestgate.webhook" -}}nestgate-webhook{{ include "nestgate.suffix" . }}{{- end }}
{{- define "nestgate.certificates" -}}nestgate-certificates{{ include "nestgate.suffix" . }}{{- end }}

{{- define "nestgate.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Labels of an object: a list of root and the value of app.kubernetes.io/name, or root alone for what belongs to no process. */}}
{{- define "nestgate.labels" -}}
app.kubernetes.io/name: {{ . }}
app.kubernetes.io/part-of: nestgate
{{- end }}

{{/* "true" or "": what `auto` means is said by the cluster's version, which `helm template` can be told too. */}}
{{- define "nestgate.hasPolicies" -}}
{{- if semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version }}true{{ end }}
{{- end }}
{{- define "nestgate.policies" -}}
{{- if eq (toString .Values.policies.enabled) "auto" }}{{ include "nestgate.hasPolicies" . }}
{{- else if eq (toString .Values.policies.enabled) "true" }}true{{ end }}
{{- end }}
{{- define "nestgate.finalWebhook" -}}
{{- if eq (toString .Values.finalState.webhook) "auto" }}{{ if not (include "nestgate.policies" .) }}true{{ end }}
{{- else if eq (toString .Values.finalState.webhook) "true" }}true{{ end }}
{{- end }}

{{/* What every pod of ours has. A dict of root, own (the section of values) and name. */}}
{{- define "nestgate.pod" -}}
{{- $root := .root -}}
{{- $own := .own -}}
serviceAccountName: {{ .name }}
automountServiceAccountToken: false
# Variables made from Services also begin with NESTGATE_, and unknown settings are refused.
enableServiceLinks: false
terminationGracePeriodSeconds: 30
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.priorityClassName | default $root.Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $own.nodeSelector | default $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations | default $root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity | default $root.Values.affinity | default .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.topologySpreadConstraints | default $root.Values.topologySpreadConstraints | default .spread }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "nestgate.podLabels" -}}
{{- $own := dict "app.kubernetes.io/name" .name "app.kubernetes.io/part-of" "nestgate" -}}
{{- toYaml (merge $own .own.podLabels .root.Values.podLabels) }}
{{- end }}

{{/* A change of configuration is a new pod: processes read it at the start. */}}
{{- define "nestgate.podAnnotations" -}}
{{- $own := dict -}}
{{- with .config }}{{ $own = dict "nestgate.dev/config-sha256" (sha256sum .) }}{{ end -}}
{{- toYaml (merge $own .own.podAnnotations .root.Values.podAnnotations) }}
{{- end }}

{{- define "nestgate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* A token for the API server, renewed by the kubelet. A dict of seconds. */}}
{{- define "nestgate.clusterVolume" -}}
projected:
  defaultMode: 0440
  sources:
    - serviceAccountToken:
        path: token
        expirationSeconds: {{ .seconds }}
    - configMap:
        name: kube-root-ca.crt
        items:
          - key: ca.crt
            path: ca.crt
{{- end }}

{{/* Of a Secret these three and no other. Naming them makes the kubelet wait for a Secret that is still empty. */}}
{{- define "nestgate.tlsVolume" -}}
secret:
  secretName: {{ . | quote }}
  defaultMode: 0440
  items:
    - key: tls.crt
      path: tls.crt
    - key: tls.key
      path: tls.key
    - key: ca.crt
      path: ca.crt
{{- end }}

{{- define "nestgate.webhookSecret" -}}
{{- if and (eq .Values.certs.mode "external") .Values.certs.webhookSecretName }}{{ .Values.certs.webhookSecretName }}
{{- else }}{{ include "nestgate.webhook" . }}-tls{{ end }}
{{- end }}
{{- define "nestgate.brokerSecret" -}}
{{- if and (eq .Values.certs.mode "external") .Values.certs.brokerSecretName }}{{ .Values.certs.brokerSecretName }}
{{- else }}{{ include "nestgate.broker" . }}-tls{{ end }}
{{- end }}
{{- define "nestgate.caSecret" -}}nestgate-ca{{ include "nestgate.suffix" . }}{{- end }}

{{/* Names in certificates, JSON lists. The last two of the broker's serve `kubectl port-forward`. */}}
{{- define "nestgate.webhookHosts" -}}
{{- list (printf "%s.%s.svc" (include "nestgate.webhook" .) .Release.Namespace) | toJson }}
{{- end }}
{{- define "nestgate.brokerHosts" -}}
{{- $name := printf "%s.%s" (include "nestgate.broker" .) .Release.Namespace -}}
{{- concat (list (printf "%s.svc" $name) (printf "%s.svc.cluster.local" $name) $name "localhost") .Values.certs.brokerHosts | toJson }}
{{- end }}

{{/*
The certificates of mode helm, made once for a rendering and kept in `$`: { ca, webhook, broker }, each with Cert and Key. What is in
the cluster is kept, because running pods trust it.
*/}}
{{- define "nestgate.helmCertificates" -}}
{{- if not (hasKey . "nestgateCertificates") -}}
{{- $kept := lookup "v1" "Secret" .Release.Namespace (include "nestgate.caSecret" .) -}}
{{- $ca := dict -}}
{{- if and $kept $kept.data -}}
{{- $ca = buildCustomCert (index $kept.data "ca.crt") (index $kept.data "ca.key") -}}
{{- else -}}
{{- $ca = genCA "nestgate" 3650 -}}
{{- end -}}
{{- $all := dict "ca" $ca -}}
{{- $days := int .Values.certs.helmDays -}}
{{- range $which := list "webhook" "broker" -}}
{{- $old := lookup "v1" "Secret" $.Release.Namespace (include (printf "nestgate.%sSecret" $which) $) -}}
{{- if and $old $old.data (not $.Values.certs.helmRenew) -}}
{{- $_ := set $all $which (dict "Cert" (index $old.data "tls.crt" | b64dec) "Key" (index $old.data "tls.key" | b64dec)) -}}
{{- else -}}
{{- $hosts := include (printf "nestgate.%sHosts" $which) $ | fromYamlArray -}}
{{- $ips := ternary (list "127.0.0.1") list (eq $which "broker") -}}
{{- $made := genSignedCert (first $hosts) $ips $hosts $days $ca -}}
{{- $_ := set $all $which (dict "Cert" $made.Cert "Key" $made.Key) -}}
{{- end -}}
{{- end -}}
{{- $_ := set . "nestgateCertificates" $all -}}
{{- end -}}
{{- end }}

{{/* caBundle of our webhook configurations, where it is the chart that knows it. */}}
{{- define "nestgate.caBundle" -}}
{{- if eq .Values.certs.mode "helm" -}}
{{- include "nestgate.helmCertificates" . -}}
caBundle: {{ .nestgateCertificates.ca.Cert | b64enc }}
{{- else if eq .Values.certs.mode "external" -}}
caBundle: {{ .Values.certs.caBundle | quote }}
{{- end -}}
{{- end }}

{{/* Annotations of our webhook configurations. */}}
{{- define "nestgate.configurationAnnotations" -}}
{{- $own := dict -}}
{{- if eq .Values.certs.mode "certManager" -}}
{{- $own = dict "cert-manager.io/inject-ca-from" (printf "%s/%s" .Release.Namespace (include "nestgate.webhook" .)) -}}
{{- end -}}
{{- with merge $own .Values.webhook.annotations }}{{ toYaml . }}{{ end }}
{{- end }}

{{- define "nestgate.configurationLabels" -}}
{{- toYaml (merge (dict "app.kubernetes.io/name" (include "nestgate.webhook" .) "app.kubernetes.io/part-of" "nestgate") .Values.webhook.labels) }}
{{- end }}

{{- define "nestgate.revisionExpression" -}}
- key: nestgate.dev/rev
{{- if .Values.revision }}
  operator: In
  values: [{{ .Values.revision | quote }}]
{{- else }}
  operator: DoesNotExist
{{- end }}
{{- end }}

{{/*
Which namespaces: opted in by label, and of this revision. A label on the cluster's own namespaces or on ours must not be able to
stop them (docs/decisions/0008-injector.md).
*/}}
{{- define "nestgate.namespaceExpressions" -}}
- key: kubernetes.io/metadata.name
  operator: NotIn
  values: [kube-system, kube-public, kube-node-lease, {{ .Release.Namespace }}]
{{ include "nestgate.revisionExpression" . }}
{{- with .Values.webhook.namespaceSelector }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The levels that a namespace may want by its label nestgate.dev/identity: name and path of the webhook, and the condition. */}}
{{- define "nestgate.levels" -}}
- { prefix: '', path: '', operator: NotIn, values: '[process, container]' }
- { prefix: process., path: /process, operator: In, values: '[process]' }
- { prefix: container., path: /container, operator: In, values: '[container]' }
{{- end }}
